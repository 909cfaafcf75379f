"""The page of a large study: 20 variants, 5 seeds, 100 epochs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from bench.report.pages.html import html
from bench.report.pages.study_report import read_study_report
from bench.store import Store
from builders import make_record, make_request, make_study

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_benchmark.fixture import BenchmarkFixture

VARIANTS, SEEDS, EPOCHS = 20, 5, 100
HISTORY = "epoch,train_loss,train_accuracy,validation_loss,validation_accuracy,learning_rate\n"
HISTORY += "".join(
    f"{e},{1 / e:.6f},{1 - 0.8 / e:.6f},{1.2 / e:.6f},{1 - 0.9 / e:.6f},0.1\n"
    for e in range(1, EPOCHS + 1)
)


def fill(store: Store) -> None:
    """Write the study's finished runs; their predictions, 10,000 images each, as real ones are."""
    import torch

    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(10_000, dtype=torch.int32) % 10
    variants: dict[str, list[str]] = {}
    for place in range(VARIANTS):
        runs = variants[f"variant {place}"] = []
        for seed in range(SEEDS):
            request = make_request(dataset="fashion-mnist", seed=seed, options={"width": place + 1})
            guess = torch.randint(10, labels.shape, generator=generator, dtype=torch.int32)
            right = torch.rand(labels.shape, generator=generator) < 0.9
            predictions = torch.where(right, labels, guess)
            confusion = torch.bincount(labels.long() * 10 + predictions, minlength=100)
            record = make_record(
                request,
                environment={"device": "cpu", "threads": 1, "cpu": "made up", "git_commit": None},
                result={
                    "test_accuracy": float((predictions == labels).float().mean()),
                    "train_accuracy": 0.95, "macs": 1000 * (place + 1),
                    "parameters": 100 * (place + 1), "images_per_second": 1000.0 / (place + 1),
                    "classes": list("abcdefghij"), "dataset_fingerprint": "made up",
                    "input_shape": [1, 28, 28],
                },
            )  # fmt: skip
            tensors = {
                "predictions": predictions, "labels": labels,
                "confidence": torch.ones(len(labels)),
                "confusion": confusion.reshape(10, 10).int(),
            }  # fmt: skip
            store.finish_run(record, history=HISTORY, tensors={"predictions.safetensors": tensors})
            runs.append(record.run)
    store.save_study(make_study(variants, name="large"))


@pytest.mark.slow
def test_page_of_a_large_study(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    store = Store(tmp_path / "bench-runs")
    fill(store)
    path = tmp_path / "report.html"

    def write() -> None:
        path.write_text(html(read_study_report(store, "large")))

    benchmark.pedantic(write, rounds=3, warmup_rounds=1)
    assert path.stat().st_size < 10_000_000
    benchmark.extra_info["bytes"] = path.stat().st_size
