"""A light pass of the fuzzing; `nox -s security` does the long one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parents[2] / "tools" / "fuzz" / "mutations.py"


FORMATS = (
    "study", "run.json", "study record", "history", "samples", "throughput JSON", "machines",
    "archive of runs", "idx", "gzip of idx", "cifar", "ONNX file", "ONNX properties",
)  # fmt: skip


def test_mutated_input_is_read_or_refused() -> None:
    done = subprocess.run(
        [sys.executable, PROGRAM, "--count", "200", "--seed", "1"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    for name in FORMATS:
        assert f"{name}: 200 inputs, 0 failures" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS)
def test_input_guided_by_coverage_is_read_or_refused(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("atheris")
    monkeypatch.setenv("TMPDIR", str(tmp_path))  # libFuzzer ends the process as it is
    done = subprocess.run(
        [sys.executable, PROGRAM.with_name("coverage.py"), "--format", name, "--count", "2000"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Done 2000 runs" in done.stderr


def test_a_parser_that_fails_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    from fuzz import mutations

    def fragile(content: bytes) -> None:
        content.decode()

    monkeypatch.setattr(mutations, "targets", lambda _: {"text": (b"some text", fragile)})
    assert any("UnicodeDecodeError" in line for line in mutations.fuzz("text", 200))
