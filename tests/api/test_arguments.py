"""Arguments: unknown ones are refused with the known ones, and one value needs no list."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

import bench

if TYPE_CHECKING:
    from pathlib import Path

CALLS: dict[str, tuple[Any, dict[str, Any], str]] = {
    "a setting of train": (
        lambda **given: bench.train("resnet8", **given), {"input_size": 48},
        r'bench.train has .* setting: settings=\{"input_size": 48\} \(known: model, .*, workers, ',
    ),
    "of an import": (
        lambda **given: bench.import_model("resnet8", dataset="mnist", **given), {"resize": "pad"},
        r'bench.import_model has .*settings=\{"resize": \'pad\'\}',
    ),
    "of growing": (
        lambda **given: bench.grow("run", "resnet14", **given), {"learning_rate": 0.1},
        r'bench.grow has .*settings=\{"learning_rate": 0.1\}',
    ),
    "misspelt": (
        lambda **given: bench.run_study("quickstart", **given), {"worker": 2},
        r"bench.run_study has no argument 'worker'; did you mean 'workers'\? \(known: study, ",
    ),
    "of a measurement": (
        lambda **given: bench.measure("resnet8", **given), {"backend": ["eager"]},
        r"bench.measure has no argument 'backend'; did you mean 'backends'\?",
    ),
    "of an export": (
        lambda **given: bench.export_onnx("resnet8", **given), {"precison": "int8"},
        r"bench.export_onnx has no argument 'precison'; did you mean 'precision'\?",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", CALLS)
def test_an_unknown_argument_is_named_with_the_known_ones(what: str) -> None:
    call, given, message = CALLS[what]
    with pytest.raises(bench.BenchError, match=message):
        call(**given)


@pytest.mark.parametrize(
    "call", [bench.measure, bench.export_onnx, bench.gradients, bench.landscape]
)
def test_one_target_needs_no_list(call: Any, tmp_path: Path) -> None:
    with pytest.raises(bench.BenchError, match=r"no (model|run).* 'resnt20'"):
        call("resnt20", results=tmp_path)


@pytest.mark.parametrize(
    ("given", "refused"),
    [
        ({"batch_sizes": 0}, "--batch-size 0: "),
        ({"streams": 0}, "--streams 0: "),
        ({"backends": "eagr"}, "unknown backend 'eagr'; did you mean 'eager'"),
        ({"precisions": "fp8"}, "--precision fp8 "),
        ({"batch_sizes": [1, 0]}, "--batch-size 0: "),
    ],
)
def test_one_value_of_a_measurement_needs_no_list(given: dict[str, Any], refused: str) -> None:
    with pytest.raises(bench.BenchError, match=refused):
        bench.measure("resnet8", **given)
