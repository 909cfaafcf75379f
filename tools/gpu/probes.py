"""What the protocol asks of the installed program in processes of their own.

The answer is printed as JSON, one line per row as soon as it is known, so that a process that has
to be ended loses one row.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.errors import BenchError
from bench.system.devices import physical_cores, resolve_device

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    import torch
    from torch import Tensor

    from bench.export.accuracy import Comparison
    from bench.studies.run_request import RunRequest
    from bench.training.loop import Trainer

BATCH = 32
PACKAGES = ("onnxruntime-gpu", "onnxruntime", "tensorrt", "tensorrt-rtx", "nvidia-ml-py")
CLOCK_ROUNDS, CLOCK_SECONDS = 15, 0.1
CEILING_SECONDS, ENERGY_SECONDS = 0.3, 2.0
LAUNCHED = 200  # kernels, whose launch is timed
TIMED, TIMED_SECONDS = 9, 0.1  # samples of a part of a training step, and the length of each
PROFILED = 3  # training steps
# Steps whose losses are compared with the CPU's, and by what they may differ. Rounding grows from
# step to step; another kernel, shuffle, augmentation or hidden TF32 shows in the first two.
LOSSES = {2: 1e-4, 12: 2e-2}


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
    from bench.measurement.backends.clocks import WallClock
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
        wall = WallClock(runner.prepared.synchronize)
        by_wall, by_events = {}, {}
        for number in range(CLOCK_ROUNDS):
            by_wall[number] = [wall.measure(runner.step, repeats)]
            by_events[number] = [_event_seconds(runner.step, repeats, device)]
        found = ratio_interval(by_wall, by_events)
        assert found is not None
        yield {
            "batch_size": size, "repeats": repeats, "ratio": found.median,
            "ratio_low": found.low, "ratio_high": found.high,
        }  # fmt: skip
        runner.close()


def _event_seconds(call: Callable[[], Any], repeats: int, device: str) -> float:
    """Return the mean seconds of calls between two events of torch's current stream."""
    import torch

    stream = torch.cuda.current_stream(device)
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize(device)
    begin.record(stream)
    for _ in range(repeats):
        call()
    end.record(stream)
    torch.cuda.synchronize(device)
    return begin.elapsed_time(end) / repeats * 1e-3


