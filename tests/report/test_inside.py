"""Lesions, gradients and landscapes as charts, and on the page of a study."""

from __future__ import annotations

import itertools
import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from bench.report.charts.blocks import gradient_charts, lesion_charts
from bench.report.charts.chart import legend_entries
from bench.report.charts.draw_matplotlib import draw, draw_row
from bench.report.charts.landscape import landscape_charts
from bench.report.pages.html import html
from bench.report.pages.study_report import read_study_report
from bench.report.study_data import load_results
from bench.store import Store
from bench.store.analyses import Analyses
from bench.store.tables.columns import COLUMNS, typed_frame
from bench.store.tables.frames import newest
from builders import page_data

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

LOOK = legend_entries({"a": "first", "b": "second"})


def frame(table: str, rows: list[dict[str, Any]]) -> pd.DataFrame:
    return typed_frame(rows, COLUMNS[table])


def lesion_rows(run: str = "a", blocks: int = 3, **values: Any) -> list[dict[str, Any]]:
    whole = {"run": run, "lesion": "none", "test_accuracy": 0.9}
    dropped = [
        {
            "run": run, "lesion": "drop", "block": f"layer1.{i}", "test_accuracy": 0.8 - i / 10,
            "norm_ratio": 1.0 + i, "norm_ratio_low": 0.5, "norm_ratio_high": 9.0,
            "initial_gradient_norm": 10.0**-i,
        }
        for i in range(blocks)
    ]  # fmt: skip
    swap = {"run": run, "lesion": "swap", "block": "layer1.0", "other": "layer1.1"}
    swaps = [{**swap, "test_accuracy": value} for value in (0.7, 0.3)]
    return [{**row, **values} for row in (whole, *dropped, *swaps)]


def test_lesions_are_drawn_in_order_beside_the_whole_network() -> None:
    charts = {c.key: c for c in lesion_charts(frame("lesions", lesion_rows()), LOOK)}
    assert list(charts) == ["lesion-drop", "lesion-swap", "lesion-ratio", "lesion-gradient"]
    drop, swap, ratio = (charts[f"lesion-{key}"] for key in ("drop", "swap", "ratio"))
    assert drop.x.categories == ("whole", "layer1.0", "layer1.1", "layer1.2")
    (series,) = drop.series
    assert series.y == pytest.approx([90, 80, 70, 60])
    assert series.x == [0, 1, 2, 3]
    assert (series.name, series.hover[3]) == ("first", "first, layer1.2: 60 %")
    assert swap.series[0].y == pytest.approx([30, 70])
    assert swap.series[0].hover[0] == "first, layer1.0 ↔ layer1.1: 30.00 %"
    assert (ratio.series[0].y, ratio.series[0].low) == ([1, 2, 3], [0.5] * 3)
    assert {chart.missing for chart in charts.values()} == {None}
    drawn = draw_row(list(charts.values()))
    titles = [axes.get_title().replace("\n", " ") for axes in drawn.axes]
    assert titles == [chart.title for chart in charts.values()]
    labels = [label.get_text() for label in drawn.axes[0].get_xticklabels()]
    assert labels == list(drop.x.categories)


def test_networks_of_other_blocks_are_counted_along_the_axis() -> None:
    rows = lesion_rows("a", 3) + lesion_rows("b", 5)
    drop = lesion_charts(frame("lesions", rows), LOOK)[0]
    assert (drop.x.categories, drop.x.whole) == ((), True)
    assert [(s.name, s.x) for s in drop.series] == [
        ("first", [0, 1, 2, 3]),
        ("second", [0, 1, 2, 3, 4, 5]),
    ]
    many = lesion_charts(frame("lesions", lesion_rows("a", 54)), LOOK)[0]
    assert many.x.categories == ()  # too many to be read


def test_what_a_plain_network_lacks_has_no_chart() -> None:
    rows = lesion_rows(norm_ratio=None, norm_ratio_low=None, norm_ratio_high=None,
                       initial_gradient_norm=None)  # fmt: skip
    plain = frame("lesions", [row for row in rows if row["lesion"] != "swap"])
    assert [chart.key for chart in lesion_charts(plain, LOOK)] == ["lesion-drop"]


