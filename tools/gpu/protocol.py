"""The protocol for the first person with a GPU: one command, about ten minutes, one report.

    nox -s gpu

It runs every test that needs CUDA, a short training, the exports, both flavours of TensorRT
where they are installed, and `bench throughput` over every backend and precision; and it checks
what must hold whatever the GPU is. Each check of the report passed, failed, or could not run
because of something that is named. A step that fails costs the others nothing.

`--device cpu` walks the same code on a machine without a GPU, and shows nothing about one.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from commands import Runner
from record import FAILED, Check, Report, Step

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

PRECISIONS = ("fp32", "tf32", "fp16", "bf16", "int8")
BACKENDS = ("eager", "compile", "onnxruntime", "onnxruntime-tensorrt", "tensorrt")
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
        backends: those that are measured.
        train_images: of the training; all without.
        capability: the GPU's, such as 86; on a CPU one that engines are only built for.
        run: id of the run that was trained; None before, or if that failed.
    """

    device: str
    runner: Runner
    model: str = "resnet18"
    input_size: int | None = None
    batch_size: int = 32
    max_seconds: float = 2.0
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
    steps: Mapping[str, Callable[[Session], Iterator[Check]]],
    session: Session,
    report: Report,
    say: Callable[[str], None],
) -> None:
    """Run every step; what goes wrong in one is its result, and the others go on."""
    for name, take in steps.items():
        say(name)
        step, begun = Step(name), time.monotonic()
        report.steps.append(step)
        try:
            for check in take(session):
                step.checks.append(check)
                say(f"  {check.outcome}: {check.what}{': ' * bool(check.detail)}{check.detail}")
        except Exception as error:  # whatever it is, it is recorded
            text = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
            step.checks.append(Check("the step ran to its end", FAILED, text))
            say(f"  failed: {text}")
        step.seconds = time.monotonic() - begun
        step.commands = session.runner.take_shown()
        report.write(session.runner.folder)


def main(words: list[str]) -> int:
    """Run the protocol.

    Returns:
        0 if nothing failed, 1 if something did, 2 if there is no such device.
    """
    given = _parse(words)
    runner = Runner(given.output)
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
        tuple(given.backend or BACKENDS), given.train_images,
        environment.get("compute_capability", "8.6").replace(".", ""),
    )  # fmt: skip
    report = Report(given.device, environment)
    conduct(STEPS, session, report, lambda line: print(line, flush=True))
    print(f"\n{report.summary}\n{given.output / 'report.md'}")
    return int(bool(report.counts[FAILED]))


def _parse(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="nox -s gpu --", description=__doc__.split("\n")[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--output", type=lambda p: Path(p).absolute(), default="gpu-report")
    parser.add_argument("--model", default="resnet18", help="whose speed is measured")
    parser.add_argument("--input-size", type=int)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--max-seconds", type=float, default=2.0, help="a configuration")
    parser.add_argument("--backend", action="append", choices=BACKENDS)
    parser.add_argument("--train-images", type=int)
    return parser.parse_args(words)
