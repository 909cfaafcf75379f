"""Comparing two ways of doing one thing: interleaved, paired, with the spread kept."""

from __future__ import annotations

import importlib.util
import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import ModuleType

    from pytest_benchmark.fixture import BenchmarkFixture

    Work = Callable[[], object]


@pytest.fixture
def paired(benchmark: BenchmarkFixture) -> Callable[..., None]:
    """Time *theirs* and *ours* in turn, and store the paired ratio of their rates.

    A ratio above 1 says that ours is faster. pytest-benchmark's own table shows ours alone, a round
    at a time; `extra_info` holds both sides' seconds per unit of work, the median ratio and its
    quartiles.
    """

    def measure(ours: Work, theirs: Work, *, rounds: int, work: tuple[int, int] = (1, 1)) -> None:
        """Run both sides *rounds* times; *work* is how much each side does in a round."""
        seconds: dict[str, list[float]] = {"ours": [], "theirs": []}

        def timed(side: str, call: Work) -> None:
            started = time.perf_counter()
            call()
            seconds[side].append(time.perf_counter() - started)

        benchmark.pedantic(
            lambda: timed("ours", ours),
            setup=lambda: timed("theirs", theirs),
            rounds=rounds,
            warmup_rounds=1,
        )
        benchmark.extra_info.update(summary(seconds, work))

    return measure


def summary(seconds: dict[str, list[float]], work: tuple[int, int]) -> dict[str, Any]:
    """Paired ratios of ours over theirs, of the rounds after the warm-up."""
    pairs = list(zip(seconds["ours"], seconds["theirs"], strict=True))
    kept = pairs[1:] or pairs  # plain pytest runs a single round
    ratios = [(work[0] / ours) / (work[1] / theirs) for ours, theirs in kept]
    low, middle, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
    return {
        "ratio_median": middle,
        "ratio_quartiles": [low, high],
        "pairs": len(kept),
        "seconds_ours": [ours / work[0] for ours, _ in kept],
        "seconds_theirs": [theirs / work[1] for _, theirs in kept],
    }


@pytest.fixture(scope="session")
def textbook() -> ModuleType:
    return neighbour("textbook")


def neighbour(name: str) -> ModuleType:
    """Import the module beside this file; pytest's importlib mode puts no folder on the path."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Each benchmark sets its own number of threads; put the old one back."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)
