"""A store with made-up runs: no training is needed to look at how runs are kept."""

from __future__ import annotations

import pytest
import torch

from builders import make_record, make_request


@pytest.fixture
def record():
    """Make a run's record as training begins it."""

    def make(seed=0, model="resnet20", **values):
        return make_record(make_request(model, seed=seed), **values)

    return make


@pytest.fixture
def finish(record):
    """Publish a run with files of every kind; returns its id."""

    def publish(store, seed=0, **values):
        made = record(seed, **values)
        store.finish_run(
            made,
            history="epoch,train_loss\n1,2.5\n",
            tensors={"model.safetensors": {"weight": torch.arange(3.0) + seed}},
            documents={"initial_weights.json": {"weight": "0" * 16}},
        )
        return made.run

    return publish
