"""Processes that share a training take part in the same collectives, whatever one does alone.

Losses are read late, as on a GPU, where the first process could otherwise ask for sums that the
others never give.
"""

from __future__ import annotations

import math
import signal
from dataclasses import dataclass, replace
from datetime import timedelta

import pytest

from bench.system.signals import Stop, StopRequestedError
from bench.training import distributed, run
from bench.training.distributed import Replicas
from bench.training.loop import LOSSES_READ_TOGETHER, Trainer


@dataclass(frozen=True)
class Scripted(Replicas):
    """One of two processes: the first notes its collectives, the second repeats them."""

    calls: list | None = None

    def wrap(self, model):
        return model

    def total(self, *values):
        return self._call("total", values)

    def largest(self, *values):
        return self._call("largest", values)

    def _call(self, kind, values):
        if self.leads:
            self.calls.append((kind, list(values)))
            return list(values)
        expected, result = self.calls.pop(0)
        assert kind == expected
        return result


@pytest.fixture
def train(store, tiny, resources, monkeypatch):
    """Train as the first process, then as the second; return what each ended with."""
    make, calls = Trainer.__init__, []

    def make_as_on_a_gpu(trainer, *args, **named):
        make(trainer, *args, **named)
        trainer.read_together = LOSSES_READ_TOGETHER

    monkeypatch.setattr(Trainer, "__init__", make_as_on_a_gpu)

    def both(stop=None):
        ended = []
        for rank in (0, 1):
            group = Scripted(rank, size=2, calls=calls)
            monkeypatch.setattr(run, "join", lambda _device, group=group: group)
            own = stop if rank == 0 else None  # the second learns of it from the first
            try:
                ended.append(run.execute(tiny(), store, resources, stop=own))
            except StopRequestedError as error:
                ended.append(error)
        assert not calls  # the second took part in every one
        return ended

    return both


def test_the_first_process_writes_checkpoints_alone(train, store, tiny, monkeypatch):
    monkeypatch.setattr(run, "CHECKPOINT_SECONDS", -1)
    first, _ = train()
    assert first.status == "complete"
    # Publishing removed the first process's checkpoint, and the second has trained since.
    assert store.load_checkpoint(tiny().run_id) is None


def test_a_stopped_training_has_read_its_losses(train, store, tiny):
    stop = Stop()
    stop.request(signal.SIGTERM)
    ended = train(stop)
    assert [type(error) for error in ended] == [StopRequestedError] * 2
    _, state = store.load_checkpoint(tiny().run_id)
    assert state["position"]["sums"]["images"] > 0


def test_a_divergence_that_only_the_first_process_sees_ends_both(train, monkeypatch):
    evaluate = run.evaluate
    monkeypatch.setattr(
        run, "evaluate", lambda *args, **named: replace(evaluate(*args, **named), loss=math.nan)
    )
    first, _ = train()
    assert first.status == "diverged"


def test_the_processes_wait_long_for_the_one_that_evaluates_and_publishes(monkeypatch):
    joined, waits = [], {}
    values = {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}
    for name, value in values.items():
        monkeypatch.setenv(name, value)

    def rendezvous(_url, timeout):
        waits["start"] = timeout
        yield None, 0, 2

    def begin(*_backend, timeout, **_rest):
        waits["collective"] = timeout

    monkeypatch.setattr(distributed, "rendezvous", rendezvous)
    monkeypatch.setattr(distributed.dist, "init_process_group", begin)
    monkeypatch.setattr(distributed.atexit, "register", joined.append)
    assert distributed.join.__wrapped__("cpu").size == 2
    assert joined
    assert waits["start"] < timedelta(hours=1) < timedelta(hours=20) < waits["collective"]
