"""Columns and dtypes of every table, fixed; units stand in `bench.load_results`."""

from __future__ import annotations

from typing import Any, Literal

import pandas as pd

Table = Literal["runs", "epochs", "exports", "throughput"]

# What pandas itself takes for text: the type of categories, also where there is none.
CATEGORIES: Any = "str" if pd.__version__ >= "3" else "object"

COLUMNS: dict[str, dict[str, str]] = {
    "runs": {
        "run": "string",
        "study": "category",
        "variant": "category",
        "model": "category",
        "options": "string",
        "seed": "Int64",
        "dataset": "category",
        "input_size": "Int64",
        "recipe": "string",
        "status": "category",
        "error": "string",
        "epochs": "Int64",
        "parameters": "Int64",
        "macs": "Int64",
        "train_accuracy": "float64",
        "validation_accuracy": "float64",
        "test_accuracy": "float64",
        "test_accuracy_with_flip": "float64",
        "train_loss": "float64",
        "validation_loss": "float64",
        "test_loss": "float64",
        "generalization_gap": "float64",
        "images_per_second": "float64",
        "seconds": "float64",
        "parent": "string",
        "device": "category",
        "precision": "category",
        "threads": "Int64",
        "cpu": "category",
        "git_commit": "string",
        "started_at": "datetime64[ns, UTC]",
    },
    "epochs": {
        "run": "string",
        "study": "category",
        "variant": "category",
        "seed": "Int64",
        "epoch": "Int64",
        "train_loss": "float64",
        "train_accuracy": "float64",
        "validation_loss": "float64",
        "validation_accuracy": "float64",
        "test_accuracy": "float64",
        "learning_rate": "float64",
        "gradient_norm": "float64",
        "images_per_second": "float64",
        "seconds": "float64",
    },
    "exports": {
        "export": "string",
        "run": "string",
        "model": "category",
        "format": "category",
        "precision": "category",
        "target": "category",
        "opset": "Int64",
        "file": "string",
        "sha256": "string",
        "bytes": "Int64",
        "max_abs_diff": "float64",
        "max_rel_diff": "float64",
        "flipped_predictions": "Int64",
        "images_compared": "Int64",
        "torch_accuracy": "float64",
        "test_accuracy": "float64",
        "seconds": "float64",
        "cpu": "category",
        "status": "category",
        "error": "string",
        "executed_precision": "category",
    },
    "throughput": {
        "measurement": "string",
        "model": "category",
        "options": "string",
        "run": "string",
        "file_sha256": "string",
        "backend": "category",
        "provider": "string",
        "executed_precision": "category",
        "device": "category",
        "precision": "category",
        "memory_format": "category",
        "batch_size": "Int64",
        "input_size": "Int64",
        "boundary": "category",
        "scenario": "category",
        "threads": "Int64",
        "images_per_second": "float64",
        "ci_low": "float64",
        "ci_high": "float64",
        "width": "float64",
        "ratio": "float64",
        "ratio_low": "float64",
        "ratio_high": "float64",
        "reference": "string",
        "best_eager_ratio": "float64",
        "best_eager_ratio_low": "float64",
        "best_eager_ratio_high": "float64",
        "best_eager": "string",
        "noise_floor": "float64",
        "difference": "category",
        "latency_p50_ms": "float64",
        "latency_p90_ms": "float64",
        "latency_p99_ms": "float64",
        "samples": "Int64",
        "compile_seconds": "float64",
        "macs": "Int64",
        "flops_per_second": "float64",
        "arithmetic_intensity": "float64",
        "peak_fraction": "float64",
        "ceiling_flops_per_second": "float64",
        "ceiling_bytes_per_second": "float64",
        "peak_memory_mib": "float64",
        "peak_gpu_memory_mib": "float64",
        "gpu_sm_clock_mhz": "float64",
        "gpu_memory_clock_mhz": "float64",
        "gpu_temperature_c": "float64",
        "gpu_slowed_by": "string",
        "energy_joules_per_image": "float64",
        "test_accuracy": "float64",
        "nodes_elsewhere": "Int64",
        "cpu": "category",
        "noisy": "boolean",
        "warnings": "string",
        "status": "category",
        "error": "string",
    },
}


def typed_frame(rows: list[dict[str, Any]], columns: dict[str, str]) -> pd.DataFrame:
    """Rows as a frame with exactly these columns and dtypes; what a row lacks is missing."""
    frame = pd.DataFrame(rows, columns=list(columns))
    times = [name for name, dtype in columns.items() if dtype.startswith("datetime")]
    for name in times:
        frame[name] = pd.to_datetime(frame[name], utc=True)
    for name in (n for n, dtype in columns.items() if dtype == "category"):
        frame[name] = frame[name].astype(CATEGORIES)  # also where every value is missing
    typed: pd.DataFrame = frame.astype(columns)
    return typed
