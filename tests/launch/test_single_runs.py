"""Single runs are recorded in one study, `adhoc`, which keeps them from being removed."""

from __future__ import annotations

import signal
import threading
from dataclasses import dataclass

import pytest
import torch

from bench.api import train_plan
from bench.launch.carry_out import carry_out
from bench.launch.workers import Execution
from bench.store import Store
from bench.system.signals import StopRequestedError


@dataclass(frozen=True)
class Launcher:
    """Trains nothing; stops before the first epoch if it is told to."""

    stops: bool = False

    def run(self, _work):
        if self.stops:
            raise StopRequestedError(signal.SIGINT)


@pytest.fixture
def train(store):
    def one(seed, model="plain_cnn", launcher=Launcher(), **settings):
        settings = {"train_images": 100, "input_size": 8, **settings}
        plan = train_plan(
            model, torch.device("cpu"), options=None, dataset="fashion-mnist-mini", recipe="fast",
            epochs=1, seed=seed, settings=settings, weights=None, deterministic=False,
        )  # fmt: skip
        carry_out(plan, Execution(results=store.root, threads=1, launcher=launcher))

    return one


def seeds(store):
    return {name: set(v["runs"]) for name, v in store.read_study("adhoc").variants.items()}


def test_a_run_that_was_stopped_stays_recorded_when_another_seed_is_trained(store, train):
    with pytest.raises(StopRequestedError):
        train(0, launcher=Launcher(stops=True))
    train(1)
    assert seeds(store) == {"plain_cnn": {"0", "1"}}
    train(2, batch_size=50)  # not to be compared with the others
    assert seeds(store) == {"plain_cnn": {"2"}}


def test_a_run_that_is_recorded_meanwhile_is_kept(store, train, monkeypatch):
    read, others = Store.read_study, []

    def read_slowly(self, name):
        found = read(self, name)
        if not others:
            others.append(threading.Thread(target=train, args=(0, "resnet8")))
            others[0].start()
            others[0].join(0.5)  # it ends within that if nothing holds it
        return found

    monkeypatch.setattr(Store, "read_study", read_slowly)
    train(0)
    others[0].join()
    assert seeds(store) == {"plain_cnn": {"0"}, "resnet8": {"0"}}