def test_gradients_before_and_after_training_are_told_apart() -> None:
    rows = [
        {"target": "a", "run": "a", "epoch": epoch, "block": f"layer1.{i}", "depth": i + 1,
         "gradient_norm": 10.0 ** (epoch - i), "norm_ratio": None}
        for epoch in (0, 1, 2) for i in range(3)
    ]  # fmt: skip
    near = [{"target": "a", "lag": lag, "correlation": 0.5**lag} for lag in range(4)]
    depth, alike = gradient_charts(
        frame("gradients", rows), frame("correlations", near), LOOK
    )  # no ratio: nothing has one
    before, after = depth.series
    assert (before.dashed, before.faint, before.y) == (True, True, [1, 0.1, 0.01])
    assert (after.dashed, after.faint, after.y) == (False, False, [100, 10, 1])
    assert before.name == after.name == "first"
    assert "before training" in before.hover[0]
    assert "epoch 2" in after.hover[0]
    assert (alike.series[0].x, alike.series[0].y) == ([0, 1, 2, 3], [1, 0.5, 0.25, 0.125])
    untrained = gradient_charts(frame("gradients", rows[:3]), frame("correlations", []), LOOK)
    ((alone,),) = [chart.series for chart in untrained]
    assert (alone.dashed, alone.faint) == (False, False)  # nothing to tell it from


def bowl(run: str, points: int = 21) -> list[dict[str, Any]]:
    """A plane whose loss is 0.1 + x² + y², by its definition a set of circles."""
    steps = np.linspace(-1, 1, points)
    return [
        {"run": run, "split": "train", "images": 1000, "x": x, "y": y, "loss": 0.1 + x**2 + y**2}
        for x, y in itertools.product(steps, steps)
    ]


def test_lines_of_equal_loss_lie_where_the_loss_is_theirs() -> None:
    (chart,) = landscape_charts(frame("landscapes", bowl("a", 41)), LOOK)
    assert (chart.key, chart.title) == ("landscape-map", "Loss around first")
    *contours, middle = chart.series
    assert len(contours) > 5
    for series in contours:
        (label,) = [text for text in series.labels if text]
        x, y = np.array(series.x), np.array(series.y)
        losses = (0.1 + x**2 + y**2)[np.isfinite(x)]
        assert np.allclose(losses, float(label), rtol=0.02)
    assert (middle.x, middle.y) == ([0], [0])
    assert draw(chart).axes
    assert "1,000 train images" in chart.caption


def test_maps_share_their_levels_and_a_hole_is_left_out() -> None:
    holed = [{**row, "loss": None if row["x"] > 0.5 else row["loss"]} for row in bowl("b")]
    first, second = landscape_charts(frame("landscapes", [*bowl("a"), *holed]), LOOK)
    assert (first.key, second.key) == ("landscape-map", "landscape-map-2")
    levels = [{t for s in chart.series for t in s.labels if t} for chart in (first, second)]
    assert levels[1] <= levels[0]
    assert np.nanmax([x for s in second.series for x in s.x]) < 0.51


def test_of_a_line_both_loss_and_accuracy_are_drawn() -> None:
    line = [
        {"run": run, "split": "test", "images": 10, "x": x, "loss": 1 + x * x, "accuracy": 0.5}
        for run in ("a", "b") for x in (-1.0, 0.0, 1.0)
    ]  # fmt: skip
    loss, accuracy = landscape_charts(frame("landscapes", line), LOOK)
    assert [(s.name, s.y) for s in loss.series] == [("first", [2, 1, 2]), ("second", [2, 1, 2])]
    assert accuracy.series[0].y == [50, 50, 50]


def test_the_last_analysis_of_a_run_counts_and_lines_and_planes_are_apart() -> None:
    rows = [
        {"analysis": name, "run": run, "x": 0.0, "y": y}
        for name, run, y in (
            ("z", "a", None), ("y", "a", None), ("x", "b", None), ("w", "a", 1.0), ("v", "a", 1.0),
        )
    ]  # fmt: skip
    kept = newest(frame("landscapes", rows))
    assert list(kept["analysis"]) == ["y", "x", "v"]
    assert newest(frame("lesions", [])).empty


@pytest.fixture
def analysed(results: Path) -> Path:
    """The tiny study with one of each analysis recorded, of its first residual run."""
    run = Store(results).find_study("tiny").variants["residual"]["runs"]["0"]
    store, made = Analyses(results), {"cpu": "made up"}
    rows = [{k: v for k, v in r.items() if k != "run"} for r in lesion_rows()]
    lesions = [{"run": run, "images": 1000, **row} for row in rows]
    store.publish("lesion", {"run": run, "test_images": None, "no_swaps": False},
                  {"lesions": lesions}, made)  # fmt: skip
    gradient = {"target": run, "run": run, "epoch": 1, "block": "layer1.0", "depth": 1}
    near = {"target": run, "run": run, "epoch": 1, "lag": 0, "correlation": 1.0}
    store.publish("gradients", {"run": run, "correlation": True},
                  {"gradients": [{**gradient, "gradient_norm": 0.5, "norm_ratio": 1.5}],
                   "correlations": [near]}, made)  # fmt: skip
    places = [
        {"run": run, "model": "resnet8", "split": "train", "images": 200, "seed": 0, "x": x,
         "y": None, "loss": 1 + x * x, "accuracy": 0.5}
        for x in (-1.0, 0.0, 1.0)
    ]  # fmt: skip
    asked = {"plane": False, "span": 1.0, "points": 3, "split": "train", "images": 200, "seed": 0}
    store.publish("landscape", {"run": run, **asked}, {"landscapes": places}, made)
    stranger = [{**row, "run": "another-run"} for row in lesions]
    store.publish("lesion", {"run": "another-run"}, {"lesions": stranger}, made)
    return results


