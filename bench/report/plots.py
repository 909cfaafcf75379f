"""Pictures of a study, for pages and papers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bench.report.frames import study_runs
from bench.store.files import telling

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from bench.report.answer import VariantSummary
    from bench.store import Store

# Okabe and Ito's palette: told apart with every common kind of colour blindness.
PALETTE = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442",
)  # fmt: skip
STYLE: Any = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "font.size": 9,
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "bench",  # the same picture gives the same bytes
    "figure.dpi": 120,
}


def draw_study(store: Store, name: str, summaries: list[VariantSummary]) -> Figure:
    """Draw a study: training by epoch, test accuracy by seed, differences as a forest plot.

    Args:
        store: the results folder.
        name: the study's name.
        summaries: of `bench.report.answer.summarise`.

    Returns:
        A figure of three panels. Bands run from the lowest to the highest seed; bars are
        95 % intervals.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    runs, epochs = study_runs(store, name), study_runs(store, name, "epochs")
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(10, 3.2), layout="constrained")
        curves, accuracies, forest = figure.subplots(1, 3, width_ratios=(1.2, 1, 1.1))
        _draw_curves(curves, epochs, summaries)
        _draw_accuracies(accuracies, runs, summaries)
        _draw_forest(forest, summaries)
    return figure


def save_figure(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Save a figure as SVG and PNG into *folder*; returns the files.

    Raises:
        StorageError: the folder cannot be written.
    """
    import matplotlib as mpl

    paths = [folder / f"{name}.svg", folder / f"{name}.png"]
    with telling(folder), mpl.rc_context(STYLE):
        folder.mkdir(parents=True, exist_ok=True)
        figure.savefig(paths[0], metadata={"Date": None})
        figure.savefig(paths[1], metadata={"Software": None}, dpi=160)
    return paths


def _colours(summaries: list[VariantSummary]) -> dict[str, str]:
    return {s.name: PALETTE[i % len(PALETTE)] for i, s in enumerate(summaries)}


def _draw_curves(axes: Axes, epochs: pd.DataFrame, summaries: list[VariantSummary]) -> None:
    from matplotlib.ticker import MaxNLocator

    for name, colour in _colours(summaries).items():
        rows = epochs[epochs["variant"] == name]
        if rows.empty:
            continue
        by_epoch = rows.groupby("epoch")["train_accuracy"].agg(["mean", "min", "max"]) * 100
        x = by_epoch.index.to_numpy(dtype=float)
        axes.plot(x, by_epoch["mean"], color=colour, label=name, marker="o", markersize=3)
        axes.fill_between(x, by_epoch["min"], by_epoch["max"], color=colour, alpha=0.15, lw=0)
    axes.set(xlabel="epoch", ylabel="training accuracy (%)", title="Training")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(frameon=False, fontsize=8)


def _draw_accuracies(axes: Axes, runs: pd.DataFrame, summaries: list[VariantSummary]) -> None:
    for position, (summary, colour) in enumerate(
        zip(summaries, _colours(summaries).values(), strict=True)
    ):
        values = runs.loc[runs["variant"] == summary.name, "test_accuracy"].dropna() * 100
        axes.plot([position] * len(values), values, "o", color=colour, alpha=0.5, markersize=4)
        if summary.test_accuracy is not None:
            mean = summary.test_accuracy.mean * 100
            axes.plot([position - 0.25, position + 0.25], [mean, mean], color=colour, lw=2)
    names = [s.name for s in summaries]
    long = max(map(len, names), default=0) * len(names) > 30  # noqa: PLR2004 - what fits beside
    axes.set_xticks(
        range(len(names)), names, rotation=30 if long else 0, ha="right" if long else "center"
    )
    axes.set_xlim(-0.5, len(names) - 0.5)
    axes.set(ylabel="test accuracy (%)", title="Every seed, and the mean")


def _draw_forest(axes: Axes, summaries: list[VariantSummary]) -> None:
    colours = _colours(summaries)
    compared = [s for s in summaries if s.difference is not None]
    axes.axvline(0, color="#888888", lw=1)
    for position, summary in enumerate(reversed(compared)):
        difference = summary.difference
        if difference is None:
            continue
        mean, colour = difference.mean * 100, colours[summary.name]
        axes.plot(mean, position, "s", color=colour)
        if difference.low is not None and difference.high is not None:
            ends = [difference.low * 100, difference.high * 100]
            axes.plot(ends, [position, position], color=colour)
    labels = [f"{s.name}\nvs {s.reference}" for s in reversed(compared)]
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(-0.5, max(0.5, len(labels) - 0.5))
    axes.set(xlabel="points of test accuracy", title="Difference, 95 % interval")
