"""The page's charts as files: one pair for each chart drawn, readable, with text as text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from bench.report.charts.chart import Axis, Chart, Series
from bench.report.charts.draw_matplotlib import draw, draw_row
from bench.report.pages.sections import sections
from bench.report.pages.study_report import read_study_report
from bench.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def test_every_chart_is_saved(bench: Callable[..., Any], trained: Path, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    done = bench(
        "report", "tiny", "--results", trained, "--format", "latex", "--figures", folder,
        "--width", 5,
    )  # fmt: skip
    assert done.code == 0, done
    charts = [c for s in sections(read_study_report(Store(trained), "tiny").data) for c in s.charts]
    drawn = {c.key for c in charts if c.missing is None}
    assert len(drawn) == 8
    pictures = {f"{k}{e}" for k in drawn for e in (".svg", ".png", ".pdf")}
    pictures |= {f"confusion-{n}{e}" for n in (1, 2) for e in (".svg", ".png", ".pdf")}
    diagrams = {"architecture-1.svg", "architecture-2.svg"}
    assert {p.name for p in folder.iterdir()} == pictures | diagrams
    assert 'width="360pt"' in (folder / "test-accuracy.svg").read_text()  # 5 inches
    assert (folder / "test-accuracy.pdf").read_bytes().startswith(b"%PDF")
    assert ET.parse(folder / "architecture-1.svg").getroot().find("{*}style") is not None
    assert str(folder / "differences.svg") in done.out
    text = (folder / "training-error.svg").read_text()
    for word in (">residual<", ">plain<", ">epoch<", ">training error (%)<"):
        assert word in text
    with Image.open(folder / "test-accuracy.png") as picture:
        assert picture.width > 600
        assert len(picture.convert("RGB").getcolors(1 << 24)) > 10


@pytest.mark.parametrize("letters", [2, 10, 15, 19, 24, 27, 28, 33, 60, 90])
@pytest.mark.parametrize("filling", "1xW")
def test_a_legend_of_long_names_stays_within_its_picture(letters: int, filling: str) -> None:
    names = [f"{number:{filling}<{letters}}" for number in range(10, 20)]
    series = tuple(
        Series(name=name, x=[1, 2], y=[1, 2], style=place) for place, name in enumerate(names)
    )
    chart = Chart("key", "Title", "Caption.", Axis("x"), Axis("y"), series)
    for figure in (draw(chart), draw_row([chart, chart])):
        FigureCanvasAgg(figure).draw()
        legend = figure.legends[0].get_window_extent()
        assert 0 <= legend.x0 < legend.x1 <= figure.bbox.x1


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        ((110, 420), ["150", "200", "300", "400"]),
        ((90, 9000), ["100", "200", "500", "1k", "2k", "5k"]),
        ((1, 1e5), ["1", "10", "100", "1k", "10k", "100k"]),
    ],
)
def test_a_logarithmic_axis_has_readable_ticks(
    values: tuple[float, float], shown: list[str]
) -> None:
    series = (Series(name="a", x=values, y=[1, 2], style=0),)
    figure = draw(Chart("key", "Title", "Caption.", Axis("x", log=True), Axis("y"), series))
    FigureCanvasAgg(figure).draw()
    (axes,) = figure.axes
    low, high = axes.get_xlim()
    ticks = {t.get_text() for t in axes.get_xticklabels() if low <= t.get_position()[0] <= high}
    assert set(shown) <= ticks
