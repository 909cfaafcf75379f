"""The protocol for the first person with a GPU: one command, about ten minutes, one report.

    nox -s gpu

The most valuable comes first: a short training, the same answers as on the CPU, `bench
throughput` over every backend and precision; then the tests that need CUDA, the exports, both
flavours of TensorRT where they are installed, and other instruments. Each check of the report
passed, failed, or could not run because of something that is named. A step that fails costs the
others nothing, and the report is rewritten after each check. With `--budget SECONDS` no step
begins that has too little time left, and what runs is ended when the time is over.

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
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from commands import FAILED, ROOT, Check, Report, Runner, Step, not_run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

PRECISIONS = ("fp32", "tf32", "fp16", "bf16", "int8")
BACKENDS = (
    "eager", "eager-graph", "compile", "compile-graph", "onnxruntime", "onnxruntime-tensorrt",
    "tensorrt",
)  # fmt: skip
PROBES = Path(__file__).with_name("probes.py")


@dataclass
class Session:
    """What the steps share.

    Attributes:
        device: cuda, cuda:N, or cpu for a walk.
        runner: runs commands.
        model: the network whose speed is measured, with seeded random weights.
        input_size: side in pixels of its images; its own without.
        batch_size: images.
        max_seconds: for each configuration.
        processes: fresh processes of each measurement; one makes no claim, and takes little time.
        backends: those that are measured.
        train_images: of the training; all without.
        capability: the GPU's, such as 86; on a CPU one that engines are only built for.
        run: id of the run that was trained; None before, or if that failed.
    """

    device: str
    runner: Runner
    model: str = "resnet18"
    input_size: int | None = None
    batch_size: int = 256
    max_seconds: float = 2.0
    processes: int = 6
    backends: tuple[str, ...] = BACKENDS
    train_images: int | None = None
    capability: str = "86"
    run: str | None = None

    @property
    def on_gpu(self) -> bool:
        return self.device != "cpu"

    @property
    def results(self) -> Path:
        """The results folder of everything that is run."""
        return self.runner.folder / "results"

    @property
    def sized(self) -> list[object]:
        """The option of the model's input size, if one was asked for."""
        return [] if self.input_size is None else ["--input-size", self.input_size]


def conduct(
    steps: Mapping[str, tuple[Callable[[Session], Iterator[Check]], float]],
    session: Session,
    report: Report,
    say: Callable[[str], None],
) -> None:
    """Run every step that has time left; what goes wrong in one is its result."""

    def add(check: Check) -> None:
        step.checks.append(check)
        step.seconds = time.monotonic() - begun
        report.write(session.runner.folder)
        say(f"  {check.outcome}: {check.what}{': ' * bool(check.detail)}{check.detail}")

    for name, (take, needed) in steps.items():
        say(name)
        step, begun = Step(name), time.monotonic()
        report.steps.append(step)
        left = session.runner.until - begun
        if left < needed:
            add(
                not_run(
                    "the step is run", f"{left:.0f} s of the budget are left, it takes {needed:g}"
                )
            )
            continue
        try:
            for check in take(session):
                add(check)
        except Exception as error:  # whatever it is, it is recorded
            text = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
            add(Check("the step ran to its end", FAILED, text))
        step.seconds = time.monotonic() - begun
        step.commands = session.runner.take_shown()
        report.write(session.runner.folder)


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
    from steps import STEPS

    environment = found.document
    session = Session(
        given.device, runner, given.model, given.input_size, given.batch_size, given.max_seconds,
        6 if given.budget is None else 1,
        tuple(given.backend or BACKENDS), given.train_images,
        environment.get("compute_capability", "8.6").replace(".", ""),
    )  # fmt: skip
    report = Report(given.device, environment)
    conduct(STEPS, session, report, lambda line: print(line, flush=True))
    print(f"\n{report.summary}\n{given.output / 'report.md'}")
    return int(bool(report.counts[FAILED]))


def _unpack(wheels: Path, output: Path) -> Path:
    """Install the wheels of a folder into the report's own, and return where they are."""
    site = output / "site"
    pip = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-index",
        "--no-deps",
        "--upgrade",
    ]
    files = sorted(map(str, wheels.glob("*.whl")))
    if files:
        subprocess.run([*pip, "--target", str(site), *files], check=True)
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
    parser.add_argument("--budget", type=_seconds, metavar="SECONDS", help="for everything")
    parser.add_argument("--wheels", type=Path, help="folder of what this Python lacks")
    return parser.parse_args(words)
