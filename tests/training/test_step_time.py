from __future__ import annotations

import pytest

from bench.errors import BenchError
from bench.training import step_time
from bench.training.resources import Resources
from bench.training.run import execute
from bench.training.sizes import DataSize, data_size
from bench.training.step_time import steps_of, time_steps


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
    monkeypatch.setattr(step_time, "_median_step", lambda trainer: trainer.batches.batch_size)
    # As many seconds as images: thirty are timed, and the batch takes thrice that.
    assert time_steps(request, Resources(device="cpu", threads=1)) == 90
    seen = []
    monkeypatch.setattr(step_time, "_median_step", lambda t: seen.append(t.batches.batch_size) or 1)
    time_steps(request, Resources(device="cpu", threads=1))
    assert seen == [30]


def test_step_takes_time(tiny):
    assert 0 < time_steps(tiny(), Resources(device="cpu", threads=1)) < 60


def test_a_run_estimates_its_time_once_from_its_first_steps(tiny, store, resources):
    events = []
    execute(tiny(epochs=3), store, resources, on_event=events.append)
    (estimate,) = (event for event in events if event["event"] == "estimate")
    assert estimate["seconds"] > 0
    names = [event["event"] for event in events if event["event"] in {"estimate", "epoch"}]
    assert names == ["epoch", "estimate", "epoch", "epoch"]  # the fourth step, of three an epoch
