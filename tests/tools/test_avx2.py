"""An environment whose libraries see AVX2 only: which bytes of a library are edited."""

from __future__ import annotations

import importlib.util
import struct
from pathlib import Path

import pytest

pytest.importorskip("capstone")
PROGRAM = Path(__file__).parents[2] / "tools" / "avx2" / "__main__.py"
AROUND = b"\x90" * 64
ASKS = b"\xb8\x07\x00\x00\x00\x31\xc9\x0f\xa2\x89\x1c\x24"  # mov eax, 7; xor ecx, ecx; cpuid; …
CONSTANT = b"\xb8\x0f\xa2\x00\x00"  # mov eax, 0xa20f
CALL = b"\xe8\x10\x0f\xa2\xff"  # call to an address that has these bytes


@pytest.fixture(scope="module")
def program():
    found = importlib.util.spec_from_file_location("avx2", PROGRAM)
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def library(code: bytes, data: bytes) -> bytes:
    """An ELF file with one executable segment and one of data."""
    header = b"\x7fELF" + bytes(28) + struct.pack("<Q", 64) + bytes(14) + struct.pack("<HH", 56, 2)
    begin = 64 + 2 * 56
    segments = [(5, begin, len(code)), (6, begin + len(code), len(data))]
    table = [struct.pack("<IIQQQQQQ", 1, f, at, at, at, n, n, 1) for f, at, n in segments]
    return header.ljust(64, b"\0") + b"".join(table) + code + data


def test_each_cpuid_is_replaced_and_nothing_that_looks_like_one(program):
    code = AROUND + ASKS + AROUND + CONSTANT + AROUND + CALL + AROUND
    edited, count = program.without_cpuid(library(code, AROUND + ASKS))
    assert count == 1
    expected = code.replace(ASKS, ASKS.replace(b"\x0f\xa2", b"\x0f\xff"))
    assert edited == library(expected, AROUND + ASKS)


def test_scripts_run_the_copied_interpreter_whatever_path_the_environment_was_given_by(
    program, tmp_path, monkeypatch
):
    environment, copied = tmp_path / "venv", tmp_path / "copy"
    (environment / "bin").mkdir(parents=True)
    (tmp_path / "here").mkdir()
    (tmp_path / "link").symlink_to(environment)
    monkeypatch.chdir(tmp_path / "here")
    for given in (environment, Path("../venv"), tmp_path / "link"):
        script = tmp_path / "script"
        script.write_text(f"#!{environment}/bin/python3\nprint(1)\n")
        program.redirect(script, given, copied)
        assert script.read_text() == f"#!{copied}/bin/python3\nprint(1)\n"
    script.write_text("#!/bin/sh\n")
    program.redirect(script, environment, copied)
    assert script.read_text() == "#!/bin/sh\n"
