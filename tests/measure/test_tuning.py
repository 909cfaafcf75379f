from __future__ import annotations

import pytest

from bench.errors import BenchError
from bench.measure.plan import Configuration, Request, expand
from bench.measure.targets import find_target
from bench.measure.tuning import Bounds, command_for, halve

from .conftest import TINY, FakeLane


@pytest.fixture
def made(third_party) -> list[Configuration]:
    del third_party
    request = Request(backends=("fine",), batch_sizes=tuple(range(1, 11)))
    return expand(request, [find_target(TINY, input_size=16)], device="cpu", threads=1)


@pytest.fixture
def opened(clock, normal):
    """Batches of n images take 5 + n ms: larger ones are faster an image, and later."""

    def lane(one: Configuration) -> FakeLane:
        return FakeLane(clock, normal((5 + one.batch_size) / 1000, 0.001))

    return lane


def test_halving_ends_with_the_fastest(made, opened):
    left = halve(made, Bounds(), opened)
    assert [one.batch_size for one in left] == [10, 9, 8]


def test_a_latency_bound_is_kept(made, opened):
    assert halve(made, Bounds(latency_ms=10.5), opened)[0].batch_size == 5


def test_a_bound_that_nothing_reaches_names_the_best(made, opened):
    with pytest.raises(BenchError, match=r"nothing here reaches it; the best is 6(\.0\d)? ms"):
        halve(made, Bounds(latency_ms=1.0), opened)


def test_the_command_reproduces_the_configuration(made):
    assert command_for(made[3]) == (
        f"bench throughput {TINY} --backend fine --precision fp32 --memory-format contiguous "
        "--batch-size 4 --threads 1 --device cpu"
    )


@pytest.mark.parametrize(
    ("bounds", "expected"),
    [
        ({"latency_ms": float("nan")}, "--latency-bound nan: it must be above 0"),
        ({"latency_ms": 0.0}, "--latency-bound 0: it must be above 0"),
        ({"accuracy": 2.0}, "--min-accuracy 2: it is a share"),
        ({"accuracy": float("nan")}, "--min-accuracy nan: it is a share"),
    ],
)
def test_bounds_that_nothing_can_keep_are_refused_before_any_work(bounds, expected):
    with pytest.raises(BenchError, match=expected):
        Bounds(**bounds)
