"""Commands in reports: parsed again, they ask for what was recorded."""

from __future__ import annotations

import dataclasses
import json
import shlex
from typing import TYPE_CHECKING, Any

import pytest

from bench.errors import BenchError
from bench.measurement import measure
from bench.report.pages.commands import measuring_command
from bench.store.measurements import MeasurementRecord

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.measurement.configurations import Request
    from bench.measurement.preparation import Context

    Asked = tuple[list[str], Request, Context]


@pytest.fixture
def measuring(bench: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Asked]:
    """Return what `bench throughput WORDS…` would measure."""

    def asked(words: list[str]) -> Asked:
        found: list[Asked] = []

        def note(names: list[str], request: Request, context: Context) -> None:
            found.append((names, request, context))
            raise BenchError("nothing is measured here")

        monkeypatch.setattr(measure, "measure_names", note)
        assert bench("throughput", *words).refusal == "nothing is measured here"
        return found[0]

    return asked


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["my net.onnx", "resnet20", "--option", "width=4", "--option", "zero_init_residual=true"],
        ["resnet20", "--option", "shortcut=none", "--input-size", "128"],
        ["resnet20", "--input-size", "64x256", "--batch-size", "auto", "--boundary", "all"],
        ["resnet20", "--scenario", "server", "--max-latency-ms", "5.5", "--processes", "2"],
        ["resnet20", "--backend", "eager", "--backend", "null", "--reference", "null", "--pin"],
        ["a.onnx", "b.onnx", "--reference", "a.onnx", "--streams", "1", "--streams", "2"],
        ["resnet20", "--layers", "--cold-start", "--isolate", "--timeout", "9", "--clear-l2"],
    ],
)
def test_a_measuring_command_asks_for_the_same(
    words: list[str], measuring: Callable[..., Asked]
) -> None:
    names, request, context = measuring([*words, "--threads", "1"])
    recorded = json.loads(json.dumps(dataclasses.asdict(request) | {"names": names}))
    record = MeasurementRecord("m", recorded, [], {"threads": context.threads})
    again = measuring(shlex.split(measuring_command(record))[2:])
    assert again[0] == names
    assert dataclasses.replace(again[1], seed=request.seed) == request
    assert again[2].threads == 1


def test_the_command_of_an_older_record_has_the_options_of_its_labels() -> None:
    labels = ["my net.onnx", "resnet20 width=4 zero_init_residual=True"]
    record = MeasurementRecord("m", {"targets": labels, "bounded": True}, [], {"threads": 2})
    assert measuring_command(record) == (
        "bench throughput 'my net.onnx' resnet20 --processes 1 --option width=4 "
        "--option zero_init_residual=true --threads 2"
    )
