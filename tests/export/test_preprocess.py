"""Resizing inside the graph gives the grey levels that training saw, bit for bit."""

from __future__ import annotations

from typing import get_args

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, helper

from bench.data import Preprocessing
from bench.data.preprocessing import Resize
from bench.export.preprocess import with_preprocessing

SIZES = ((1, 1), (28, 28), (56, 28), (28, 57), (99, 30), (30, 99), (300, 4), (5, 211), (140, 173))


def passing_on(channels: int, side: int) -> onnx.ModelProto:
    """Return a network whose logits are its input."""
    shape = ["batch", channels, side, side]
    names = ("image", "logits")
    taken, given = (helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n in names)
    graph = helper.make_graph(
        [helper.make_node("Identity", ["image"], ["logits"])], "g", [taken], [given]
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


@pytest.mark.parametrize("resize", get_args(Resize))
@pytest.mark.parametrize(("channels", "side", "normalize"), [(1, 28, False), (3, 15, True)])
def test_the_graph_prepares_images_as_training_does(
    resize: Resize, channels: int, side: int, normalize: bool
) -> None:
    mean, std = (0.41, 0.5, 0.3)[:channels], (0.21, 0.3, 0.19)[:channels]
    made = Preprocessing(side, mean, std, normalize=normalize, image_size=side, resize=resize)
    graph = with_preprocessing(passing_on(channels, side), made, channels, None)
    onnx.checker.check_model(graph, full_check=True)
    session = ort.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    draw = np.random.default_rng(0)

    for number, (height, width) in enumerate(SIZES):
        images = draw.integers(0, 256, (2, channels, height, width), dtype=np.uint8)
        if number % 2:
            images = images // 128 * 255  # black and white: the largest sums
        expected = made.apply(torch.from_numpy(images)).numpy()
        (found,) = session.run(None, {"image": np.ascontiguousarray(images.transpose(0, 2, 3, 1))})
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("antialias", [False, True])
def test_images_of_the_datasets_size_are_then_resized_to_the_input(antialias: bool) -> None:
    made = Preprocessing(20, (0.4,), (0.2,), antialias=antialias, image_size=28)
    graph = with_preprocessing(passing_on(1, 20), made, 1, None)
    session = ort.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    draw = np.random.default_rng(0)
    for size in ((28, 28), (40, 61)):
        images = draw.integers(0, 256, (2, 1, *size), dtype=np.uint8)
        expected = made.apply(torch.from_numpy(images)).numpy()
        (found,) = session.run(None, {"image": images.transpose(0, 2, 3, 1)})
        np.testing.assert_allclose(found, expected, atol=1e-5)