def ceilings(given: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Measure arithmetic, copies and the launch of a kernel: what bounds every other figure."""
    import torch

    from bench.measurement.backends import PRECISIONS
    from bench.measurement.machine.ceiling import measure_ceiling
    from bench.training.cuda_graph import capture, side_stream

    device = resolve_device(given.device)
    on_gpu = device.type == "cuda"
    for precision in PRECISIONS if on_gpu else ("fp32",):
        found = measure_ceiling(str(device), physical_cores(), {precision}, seconds=CEILING_SECONDS)
        flops = found.flops_per_second.get(precision)
        reached = f"{(flops or 0) / 1e12:.4g} TFLOP/s by a {found.kernels.get(precision)}"
        detail = "torch has no native kernel here" if flops is None else reached
        copied = f"; a copy moves {found.bytes_per_second / 1e12:.4g} TB/s"
        yield _row(f"ceiling in {precision}", None if flops is None else True, detail + copied)
    number = torch.zeros(1, device=device)

    def launch() -> Tensor:
        for _ in range(LAUNCHED):
            number.add_(1)
        return number

    one = _seconds(launch, device) / LAUNCHED
    yield _row("launch of a small kernel", True, f"{one * 1e6:.3g} µs")
    if on_gpu:
        with torch.cuda.device(device):
            with side_stream():
                launch()
            replay = capture(lambda *_: (launch(),), number, number)
            one = _seconds(lambda: replay(number, number), device) / LAUNCHED
        yield _row("launch of a small kernel in a CUDA graph", True, f"{one * 1e6:.3g} µs")


def losses(given: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Train the same steps in fp32 on the CPU and on the device, and compare their losses."""
    request = _request("resnet20", "fp32", train_images=600, batch_size=32)
    ours, theirs = (_first_losses(request, device) for device in (given.device, "cpu"))
    for count, most in LOSSES.items():
        off = _largest_difference(ours[:count], theirs[:count])
        what = f"the first {count} training losses are the CPU's"
        yield _row(what, off <= most, f"largest difference {off:.1e} of the loss, allowed {most:g}")


def _largest_difference(ours: list[float], theirs: list[float]) -> float:
    return max(abs(one - other) / other for one, other in zip(ours, theirs, strict=True))


def _first_losses(request: RunRequest, device: str) -> list[float]:
    from bench.training.resources import Resources, torch_settings

    with torch_settings(request, Resources(device, physical_cores())):
        return _losses_of(make_trainer(request, resolve_device(device)), max(LOSSES))


def _losses_of(trainer: Trainer, count: int) -> list[float]:
    """Train for some steps of the first epoch, and return their losses."""
    summed = [0.0]
    for images, labels in itertools.islice(trainer.batches.epoch(0), count):
        trainer.step(images, labels)
        trainer.read_losses()
        summed.append(trainer.position.sums.loss)
    return [after - before for before, after in itertools.pairwise(summed)]


def _request(model: str, precision: Any, train_images: int | None = None, **recipe: Any) -> Any:
    """Return a run by SGD with quickstart's augmentation and learning rate."""
    from bench.studies.recipe import get_recipe
    from bench.studies.run_request import RunRequest

    values = {"muon_learning_rate": 0.0, "crop_padding": 2, "learning_rate": 0.05} | recipe
    return RunRequest(
        model, "fashion-mnist-mini", get_recipe("fast").model_copy(update=values),
        seed=0, train_images=train_images, precision=precision,
        options={"width": 8} if model == "resnet34" else {},
    )  # fmt: skip


def make_trainer(request: RunRequest, device: torch.device, *, cuda_graph: bool = False) -> Trainer:
    """Return what trains a run, ready for its first step."""
    from bench.training.layout import lay_out
    from bench.training.loop import Trainer
    from bench.training.setup import Split, build_network, load_data

    data = load_data(request)
    split, network = Split.of(data, request, device), build_network(request, data)
    batches = split.training_batches(lay_out(network, device, split.input_shape))
    trainer = Trainer(
        network, batches, request.recipe,
        seed=request.seed, device=device, precision=request.precision,
        cuda_graph=cuda_graph,
    )  # fmt: skip
    trainer.model.train()
    return trainer


def step(given: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Take a training step of quickstart's ResNet-34 apart, in fp32 and, on a GPU, in bf16."""
    from bench.training.resources import Resources, torch_settings

    device = resolve_device(given.device)
    for precision in ("bf16", "fp32") if device.type == "cuda" else ("fp32",):
        request = _request("resnet34", precision)
        with torch_settings(request, Resources(str(device), physical_cores())):
            for row in anatomy(request, device):
                yield row | {"what": f"step in {precision}: {row['what']}"}


def anatomy(request: RunRequest, device: torch.device) -> Iterator[dict[str, Any]]:
    """Time a whole training step and its parts; on a GPU also its launches, and as a CUDA graph."""
    trainer, size = make_trainer(request, device), request.recipe.batch_size
    batches = _endless(trainer)
    whole = _seconds(lambda: trainer.step(*next(batches)), device)
    yield _row("all of it", True, f"{whole * 1e3:.3g} ms, {size / whole:,.0f} images/s")
    made = _seconds(lambda: next(batches), device)
    yield _row("the batch alone", True, f"{made * 1e3:.3g} ms")
    if device.type != "cuda":
        yield _row("launches, and as a CUDA graph", None, "they need a CUDA device")
        return
    yield _row("launches", True, _launches(lambda: trainer.step(*next(batches)), device))
    yield from _as_graph(request, device, whole)


def _as_graph(request: RunRequest, device: torch.device, eager: float) -> Iterator[dict[str, Any]]:
    """Compare steps as CUDA graphs with those without: their losses, and their time."""
    count = max(LOSSES)
    theirs, ours = (
        _losses_of(make_trainer(request, device, cuda_graph=graph), count)
        for graph in (False, True)
    )
    off = _largest_difference(ours, theirs)
    detail = f"{count} losses, largest difference {off:.1e} of the loss"
    yield _row("a CUDA graph trains alike", off <= LOSSES[count], detail)
    graphed = make_trainer(request, device, cuda_graph=True)
    batches = _endless(graphed)
    whole = _seconds(lambda: graphed.step(*next(batches)), device)
    detail = f"{whole * 1e3:.3g} ms, {eager / whole:.2f} × as fast as without"
    yield _row("all of it as one CUDA graph", True, detail)


def _endless(trainer: Trainer) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the batches of the first epoch again and again, within the schedule."""
    while True:
        trainer.position.batch = 0
        yield from trainer.batches.epoch(0)


def _launches(call: Callable[[], Any], device: torch.device) -> str:
    import torch
    from torch.profiler import ProfilerActivity, profile

    begun = time.perf_counter()
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as found:
        for _ in range(PROFILED):
            call()
        torch.cuda.synchronize(device)
        seconds = time.perf_counter() - begun
    return count_launches(found.key_averages(), PROFILED, seconds)


def count_launches(events: Iterable[Any], steps: int, seconds: float) -> str:
    """Say what steps launched and waited for, and how long the GPU computed, by their profile."""
    counted = {"LaunchKernel": 0, "MemcpyAsync": 0, "StreamSynchronize": 0}
    busy = 0.0
    for event in events:
        if event.device_type.name == "CUDA":
            # A range that is named on the host comes a second time, as one of the device.
            busy += 0 if event.is_user_annotation else event.self_device_time_total
        for name in counted:
            if event.key.startswith((f"cuda{name}", f"cu{name}")):
                counted[name] += event.count
    kernels, copies, waits = (count / steps for count in counted.values())
    return (
        f"{kernels:.0f} kernels, {copies:.1f} copies, {waits:.1f} waits for a stream; the GPU "
        f"computed {busy / steps / 1e3:.2f} ms of {seconds / steps * 1e3:.2f} ms (profiled)"
    )


def energy(given: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Read the energy counter while the device idles, and while it multiplies matrices."""
    import torch

    device = resolve_device(given.device)
    what = "the energy counter moves faster under load"
    idle = watts(str(device), lambda: time.sleep(0.1))
    if idle is None:
        yield _row(what, None, "no energy counter can be read here")
        return
    x = torch.randn(4096, 4096, device=device)
    loaded = watts(str(device), lambda: (x @ x).sum().item())
    assert loaded is not None
    yield _row(what, loaded > idle, f"{loaded:.0f} W under load, {idle:.0f} W idle")


def watts(device: str, work: Callable[[], Any]) -> float | None:
    """Return the mean power while *work* is repeated; None without a counter."""
    from bench.measurement.machine.energy import Meter

    meter = Meter(device)
    if meter.joules is None:
        return None
    begun = time.perf_counter()
    with meter:
        while time.perf_counter() - begun < ENERGY_SECONDS:
            work()
        seconds = time.perf_counter() - begun
    return meter.joules / seconds


def _seconds(call: Callable[[], Any], device: torch.device) -> float:
    """Return the median seconds of a call, from an idle device to an idle device."""
    import torch

    from bench.measurement.backends.clocks import WallClock

    on_gpu = device.type == "cuda"
    clock = WallClock((lambda: torch.cuda.synchronize(device)) if on_gpu else (lambda: None))
    clock.measure(call, 5)  # the first calls are slow
    repeats = max(1, round(TIMED_SECONDS / clock.measure(call, 3)))
    return statistics.median(clock.measure(call, repeats) for _ in range(TIMED))


def _row(what: str, holds: bool | None, detail: str) -> dict[str, Any]:
    """Return a check as the protocol reads it; *holds* is None if it could not be made."""
    return {"what": what, "holds": holds, "detail": detail}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    kinds = parser.add_subparsers(dest="kind", required=True)
    kinds.add_parser("environment").add_argument("device")
    for kind in ("ceilings", "losses", "step", "energy"):
        kinds.add_parser(kind).add_argument("--device", required=True)
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
        for row in [found] if isinstance(found, dict) else found:
            print(json.dumps(row), flush=True)
    except BenchError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
