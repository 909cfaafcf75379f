from __future__ import annotations

import dataclasses

import pytest
import torch

from bench.errors import BenchError
from bench.measurement.configurations import Configuration, Request, expand
from bench.measurement.measured_network import find_target
from bench.measurement.tuning import (
    Bounds,
    Budget,
    axes,
    candidates,
    command_for,
    halve,
    halve_by_preparation,
)

from .conftest import TINY, FakeRunner


@pytest.fixture
def made(third_party) -> list[Configuration]:
    del third_party
    request = Request(backends=("fine",), batch_sizes=tuple(range(1, 11)))
    return expand(request, [find_target(TINY, input_size=16)], device="cpu", threads=1)


@pytest.fixture
def opened(clock, normal):
    """Batches of n images take 5 + n ms: larger ones are faster an image, and later."""

    def runner(one: Configuration) -> FakeRunner:
        return FakeRunner(clock, normal((5 + one.batch_size) / 1000, 0.001))

    return runner


def test_a_gpu_gets_large_batches_and_no_thread_counts(monkeypatch):
    assert axes("cpu", 4) == ([4, 1], (1, 8, 32))
    assert axes("cuda:0", 4) == ([4], (1, 8, 32, 256))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device=None: (9, 0))
    tried = candidates(
        find_target("resnet8", input_size=16), device="cuda", threads=[4], batch_sizes=(256,)
    )
    ways = {(one.backend, one.memory_format) for one in tried}
    assert {
        ("eager", "channels_last"), ("eager-graph", "channels_last"),
        ("compile-graph", "channels_last"),
    } <= ways  # fmt: skip


def test_halving_ends_with_the_fastest(made, opened):
    left = halve(made, Bounds(), opened)
    assert [one.batch_size for one in left] == [10, 9, 8]


def test_a_latency_bound_is_kept(made, opened):
    assert halve(made, Bounds(latency_ms=10.5), opened)[0].batch_size == 5


def test_a_bound_that_nothing_reaches_names_the_best(made, opened):
    with pytest.raises(BenchError, match=r"nothing here reaches it; the best is 6(\.0\d)? ms"):
        halve(made, Bounds(latency_ms=1.0), opened)


def test_once_the_budget_is_spent_nothing_is_begun_and_the_order_so_far_is_the_answer(
    made, opened, clock
):
    budget = Budget(0.01, now=clock)  # 0.6 s: not enough for the first rung
    left = halve(made, Bounds(), opened, budget=budget)
    assert left
    assert len(left) <= len(budget.begun) < len(made)
    assert len(budget.begun) + len(budget.skipped) == len(made)


@pytest.mark.parametrize("bounds", [Bounds(), Bounds(latency_ms=6.5)])
def test_what_is_slow_to_prepare_enters_last_where_the_others_left_something(
    made, opened, clock, bounds, monkeypatch
):
    """The slow backend takes half the others' time; so it wins, at one of their sizes."""
    from bench.measurement.backends import load_backend

    monkeypatch.setattr(type(load_backend("hang")), "slow_to_prepare", True, raising=False)
    slow = [dataclasses.replace(one, backend="hang") for one in made]
    entered = []

    def runner(one: Configuration) -> FakeRunner:
        entered.append(one)
        made = opened(one)
        if one.backend == "hang":
            draw, made.draw = made.draw, lambda: draw() / 2
        return made

    left = halve_by_preparation([*slow, *made], bounds, runner, budget=Budget(now=clock))
    assert left[0].backend == "hang"
    sizes = {one.batch_size for one in entered if one.backend == "hang"}
    assert left[0].batch_size == max(sizes)
    assert len(sizes) <= 3
    first = next(i for i, one in enumerate(entered) if one.backend == "hang")
    assert {one.backend for one in entered[:first]} == {"fine"}


def test_a_bound_that_only_a_slow_one_reaches_is_reached(made, opened, clock, monkeypatch):
    from bench.measurement.backends import load_backend

    monkeypatch.setattr(type(load_backend("hang")), "slow_to_prepare", True, raising=False)
    slow = [dataclasses.replace(one, backend="hang") for one in made]

    def runner(one: Configuration) -> FakeRunner:
        made = opened(one)
        if one.backend == "hang":
            draw, made.draw = made.draw, lambda: draw() / 2
        return made

    bounds = Bounds(latency_ms=4.5)
    left = halve_by_preparation([*made, *slow], bounds, runner, budget=Budget(now=clock))
    assert {one.backend for one in left} == {"hang"}


def test_the_command_reproduces_the_configuration(made):
    assert command_for(made[3]) == (
        f"bench throughput {TINY} --input-size 16 --backend fine --precision fp32 "
        "--memory-format contiguous --batch-size 4 --threads 1 --device cpu"
    )


@pytest.mark.parametrize(
    ("bounds", "expected"),
    [
        ({"latency_ms": float("nan")}, "--max-latency-ms nan: it must be above 0"),
        ({"latency_ms": 0.0}, "--max-latency-ms 0: it must be above 0"),
        ({"accuracy": 2.0}, "--min-accuracy 200: it must be"),
        ({"accuracy": float("nan")}, "--min-accuracy nan: it must be"),
    ],
)
def test_bounds_that_nothing_can_keep_are_refused_before_any_work(bounds, expected):
    with pytest.raises(BenchError, match=expected):
        Bounds(**bounds)
