"""`bench.Report` as a notebook shows it, and the notebook of the documentation."""

from __future__ import annotations

import base64
import html
import re
import shutil
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import bench
from bench.errors import BenchError
from bench.report.pages.study_report import read_study_report
from bench.report.tables.study import COLUMNS
from bench.store import Store
from bench.store.analyses import Analyses
from bench.store.exports import ExportRecord, Exports
from builders import make_study, make_unfinished

NOTEBOOK = Path(__file__).parents[2] / "docs" / "notebooks" / "report.ipynb"
EVIL = "<script>alert(1)</script>"


def test_a_report_shows_question_answer_table_and_picture(trained: Path) -> None:
    report = bench.Report(trained)
    shown = report._repr_html_()
    assert "<h3>Does the shortcut matter here?</h3>" in shown
    whole = read_study_report(Store(trained), "tiny")
    assert all(text in html.unescape(shown) for text in whole.statements)
    assert report.answer.startswith(whole.answer)
    assert shown.count("<tr>") == 3
    (picture,) = re.findall(r'src="data:image/svg\+xml;base64,([^"]+)"', shown)
    texts = {e.text for e in ET.fromstring(base64.b64decode(picture)).iter() if e.text}
    assert {"residual", "plain"} <= texts
    assert "http" not in re.sub(r'src="data:[^"]+"', "", shown)


@pytest.mark.parametrize("table", ["epoch", "measurements"])
def test_a_report_has_the_tables_of_load_results_only(trained: Path, table: Any) -> None:
    with pytest.raises(BenchError, match=f"table {table} is unknown"):
        bench.Report(trained).load(table)


def test_accuracies_as_numbers_lie_between_0_and_1(trained: Path) -> None:
    """Two seeds have intervals that would end beyond."""
    numbers = bench.Report(trained).numbers
    ends = numbers.filter(regex="accuracy").astype(float)
    assert ends.notna().any(axis=None)
    assert ends.stack().between(0, 1).all()


@pytest.mark.parametrize("force", [True, False])
def test_what_was_made_of_weights_before_force_is_left_out(
    trained: Path, tmp_path: Path, *, force: bool
) -> None:
    shutil.copytree(trained, folder := tmp_path / "results")
    record = next(Store(folder).runs())
    weights = "0" * 64 if force else record.files["model.safetensors"]
    request = {"run": record.run, "weights": weights}
    rows = [{"run": record.run, "lesion": "none", "test_accuracy": 0.5}]
    Analyses(folder).publish("lesion", request, {"lesions": rows}, {})
    exports = Exports(folder)
    with exports.workspace() as work:
        (work / "model.onnx").write_bytes(b"")
        values = {"run": record.run, "sha256": "a" * 64, "file": "model.onnx", "format": "onnx"}
        exports.publish(work, ExportRecord("a" * 64, request, {**values, "status": "complete"}))
    report = bench.Report(folder)
    assert [len(report.load(table)) for table in ("lesions", "exports")] == [not force] * 2


def test_a_report_is_markdown_too(trained: Path) -> None:
    text = bench.Report(trained / "studies" / "tiny.json")._repr_markdown_()
    assert text.startswith("# Does the shortcut matter here?\n")
    assert "\n| residual | " in text


def test_a_report_gives_its_parts(trained: Path) -> None:
    report = bench.Report(trained, "tiny")
    assert report.question == "Does the shortcut matter here?"
    assert list(report.table.index) == ["residual", "plain"]
    assert list(report.table.columns) == list(COLUMNS[1:])
    assert len(report.load()) == len(report.load("epochs")) == 4
    assert report.load("throughput").empty
    assert len(report.figure().axes) == 3
    assert repr(report) == f"Report({str(trained)!r}, 'tiny')"


def test_names_are_escaped(results: Path) -> None:
    store = Store(results)
    study = store.find_study("tiny")
    variants = {EVIL: study.variants["residual"]}
    store.save_study(replace(study, question=f"Why {EVIL}?", source=EVIL, variants=variants))
    assert EVIL not in bench.Report(results)._repr_html_()


def test_what_is_not_finished_is_said(results: Path) -> None:
    make_unfinished(Store(results))
    assert "<p>Not complete: 1 failed.</p>" in bench.Report(results)._repr_html_()


def test_a_study_without_a_run_is_shown_as_such(tmp_path: Path) -> None:
    Store(tmp_path).save_study(make_study({"a": ["a-s0-1"]}))
    report = bench.Report(tmp_path)
    assert "a has no result yet." in report._repr_html_()
    assert "no finished run yet" in report._repr_markdown_()


def test_what_is_not_there_is_refused(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(bench.BenchError, match=r"no study 'tinny' in .*did you mean 'tiny'"):
        bench.Report(trained, "tinny")
    with pytest.raises(bench.BenchError, match="no results folder at "):
        bench.Report(tmp_path / "nowhere")


def test_the_notebook_is_kept_without_outputs() -> None:
    nbformat = pytest.importorskip("nbformat")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert code
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)


@pytest.mark.slow
def test_the_notebook_runs_from_top_to_bottom(tmp_path: Path) -> None:
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    client = nbclient.NotebookClient(
        notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute()
    shown = [
        output.data
        for cell in notebook.cells
        if cell.cell_type == "code"
        for output in cell.outputs
        if output.output_type in {"execute_result", "display_data"}
    ]
    assert any("<h3>Does the shortcut matter" in data.get("text/html", "") for data in shown)
    assert any("image/png" in data for data in shown)
    assert (tmp_path / "bench-runs" / "studies" / "notebook.json").is_file()
