"""Keyword arguments that a function does not have are refused with the known ones."""

from __future__ import annotations

from typing import Any

import pytest

import bench

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
