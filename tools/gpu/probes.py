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

    import numpy.typing as npt

    from bench.measurement.backends import Prepared
    from bench.measurement.configurations import Configuration
    from bench.targets.network import LoadedNetwork

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
    from bench.store import Store

    _, labels, reference = _reference(given)
    stored = Store(given.results).read_tensors(given.target, "predictions.safetensors")
    found = stored["predictions"].numpy().astype(np.int64)
    answers = _compared(reference.argmax(1), found, labels)
    yield {"precision": "fp32", "status": "complete", "max_rel_diff": None} | answers


def accuracy(given: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Let a backend answer the test set in every precision that it has, as it is measured."""
    from bench.measurement.backends import PRECISIONS, load_backend, status_of
    from bench.measurement.configurations import Request, expand
    from bench.measurement.measured_network import find_target
    from bench.measurement.preparation import Context, with_files

    source, labels, reference = _reference(given)
    target = find_target(given.file or given.target, results=given.results)
    request = Request(
        backends=(given.backend,), batch_sizes=(BATCH,),
        precisions=() if given.file else PRECISIONS,
    )  # fmt: skip
    context = Context(Path(given.results), str(resolve_device(given.device)), physical_cores())
    plan = expand(request, [target], device=context.device, threads=context.threads)
    images = source.prepare(source.test_images().images)
    with tempfile.TemporaryDirectory() as folder:
        for made in with_files(plan, Path(folder), context):
            row: dict[str, Any] = {"precision": made.precision, "status": "complete", "error": None}
            if made.unsupported:
                yield row | {"status": "unsupported", "error": made.unsupported}
                continue
            try:
                ready = load_backend(made.backend).prepare(made.workload())
                logits = _logits(ready, images, made)
            except Exception as error:  # its row says so, and the other precisions go on
                yield row | dict(zip(("status", "error"), status_of(error), strict=True))
                continue
            worst = float(np.abs(logits - reference).max() / np.abs(reference).max())
            answers = _compared(reference.argmax(1), logits.argmax(1), labels)
            yield row | answers | {"max_rel_diff": worst}


def _reference(
    given: argparse.Namespace,
) -> tuple[LoadedNetwork, npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """The run, its test labels, and the CPU's logits in fp32."""
    from bench.export.parity import reference_logits
    from bench.measurement.measured_network import find_target

    source = find_target(given.target, results=given.results).load()
    images = source.test_images()
    return source, images.labels.cpu().numpy(), reference_logits(source, images.images)


def _logits(ready: Prepared, images: Any, made: Configuration) -> npt.NDArray[np.float32]:
    """All images in full batches; the last is filled up with copies, which are left out."""
    import torch

    found = []
    for start in range(0, len(images), made.batch_size):
        batch = images[start : start + made.batch_size]
        count = len(batch)
        filled = torch.cat([batch, batch[-1:].expand(made.batch_size - count, *batch.shape[1:])])
        answer = ready.download(ready.infer(ready.upload(filled.contiguous())))
        found.append(torch.as_tensor(answer).float().numpy()[:count].copy())
    return np.concatenate(found)


def _compared(reference: Any, other: Any, labels: Any) -> dict[str, Any]:
    from bench.export.accuracy import compare_answers

    found = compare_answers(reference, other, labels)
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
