"""Make requests, records and rows with defaults, so that a test names only what it is about.

`page_data` reads back what an HTML page carries.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from typing import TYPE_CHECKING, Any

from bench.report.findings.statistics import compare
from bench.store import RunRecord, Store, StudyRecord
from bench.studies.recipe import get_recipe
from bench.studies.run_request import RunRequest

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from bench.report.findings.statistics import Difference, Values, Weights

# The beginning of a user's module: a small network that calls *trouble* in its step *after*.
TROUBLED_NETWORK = """
import torch
from torch import nn

class Network(nn.Module):
    def __init__(self, num_classes, in_channels, after=0, trouble=None):
        super().__init__()
        self.head = nn.Sequential(
            nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * in_channels, num_classes)
        )
        self.after, self.trouble = after, trouble

    def forward(self, x):
        if torch.is_grad_enabled():  # in training only, not while it is checked
            self.after -= 1
            if self.after == 0:
                self.trouble()
        return self.head(x)
"""

REQUEST_FIELDS = {field.name for field in dataclasses.fields(RunRequest)}


def make_request(model: str = "resnet20", *, recipe: str = "fast", **changes: Any) -> RunRequest:
    """Make a request; keywords replace its fields or its recipe's values."""
    fields = {"dataset": "mnist", "seed": 0}
    fields |= {key: changes.pop(key) for key in list(changes) if key in REQUEST_FIELDS}
    return RunRequest(model, recipe=get_recipe(recipe).model_copy(update=changes), **fields)


def make_record(request: RunRequest | None = None, **changes: Any) -> RunRecord:
    """Make the record of a complete run; keywords replace its fields."""
    request = request or make_request()
    fields = {"status": "complete", "environment": {}, "seconds": 1.5}
    fields |= {"started_at": "2026-01-02T03:04:05+00:00"}
    return RunRecord(run=request.run_id, request=request.as_dict(), **fields | changes)


def make_study(
    variants: Mapping[str, Iterable[str]],
    references: Mapping[str, str | None] | None = None,
    **changes: Any,
) -> StudyRecord:
    """Make a study's record from each variant's runs, seed by seed.

    The first variant is the reference of those that *references* does not name.
    """
    first = next(iter(variants), None)
    by_name = dict.fromkeys(variants, first) | {first: None} | (references or {})
    kept = {
        name: {
            "reference": by_name[name],
            "runs": {str(seed): run for seed, run in enumerate(runs)},
        }
        for name, runs in variants.items()
    }
    return StudyRecord(**{"name": "mine", "question": "Why?", "variants": kept} | changes)


def write_run(root: Path, record: RunRecord, history: str) -> str:
    """Write a finished run as the store does, without waiting for the disk; returns its id."""
    digest = hashlib.sha256(history.encode()).hexdigest()
    folder = root / "runs" / record.run
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "history.csv").write_text(history)
    sealed = dataclasses.replace(record, files={"history.csv": digest})
    (folder / "run.json").write_bytes(sealed.to_json())
    return record.run


def make_unfinished(
    store: Store, run: str | None = None, status: str = "failed", error: str = "why"
) -> str:
    """Turn a finished run (default: the first) into one without a result; returns its id."""
    record = next(store.runs()) if run is None else store.read_run(run)
    assert record is not None
    store.remove_run(record.run)
    store.mark_unfinished(
        dataclasses.replace(record, status=status, error=error, result={}, files={})
    )
    return record.run


def make_row(**changes: Any) -> dict[str, Any]:
    """Make a complete row of the table of throughput; keywords replace or add columns."""
    return {
        "measurement": "m", "model": "resnet18", "options": "", "run": None,
        "backend": "onnxruntime", "precision": "fp32", "executed_precision": "fp32",
        "memory_format": "contiguous", "batch_size": 1, "input_size": 28, "boundary": "compute",
        "device": "cpu", "cpu": "A", "threads": 2, "streams": 1, "scenario": "offline",
        "status": "complete", "error": None,
        "processes": 6, "noisy": False, "images_per_second": 10.0, "calibration": None,
        "latency_p99_high_ms": None, "width": 0.01, "samples": 30,
        "reference": "eager fp32 contiguous", "ratio": 1.0, "ratio_low": 1.0, "ratio_high": 1.0,
        **changes,
    }  # fmt: skip


def compare_all(
    values: Values, family: Mapping[str, Weights], *, members: int | None = None, **how: Any
) -> dict[str, Difference | None]:
    """Test comparisons of a study together: name → weights in, name → difference out."""
    shared = len(family) if members is None else members
    return {name: compare(values, one, members=shared, **how) for name, one in family.items()}


def page_data(page: str) -> dict[str, Any]:
    """Return the data of an HTML page: its charts and tables, as its script reads them."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    values: dict[str, Any] = json.loads(found[1])
    return values
