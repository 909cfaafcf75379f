"""One short training for all tests of this room, and a small graph of other origin."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from bench import train

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Results folder and id of a small run."""
    results = tmp_path_factory.mktemp("results")
    settings = {"train_images": 1000, "learning_rate": 0.05}
    row = train(
        "resnet8", options={"width": 8}, epochs=3, settings=settings, results=results,
        threads=1,
    )  # fmt: skip
    assert row["status"].item() == "complete"
    return results, row["run"].item()


def classifier(
    classes: int,
    *,
    shape: Any = ("N", 1, 28, 28),
    logits: bool = True,
    kind: int = TensorProto.FLOAT,
) -> Any:
    """Return a graph of one convolution, of images of one type."""
    weight = numpy_helper.from_array(np.ones((classes, shape[1], 3, 3), "f"), "w")
    nodes = [
        helper.make_node("Cast", ["x"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Conv", ["f", "w"], ["c"]),
        helper.make_node("GlobalAveragePool", ["c"], ["p"]),
        helper.make_node("Flatten", ["p"], ["y"]),
    ]
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", classes])
    if not logits:
        nodes = nodes[:3]
        result = helper.make_tensor_value_info("p", TensorProto.FLOAT, ["N", classes, 1, 1])
    entry = helper.make_tensor_value_info("x", kind, shape)
    graph = helper.make_graph(nodes, "g", [entry], [result], [weight])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
