"""The protocol for the first person with a GPU: one command, one report.

    nox -s gpu

The most valuable steps come first: what the machine can do, a short training, the same answers
and losses as on the CPU, ResNet-50 and ResNet-18 at batch 256, quickstart, and where the time of a
training step goes. Then follow small batches, time to accuracy, determinism, workers, clocks and
energy, `bench throughput` over every backend and precision, the tests that need CUDA, the exports,
both flavours of TensorRT where they are installed, and other instruments. Each check of the report
passed, failed, or could not run because of something that is named. A step that fails costs the
others nothing, and the report is rewritten after each check. With `--budget SECONDS` no step
begins that has too little time left, no step takes more than its share, and what runs is ended
when the time is over.

Where nothing can be installed, `python -P tools/gpu --wheels FOLDER` takes what the machine's
Python lacks from wheels in a folder, and runs the program from the working tree.

`--device cpu` walks the same code on a machine without a GPU, and shows nothing about one.
"""

from __future__ import annotations

import argparse
import math
import subprocess
import sys
import time
from pathlib import Path

from commands import BACKENDS, FAILED, PROBES, ROOT, Report, Runner, Session, conduct
from steps import STEPS


def main(words: list[str]) -> int:
    """Run the protocol.

    Returns:
        0 if nothing failed, 1 if something did, 2 if there is no such device.
    """
    given = _parse(words)
    until = math.inf if given.budget is None else time.monotonic() + given.budget
    path = () if given.wheels is None else (ROOT, _unpack(given.wheels, given.output))
    runner = Runner(given.output, path, until)
    # In a process of its own: a CUDA context here would be a stranger beside what is measured.
    found = runner.python(PROBES, "environment", given.device)
    runner.take_shown()
    if found.code != 0:
        missing = "torch finds no CUDA device" if given.device.startswith("cuda") else "no device"
        print(
            f"gpu protocol: {missing} here ({found.reason}). Nothing was checked. "
            "With --device cpu the protocol's own code is walked, which shows nothing of a GPU.",
            file=sys.stderr,
        )
        return 2

    environment = found.document
    session = Session(
        given.device, runner, given.model, given.input_size, given.batch_size, given.max_seconds,
        6 if given.budget is None else 1,
        tuple(given.backend or BACKENDS), given.train_images,
        environment.get("compute_capability", "8.6").replace(".", ""),
        dataset=given.dataset, target_accuracy=given.target_accuracy,
    )  # fmt: skip
    report = Report(given.device, environment)
    conduct(STEPS, session, report, lambda line: print(line, flush=True))
    print(f"\n{report.summary}\n{given.output / 'report.md'}")
    return int(bool(report.counts[FAILED]))


def _unpack(wheels: Path, output: Path) -> Path:
    """Install the wheels of a folder into the report's own, and return where they are."""
    site = output / "site"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps"]
    files = sorted(map(str, wheels.glob("*.whl")))
    if files:
        subprocess.run([*pip, "--upgrade", "--target", str(site), *files], check=True)
    return site


def _seconds(text: str) -> float:
    if not 0 < (seconds := float(text)) < math.inf:
        raise ValueError(text)
    return seconds


def _parse(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="nox -s gpu --", description=__doc__.split("\n")[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--output", type=lambda p: Path(p).absolute(), default="gpu-report")
    parser.add_argument("--model", default="resnet18", help="whose speed is measured")
    parser.add_argument("--input-size", type=int)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--max-seconds", type=float, default=2.0, help="a configuration")
    parser.add_argument("--backend", action="append", choices=BACKENDS)
    parser.add_argument("--train-images", type=int)
    parser.add_argument("--dataset", default="fashion-mnist-mini", help="for time to accuracy")
    parser.add_argument("--target-accuracy", type=float, default=80, metavar="PERCENT")
    parser.add_argument("--budget", type=_seconds, metavar="SECONDS", help="for everything")
    parser.add_argument("--wheels", type=Path, help="folder of what this Python lacks")
    return parser.parse_args(words)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
