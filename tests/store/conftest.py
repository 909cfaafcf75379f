"""A store with made-up runs: no training is needed to look at how runs are kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from builders import make_record, make_request

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.store import RunRecord, Store

    Finish = Callable[..., str]


@pytest.fixture
def record() -> Callable[..., RunRecord]:
    """Make a run's record as training begins it."""

    def make(seed: int = 0, model: str = "resnet20", **values: object) -> RunRecord:
        return make_record(make_request(model, seed=seed), **values)

    return make


@pytest.fixture
def finish(record: Callable[..., RunRecord]) -> Finish:
    """Publish a run with files of every kind; returns its id."""

    def publish(store: Store, seed: int = 0, **values: object) -> str:
        made = record(seed, **values)
        store.finish_run(
            made,
            history="epoch,train_loss\n1,2.5\n",
            tensors={"model.safetensors": {"weight": torch.arange(3.0) + seed}},
            documents={"initial_weights.json": {"weight": "0" * 16}},
        )
        return made.run

    return publish
