from __future__ import annotations

import itertools

import pytest

from bench.measurement.backends import OutOfMemoryError, UnsupportedError, status_of
from bench.measurement.timing.sampling import MIN_BLOCKS, Goal, run_plan
from bench.measurement.timing.warmup import is_steady, warm_up

from .conftest import FakeRunner, a_trial


def test_steady_runners_stop_as_soon_as_their_interval_is_narrow(clock, normal):
    trial = a_trial("a", FakeRunner(clock, normal(0.01, 0.005)))
    run_plan([trial], Goal(), now=clock)
    assert len(trial.blocks) == MIN_BLOCKS
    assert Goal().is_reached(trial)
    assert trial.interval.low < 0.01 < trial.interval.high


def test_a_runner_that_stays_wide_spends_its_budget_and_no_more(clock, normal):
    trial = a_trial("a", FakeRunner(clock, normal(0.1, 0.5)))
    goal = Goal(target_width=0.001, max_seconds=5)
    run_plan([trial], goal, now=clock)
    assert not goal.is_reached(trial)
    assert 5 <= trial.seconds_spent < 6


def test_blocks_are_interleaved_in_random_order(clock, normal):
    log: list[str] = []
    runners = {n: FakeRunner(clock, normal(0.3, 0.1), log, n) for n in "abc"}
    run_plan([a_trial(n, runner) for n, runner in runners.items()], Goal(0.0001, 6), now=clock)
    rounds = [log[i : i + 3] for i in range(0, 30, 3)]
    assert all(sorted(r) == ["a", "b", "c"] for r in rounds)
    assert len({tuple(r) for r in rounds}) > 2


def test_the_reference_goes_on_while_one_of_its_group_does(clock, normal):
    reference = a_trial("r", FakeRunner(clock, normal(0.01, 0.001)), "g", True)
    other = a_trial("o", FakeRunner(clock, normal(0.1, 0.5)), "g")
    alone = a_trial("x", FakeRunner(clock, normal(0.01, 0.001)), "h", True)
    run_plan([reference, other, alone], Goal(0.001, 3), now=clock)
    assert len(reference.blocks) > MIN_BLOCKS
    assert len(reference.blocks.keys() & other.blocks.keys()) > MIN_BLOCKS
    assert len(alone.blocks) == MIN_BLOCKS


def test_a_runner_that_breaks_is_marked_and_the_others_finish(clock, normal):
    broken = a_trial("b", FakeRunner(clock, normal(0.01, 0.001), fails_after=2))
    whole = a_trial("w", FakeRunner(clock, normal(0.01, 0.001)))
    run_plan([broken, whole], Goal(), now=clock)
    assert (broken.status, broken.error) == ("failed", "the backend broke")
    assert Goal().is_reached(whole)


def test_a_percentile_needs_its_samples_even_if_the_interval_is_narrow(clock, normal):
    trial = a_trial("a", FakeRunner(clock, normal(0.001, 0.001)))
    goal = Goal(min_samples=4000, max_seconds=60)
    run_plan([trial], goal, now=clock)
    assert len(trial.samples) >= 4000


def test_the_same_seed_gives_the_same_order(clock, normal):
    def order(seed: int) -> list[str]:
        log: list[str] = []
        trials = [a_trial(n, FakeRunner(clock, normal(0.3, 0.2), log, n)) for n in "abcd"]
        run_plan(trials, Goal(0.0001, 3), seed=seed, now=clock)
        return log

    assert order(1) == order(1) != order(2)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (OutOfMemoryError("x"), "out_of_memory"),
        (MemoryError(), "out_of_memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: tried 9"), "out_of_memory"),
        (UnsupportedError("x"), "unsupported"),
        (ValueError("x"), "failed"),
    ],
)
def test_errors_have_a_status(error, status):
    assert status_of(error)[0] == status


def test_warm_up_goes_on_while_times_fall_and_stops_once_they_are_level(clock):
    times = itertools.chain([1.0 / (1 + i) for i in range(20)], itertools.repeat(0.05))
    done = warm_up(lambda: next(times), cap_seconds=1e9, now=clock)
    assert done.steady
    assert len(done.seconds) > 20
    assert done.typical == 0.05


def test_warm_up_takes_a_quarter_of_the_time_at_most(clock, normal):
    runner = FakeRunner(clock, normal(0.01, 0.001))
    run_plan([a_trial("eager", runner, "g", True)], Goal(max_seconds=2.0), now=clock)
    assert runner.cap_seconds == 0.5


def test_warm_up_is_capped_and_says_so(clock):
    def falling() -> float:
        clock.now += 1
        return 1 / clock.now

    done = warm_up(falling, cap_seconds=5, now=clock)
    assert not done.steady
    assert len(done.seconds) == 6


def test_one_slow_sample_is_no_trend():
    assert is_steady([1.0, 1.01, 0.99, 1.0, 5.0, 1.0, 1.01, 0.99])
    assert not is_steady([2.0, 1.8, 1.6, 1.4, 1.2, 1.1, 1.05, 1.0])
