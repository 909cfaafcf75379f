from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from bench.data import load_dataset
from bench.models import build_model

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import ModuleType

pytestmark = pytest.mark.slow

CORES = 2
CASES = pytest.mark.parametrize(
    ("name", "size", "batch", "steps"),
    [("resnet20", 28, 128, 3), ("resnet18", 28, 128, 1), ("resnet18", 96, 32, 2)],
)


def textbook_program(
    textbook: ModuleType, name: str, size: int, batch: int
) -> Callable[[int], None]:
    torch.set_num_threads(CORES)
    data = load_dataset("fashion-mnist-mini", quiet=True)
    model = build_model(name, num_classes=10, in_channels=1)
    batches = textbook.loader(data.train, data.mean, data.std, batch_size=batch, input_size=size)
    return lambda steps: textbook.train(model, batches, steps)


@CASES
def test_one_run_against_the_textbook_program(
    textbook: ModuleType,
    worker: ModuleType,
    paired: Callable[..., None],
    name: str,
    size: int,
    batch: int,
    steps: int,
) -> None:
    """Goal: at least 1.2 times the images a second, both with a thread a core."""
    theirs = textbook_program(textbook, name, size, batch)
    trainer = worker.make_trainer(name, size, batch)
    paired(lambda: worker.train(trainer, steps), lambda: theirs(steps), rounds=8)


@CASES
def test_a_study_against_the_textbook_program(
    textbook: ModuleType,
    paired: Callable[..., None],
    name: str,
    size: int,
    batch: int,
    steps: int,
) -> None:
    """Goal: at least 1.2 times; ours trains a run on each core, the textbook one by one."""
    theirs = textbook_program(textbook, name, size, batch)
    with workers(name, size, batch) as ours:
        paired(lambda: ours(steps), lambda: theirs(CORES * steps), rounds=8)


@contextlib.contextmanager
def workers(name: str, size: int, batch: int) -> Iterator[Callable[[int], None]]:
    """Start a worker for each core; gives what lets all of them train so many steps."""
    script = str(Path(__file__).with_name("worker.py"))
    with contextlib.ExitStack() as stack:
        processes = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, script, name, str(size), str(batch), str(seed)],
                    stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
                )
            )
            for seed in range(CORES)
        ]  # fmt: skip

        def train(steps: int) -> None:
            for process in processes:
                assert process.stdin is not None
                process.stdin.write(f"{steps}\n")
            for process in processes:
                assert process.stdout is not None
                assert process.stdout.readline() == "done\n"

        yield train
        # Leaving closes their stdin, at which they end.
