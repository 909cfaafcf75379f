from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from ctypes.util import find_library
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.slow

CORES = 2
ROUNDS = 8
STEPS = 16  # of which one computes the gradients' norm, as in a whole training
LARGE_PAGES = {
    "THP_MEM_ALLOC_ENABLE": "1"
}  # what `bench.system.memory` sets before torch is imported
# Makes oneDNN, ATen and MKL run as on a CPU with AVX2 only.
AVX2 = {
    "ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2", "MKL_ENABLE_INSTRUCTIONS": "AVX2",
}  # fmt: skip
CASES = pytest.mark.parametrize(
    ("name", "size", "batch", "steps"),
    [("resnet20", 28, 128, STEPS), ("resnet18", 28, 128, STEPS), ("resnet18", 96, 32, STEPS)],
)


@CASES
@pytest.mark.parametrize("side", ["ours", "bf16"])
def test_one_run_against_the_textbook_program(
    paired: Callable[..., None], side: str, name: str, size: int, batch: int, steps: int
) -> None:
    """Goals: 1.5, 1.7 and 2.0 times the images/s (ResNet-18 at 96, at 28, ResNet-20 at 28 pixels).

    Both with a thread a core. The textbook's program trains in fp32; ours in fp32 and in bf16.
    """
    network = (name, size, batch, CORES)
    with program("textbook", *network) as theirs, program(side, *network) as ours:
        paired(lambda: ours(steps), lambda: theirs(steps), rounds=ROUNDS)


@CASES
def test_a_study_against_the_textbook_program(
    paired: Callable[..., None], name: str, size: int, batch: int, steps: int
) -> None:
    """The same goals; ours trains a run on each core, the textbook one by one."""
    with (
        program("textbook", name, size, batch, CORES) as theirs,
        program("ours", name, size, batch, 1, processes=CORES) as ours,
    ):
        paired(lambda: ours(steps), lambda: theirs(CORES * steps), rounds=ROUNDS)


@pytest.mark.parametrize("theirs", ["book", "textbook"])
def test_the_fast_recipe_against_the_books(paired: Callable[..., None], theirs: str) -> None:
    """How many images `fast` trains on while the book's training does one: 400 and 200 steps.

    ResNet-20 at 28 pixels, a batch of 128, beside the book's ResNet-18 at 96, a batch of 256: by
    our own loop, and by the textbook's program. Goal: all of it in a thirtieth of the book's time.
    """
    fast, book = ("resnet20", 28, 128, CORES), ("d2l_resnet18", 96, 256, CORES)
    with program(theirs, *book) as slow, program("fast", *fast) as quick:
        work = (20 * 128, 10 * 256)
        paired(lambda: quick(20), lambda: slow(10), rounds=20, work=work)


@pytest.mark.parametrize("settings", [{}, AVX2], ids=["native", "avx2"])
@pytest.mark.parametrize("name", ["resnet18", "resnet50", "resnet20"])
@pytest.mark.parametrize("other", ["sgd", "book"])
def test_a_step_of_fast_against_other_recipes(
    paired: Callable[..., None], other: str, name: str, settings: dict[str, str]
) -> None:
    """How many steps of another recipe one of `fast` is worth, at 28 pixels.

    Goal without Muon (`sgd`): at least 0.75.
    """
    network = (name, 28, 128, 1)
    with (
        program(other, *network, settings=settings) as theirs,
        program("fast", *network, settings=settings) as fast,
    ):
        paired(lambda: fast(2), lambda: theirs(2), rounds=5, work=(2, 2))


@pytest.mark.parametrize("name", ["resnet18", "resnet20"])
@pytest.mark.parametrize(
    ("side", "settings"),
    [
        ("bf16", {}),
        ("flush", {}),
        ("ours", {"GOMP_CPU_AFFINITY": "0 1"}),
        ("ours", {"LD_PRELOAD": find_library("jemalloc") or ""}),
        ("ours", {"LD_PRELOAD": find_library("tcmalloc_minimal") or ""}),
    ],
    ids=["bf16", "denormals flushed", "threads bound", "jemalloc", "tcmalloc"],
)
def test_what_may_speed_up_a_step(
    paired: Callable[..., None], name: str, side: str, settings: dict[str, str]
) -> None:
    """How many steps as they are one of these is worth."""
    if settings == {"LD_PRELOAD": ""}:
        pytest.skip("this allocator is not installed")
    network = (name, 28, 128, CORES)
    with program("ours", *network) as plain, program(side, *network, settings=settings) as changed:
        paired(lambda: changed(STEPS), lambda: plain(STEPS), rounds=ROUNDS)


@contextlib.contextmanager
def program(
    side: str,
    name: str,
    size: int,
    batch: int,
    threads: int,
    *,
    processes: int = 1,
    settings: dict[str, str] | None = None,
) -> Iterator[Callable[[int], None]]:
    """Start processes that train; gives what lets all of them train so many steps."""
    script = str(Path(__file__).with_name("worker.py"))
    words = [sys.executable, script, side, name, *map(str, (size, batch, threads))]
    environment = {**os.environ, **({} if side == "textbook" else LARGE_PAGES)}
    environment |= settings or {}
    with contextlib.ExitStack() as stack:
        started = [
            stack.enter_context(
                subprocess.Popen(
                    [*words, str(seed)], env=environment,
                    stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
                )
            )
            for seed in range(processes)
        ]  # fmt: skip

        def train(steps: int) -> None:
            for process in started:
                assert process.stdin is not None
                process.stdin.write(f"{steps}\n")
            for process in started:
                assert process.stdout is not None
                assert process.stdout.readline() == "done\n"

        yield train
        # Leaving closes their stdin, at which they end.
