"""The forest plot names the test behind its intervals."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import TYPE_CHECKING

import matplotlib as mpl
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from bench.report.charts.chart import Axis, Chart, Series, log_axis
from bench.report.charts.draw_matplotlib import STYLE, draw_row
from bench.report.charts.draw_plotly import figure
from bench.report.charts.training import accuracies, curves, forest
from bench.report.findings.statistics import Estimate
from bench.report.pages.study_report import read_study_report
from bench.report.study_data import StudyData
from bench.report.tables.study import study_table
from bench.store import Store
from builders import make_record, make_request, make_study

if TYPE_CHECKING:
    from pathlib import Path

    from bench.report.findings.statistics import Test


@pytest.mark.parametrize(
    ("test", "words"),
    [("paired", "interval of the t-test, paired by seed,"), ("welch", "of Welch's t-test,")],
)
def test_the_caption_names_what_the_interval_is_of(trained: Path, test: Test, words: str) -> None:
    data = read_study_report(Store(trained), "tiny").data
    assert words in forest(replace(data, study=replace(data.study, test=test))).caption


def test_differences_stand_in_the_order_of_the_table_with_their_reference(trained: Path) -> None:
    data = read_study_report(Store(trained), "tiny").data
    chart = forest(data)
    assert chart.y.categories[::-1] == ("residual (reference)", "plain")
    reference, seeds, plain = chart.series
    assert (list(reference.x), list(reference.y)) == ([0], [1])
    accuracy = data.runs.set_index(["variant", "seed"])["test_accuracy"]
    by_seed = (accuracy["plain"] - accuracy["residual"]) * 100
    assert list(seeds.x) == pytest.approx(by_seed.tolist())
    assert list(plain.x) == pytest.approx([by_seed.mean()])
    low, high = figure(chart)["layout"]["xaxis"]["range"]
    assert low < 0 < high
    welch = forest(replace(data, study=replace(data.study, test="welch")))
    assert not any(series.faint for series in welch.series)  # its seeds are not paired


def test_every_seed_has_a_line_that_only_a_screen_shows_on_request(trained: Path) -> None:
    data = read_study_report(Store(trained), "tiny").data
    chart = curves(data)[0]
    lines = [series for series in chart.series if series.detail]
    assert len(lines) == 4
    seconds = data.epochs.set_index("run")["seconds"]
    assert sorted(s.seconds[0] for s in lines) == pytest.approx(sorted(seconds))
    assert len(draw_row([chart]).axes[0].lines) == 2  # the means


def test_a_run_that_diverged_is_charted_at_chance_accuracy(trained: Path) -> None:
    """As the tables count it: a mean over the seeds that are left would flatter its variant."""
    data = read_study_report(Store(trained), "tiny").data
    plain = data.study.variants["plain"]
    lost, kept = plain["runs"].values()
    error = 100 * (1 - data.epochs.set_index("run")["train_accuracy"])
    diverged = replace(data.records[lost], status="diverged", result={})
    vars(data)["records"] = {**data.records, lost: diverged}
    vars(data)["epochs"] = data.epochs[data.epochs["run"] != lost]
    chance = 100 / len(data.records[kept].result["classes"])

    curve = curves(data)[0]
    (line,) = [s for s in curve.series if s.name == "plain" and not s.detail]
    assert line.y == pytest.approx([(error[kept] + 100 - chance) / 2])
    points = [s for s in accuracies(data).series if s.name == "plain" and s.faint]
    assert sorted(points[0].x)[0] == pytest.approx(chance)
    differences = [s for s in forest(data).series if s.name == "plain" and s.faint]
    assert len(differences[0].x) == 2
    for chart in (curve, accuracies(data), forest(data)):
        assert chart.caption.endswith("A run that diverged counts as chance accuracy.")
    assert "diverged" not in curves(data)[2].caption  # a loss has no value of guessing


@pytest.mark.parametrize(
    ("values", "fewest"),
    [
        ([332_400.0, 335_300.0], 3),
        ([173_900.0, 335_300.0], 3),
        ([30.8e6, 95.9e6], 3),
        ([1.0, 1e6], 4),
        ([5.0], 3),
    ],
)
def test_a_logarithmic_axis_has_ticks_however_narrow_it_is(
    values: list[float], fewest: int
) -> None:
    axis = Axis("x", log=True)
    chart = Chart("k", "t", "c", axis, Axis("y"), (Series("a", values, [0.0] * len(values)),))
    ticks, (low, high) = log_axis(chart, "x")
    assert fewest <= len(ticks) <= 8
    assert low < min(values)
    assert max(values) < high
    assert all(low <= tick <= high for tick in ticks)
    gaps = [math.log(b / a) / math.log(high / low) for a, b in itertools.pairwise(ticks)]
    assert min(gaps, default=1) > 0.08  # 90M and 100M of 30M to 100M lay on each other


def test_an_accuracy_does_not_pass_100_per_cent(trained: Path) -> None:
    data = read_study_report(Store(trained), "tiny").data
    wide = replace(data.summaries[0], test_accuracy=Estimate(0.975, 0.869, 1.081, 2))
    vars(data)["summaries"] = [wide, *data.summaries[1:]]
    means = [s for s in accuracies(data).series if not s.faint]
    assert list(means[0].high) == [100.0]
    row = study_table(data.summaries, data.study).rows[0]
    assert any(cell.startswith("97.50 [86.90, 100.00]") for cell in row)


def test_titles_stay_in_the_picture_beside_long_names(trained: Path) -> None:
    data = read_study_report(Store(trained), "tiny").data
    charts = [curves(data)[0], accuracies(data), forest(data)]
    long = tuple(f"resnet44-from-scratch vs resnet56-from-scratch {i}" for i in range(3))
    charts = [
        replace(chart, y=replace(chart.y, categories=long)) if chart.y.categories else chart
        for chart in charts
    ]
    drawn = draw_row(charts)
    with mpl.rc_context(STYLE):
        FigureCanvasAgg(drawn).draw()
    for axes, chart in zip(drawn.axes, charts, strict=True):
        (title,) = [t for t in axes.get_children() if getattr(t, "get_text", str)() == chart.title]
        box = title.get_window_extent()
        assert box.x0 >= 0
        assert box.x1 <= drawn.bbox.width


def test_charts_of_an_imported_network_do_not_say_that_it_will_be_trained(tmp_path):
    store = Store(tmp_path)
    run = store.finish_run(make_record(make_request(epochs=0), result={"test_accuracy": 0.9})).run
    store.save_study(make_study({"shapes": [run]}, {"shapes": None}, name="shapes"))
    data = StudyData(store, store.find_study("shapes"))
    assert curves(data)[0].absent == "The network was trained elsewhere and imported."
    assert forest(data).absent == "The study compares nothing."


def test_a_study_of_contrasts_alone_has_its_chart_of_differences(tmp_path):
    store, runs = Store(tmp_path), {}
    for name, found in {"a": [0.9, 0.91, 0.9], "b": [0.8, 0.82, 0.79]}.items():
        runs[name] = [
            store.finish_run(
                make_record(
                    make_request("resnet8" if name == "a" else "resnet14", seed=seed),
                    result={"test_accuracy": accuracy},
                )
            ).run
            for seed, accuracy in enumerate(found)
        ]
    store.save_study(
        make_study(runs, {"a": None, "b": None}, contrasts={"pair": {"a": 1.0, "b": -1.0}})
    )
    chart = forest(StudyData(store, store.find_study("mine")))
    assert chart.absent is None
    assert [one.name for one in chart.series] == ["pair"]
