"""Names that are markup somewhere, and more names than a sentence or a picture holds."""

from __future__ import annotations

import html
import json
import re
import warnings
from typing import TYPE_CHECKING, Any

import pytest
from markdown_it import MarkdownIt

from bench.report.charts.draw_matplotlib import draw, draw_row, save_figure
from bench.report.pages.markdown import markdown
from bench.report.pages.study_report import StudyReport, read_study_report
from bench.report.pages.terminal import print_report
from bench.report.tables.text_table import TextTable, markdown_code, markdown_text
from bench.store import Store
from builders import make_record, make_request, make_row, make_study, make_unfinished, write_run

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

NAMES = (
    "conv<relu>", "lr<!--0.1", "*bold* _it_ `tick` | pipe", "=1+1", "</details><h1>x", "a\\|b",
    "é→ü 🚀 ~x^2 #5 $y$ \\frac", "fails `here` | there", "__init__", "snake_case_name", "~~no~~",
    "[link](to)", "[reference]: to", "![picture](x)", "&lt;", "1. first", "- item", "# title",
    "> quote", "_hidden", ":smile:", "[bold]red[/]", "$\\frac$", "``a`", "\\",
)  # fmt: skip
RENDERER = MarkdownIt("commonmark").enable(["table", "strikethrough"])


def shown(text: str) -> str:
    """Return what a reader sees of Markdown, as GitHub renders it."""
    visible = re.sub(r"<!--.*?-->", "", RENDERER.render(text), flags=re.DOTALL)
    return html.unescape(re.sub(r"</?[a-zA-Z][^>]*>", "", visible))


def report_of(root: Path, variants: list[str], spread: float = 0.01) -> StudyReport:
    """Record a study with these variants and three seeds."""
    store, runs = Store(root), {}
    for width, name in enumerate(variants, 1):
        runs[name] = []
        for seed in range(3):
            accuracy = 0.8 + spread * ((7 * width + 3 * seed) % 11)
            record = make_record(
                make_request(options={"width": width}, seed=seed),
                result={"test_accuracy": accuracy, "parameters": width, "macs": 10 * width},
            )
            history = "epoch,train_accuracy,train_loss,seconds\n1,0.5,1,1\n"
            runs[name].append(write_run(root, record, history))
    store.save_study(make_study(runs, name="names", question="Does `a|b` <beat> the rest?"))
    return read_study_report(store, "names")


@pytest.mark.parametrize("name", NAMES)
def test_markdown_shows_every_character(name: str) -> None:
    assert shown(markdown_text(name)).strip() == name
    assert shown(f"- {markdown_text(name)}").strip() == name
    assert shown(markdown_code(name)).strip() == name
    table = TextTable(("name", name), ((name, "1"),))
    cells = re.findall(
        r"<t[dh](?: [^>]*)?>(.*?)</t[dh]>", RENDERER.render("\n".join(table.to_markdown()))
    )
    assert [html.unescape(re.sub("<[^>]*>", "", cell)) for cell in cells] == [
        "name",
        name,
        name,
        "1",
    ]


def test_a_page_shows_every_name_and_stays_whole(tmp_path: Path) -> None:
    report = report_of(tmp_path, list(NAMES))
    make_unfinished(report.data.store, report.study.variants["</details><h1>x"]["runs"]["1"])
    page = markdown(read_study_report(report.data.store, "names"), pictures=True)
    seen = shown(page)
    assert "Does `a|b` <beat> the rest?" in seen
    assert [name for name in NAMES if name not in seen] == []
    rendered = RENDERER.render(page)
    assert rendered.count("<h1>") == 1
    assert rendered.count("<details>") == rendered.count("</details>") > 0


def test_a_terminal_shows_every_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from bench.cli.output import stdout

    print_report(report_of(tmp_path, list(NAMES)), stdout())
    out = capsys.readouterr().out
    assert [name for name in NAMES if name not in out] == []


def test_pictures_show_every_name(tmp_path: Path) -> None:
    report = report_of(tmp_path / "r", list(NAMES))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        path, _ = save_figure(draw_row(report.overview), tmp_path, "study")
    text = html.unescape(path.read_text(encoding="utf-8"))
    assert [name for name in NAMES if name not in text] == []
    handles = draw(report.overview[0]).legends[0].get_texts()
    assert {handle.get_text() for handle in handles} == set(NAMES)


def test_a_sentence_names_the_first_of_many_variants_and_counts_the_others(tmp_path: Path) -> None:
    names = [f"width {number:03}, a rather long name" for number in range(60)]
    report = report_of(tmp_path, names)
    assert len(report.answer) < 1500
    assert re.search(r"(all|\d+ of) 59 variants and their references \(n = 3\)", report.answer)
    assert all(len(statement) < 1500 for statement in report.statements)
    assert [row[0] for row in report.table.rows] == names  # the table has all


def test_pictures_of_many_variants_have_a_readable_size(tmp_path: Path) -> None:
    report = report_of(
        tmp_path, [f"width {number:03}, a rather long name" for number in range(150)]
    )
    figure = draw_row(report.overview)
    assert figure.get_figheight() < 20
    assert figure.legends[0].get_title().get_text() == "150 names, which are not listed"
    labels = [label.get_text() for label in figure.axes[1].get_yticklabels()]
    assert labels == list(report.overview[1].y.categories[::2])


def test_a_compared_name_keeps_its_cell_in_markdown(
    bench: Callable[..., Any], tmp_path: Path
) -> None:
    name = "a|b *net*.onnx"
    row = make_row(model=name, ci_low=9.9, ci_high=10.1, difference="faster")
    document = {"schema": 1, "rows": [row], "errors": []}
    (tmp_path / "a.json").write_text(json.dumps(document))
    done = bench("compare", "a.json", "a.json", "--format", "markdown")
    assert done.code == 0, done
    cells = re.findall(r"<td[^>]*>(.*?)</td>", RENDERER.render(done.out))
    assert len(cells) == 4
    assert cells[0].startswith(name)
    assert cells[3] == "same"
