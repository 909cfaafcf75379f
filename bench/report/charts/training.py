"""Charts of a study's training and outcome."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pandas as pd

from bench.report.charts.chart import Axis, Chart, Series, line, variant_entry
from bench.report.findings.wording import counted
from bench.report.tables.study import TESTS

if TYPE_CHECKING:
    from bench.report.findings.statistics import Difference, Estimate
    from bench.report.study_data import StudyData

_SPREAD = ["mean", "min", "max", "count"]
_NO_EPOCH = "No run has finished an epoch yet: the study's command resumes where it stopped."
_IMPORTED = "The network was trained elsewhere and imported."
_NO_PAIR = "No variant shares a finished seed with its reference yet."
_NOTHING_COMPARED = "The study compares nothing."


def curves(data: StudyData) -> tuple[Chart, ...]:
    """Chart training error, validation or test error, and training loss by epoch."""
    known = {name: data.epochs[name].notna().any() for name in data.epochs.columns}
    held_out = "validation"
    images = "the validation split"
    if known["test_accuracy"] and not known["validation_accuracy"]:
        held_out, images = "test", "the test set (no images are held out)"
    return (
        _curve(
            data,
            "training-error",
            "train_accuracy",
            "Error on the augmented training batches during each epoch, as in He et al. 2016a, "
            "figure 1.",
        ),
        _curve(
            data,
            f"{held_out}-error",
            f"{held_out}_accuracy",
            f"Error on {images} after each epoch.",
        ),
        _curve(
            data,
            "training-loss",
            "train_loss",
            "Mean loss of the training batches during each epoch.",
        ),
    )


def _curve(data: StudyData, key: str, column: str, caption: str) -> Chart:
    error = column.endswith("accuracy")
    unit = " %" if error else ""
    title = key.replace("-", " ").capitalize()
    series = []
    for name in data.variants:
        rows = data.epochs[data.epochs["variant"] == name]
        values = (1 - rows[column]) * 100 if error else rows[column]
        counted = pd.concat([values.set_axis(rows["epoch"]), *_after_divergence(data, name, error)])
        by_epoch = counted.groupby(counted.index.rename("epoch")).agg(_SPREAD).dropna()
        if by_epoch.empty:
            continue
        hover = f"epoch {{epoch}}: {{mean:.4g}}{unit}, "
        hover += "seeds from {min:.4g} to {max:.4g} ({count:.0f})"
        bands: Any = {"low": by_epoch["min"].tolist(), "high": by_epoch["max"].tolist()}
        entry = variant_entry(data, name)
        seconds = rows.groupby("run", observed=True)["seconds"].cumsum()
        mean = seconds.groupby(rows["epoch"]).mean()[by_epoch.index]
        more: Any = {"x": "epoch", "seconds": mean.tolist()}
        series.append(line(entry, by_epoch.reset_index(), "mean", hover, **bands, **more))
        for run, own in rows.assign(value=values, time=seconds).groupby("run", observed=True):
            entry = variant_entry(data, *data.places[str(run)])
            more = {"x": "epoch", "seconds": own["time"].tolist(), "detail": True}
            hover = f"{{label}}, epoch {{epoch}}: {{value:.4g}}{unit}"
            series.append(line(entry, own, "value", hover, **more))
    caption += " Lines are means over seeds; bands show the range over seeds."
    return Chart(
        key=key,
        title=title,
        caption=caption + (_divergence(data) if error else ""),
        x=Axis("epoch", whole=True),
        y=Axis(f"{title.lower()} (%)" if error else title.lower()),
        series=tuple(series),
        table="epochs",
        absent=_without_epochs(data) if data.epochs.empty else None,
    )


def _without_epochs(data: StudyData) -> str:
    imported = [record.imported for record in data.records.values()]
    return _IMPORTED if imported and all(imported) else _NO_EPOCH


def _after_divergence(data: StudyData, variant: str, error: bool) -> list[pd.Series[float]]:
    """Return chance's error (%) at the epochs that runs of a variant lack because they diverged."""
    rows = data.epochs[data.epochs["variant"] == variant]
    ended = rows.groupby("run", observed=True)["epoch"].max()
    if not error or ended.empty:
        return []
    guessing = 100 * (1 - data.outcomes.chance.get(variant, math.nan))
    return [
        pd.Series(guessing, range(ended.get(record.run, 0) + 1, ended.max() + 1))
        for record in data.outcomes.runs[variant].values()
        if record.status == "diverged"
    ]


def _divergence(data: StudyData) -> str:
    """Say how charts of accuracy have runs that diverged, if there are any."""
    diverged = any(record.status == "diverged" for record in data.records.values())
    return " A run that diverged counts as chance accuracy." if diverged else ""


