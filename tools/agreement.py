"""Do other instruments find what ours finds? The same network, interleaved in one run.

    python tools/agreement.py resnet18 --timm-benchmark benchmark.py --output a.json

Ours is the runner that `bench throughput` samples. Beside it stand `torch.utils.benchmark.Timer`,
the inference runner of timm's `benchmark.py` (in its repository only, not in its wheel: give the
file), and for ONNX Runtime, where the package transformers is installed, the timing function in
its own wheel (`onnxruntime.transformers.benchmark_helper.inference_ort`). All of these return means
of a block; ours is the median of the block. `onnxruntime_perf_test` is in no package index.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import logging
import random
import statistics
import sys
import tempfile
from collections import defaultdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from bench.measurement.configurations import Configuration
from bench.measurement.machine.noise import noise_between, take_snapshot
from bench.measurement.measured_network import MeasuredNetwork, find_target
from bench.measurement.preparation import make_file
from bench.measurement.timing.runner import LocalRunner
from bench.report.tables.text_table import TextTable
from bench.system.devices import resolve_device
from bench.system.environment import describe_environment
from bench.system.intervals import ratio_interval

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Instrument = Callable[[int], float]

BLOCK_SECONDS = 0.3
AGREED = 0.03


def ours(
    backend: str, target: MeasuredNetwork, file: Path | None, batch: int, threads: int, device: str
) -> LocalRunner:
    """Open the runner that `bench throughput` would sample."""
    made = Configuration(
        target,
        backend,
        batch_size=batch,
        device=device,
        threads=threads,
        file=file,
        # A call on a GPU is too short to be timed alone.
        scenario="single-stream" if device == "cpu" else "offline",
    )
    return LocalRunner(made)


def torch_timer(call: Callable[[], Any], threads: int) -> Instrument:
    """PyTorch's own instrument around any call."""
    from torch.utils.benchmark import Timer

    timer = Timer("call()", globals={"call": call}, num_threads=threads)
    return lambda count: float(timer.timeit(count).mean)


def timm_runner(script: Path, model: torch.nn.Module, batch: int, size: int) -> Instrument:
    """Return timm's runner, measuring our network in place of its own ResNet-18."""
    spec = importlib.util.spec_from_file_location("timm_benchmark", script)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["timm_benchmark"] = module
    spec.loader.exec_module(module)
    logging.getLogger("timm_benchmark").setLevel(logging.ERROR)
    logging.getLogger().setLevel(logging.ERROR)
    runner = module.InferenceBenchmarkRunner(
        "resnet18", device="cpu", batch_size=batch, input_size=(3, size, size),
        num_warm_iter=1, num_bench_iter=10,
    )  # fmt: skip
    runner.model, runner.log_freq = model, sys.maxsize

    def measure(count: int) -> float:
        runner.num_bench_iter = count
        return batch / float(runner.run()["samples_per_sec"])

    return measure


def ort_helper(session: Any, feed: dict[str, Any], batch: int) -> Instrument:
    """The timing function of ONNX Runtime's wheel."""
    from onnxruntime.transformers.benchmark_helper import inference_ort

    def measure(count: int) -> float:
        found = inference_ort(session, feed, {}, count, batch, warm_up_repeat=1)
        return float(found["average_latency_ms"]) / 1e3

    return measure


def eager_instruments(
    target: MeasuredNetwork, batch: int, threads: int, timm: Path | None, device: str
) -> Any:
    """Give the others for PyTorch; its timer waits for the device by itself."""
    model = target.load().model.eval().to(device)
    images = torch.randn(batch, *target.input_shape, device=device)

    def call() -> None:
        with torch.inference_mode():
            model(images)

    found = {"torch.utils.benchmark.Timer": torch_timer(call, threads)}
    if timm is not None and device == "cpu":
        found["timm benchmark.py"] = timm_runner(timm, model, batch, target.input_shape[-1])
    return found


