"""Which charts a report has, in order."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from bench.report.charts.blocks import gradient_charts, lesion_charts
from bench.report.charts.chart import Chart, LegendEntry, Section, absent_chart, variant_entry
from bench.report.charts.confusion import confusions
from bench.report.charts.cost import fronts, latencies, measured_speed, quantisation, roofs, times
from bench.report.charts.draw_matplotlib import (
    FOR_PAPERS,
    draw_matrix,
    save_charts,
    save_figure,
)
from bench.report.charts.landscape import landscape_charts
from bench.report.charts.training import accuracies, curves, forest
from bench.report.pages.architecture import save_diagrams

if TYPE_CHECKING:
    from pathlib import Path

    from bench.report.study_data import StudyData

_FAMILIES = re.compile(r"(preact_)?resnet\d+|plain\d+|d2l_resnet18")


def sections(data: StudyData) -> list[Section]:
    """Make every chart of a study."""
    several = fronts(data) if len(data.variants) > 1 else ()  # one point is no trade-off
    cost = (*several, measured_speed(data), latencies(data), *roofs(data))
    profiled = times(data)
    return [
        Section("outcome", "Outcome", (forest(data), accuracies(data))),
        Section("training", "Training", curves(data)),
        Section("cost", "Cost", cost),
        *([Section("layers", "Where the time goes", profiled)] if profiled else []),
        Section("quantisation", "Quantisation", quantisation(data)),
        _inside(data),
    ]


def overview(data: StudyData) -> tuple[Chart, ...]:
    """Return the charts that show a study at a glance: training, every seed, differences."""
    return curves(data)[0], accuracies(data), forest(data)


def further(data: StudyData) -> list[Section]:
    """Return charts beyond training and outcome: cost, quantisation, the insides of networks.

    Charts without anything to show are left out, and sections without charts.
    """
    macs, _, speed = fronts(data)
    front = macs if _differs(macs) else speed  # of one network, trained in several ways
    found = [
        Section("cost", "Cost", (front, measured_speed(data), latencies(data), *roofs(data))),
        Section("quantisation", "Quantisation", quantisation(data)),
        _inside(data),
    ]
    drawn = [
        replace(section, charts=tuple(c for c in section.charts if c.missing is None))
        for section in found
    ]
    return [section for section in drawn if section.charts]


def _inside(data: StudyData) -> Section:
    """Chart the latest analyses of each run; for one that is missing, name its command."""

    def entry_of(run: str) -> LegendEntry:
        return variant_entry(data, *data.places[run])

    lesions, gradients, correlations, landscapes = (
        data.analysed[table] for table in ("lesions", "gradients", "correlations", "landscapes")
    )
    run = _residual_run(data)
    charts: list[Chart] = []
    if len(lesions):
        charts += lesion_charts(lesions, entry_of)
    elif run is not None:
        why = "No block of these networks has been left out yet."
        command = data.store.command("lesion", run)
        charts.append(absent_chart("lesion-drop", "Accuracy without each block", why, command))
    if len(gradients):
        charts += gradient_charts(gradients, correlations, entry_of)
    elif run is not None:
        why = "No gradients of these networks have been measured yet."
        command = data.store.command("gradients", run)
        charts.append(absent_chart("gradient-depth", "Gradient norm by depth", why, command))
    if len(landscapes):
        charts += landscape_charts(landscapes, entry_of)
    else:
        why = "The loss around these weights has not been measured yet."
        command = data.store.command("landscape", data.study.name)
        charts.append(absent_chart("landscape-loss", "Loss around the weights", why, command))
    notes = tuple(f"Left out: {problem}." for problem in data.analyses[1])
    return Section("inside", "Inside the networks", tuple(charts), notes)


def _residual_run(data: StudyData) -> str | None:
    """Return the first complete run of a residual family, whose blocks can be left out."""
    return next(
        (
            run
            for run, record in data.records.items()
            if record.status == "complete" and _FAMILIES.fullmatch(str(record.request.get("model")))
        ),
        None,
    )


def _differs(chart: Chart) -> bool:
    """Whether the variants differ along the horizontal axis."""
    return len({x for series in chart.series if series.kind == "points" for x in series.x}) > 1


def save_figures(data: StudyData, folder: Path, width: float | None) -> list[Path]:
    """Save every picture of a study's page that has something to show; returns the files.

    Charts and confusion matrices are written as SVG, PNG and PDF, diagrams as SVG. Diagrams and
    matrices are numbered in the order of the page.

    Args:
        data: the study.
        folder: where to write; made if it is not there.
        width: of each chart, inches; None for that of a column of a paper.

    Raises:
        StorageError: the folder cannot be written.
    """
    charts = [chart for section in sections(data) for chart in section.charts]
    matrices = [
        path
        for number, matrix in enumerate(confusions(data).matrices, 1)
        for path in save_figure(draw_matrix(matrix), folder, f"confusion-{number}", FOR_PAPERS)
    ]
    saved = save_charts(charts, folder, FOR_PAPERS, width)
    return [*saved, *save_diagrams(data, folder), *matrices]
