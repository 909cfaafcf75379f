"""The page in a real browser: what is drawn, hovered, hidden, printed, and who can use it."""

from __future__ import annotations

import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

import bench
from bench.report.pages.measurements import publish_measurements
from bench.report.pages.publish import publish
from bench.report.pages.study_report import read_study_report
from bench.store import Store
from bench.store.measurements import Measurements

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.slow
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
DESKTOP, PHONE = (1280, 900), (360, 740)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed")
    with playwright.sync_playwright() as driver:
        yield driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])


@pytest.fixture(scope="module")
def results(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny study with everything that a page can show of it."""
    copy = shutil.copytree(trained, tmp_path_factory.mktemp("full") / "bench-runs")
    runs = [record.run for record in Store(copy).runs() if record.request["seed"] == 0]
    bench.measure(
        runs, results=copy, device="cpu", threads=1, backends=("eager", "onnxruntime"),
        batch_sizes=(1, 8), max_seconds=0.3, processes=1, layers=True,
    )  # fmt: skip
    bench.export_onnx(runs, results=copy, precision="int8", sensitivity=True, threads=1)
    for run in runs:
        bench.lesion(run, results=copy, device="cpu", test_images=200)
    bench.gradients(runs, results=copy, device="cpu", correlation=True)
    bench.landscape(runs, results=copy, device="cpu", points=5, images=100)
    bench.landscape(runs[:1], results=copy, device="cpu", plane=True, points=7, images=100)
    return copy


@pytest.fixture(scope="module")
def file(results: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    report = read_study_report(Store(results), "tiny")
    return publish(report, tmp_path_factory.mktemp("page"), ["html"])[0]


@contextmanager
def opened(browser: Any, file: Path, size: tuple[int, int]) -> Iterator[Any]:
    """The page opened; fails afterwards if it logged an error or asked a network."""
    width, height = size
    page = browser.new_page(viewport={"width": width, "height": height})
    said, asked = [], []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda wanted: asked.append(wanted.url))
    page.goto(file.as_uri())
    page.wait_for_selector(".main-svg")
    yield page
    page.close()
    assert said == []
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []


@pytest.fixture(params=[DESKTOP, PHONE], ids=["desktop", "phone"])
def page(request: pytest.FixtureRequest, browser: Any, file: Path) -> Iterator[Any]:
    with opened(browser, file, request.param) as page:
        yield page


def violations(page: Any, scheme: str) -> list[tuple[str, Any]]:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    page.emulate_media(color_scheme=scheme)
    found = axe.Axe().run(page).response["violations"]
    return [(v["id"], [n["target"] for n in v["nodes"][:3]]) for v in found]


def visible_of(page: Any, name: str) -> set[Any]:
    script = """name => [...document.querySelectorAll('.plot')].flatMap(
        p => p.data.filter(t => t.meta.name === name && !t.meta.detail).map(t => t.visible))"""
    return set(page.evaluate(script, name))


def test_every_figure_has_drawn_marks_and_fits(page: Any) -> None:
    plots = page.query_selector_all(".plot")
    keys = [plot.get_attribute("data-chart") for plot in plots]
    assert {"roofline", "latency", "accuracy-measured-speed", "differences"} <= set(keys)
    assert {"lesion-drop", "gradient-depth", "landscape-loss", "landscape-map"} <= set(keys)
    assert sum(key.startswith("int8-") for key in keys) == 2
    assert sum(key.startswith("layers-") for key in keys) == 4
    assert page.query_selector_all(".absent") == []
    for plot in plots:
        assert plot.query_selector_all(".points path, .js-line")
        assert plot.evaluate("p => p.closest('figure').querySelectorAll('.legend li').length")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_a_variant_is_hidden_everywhere_by_keyboard(page: Any) -> None:
    button = page.locator("#names button", has_text="plain")
    button.focus()
    page.keyboard.press("Enter")
    assert visible_of(page, "plain") == {False}
    assert visible_of(page, "residual") == {True}
    page.keyboard.press("Enter")
    assert visible_of(page, "plain") == {True}


def test_hover_shows_a_value(page: Any) -> None:
    point = page.locator("#plot-test-accuracy .points path.point").first
    point.scroll_into_view_if_needed()
    box = point.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.wait_for_selector("#plot-test-accuracy .hovertext")
    assert "%" in page.text_content("#plot-test-accuracy .hoverlayer")


def test_the_data_is_saved_as_csv(page: Any, tmp_path: Path) -> None:
    import pandas as pd

    page.locator("#figure-training-error summary").click()
    with page.expect_download() as started:
        page.locator("#figure-training-error button.csv").click()
    started.value.save_as(tmp_path / "epochs.csv")
    frame = pd.read_csv(tmp_path / "epochs.csv")
    assert len(frame) == 4
    assert set(frame["variant"]) == {"residual", "plain"}


def test_columns_are_sorted_by_their_numbers(page: Any) -> None:
    rows = "[...document.querySelectorAll('.sortable tbody th')].map(t => t.textContent)"
    assert page.evaluate(rows) == ["residual", "plain"]
    heading = page.locator(".sortable th", has_text="parameters")
    heading.locator("button").focus()
    page.keyboard.press("Enter")
    assert heading.get_attribute("aria-sort") == "ascending"
    page.locator(".sortable th", has_text="variant").locator("button").click()
    assert page.evaluate(rows) == ["plain", "residual"]
    assert heading.get_attribute("aria-sort") is None


def test_training_is_drawn_by_seed_by_time_and_on_a_logarithmic_scale(page: Any) -> None:
    traces = """() => { const p = document.getElementById('plot-training-error');
        return [p.data.filter(t => t.meta.detail && t.visible).length, p.layout.yaxis.type,
                p.layout.xaxis.title.text, p.data.at(-1).x[0]]; }"""
    assert page.evaluate(traces) == [0, "linear", "epoch", 1]
    for option in ("seeds", "log", "time"):
        page.locator(f"[data-option={option}]").check()
    seeds, scale, title, first = page.evaluate(traces)
    assert (seeds, scale, title) == (4, "log", "training time (s)")
    assert first != 1


def test_there_is_no_button_of_plotly_and_few_stops_for_the_keyboard(page: Any) -> None:
    assert page.query_selector_all(".modebar-btn") == []
    stops = page.evaluate(
        "[...document.querySelectorAll('.plot *, .legend *')].filter(e => e.tabIndex >= 0).length"
    )
    assert stops == len(page.query_selector_all("#names button")) == 2


def test_accuracy_and_difference_are_in_sight_without_scrolling(page: Any) -> None:
    for name in ("test accuracy %", "difference (points)"):
        box = page.locator(".sortable th", has_text=name).bounding_box()
        assert box["x"] + box["width"] <= page.evaluate("innerWidth")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_violation_of_accessibility(scheme: str, page: Any) -> None:
    assert violations(page, scheme) == []


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_the_page_of_measurements_fits_can_be_sorted_and_is_accessible(
    size: tuple[int, int], browser: Any, results: Path, tmp_path: Path
) -> None:
    (file,) = publish_measurements(Measurements(results), tmp_path, ["html"])
    with opened(browser, file, size) as page:
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        for scheme in ("light", "dark"):
            assert violations(page, scheme) == []
        heading = page.locator(".sortable th", has_text="batch")
        heading.locator("button").click()
        assert heading.get_attribute("aria-sort") == "ascending"
        names = page.locator("#names button").all_text_contents()
        assert sorted(name.split()[0] for name in names) == ["plain", "residual"]
        legend = page.locator("#figure-latency-throughput .legend li").all_text_contents()
        assert set(legend) == {*names, "eager fp32", "onnxruntime fp32"}


def test_it_prints_on_white(page: Any) -> None:
    page.emulate_media(color_scheme="dark")
    page.wait_for_selector("html[data-theme=dark]")
    assert page.pdf(format="A4").startswith(b"%PDF")
    page.emulate_media(media="print", color_scheme="dark")
    page.wait_for_selector("html[data-theme=light]")
    page.emulate_media(media="screen", color_scheme="dark")
    page.wait_for_selector("html[data-theme=dark]")


def test_the_roofline_says_what_a_mark_is(page: Any) -> None:
    assert page.evaluate(
        "document.getElementById('plot-roofline').data.filter(t => t.meta.colour === null).length"
    )
    point = page.locator("#plot-roofline .points path.point").first
    point.scroll_into_view_if_needed()
    box = point.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.wait_for_selector("#plot-roofline .hovertext")
    assert "GFLOP/s" in page.text_content("#plot-roofline .hoverlayer")


def test_bars_of_one_block_lie_behind_each_other(page: Any) -> None:
    layered = "p => p.dataset.chart.startsWith('layers-')"
    overlaps = page.evaluate(
        f"""() => [...document.querySelectorAll('.plot')].filter({layered}).flatMap(plot => {{
          const ends = new Map(), found = [];
          for (const trace of plot.calcdata) for (const bar of trace) {{
            if (bar.b + 1e-9 < (ends.get(bar.p) ?? 0)) found.push([bar.p, bar.b]);
            ends.set(bar.p, bar.b + bar.s);
          }}
          return found;
        }})"""
    )
    assert overlaps == []


def test_the_diagrams_can_be_read_in_light_and_dark(page: Any) -> None:
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        page.wait_for_selector(f"html[data-theme={scheme}]")
        for drawing in page.query_selector_all("svg.network"):
            box = drawing.bounding_box()
            assert box["width"] >= 310  # not shrunk on a phone: its words keep their size
            fill = drawing.query_selector("text").evaluate("t => getComputedStyle(t).fill")
            ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
            assert fill != ground
    assert len(page.query_selector_all("svg.network")) == 2
    assert "identity" in page.text_content("svg.network")


def test_each_figures_data_is_one_click_away(page: Any, tmp_path: Path) -> None:
    import pandas as pd

    saved = {}
    for key, button in {
        "roofline": "#figure-roofline button.csv",
        "latency": "#figure-latency button.csv",
        "lesions": "#figure-lesion-drop button.csv",
        "gradients": "#figure-gradient-depth button.csv",
        "landscapes": "#figure-landscape-loss button.csv",
        "confusions": "button.csv[data-table=confusions]",
    }.items():
        if button.startswith("#"):
            page.locator(f"{button.split()[0]} summary").click()
        with page.expect_download() as started:
            page.locator(button).click()
        started.value.save_as(tmp_path / f"{key}.csv")
        saved[key] = pd.read_csv(tmp_path / f"{key}.csv")
    assert saved["roofline"]["arithmetic_intensity"].gt(0).all()
    assert saved["latency"]["share"].between(0, 1).all()
    assert set(saved["lesions"]["variant"]) == {"residual", "plain"}
    assert set(saved["gradients"]["block"]) == {"layer1.0", "layer2.0", "layer3.0"}
    assert (saved["landscapes"]["y"].isna().sum(), len(saved["landscapes"])) == (10, 59)
    assert saved["confusions"]["images"].sum() == 4 * 1000


def test_every_label_of_a_map_is_drawn_and_ticks_of_a_log_axis_are_whole_numbers(page: Any) -> None:
    drawn, wanted = page.evaluate(
        """() => { const p = document.getElementById('plot-landscape-map');
          const texts = [...p.querySelectorAll('.textpoint text')].map(t => t.textContent.trim());
          const given = p.data.flatMap(t => t.text ?? []).map(t => t.trim());
          return [texts.filter(t => t).sort(), given.filter(t => t).sort()]; }"""
    )
    assert drawn == wanted
    assert len(wanted) > 3
    ticks = page.evaluate(
        """() => [...document.querySelectorAll('#plot-gradient-depth .ytick text')]
          .map(t => Number(t.textContent))"""
    )
    assert ticks == sorted(ticks)  # 0.2, 0.5, 1, and not 2, 5, 1
