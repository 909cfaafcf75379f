"""The tables that the HTML page carries, for its readers to look at and to save."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

    from bench.report.charts.chart import Chart
    from bench.report.charts.confusion import Confusions
    from bench.report.study_data import StudyData

_EPOCH_COLUMNS = (
    "variant",
    "seed",
    "epoch",
    "train_loss",
    "train_accuracy",
    "validation_loss",
    "validation_accuracy",
    "test_accuracy",
    "learning_rate",
)


def tables(
    data: StudyData, charts: dict[str, Chart], confused: Confusions
) -> dict[str, pd.DataFrame]:
    """Return name → table, those of the results folder and those of single charts."""
    epochs = data.epochs[list(_EPOCH_COLUMNS)].dropna(axis=1, how="all")
    found = {
        "runs": data.runs.drop(columns=["study"]),
        "epochs": epochs,
        "exports": data.exports,
        "throughput": data.throughput,
        "confusions": confused.frame(),
    }
    found |= {name: _named(data, frame.copy()) for name, frame in data.analysed.items()}
    found |= {key: chart.data for key, chart in charts.items() if chart.data is not None}
    return {name: frame for name, frame in found.items() if len(frame)}


def _named(data: StudyData, frame: pd.DataFrame) -> pd.DataFrame:
    """Add the variant that each row's run belongs to."""
    frame.insert(0, "variant", [data.variant_of(run) for run in frame["run"]])
    return frame


def table_values(frame: pd.DataFrame) -> dict[str, Any]:
    """Return a frame as JSON values: `columns`, and `rows` with null for what is missing.

    Numbers keep seven significant digits, more than single precision has.
    """
    columns = [_column(frame[name]) for name in frame.columns]
    return {
        "columns": list(map(str, frame.columns)),
        "rows": list(map(list, zip(*columns, strict=True))),
    }


def _column(values: pd.Series[Any]) -> list[Any]:
    if values.dtype.kind == "f":
        return [float(f"{v:.7g}") if np.isfinite(v) else None for v in values]
    if values.dtype.kind == "M":
        return [
            None if v is None else v
            for v in values.dt.strftime("%Y-%m-%dT%H:%M:%SZ").replace({np.nan: None})
        ]
    known = values.astype(object).where(values.notna(), None)
    return [v if v is None or isinstance(v, int | str | bool) else str(v) for v in known.tolist()]
