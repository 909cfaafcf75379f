"""What the protocol asks of the installed program in processes of their own; prints JSON."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.errors import BenchError
from bench.system.devices import physical_cores, resolve_device

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.export.accuracy import Comparison

BATCH = 32
PACKAGES = ("onnxruntime-gpu", "onnxruntime", "tensorrt", "tensorrt-rtx", "nvidia-ml-py")
CLOCK_ROUNDS, CLOCK_SECONDS = 15, 0.1


def environment(given: argparse.Namespace) -> dict[str, Any]:
    """Tell what the device is and what it is used with."""
    from bench.system.environment import describe_environment, version_of

    device = resolve_device(given.device)
    described = describe_environment(device, threads=physical_cores())
    return described | {name: version_of(name) for name in PACKAGES if version_of(name)}


def recorded(given: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Compare the predictions that training recorded on the device with the CPU's now."""
    from bench.export.accuracy import compare_answers
    from bench.export.parity import reference_logits
    from bench.measurement.measured_network import find_target
    from bench.store import Store

    source = find_target(given.target, results=given.results).load()
    images = source.test_images()
    reference = reference_logits(source, images.images).argmax(1)
    stored = Store(given.results).read_tensors(given.target, "predictions.safetensors")
    found = stored["predictions"].numpy().astype(np.int64)
    answers = _answers(compare_answers(reference, found, images.labels.cpu().numpy()))
    yield {"precision": "fp32", "status": "complete", "max_rel_diff": None} | answers


def accuracy(given: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Let a backend answer the test set in every precision that it has, as `bench` scores it."""
    from bench.measurement.accuracy import Scorer
    from bench.measurement.backends import PRECISIONS, status_of
    from bench.measurement.configurations import Request, expand
    from bench.measurement.measured_network import find_target
    from bench.measurement.preparation import Context, with_files
    from bench.measurement.timing.runner import LocalRunner

    target = find_target(given.file or given.target, results=given.results)
    request = Request(
        backends=(given.backend,), batch_sizes=(BATCH,),
        precisions=() if given.file else PRECISIONS,
    )  # fmt: skip
    context = Context(Path(given.results), str(resolve_device(given.device)), physical_cores())
    plan = expand(request, [target], device=context.device, threads=context.threads)
    scorer = Scorer()
    with tempfile.TemporaryDirectory() as folder:
        for made in with_files(plan, Path(folder), context):
            row: dict[str, Any] = {"precision": made.precision, "status": "complete", "error": None}
            if made.unsupported:
                yield row | {"status": "unsupported", "error": made.unsupported}
                continue
            try:
                runner = LocalRunner(made)
                score = scorer.score(made, runner.answer)
                runner.close()
            except Exception as error:  # its row says so, and the other precisions go on
                yield row | dict(zip(("status", "error"), status_of(error), strict=True))
                continue
            if score.comparison is None:
                yield row | {"status": "failed", "error": score.wrong or score.unknown}
            else:
                yield row | _answers(score.comparison) | {"max_rel_diff": score.max_rel_diff}


def _answers(found: Comparison) -> dict[str, Any]:
    return {
        "images": found.images, "reference": found.reference, "accuracy": found.accuracy,
        "flipped": found.flipped, "p_value": found.p_value,
    }  # fmt: skip


def clocks(given: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Time the same calls by CUDA events and by the wall clock, in turn."""
    from bench.measurement.backends.clocks import CudaEventClock, WallClock
    from bench.measurement.configurations import Configuration
    from bench.measurement.measured_network import find_target
    from bench.measurement.timing.runner import LocalRunner
    from bench.system.intervals import ratio_interval

    device = str(resolve_device(given.device))
    target = find_target(given.target, input_size=given.input_size)
    for size in sorted({1, given.batch_size}):
        runner = LocalRunner(Configuration(target, "eager", batch_size=size, device=device))
        runner.warm_up(5.0)
        repeats = max(1, round(CLOCK_SECONDS / runner.typical))
        wall, events = WallClock(runner.prepared.synchronize), CudaEventClock(device)
        by_wall, by_events = {}, {}
        for number in range(CLOCK_ROUNDS):
            by_wall[number] = [wall.measure(runner.step, repeats)]
            by_events[number] = [events.measure(runner.step, repeats)]
        found = ratio_interval(by_wall, by_events)
        assert found is not None
        yield {
            "batch_size": size, "repeats": repeats, "ratio": found.median,
            "ratio_low": found.low, "ratio_high": found.high,
        }  # fmt: skip
        runner.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    kinds = parser.add_subparsers(dest="kind", required=True)
    kinds.add_parser("environment").add_argument("device")
    for kind in ("recorded", "accuracy", "clocks"):
        one = kinds.add_parser(kind)
        one.add_argument("target")
        one.add_argument("--device", required=True)
        one.add_argument("--results", default="bench-runs")
        one.add_argument("--backend")
        one.add_argument("--file", default="")
        one.add_argument("--batch-size", type=int, default=BATCH)
        one.add_argument("--input-size", type=int)
    given = parser.parse_args()
    try:
        found: Any = globals()[given.kind](given)
        document = found if isinstance(found, dict) else {"rows": list(found)}
    except BenchError as error:
        print(error, file=sys.stderr)
        return 2
    print(json.dumps(document))
    return 0


if __name__ == "__main__":
    sys.exit(main())
