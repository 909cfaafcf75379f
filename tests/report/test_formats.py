"""What `bench report --format` writes: it loads back, pastes, compiles, or is refused."""

from __future__ import annotations

import re
import shutil
import subprocess
import xml.etree.ElementTree as ET
from typing import TYPE_CHECKING

import pandas as pd
import pytest
from typer.testing import CliRunner

import bench as package
from bench.cli.app import app
from bench.export.settings import Settings
from bench.report.pages import commands
from bench.report.tables.text_table import TextTable
from bench.store import Store
from bench.store.analyses import Analyses
from bench.store.exports import ExportRecord, Exports
from bench.store.measurements import MeasurementRecord, Measurements
from bench.store.tables.columns import COLUMNS
from builders import make_unfinished

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


ROWS = {
    "runs": 4, "epochs": 4, "exports": 1, "throughput": 2, "cold_starts": 1, "lesions": 1,
    "gradients": 2, "correlations": 1, "landscapes": 3, "comparisons": 1,
}  # fmt: skip


@pytest.fixture(scope="module")
def measured(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results folder with an export and a measurement and analyses of one run, made up.

    It is only to be read.
    """
    results = shutil.copytree(trained, tmp_path_factory.mktemp("measured") / "bench-runs")
    run = next(Store(results).runs()).run
    exports = Exports(results)
    row = {
        "export": "e" * 64, "run": run, "model": "resnet8", "format": "onnx", "precision": "fp32",
        "target": "any", "opset": 20, "file": "model.onnx", "sha256": "e" * 64, "bytes": 1234,
        "max_abs_diff": 1e-7, "max_rel_diff": 1 / 3, "flipped_predictions": 0,
        "images_compared": 1000, "torch_accuracy": 0.5, "test_accuracy": 0.5, "seconds": 1.5,
        "cpu": "made up", "status": "complete", "error": None, "executed_precision": "fp32",
    }  # fmt: skip
    with exports.workspace() as folder:
        (folder / "model.onnx").write_bytes(b"no network")
        exports.publish(folder, ExportRecord("e" * 64, {}, row))
    one = {
        "measurement": "m", "model": "resnet8", "options": "width=4", "run": run,
        "file_sha256": None, "backend": "eager", "provider": "cpu", "executed_precision": "fp32",
        "device": "cpu", "precision": "fp32", "memory_format": "contiguous", "batch_size": 32,
        "input_size": 28, "boundary": "compute", "scenario": "offline", "threads": 1,
        "images_per_second": 1e4 / 3, "ci_low": 3e3, "ci_high": 4e3, "width": 0.1, "ratio": 1.0,
        "difference": "reference", "cpu": "made up", "noisy": True, "samples": 30, "macs": 123,
        "status": "complete", "error": None,
    }  # fmt: skip
    rows = [one, {**one, "batch_size": None, "noisy": None, "images_per_second": None}]
    cold = {
        "measurement": "m", "model": "resnet8", "run": run, "backend": "eager", "phase": "load",
        "precision": "fp32", "memory_format": "contiguous", "seconds": 1 / 3, "status": "complete",
    }  # fmt: skip
    Measurements(results).publish(
        MeasurementRecord(
            "m", {"targets": ["resnet8"]}, rows, {"threads": 1}, cold_starts=[cold]
        ), [],
    )  # fmt: skip
    _publish_analyses(Analyses(results), run)
    return results


def _publish_analyses(store: Analyses, run: str) -> None:
    dropped = {"run": run, "lesion": "drop", "block": "layer1.0", "test_accuracy": 1 / 3,
               "norm_ratio": None, "images": 1000}  # fmt: skip
    store.publish("lesion", {"run": run}, {"lesions": [dropped]}, {})
    block = {"target": run, "run": run, "epoch": 0, "block": "layer1.0", "depth": 1,
             "gradient_norm": 1e-7}  # fmt: skip
    near = {"target": run, "run": run, "epoch": 0, "lag": 1, "correlation": -1 / 3}
    tables = {"gradients": [block, {**block, "epoch": 1}], "correlations": [near]}
    store.publish("gradients", {"run": run}, tables, {})
    place = {"run": run, "model": "resnet8", "split": "train", "images": 10, "seed": 0, "x": 0.1,
             "y": None, "loss": None, "accuracy": 0.5}  # fmt: skip
    store.publish("landscape", {"run": run}, {"landscapes": [place] * 3}, {})


@pytest.fixture(scope="module")
def written(measured: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with every table of it, as CSV and Parquet."""
    folder = tmp_path_factory.mktemp("written")
    words = ["report", "tiny", "--results", str(measured), "--format", "csv,parquet"]
    done = CliRunner().invoke(app, [*words, "--output", str(folder)])
    assert done.exit_code == 0, done
    return folder


# pandas 2 does not round-trip floats by itself; pandas 4 will not know the argument.
@pytest.mark.filterwarnings("ignore:The .float_precision. argument")
@pytest.mark.parametrize("table", COLUMNS)
def test_every_table_keeps_its_types_and_loads_back_equal(
    table: str, measured: Path, written: Path
) -> None:
    expected = package.load_results(measured / "studies" / "tiny.json", table)  # type: ignore[arg-type]
    assert len(expected) == ROWS[table]
    assert {n: str(d) for n, d in expected.dtypes.items()} == COLUMNS[table]
    pd.testing.assert_frame_equal(pd.read_parquet(written / f"{table}.parquet"), expected)
    times = [name for name, dtype in COLUMNS[table].items() if dtype.startswith("datetime")]
    types = {name: dtype for name, dtype in COLUMNS[table].items() if name not in times}
    csv = pd.read_csv(
        written / f"{table}.csv", dtype=types, parse_dates=times, float_precision="round_trip"
    )
    pd.testing.assert_frame_equal(csv.astype(COLUMNS[table]), expected)


def test_a_page_shows_what_was_measured_and_found_besides_training(
    bench: Callable, measured: Path, tmp_path: Path
) -> None:
    assert bench("report", "tiny", "--results", measured).code == 0
    folder = tmp_path / "report" / "tiny"
    page = (folder / "README.md").read_text()
    shown = re.findall(r"!\[[^]]+\]\(([^)]+)\)", page)
    assert {"study.svg", "accuracy-images-per-second.svg"} <= set(shown)
    assert {"lesion-drop.svg", "gradient-depth.svg"} <= set(shown)
    assert len(set(shown)) == len(shown)
    for name in shown:
        assert ET.parse(folder / name).getroot().tag.endswith("svg")
        assert (folder / name).with_suffix(".png").stat().st_size > 0
    assert {p.name for p in folder.glob("*.svg")} == set(shown)
    assert "\n## Inside the networks\n\n![" in page
    made = page.partition(
        "## How it was made\n\n- command: `bench run-ablation tiny.toml --seeds 0,1 --threads 1`\n"
    )[2]
    assert "- then `bench export-onnx tiny --precision fp32`\n" in made
    assert re.search(r"- then `bench throughput resnet8 --processes 1 --threads 1`\n", made)
    assert re.search(r"- then `bench lesion resnet8-\S+`\n", made)


def test_markdown_on_stdout_stands_alone(bench: Callable, trained: Path) -> None:
    outcome = bench("report", "tiny", "--results", trained, "--format", "markdown", "--output", "-")
    assert outcome.code == 0, outcome
    assert outcome.out.startswith("# Does the shortcut matter here?\n")
    assert outcome.out.count("<details>") == outcome.out.count("</details>") == 2
    assert "<summary>The same test images, seed by seed (2)</summary>\n\nEach row" in outcome.out
    assert "<summary>Every run (4)</summary>\n\n| variant |" in outcome.out
    assert "study.svg" not in outcome.out
    assert len(outcome.out.encode()) < 2**20


def test_a_failed_run_stands_in_plain_sight(bench: Callable, results: Path) -> None:
    make_unfinished(Store(results), error="why | not")
    out = bench("report", "tiny", "--results", results, "--format", "markdown", "--output", "-").out
    assert "**1 of 4 runs are not complete:**" in out
    assert "failed: `why | not`" in out


ODD = TextTable(
    ("variant", "test accuracy %"),
    (
        ("a_b & c % $x$ #1 {y} ~^\\end", "90.03 ± 0.10"),
        ("[odd]", "-5.00 [-5.10, +4.90]"),
        ("<script>", "<0.001"),
    ),
)


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
def test_a_latex_table_compiles_whatever_a_variant_is_called(tmp_path: Path) -> None:
    (tmp_path / "paper.tex").write_text(
        "\\documentclass{article}\n\\usepackage{booktabs}\n\\begin{document}\n"
        + ODD.to_latex("Is 5 % of x_1 enough?")
        + "\\end{document}\n"
    )
    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"],
        cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:]
    assert (tmp_path / "paper.pdf").stat().st_size > 1000


