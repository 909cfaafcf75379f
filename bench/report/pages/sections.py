"""Which pictures a page has, in order."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from bench.report.charts.chart import Section
from bench.report.charts.confusion import confusions
from bench.report.charts.cost import fronts, latencies, measured_speed, quantisation, roofs, times
from bench.report.charts.draw_matplotlib import draw_matrix, save_charts, save_figure
from bench.report.charts.training import accuracies, curves, forest
from bench.report.pages.architecture import save_diagrams
from bench.report.pages.inside import inside
from bench.report.study_data import gather

if TYPE_CHECKING:
    from pathlib import Path

    from bench.report.charts.chart import Chart
    from bench.report.study_data import Material
    from bench.store import Store


def sections(material: Material) -> list[Section]:
    """Make every chart of a study."""
    cost = (*fronts(material), measured_speed(material), latencies(material), *roofs(material))
    profiled = times(material)
    return [
        Section("outcome", "Outcome", (accuracies(material), forest(material))),
        Section("training", "Training", curves(material)),
        Section("cost", "Cost", cost),
        *([Section("layers", "Where the time goes", profiled)] if profiled else []),
        Section("quantisation", "Quantisation", quantisation(material)),
        inside(material),
    ]


def overview(material: Material) -> tuple[Chart, ...]:
    """Return what a study comes to in one row: training, every seed, differences."""
    return curves(material)[0], accuracies(material), forest(material)


def further(material: Material) -> list[Section]:
    """Return what is known of a study beyond its training: cost, quantisation, the insides.

    Charts without anything to show are left out, and sections without charts.
    """
    macs, _, speed = fronts(material)
    front = macs if _differs(macs) else speed  # of one network, trained in several ways
    cost = (front, measured_speed(material), latencies(material), *roofs(material))
    found = [
        Section("cost", "Cost", cost),
        Section("quantisation", "Quantisation", quantisation(material)),
        inside(material),
    ]
    drawn = [
        replace(section, charts=tuple(c for c in section.charts if c.missing is None))
        for section in found
    ]
    return [section for section in drawn if section.charts]


def _differs(chart: Chart) -> bool:
    """Whether the variants differ along the horizontal axis."""
    return len({x for series in chart.series if series.kind == "points" for x in series.x}) > 1


def save_figures(store: Store, study: str, folder: Path) -> list[Path]:
    """Save every picture of a study's page that has something to show; returns the files.

    Diagrams and confusion matrices are numbered in the order of the page.

    Raises:
        BenchError: there is no such study.
        StorageError: the folder cannot be written.
    """
    material = gather(store, study)
    charts = [chart for section in sections(material) for chart in section.charts]
    matrices = [
        path
        for number, matrix in enumerate(confusions(material).matrices, 1)
        for path in save_figure(draw_matrix(matrix), folder, f"confusion-{number}")
    ]
    return [*save_charts(charts, folder), *save_diagrams(material, folder), *matrices]