def test_the_page_shows_them_with_their_data(analysed: Path) -> None:
    page = html(read_study_report(Store(analysed), "tiny"))
    data = page_data(page)
    keys = {"lesion-drop", "gradient-depth", "gradient-correlation", "landscape-loss"}
    assert keys <= set(data["charts"])
    for key in keys:
        assert f'<button type="button" class="csv" data-table="{_table(key)}"' in page
    assert {t["meta"]["name"] for t in data["charts"]["lesion-drop"]["data"]} == {"residual"}
    lesions = data["tables"]["lesions"]
    assert len(lesions["rows"]) == 6  # none of the run that is not the study's
    variant, block = (lesions["columns"].index(name) for name in ("variant", "block"))
    assert {row[variant] for row in lesions["rows"]} == {"residual"}
    assert "layer1.2" in {row[block] for row in lesions["rows"]}
    run = Store(analysed).find_study("tiny").variants["residual"]["runs"]["0"]
    made = read_study_report(Store(analysed), "tiny").commands
    assert f"bench lesion {run}" in made
    assert f"bench gradients {run} --correlation" in made
    assert (
        f"bench landscape {run} --span 1.0 --points 3 --split train --images 200 --seed 0" in made
    )
    assert not any("another-run" in line for line in made)


def test_one_command_looks_at_several_runs_in_the_same_way(results: Path) -> None:
    runs = Store(results).find_study("tiny").variants["residual"]["runs"]
    first, second = runs["0"], runs["1"]
    store = Analyses(results)
    for kind, run, asked in (
        ("gradients", first, {"correlation": False}), ("gradients", second, {"correlation": False}),
        ("gradients", second, {"correlation": True}), ("lesion", first, {}), ("lesion", second, {}),
    ):  # fmt: skip
        store.publish(kind, {"run": run, **asked}, {}, {"cpu": "made up"})
    assert set(read_study_report(Store(results), "tiny").commands[1:]) in (
        {f"bench gradients {one} {other}", f"bench gradients {second} --correlation",
         f"bench lesion {first}", f"bench lesion {second}"}
        for one, other in ((first, second), (second, first))
    )  # fmt: skip


def _table(key: str) -> str:
    kinds = {"lesion": "lesions", "landscape": "landscapes", "gradient": "gradients"}
    return "correlations" if key == "gradient-correlation" else kinds[key.split("-", maxsplit=1)[0]]


@pytest.mark.parametrize("kind", ["lesion", "gradients", "landscape"])
def test_half_an_analysis_is_named_and_the_others_are_shown(kind: str, analysed: Path) -> None:
    run = Store(analysed).find_study("tiny").variants["residual"]["runs"]["0"]
    store = Analyses(analysed)
    (broken,) = (r for r in store.records() if r.kind == kind and r.request["run"] == run)
    path = store.file(broken.analysis)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    report = read_study_report(Store(analysed), "tiny")
    with pytest.warns(UserWarning, match=f"passing over .*{broken.analysis}"):
        page = html(report)
    assert re.search(rf"<p>Left out: [^<]*{broken.analysis}.json: [^<]*cannot be read", page)
    assert any(f"bench {kind} " in command for command in report.missing_commands)
    drawn = {key.split("-", maxsplit=1)[0] for key in page_data(page)["charts"]}
    assert {"lesion", "gradient", "landscape"} - drawn == {kind.rstrip("s")}


def test_each_is_a_table_of_the_results(analysed: Path) -> None:
    study = analysed / "studies" / "tiny.json"
    for table, rows in {"lesions": 6, "gradients": 1, "correlations": 1, "landscapes": 3}.items():
        found = load_results(study, table)  # type: ignore[arg-type]
        assert len(found) == rows
        assert len(set(found["run"])) == 1
    everything = load_results(analysed, "lesions")
    assert everything["analysis"].nunique() == 2