def test_a_latex_table_has_a_line_a_variant(bench: Callable, trained: Path, tmp_path: Path) -> None:
    assert bench("report", "tiny", "--results", trained, "--format", "latex").code == 0
    text = (tmp_path / "report" / "tiny" / "table.tex").read_text()
    assert text.count("\\toprule") == text.count("\\midrule") == text.count("\\bottomrule") == 1
    assert text.count(" \\\\\n") == 3


@pytest.mark.parametrize(
    ("columns", "shown"),
    [
        ("test,difference", "variant & test accuracy \\% & difference (points)"),
        ("Train-Accuracy-%,p", "variant & train accuracy \\% & p (adjusted)"),
    ],
)
def test_a_latex_table_on_stdout_has_the_columns_that_are_chosen(
    columns: str, shown: str, bench: Callable, trained: Path, tmp_path: Path
) -> None:
    words = ("report", "tiny", "--results", trained, "--format", "latex", "--output", "-")
    out = bench(*words, "--columns", columns).out
    assert f"\n{shown} \\\\\n" in out
    assert "\\label{tab:tiny}" in out
    assert not (tmp_path / "report").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--format", "cvs"], "--format cvs is unknown; did you mean 'csv'"),
        (["--format", ""], "--format (empty) is unknown"),
        (["--format", "csv,,html"], "--format (empty) is unknown"),
        (["--columns", "test"], "give --format latex too"),
        (["--format", "latex", "--columns", "t"], "--columns: 't' fits several columns"),
        (["--format", "latex", "--columns", "cost"], "--columns: 'cost' is no column"),
        (["--width", "3"], "--figures DIR: give that too"),
        (["--format", "csv", "--output", "-"], "give --format markdown or latex or json"),
        (["--format", "json", "--output", "-", "--figures", "report"], "remove --figures"),
        (["--publish", "--output", "report"], "remove it, or --output report"),
    ],
)
def test_what_cannot_be_written_is_refused(
    words: list[str], said: str, bench: Callable, trained: Path, tmp_path: Path
) -> None:
    assert said in bench("report", "tiny", "--results", trained, *words).refusal
    assert not (tmp_path / "report").exists()


def test_an_output_that_is_a_file_is_refused(
    bench: Callable, trained: Path, tmp_path: Path
) -> None:
    (tmp_path / "taken").write_text("mine")
    for name in ("csv", "parquet", "markdown", "latex"):
        words = ["report", "tiny", "--results", trained, "--format", name, "--output", "taken"]
        assert "cannot write taken" in bench(*words).refusal
    assert (tmp_path / "taken").read_text() == "mine"


def test_a_results_folder_that_is_missing_or_empty_is_refused(
    bench: Callable, tmp_path: Path
) -> None:
    assert "no results folder at nowhere" in bench("report", "--results", "nowhere").refusal
    (tmp_path / "empty").mkdir()
    assert "no study in empty" in bench("report", "--results", "empty").refusal


def test_an_export_is_repeated_with_the_options_that_are_not_the_default() -> None:
    settings = Settings(
        precision="int8", target="tensorrt", calibration_method="percentile", max_accuracy_drop=0.5
    )
    record = ExportRecord("e", {"settings": settings.as_dict()}, {"precision": "int8"})
    assert commands._export_options(record) == [
        *("--precision", "int8", "--target", "tensorrt"),
        *("--calibration-method", "percentile", "--max-accuracy-drop", "0.5"),
    ]
