"""Output on terminals and redirections that are not UTF-8."""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
from functools import partial
from importlib import resources

import pytest
from rich.console import Console

from bench.cli import main
from bench.store import Store
from builders import make_record

ENCODINGS = ("ascii", "cp1252", "latin-1", "koi8-r", "cp932")


@pytest.fixture
def encoded(monkeypatch, tmp_path):
    """Run `bench WORDS…` with stdout and stderr in an encoding; return what stdout received."""
    monkeypatch.chdir(tmp_path)

    def run(encoding, *words, errors="strict"):
        written = io.BytesIO()
        monkeypatch.setattr(sys, "argv", ["bench", *map(str, words)])
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding, errors))
        monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(io.BytesIO(), encoding, "strict"))
        with pytest.raises(SystemExit) as left:
            main()
        assert left.value.code == 0
        return written.getvalue().decode(encoding)

    return run


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize(
    "words",
    [
        ("--help",),
        ("list", "models"),
        ("list", "recipes"),
        ("list", "datasets"),
        ("list", "backends"),
        ("doctor",),
        ("describe", "resnet8"),
    ],
    ids=" ".join,
)
def test_every_encoding_gets_the_whole_output(encoding, words, encoded):
    lines = encoded(encoding, *words).splitlines()
    assert len(lines) == len(encoded("utf-8", *words).splitlines())


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_study_is_reported_in_every_encoding(encoding, encoded, trained, tiny_study):
    words = ("--results", trained)
    page = encoded(encoding, "report", "tiny", *words, "--format", "markdown", "--output", "-")
    assert "means over seeds" in page
    assert "runs" in encoded(encoding, "results", "ls", *words)
    again = encoded(encoding, "run-ablation", tiny_study, *words, "--device", "cpu", "--threads", 1)
    assert "Does the shortcut matter here?" in again


def test_a_finished_measurement_is_shown_in_ascii(encoded, tmp_path):
    words = ("resnet8", "--option", "width=4", "--input-size", 8, "--batch-size", 1)
    out = encoded(
        "ascii", "throughput", *words, "--backend", "eager", "--max-seconds", 0.2, "--processes", 1
    )
    assert "2 x multiply-adds" in out
    assert list((tmp_path / "bench-runs" / "measurements").iterdir())


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_an_imported_network_is_shown_in_every_encoding(encoding, encoded, trained, tmp_path):
    run = next(record for record in Store(trained).runs() if record.status == "complete")
    weights = tmp_path / "Gewichte é→.safetensors"
    shutil.copy(trained / "runs" / run.run / "model.safetensors", weights)
    options = [f"--option={key}={value}" for key, value in run.request["options"].items()]
    out = encoded(
        encoding, "import", run.request["model"], *options, "--weights", weights, "--dataset",
        "fashion-mnist-mini", "--device", "cpu", "--threads", 1,
    )  # fmt: skip
    assert "test accuracy" in out
    assert "bench export-onnx" in out


def test_characters_become_ascii_that_reads_the_same(encoded):
    assert encoded("ascii", "list", "recipes") == (
        encoded("utf-8", "list", "recipes").translate(
            str.maketrans({"×": "x", "→": "->", "…": "..."})
        )
    )


def test_signs_of_narrow_tables_have_ascii(encoded, monkeypatch):
    console = partial(Console, width=60, force_terminal=True, color_system=None)
    monkeypatch.setattr("bench.cli.output.Console", console)
    shown = encoded("ascii", "list", "recipes")
    assert "book 10 | fast 5\n" in shown
    assert "?" not in shown


def test_a_file_name_that_is_no_text_is_written_as_its_bytes(encoded, trained):
    folder = "r\udce9sultats"  # Latin-1 on a UTF-8 system
    out = encoded("latin-1", "report", "tiny", "--results", trained, "--output", folder)
    assert "résultats/README.md" in out


@pytest.mark.parametrize(
    "words", [("init", "mine.toml"), ("list", "recipes"), ("list", "models")], ids=" ".join
)
def test_nothing_is_read_in_the_locales_encoding(words, program, tmp_path):
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(program(*words), capture_output=True, check=True, cwd=tmp_path, env=plain)
    assert done.stdout.isascii()
    for written in tmp_path.glob("*.toml"):
        template = resources.files("bench.ablations").joinpath("starter.template")
        assert written.read_bytes() == template.read_bytes()


def test_documents_of_runs_are_read_as_utf8(store, monkeypatch):
    document = {"classes": ["é", "→"]}
    record = store.finish_run(make_record(), documents={"classes.json": document})
    monkeypatch.setattr("io.text_encoding", lambda *_: "ascii")  # the default of read_text
    assert store.read_document(record.run, "classes.json") == document


def test_a_process_of_its_own_writes_ascii(program, tmp_path):
    done = subprocess.run(
        program("list", "models"),
        capture_output=True,
        check=True,
        cwd=tmp_path,
        env={"PYTHONIOENCODING": "ascii"},
    )
    assert done.stdout.isascii()
    assert not done.stderr