def accuracies(data: StudyData) -> Chart:
    """Chart the test accuracy of every seed, and the mean with its interval."""
    names = data.variants[::-1]
    series = []
    for summary in data.summaries:
        by_seed = data.outcomes.accuracies["test"][summary.name]
        if not by_seed:
            continue
        place, style = names.index(summary.name), data.style(summary.name)
        values = [100 * accuracy for accuracy in by_seed.values()]
        hover = [f"seed {s}: {v:.2f} %" for s, v in zip(by_seed, values, strict=True)]
        below = [place - 0.22] * len(values)
        series.append(Series(summary.name, values, below, style=style, faint=True, hover=hover))
        if found := summary.test_accuracy:
            series.append(
                _mean(summary.name, place, style, found, f"mean {found.mean * 100:.2f} %")
            )
    why = "No run has finished yet: the study's command resumes where it stopped."
    if (data.runs["status"] == "complete").any():
        why = "The images are generated, for timing only: there is no accuracy."
    return Chart(
        key="test-accuracy",
        title="Test accuracy",
        caption="Large symbols are means with their 95 % t-interval, small ones single seeds."
        + _divergence(data),
        x=Axis("test accuracy (%)"),
        y=Axis("", categories=tuple(names)),
        series=tuple(series),
        table="runs",
        absent=None if series else why,
    )


def forest(data: StudyData) -> Chart:
    """Chart the differences in test accuracy from the reference, in the order of the table."""
    references = {s.reference for s in data.summaries if s.reference and s.difference}
    rows: list[tuple[str, list[Series]]] = []
    for s in data.summaries:
        style = data.style(s.name)
        if s.difference is not None:
            name = s.name if len(references) == 1 else f"{s.name} vs {s.reference}"
            single = _seed_differences(data, s.name, str(s.reference))
            rows.append((name, [*single, _difference(s.name, style, s.difference)]))
        elif s.name in references:
            hover = ["the reference"]
            rows.append(
                (f"{s.name} (reference)", [Series(s.name, [0], [0], style=style, hover=hover)])
            )
    rows += [
        (c.name, [_difference(c.name, None, c.difference)])
        for c in data.contrasts
        if c.difference is not None
    ]
    places = range(len(rows))[::-1]  # the first row of the table at the top
    series = [
        replace(one, y=[place - 0.22 * one.faint] * len(one.x))
        for place, (_, several) in zip(places, rows, strict=True)
        for one in several
    ]
    compares = data.contrasts or any(s.reference for s in data.summaries)
    primary = data.study.primary or {}
    alone = ", or of the primary one alone" if primary.get("accuracy") == "test" else ""
    small = "; small symbols are single seeds" if any(s.faint for s in series) else ""
    return Chart(
        key="differences",
        title="Difference from the reference",
        caption="Points of test accuracy, with the 95 % interval of "
        f"{TESTS[data.study.test]}, simultaneous for all comparisons{alone}; if it includes zero, "
        f"the difference is not significant{small}.{_divergence(data)}",
        x=Axis("difference (points of test accuracy)", zero=True),
        y=Axis("", categories=tuple(name for name, _ in rows)[::-1]),
        series=tuple(series),
        table="comparisons",
        absent=None if series else _NO_PAIR if compares else _NOTHING_COMPARED,
    )


def _difference(name: str, style: int | None, found: Difference) -> Series:
    p_value = "" if found.p_value is None else f"adjusted p {found.p_value:.3g}, "
    hover = f"{found.mean * 100:+z.2f} points, {p_value}{counted(found.seeds, 'seed')}"
    return _mean(name, 0, style, found, hover, sign="+")


def _seed_differences(data: StudyData, variant: str, reference: str) -> list[Series]:
    """Return the differences of the seeds that both have finished; none if seeds are not paired."""
    if data.study.test != "paired":
        return []
    first, second = (data.outcomes.accuracies["test"][name] for name in (variant, reference))
    found = {seed: 100 * (first[seed] - second[seed]) for seed in sorted(first.keys() & second)}
    hover = [f"seed {seed}: {value:+z.2f} points" for seed, value in found.items()]
    look: Any = {"style": data.style(variant), "faint": True, "hover": hover}
    return [Series(variant, list(found.values()), [0] * len(found), **look)] if found else []


def _mean(
    name: str,
    place: int,
    style: int | None,
    found: Estimate | Difference,
    hover: str,
    sign: str = "",
) -> Series:
    """Return a mean in per cent with its interval, at a row of the chart."""
    ends = [end * 100 for end in found.possible or ()]
    interval = " to ".join(f"{end:{sign}.2f}" for end in ends)
    return Series(
        name=name,
        x=[found.mean * 100],
        y=[place],
        style=style,
        interval="x",
        low=ends[:1],
        high=ends[1:],
        hover=[f"{hover}, {f'95 % interval {interval}' if ends else 'no interval'}"],
    )