def onnxruntime_instruments(file: Path, target: MeasuredNetwork, batch: int, threads: int) -> Any:
    """Give the others for ONNX Runtime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    feed = {session.get_inputs()[0].name: torch.randn(batch, *target.input_shape).numpy()}
    found = {"torch.utils.benchmark.Timer": torch_timer(lambda: session.run(None, feed), threads)}
    if importlib.util.find_spec("transformers"):  # which the helper imports
        found["onnxruntime.transformers.benchmark_helper"] = ort_helper(session, feed, batch)
    return found


def measure(
    backend: str,
    target: MeasuredNetwork,
    batch: int,
    *,
    threads: int,
    rounds: int,
    timm: Path | None,
    device: str,
) -> Iterator[dict[str, Any]]:
    """Interleave our runner with the other instruments, in random order in each round."""
    with tempfile.TemporaryDirectory() as folder:
        file, others = None, {}
        if backend == "onnxruntime":
            file = make_file(target, "fp32", Path(folder), threads=threads).path
            others = (
                {} if device != "cpu" else onnxruntime_instruments(file, target, batch, threads)
            )
        else:
            others = eager_instruments(target, batch, threads, timm, device)
        runner = ours(backend, target, file, batch, threads, device)
    if not others:  # a session of their own would copy the images each time
        others = {"torch.utils.benchmark.Timer on our session": torch_timer(runner.step, threads)}
    sample = runner.warm_up(10.0).typical * runner.repeats
    count = max(1, round(BLOCK_SECONDS / sample))
    # As many calls as ours: a sample of ours is several on a GPU, with one wait for all of them.
    instruments = {
        "ours": runner.block,
        **{name: _single(call, runner.repeats) for name, call in others.items()},
    }
    for block in instruments.values():
        block(1)
    blocks: dict[str, dict[int, list[float]]] = defaultdict(dict)
    names, order = list(instruments), random.Random(0)
    before = take_snapshot(device)
    for number in range(rounds):
        order.shuffle(names)
        for name in names:
            blocks[name][number] = instruments[name](count)
    warnings, _ = noise_between(before, take_snapshot(device))
    for name in others:
        # How many times slower ours says a batch is than theirs: seconds over seconds.
        ratio = ratio_interval(blocks["ours"], blocks[name])
        assert ratio is not None
        yield {
            "model": target.label, "backend": backend, "batch_size": batch, "instrument": name,
            "ours_images_per_second": batch / _median(blocks["ours"]),
            "theirs_images_per_second": batch / _median(blocks[name]),
            "ratio": 1 / ratio.median, "ratio_low": 1 / ratio.high, "ratio_high": 1 / ratio.low,
            "rounds": ratio.blocks, "calls_per_block": count * runner.repeats, "warnings": warnings,
            "seconds": {n: [b for _, b in sorted(blocks[n].items())] for n in ("ours", name)},
        }  # fmt: skip


def _single(instrument: Instrument, repeats: int) -> Callable[[int], list[float]]:
    return lambda count: [instrument(count * repeats)]


def _median(blocks: dict[int, list[float]]) -> float:
    return statistics.median(seconds for block in blocks.values() for seconds in block)


def _verdict(low: float, high: float) -> str:
    """Judge by equivalence (two one-sided tests): a wide interval shows no agreement."""
    if 1 - AGREED <= low <= high <= 1 + AGREED:
        return "yes"
    return "no" if low > 1 + AGREED or high < 1 - AGREED else "not shown"


def page(document: dict[str, Any]) -> str:
    """Return the table as Markdown, with what made it."""
    cells = [["network", "backend", "batch", "instrument", "ours, images/s", "theirs, images/s",
              "ours / theirs", "interval of this run within 3 %"]]  # fmt: skip
    for row in document["rows"]:
        low, high = row["ratio_low"], row["ratio_high"]
        cells.append(
            [
                row["model"], row["backend"], str(row["batch_size"]), row["instrument"],
                f"{row['ours_images_per_second']:.4g}", f"{row['theirs_images_per_second']:.4g}",
                f"{row['ratio']:.3f} [{low:.3f}, {high:.3f}]",
                _verdict(low, high),
            ]
        )  # fmt: skip
    made = document["environment"]
    warnings = sorted({w for row in document["rows"] for w in row["warnings"]})
    table = TextTable(tuple(cells[0]), tuple(map(tuple, cells[1:])))
    lines = [
        "# Do other instruments find the same?", "", *table.to_markdown(), "",
        "Blocks of all instruments are interleaved in random order. Images/s are medians over all",
        "rounds. The ratio is the median of the rounds' ratios, with its 95 % bootstrap interval,",
        "and not the quotient of these two medians. It is over the rounds of one process: another",
        "run may differ by more.", "",
        f"- command: `{document['command']}`",
        f"- machine: {made['cpu']} ({' '.join(made['instruction_sets'])})",
        f"- threads: {made['threads']}",
        f"- versions: torch {made['torch']}, bench {made['bench']}, Python {made['python']}",
        f"- commit: {made['git_commit']}; {document['created_at']}",
        *(f"- warning: {warning}" for warning in warnings),
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure and write a JSON file."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("models", nargs="+")
    parser.add_argument("--batch-size", type=int, action="append")
    parser.add_argument("--input-size", type=int)
    parser.add_argument("--backend", action="append", choices=("eager", "onnxruntime"))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu", type=lambda name: str(resolve_device(name)))
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--timm-benchmark", type=Path)
    parser.add_argument("--output", type=Path, required=True)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    rows = []
    for model in given.models:
        target = find_target(model, input_size=given.input_size)
        for backend in given.backend or ("eager", "onnxruntime"):
            for batch in given.batch_size or (1, 32):
                for row in measure(
                    backend, target, batch,
                    threads=given.threads, rounds=given.rounds, timm=given.timm_benchmark,
                    device=given.device,
                ):  # fmt: skip
                    rows.append(row)
                    show = {k: v for k, v in row.items() if k != "seconds"}
                    print(json.dumps(show), file=sys.stderr)
    document = {
        "rows": rows,
        "environment": describe_environment(given.device, threads=given.threads),
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": " ".join(["python", *sys.argv]),
    }
    given.output.write_text(json.dumps(document, indent=1) + "\n")
    given.output.with_suffix(".md").write_text(page(document))


if __name__ == "__main__":
    main()
