"""A light pass of the fuzzing; `nox -s security` does the long one."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("mutations.py")


@pytest.mark.parametrize("name", ["study", "run.json", "idx", "gzip of idx", "cifar"])
def test_mutated_input_is_read_or_refused(name: str) -> None:
    done = subprocess.run(
        [sys.executable, PROGRAM, "--count", "200", "--seed", "1", "--format", name],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith(f"{name}: 200 inputs, 0 failures")


def test_a_parser_that_fails_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = importlib.util.spec_from_file_location("mutations", PROGRAM)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def fragile(content: bytes) -> None:
        content.decode()

    monkeypatch.setattr(module, "targets", lambda _: {"text": (b"some text", fragile)})
    assert any("UnicodeDecodeError" in line for line in module.fuzz("text", 200))
