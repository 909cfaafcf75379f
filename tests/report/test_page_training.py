"""The forest plot names the test behind its intervals."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import matplotlib as mpl
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from bench.report.charts.draw_matplotlib import STYLE, draw_row
from bench.report.charts.training import accuracies, curves, forest
from bench.report.study_data import read_study_data
from bench.store import Store

if TYPE_CHECKING:
    from pathlib import Path

    from bench.report.findings.statistics import Test


@pytest.mark.parametrize(
    ("test", "words"),
    [("paired", "interval of the t-test, paired by seed,"), ("welch", "of Welch's t-test,")],
)
def test_the_caption_names_what_the_interval_is_of(trained: Path, test: Test, words: str) -> None:
    data = read_study_data(Store(trained), "tiny")
    assert words in forest(replace(data, study=replace(data.study, test=test))).caption


def test_titles_stay_in_the_picture_beside_long_names(trained: Path) -> None:
    data = read_study_data(Store(trained), "tiny")
    charts = [curves(data)[0], accuracies(data), forest(data)]
    long = tuple(f"resnet44-from-scratch vs resnet56-from-scratch {i}" for i in range(3))
    charts = [
        replace(chart, y=replace(chart.y, categories=long)) if chart.y.categories else chart
        for chart in charts
    ]
    figure = draw_row(charts)
    with mpl.rc_context(STYLE):
        FigureCanvasAgg(figure).draw()
    for axes, chart in zip(figure.axes, charts, strict=True):
        (title,) = [t for t in axes.get_children() if getattr(t, "get_text", str)() == chart.title]
        box = title.get_window_extent()
        assert box.x0 >= 0
        assert box.x1 <= figure.bbox.width
