"""Charts of what was found inside a study's networks: lesions, gradients, loss landscapes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.report.charts.blocks import Look, gradient_charts, lesion_charts
from bench.report.charts.chart import Axis, Chart, Section
from bench.report.charts.landscape import landscape_charts

if TYPE_CHECKING:
    from bench.report.study_data import StudyData

# Key and title of a chart in whose place these words stand.
_ABSENT = {
    "lesions": (
        "lesion-drop", "Accuracy without each block",
        "No block of these runs has been left out: `bench lesion RUN` does.",
    ),
    "gradients": (
        "gradient-depth", "Gradient norm by depth",
        "No gradients of these runs have been measured: `bench gradients RUN` does.",
    ),
    "landscapes": (
        "landscape-loss", "Loss around the weights",
        "No loss around the weights of these runs has been measured: `bench landscape RUN` does.",
    ),
}  # fmt: skip


def inside(material: StudyData) -> Section:
    """Make the charts of every analysis of a study's runs, or say what makes one.

    Of several analyses of one run, the last is shown. Those that cannot be read are named.
    """

    def look(run: str) -> Look:
        variant, seed = material.places[run]
        return Look(variant, material.style(variant), f"{variant}, seed {seed}")

    found = material.analysed
    charts: list[Chart] = []
    for table, absent in _ABSENT.items():
        rows = found[table]
        if rows.empty:
            charts.append(_absent(*absent))
        elif table == "lesions":
            charts += lesion_charts(rows, look)
        elif table == "gradients":
            charts += gradient_charts(rows, found["correlations"], look)
        else:
            charts += landscape_charts(rows, look)
    notes = tuple(f"Left out: {problem}." for problem in material.analyses[1])
    return Section("inside", "Inside the networks", tuple(charts), notes)


def _absent(key: str, title: str, why: str) -> Chart:
    return Chart(key=key, title=title, caption="", x=Axis(""), y=Axis(""), absent=why)
