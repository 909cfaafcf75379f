"""The page as a file: complete, escaped, small, and never without a word."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from typing import TYPE_CHECKING

import pytest

from bench.errors import BenchError
from bench.report.pages.html import html
from bench.report.pages.publish import publish
from bench.report.pages.study_report import read_study_report
from bench.report.tables.study import settings_table
from bench.store import Store
from bench.store.tables.columns import COLUMNS, typed_frame
from builders import make_record, make_request, make_study, make_unfinished, page_data

if TYPE_CHECKING:
    from pathlib import Path

EVIL = "<script>alert(1)</script>"


class Elements(HTMLParser):
    """Start tags with their attributes, and the visible text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_a_page_has_question_answer_table_and_data(trained: Path, tmp_path: Path) -> None:
    (path,) = publish(read_study_report(Store(trained), "tiny"), tmp_path / "deep", ["html"])
    assert path == tmp_path / "deep" / "report.html"
    page = path.read_text()
    text = " ".join(Elements(page).text.split())
    assert "Does the shortcut matter here?" in text
    assert "After He et al. 2016a, Table 2." in text
    assert "4.934 k" in text
    assert "bench run-ablation tiny.toml --seeds 0,1" in text
    assert re.search(r"4 of 4 runs are complete\. Training took \d+ s in all\.", text)
    assert "Failures" not in text
    data = page_data(page)
    assert len(data["tables"]["runs"]["rows"]) == 4
    assert {t["meta"]["name"] for t in data["charts"]["training-error"]["data"]} == {
        "residual",
        "plain",
    }
    assert path.stat().st_size < 5_000_000


def test_nothing_is_loaded_from_anywhere(trained: Path) -> None:
    for tag, attributes in Elements(html(read_study_report(Store(trained), "tiny"))).tags:
        for name in ("src", "href", "srcset", "action", "poster"):
            value = attributes.get(name)
            assert value is None or value.startswith(("#", "data:")), (tag, value)


def test_names_are_escaped(results: Path) -> None:
    store = Store(results)
    study = store.find_study("tiny")
    variants = {
        EVIL: study.variants["residual"],
        "b": {**study.variants["plain"], "reference": EVIL},
    }
    store.save_study(replace(study, question=f"Why {EVIL}?", source=EVIL, variants=variants))
    page = html(read_study_report(store, "tiny"))
    elements = Elements(page)
    assert EVIL not in page
    assert sum(tag == "script" for tag, _ in elements.tags) == 3
    assert f"Why {EVIL}?" in elements.text
    assert {row[1] for row in page_data(page)["tables"]["runs"]["rows"]} == {EVIL, "b"}


def test_a_failed_run_is_in_plain_sight(results: Path) -> None:
    store = Store(results)
    make_unfinished(store, status="out_of_memory", error="not <enough>")
    text = Elements(html(read_study_report(store, "tiny"))).text
    assert "out of memory" in text
    assert "not <enough>" in text


def test_a_study_without_a_run_says_so_once_and_has_no_empty_figure(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.save_study(make_study({"a": ["a-s0-1"]}))
    elements = Elements(html(read_study_report(store, "mine")))
    assert not [tag for tag, _ in elements.tags if tag in {"figure", "pre", "fieldset"}][1:]
    assert elements.text.count("No run has finished an epoch yet") == 1
    assert "no readable record" in elements.text


def test_what_was_not_measured_is_commands_that_can_be_pasted(trained: Path) -> None:
    report = read_study_report(Store(trained), "tiny")
    run = next(iter(report.data.records))
    for command in (
        "bench throughput tiny",
        "bench export-onnx tiny --precision int8 --sensitivity",
        f"bench lesion {run}",
        f"bench gradients {run}",
        "bench landscape tiny",
    ):
        assert f"{command} --results {trained}" in report.missing_commands
        assert command in html(report)
    assert len(set(report.missing)) == len(report.missing) == 5


def test_what_a_backend_does_not_support_is_no_failure(trained: Path) -> None:
    report = read_study_report(Store(trained), "tiny")
    run = next(iter(report.data.places))
    row = {"run": run, "backend": "tensorrt", "precision": "fp16", "batch_size": 1}
    rows = [
        {**row, "status": "unsupported", "error": "no GPU here"},
        {**row, "status": "failed", "error": "it broke"},
    ]
    vars(report.data)["throughput"] = typed_frame(rows, COLUMNS["throughput"])
    assert [failure.why for failure in report.failures] == ["it broke"]
    text = Elements(html(report)).text
    assert "Not supported here, so not measured: no GPU here." in text
    assert text.index("Failures") < text.index("it broke")


def test_what_differs_between_variants_is_a_table(trained: Path) -> None:
    settings = read_study_report(Store(trained), "tiny").settings
    assert settings.columns == ("variant", "shortcut")
    assert settings.rows == (("residual", "-"), ("plain", "none"))


def test_an_imported_network_is_not_listed_with_settings_of_training() -> None:
    sgd = {"muon_learning_rate": 0.0}
    trained = make_request(learning_rate=0.2, epochs=2, **sgd)
    imported = make_request("resnet8", learning_rate=0.5, epochs=0, **sgd)
    study = make_study({"trained": [trained.run_id], "imported": [imported.run_id]})
    records = {request.run_id: make_record(request) for request in (trained, imported)}
    table = settings_table(study, records)
    assert table.columns == ("variant", "model", "epochs", "learning rate")
    assert table.rows == (("trained", "resnet20", "2", "0.2"), ("imported", "resnet8", "0", "-"))


def test_an_unknown_study_is_named(trained: Path) -> None:
    with pytest.raises(BenchError, match=r"no study 'tinny' in .*did you mean 'tiny'"):
        read_study_report(Store(trained), "tinny")
