from __future__ import annotations

import itertools

import pytest

from bench.errors import BenchError
from bench.training import step_time
from bench.training.resources import Resources
from bench.training.sizes import DataSize, data_size
from bench.training.step_time import run_seconds, side_by_side, steps_of, time_steps


@pytest.mark.parametrize(
    ("seconds", "workers", "together"),
    [([4.0, 4.0], 2, 4), ([9.0, 1.0, 0.0], 2, 9), ([3.0], 4, 3), ([2.0] * 6, 2, 6), ([0.0], 2, 0)],
)
def test_runs_side_by_side_take_at_least_as_long_as_the_longest(seconds, workers, together):
    assert side_by_side(seconds, workers) == together


def test_data_that_is_not_at_hand_is_timed_on_noise(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("BENCH_DATA", str(tmp_path))
    request = tiny(dataset="cifar10", train_images=None, input_size=None)
    assert data_size(request) == DataSize(10, 3, 32, 50_000, 10_000, on_hand=False)
    assert time_steps(request, Resources(device="cpu", threads=1)) > 0
    assert steps_of(request) == pytest.approx((45_000 * 2 + (5_000 * 2 + 45_000 + 10_000) / 3) / 32)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(BenchError, match="train_images = 60000, but the training set has 50000"):
        data_size(tiny(dataset="cifar10", train_images=60_000))


def test_a_large_step_is_timed_on_fewer_images(tiny, monkeypatch):
    request = tiny(batch_size=90)
    macs = 1_000_000
    monkeypatch.setattr(step_time, "image_macs", lambda *_: macs)
    monkeypatch.setattr(step_time, "TIMED_MACS", 30 * macs)
    monkeypatch.setattr(step_time, "_median_step", lambda trainer, _: trainer.batches.batch_size)
    # As many seconds as images: thirty are timed, and the batch takes thrice that.
    assert time_steps(request, Resources(device="cpu", threads=1)) == 90
    seen = []
    monkeypatch.setattr(
        step_time, "_median_step", lambda t, _: seen.append(t.batches.batch_size) or 1
    )
    time_steps(request, Resources(device="cpu", threads=1))
    assert seen == [30]


def test_step_takes_time(tiny):
    assert 0 < time_steps(tiny(), Resources(device="cpu", threads=1)) < 60


@pytest.mark.parametrize(("steps", "expected"), [(4, 2), (1, 9)])
def test_the_median_of_the_steps_after_the_first_counts(tiny, monkeypatch, steps, expected):
    ticks = itertools.accumulate(part for took in (9, 1, 3, 2, 0) for part in (0, took))
    monkeypatch.setattr(step_time.time, "perf_counter", lambda: next(ticks))
    monkeypatch.setattr(step_time.Trainer, "step", lambda *_: None)
    request = tiny(batch_size=20)
    assert time_steps(request, Resources(device="cpu", threads=1), steps) == expected


def test_runs_of_a_network_are_timed_once_on_a_part_of_their_steps(tiny, monkeypatch):
    timed = []

    def time_steps(request, _resources, steps):
        timed.append((request.model, steps))
        return {"resnet14": 0.5, "plain20": 4.0}[request.model]

    monkeypatch.setattr(step_time, "time_steps", time_steps)
    runs = [tiny(seed=0), tiny("plain20"), tiny(seed=1), tiny(epochs=100)]
    seconds = run_seconds(runs, Resources(device="cpu", threads=1), share=0.01)
    assert seconds == {r.run_id: steps_of(r) * (4.0 if r.model == "plain20" else 0.5) for r in runs}
    # One step of the short runs, whose steps are too few for more.
    assert timed == [("resnet14", 1), ("plain20", 1), ("resnet14", 3)]
    timed.clear()
    run_seconds(runs, Resources(device="cpu", threads=1))
    assert [steps for _, steps in timed] == [4, 4, 4]
