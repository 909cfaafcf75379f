from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import bench
from bench.request import RunRequest
from bench.store import RunRecord, Store
from bench.training.recipe import get_recipe

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_benchmark.fixture import BenchmarkFixture

HISTORY = "epoch,train_loss,train_accuracy,learning_rate\n" + "".join(
    f"{epoch},{1 / epoch},{1 - 1 / epoch},0.1\n" for epoch in range(1, 6)
)


def fill(root: Path, count: int) -> None:
    """Write *count* finished runs, as small as can be."""
    store = Store(root)
    for seed in range(count):
        request = RunRequest("resnet20", "fashion-mnist-mini", get_recipe("fast"), seed=seed)
        record = RunRecord(
            run=request.run_id,
            request=request.as_dict(),
            status="complete",
            environment={"device": "cpu", "threads": 1, "cpu": "made up", "git_commit": None},
            started_at="2025-01-01T00:00:00+00:00",
            seconds=1.0,
            result={"test_accuracy": 0.9, "train_accuracy": 0.95},
        )
        store.finish_run(record, history=HISTORY)


@pytest.mark.parametrize("table", ["runs", "epochs"])
@pytest.mark.parametrize("count", [100, pytest.param(1000, marks=pytest.mark.slow)])
def test_load_results(benchmark: BenchmarkFixture, tmp_path: Path, count: int, table: str) -> None:
    fill(tmp_path, count)
    frame = benchmark.pedantic(bench.load_results, (tmp_path, table), rounds=3)
    assert len(frame) == count * (5 if table == "epochs" else 1)
