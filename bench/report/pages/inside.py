"""Charts of the analyses of a study's networks: lesions, gradients, loss landscapes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.report.charts.blocks import gradient_charts, lesion_charts
from bench.report.charts.chart import Chart, LegendEntry, Section, absent_chart
from bench.report.charts.landscape import landscape_charts

if TYPE_CHECKING:
    from bench.report.study_data import StudyData

# Table → key and title of its first chart, and the text that replaces it without an analysis.
_ABSENT = {
    "lesions": (
        "lesion-drop",
        "Accuracy without each block",
        "No block of these runs has been left out yet: run `bench lesion RUN`.",
    ),
    "gradients": (
        "gradient-depth",
        "Gradient norm by depth",
        "No gradients of these runs have been measured yet: run `bench gradients RUN`.",
    ),
    "landscapes": (
        "landscape-loss",
        "Loss around the weights",
        "The loss around these weights has not been measured yet: run `bench landscape RUN`.",
    ),
}


def inside(data: StudyData) -> Section:
    """Make the charts of the analyses of a study's runs.

    The latest analysis of each run is shown. Where there is none, the command to run is named.
    """

    def entry_of(run: str) -> LegendEntry:
        variant, seed = data.places[run]
        return LegendEntry(variant, data.style(variant), f"{variant}, seed {seed}")

    found = data.analysed
    charts: list[Chart] = []
    for table, absent in _ABSENT.items():
        rows = found[table]
        if rows.empty:
            charts.append(absent_chart(*absent))
        elif table == "lesions":
            charts += lesion_charts(rows, entry_of)
        elif table == "gradients":
            charts += gradient_charts(rows, found["correlations"], entry_of)
        else:
            charts += landscape_charts(rows, entry_of)
    notes = tuple(f"Left out: {problem}." for problem in data.analyses[1])
    return Section("inside", "Inside the networks", tuple(charts), notes)
