"""Output on terminals and redirections that are not UTF-8."""

from __future__ import annotations

import io
import subprocess
import sys
from importlib import resources
from typing import TYPE_CHECKING

import pytest

from bench.cli import main
from builders import make_record

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from bench.store import Store

    Encoded = Callable[..., str]

ENCODINGS = ("ascii", "cp1252", "latin-1", "koi8-r", "cp932")


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Encoded:
    """Run `bench WORDS…` with stdout and stderr in an encoding; return what stdout received."""
    monkeypatch.chdir(tmp_path)

    def run(encoding: str, *words: object, errors: str = "strict") -> str:
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
def test_every_encoding_gets_the_whole_output(
    encoding: str, words: tuple[str, ...], encoded: Encoded
) -> None:
    lines = encoded(encoding, *words).splitlines()
    assert len(lines) == len(encoded("utf-8", *words).splitlines())


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_study_is_reported_in_every_encoding(
    encoding: str, encoded: Encoded, trained: Path, tiny_study: Path
) -> None:
    words = ("--results", trained)
    page = encoded(encoding, "report", "tiny", *words, "--format", "markdown", "--output", "-")
    assert "means over seeds" in page
    assert "runs" in encoded(encoding, "results", "ls", *words)
    again = encoded(encoding, "run-ablation", tiny_study, *words, "--device", "cpu", "--threads", 1)
    assert "Does the shortcut matter here?" in again


def test_a_finished_measurement_is_shown_in_ascii(encoded: Encoded, tmp_path: Path) -> None:
    words = ("resnet8", "--option", "width=4", "--input-size", 8, "--batch-size", 1)
    out = encoded(
        "ascii", "throughput", *words, "--backend", "eager", "--max-seconds", 0.2, "--processes", 1
    )
    assert "2 x multiply-adds" in out
    assert list((tmp_path / "bench-runs" / "measurements").iterdir())


def test_characters_become_ascii_that_reads_the_same(encoded: Encoded) -> None:
    assert encoded("ascii", "list", "recipes") == (
        encoded("utf-8", "list", "recipes").translate(
            str.maketrans({"×": "x", "→": "->", "…": "..."})
        )
    )


def test_a_file_name_that_is_no_text_is_written_as_its_bytes(
    encoded: Encoded, trained: Path
) -> None:
    folder = "r\udce9sultats"  # Latin-1 on a UTF-8 system
    out = encoded("latin-1", "report", "tiny", "--results", trained, "--output", folder)
    assert "résultats/README.md" in out


@pytest.mark.parametrize(
    "words", [("init", "mine.toml"), ("list", "recipes"), ("list", "models")], ids=" ".join
)
def test_nothing_is_read_in_the_locales_encoding(
    words: tuple[str, ...], program: Callable[..., list[str]], tmp_path: Path
) -> None:
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(program(*words), capture_output=True, check=True, cwd=tmp_path, env=plain)
    assert done.stdout.isascii()
    for written in tmp_path.glob("*.toml"):
        template = resources.files("bench.ablations").joinpath("starter.template")
        assert written.read_bytes() == template.read_bytes()


def test_documents_of_runs_are_read_as_utf8(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    document = {"classes": ["é", "→"]}
    record = store.finish_run(make_record(), documents={"classes.json": document})
    monkeypatch.setattr("io.text_encoding", lambda *_: "ascii")  # the default of read_text
    assert store.read_document(record.run, "classes.json") == document


def test_a_process_of_its_own_writes_ascii(
    program: Callable[..., list[str]], tmp_path: Path
) -> None:
    done = subprocess.run(
        program("list", "models"),
        capture_output=True,
        check=True,
        cwd=tmp_path,
        env={"PYTHONIOENCODING": "ascii"},
    )
    assert done.stdout.isascii()
    assert not done.stderr
