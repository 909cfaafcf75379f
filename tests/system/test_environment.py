from __future__ import annotations

import subprocess

import pytest

from bench.system import environment

NVRM = """NVRM version: NVIDIA UNIX {}  {}  Release Build  (dvs-builder@U16)
GCC version:  gcc version 12.2.0
"""


@pytest.fixture(autouse=True)
def _asked_again():
    environment._nvidia_driver.cache_clear()
    yield
    environment._nvidia_driver.cache_clear()


@pytest.mark.parametrize(
    ("flavour", "version"),
    [
        ("x86_64 Kernel Module", "550.54.15"),
        ("Open Kernel Module for x86_64", "580.95.05"),
        ("Open Kernel Module for aarch64", "580.95"),
    ],
)
def test_the_nvidia_driver_is_known_without_starting_a_program(
    tmp_path, monkeypatch, flavour, version
):
    (tmp_path / "version").write_text(NVRM.format(flavour, version))
    monkeypatch.setattr(environment, "_DRIVER_FILE", tmp_path / "version")
    monkeypatch.setattr(subprocess, "run", None)
    assert environment._nvidia_driver() == version


def test_without_that_file_nvidia_smi_is_asked_once(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(environment, "_DRIVER_FILE", tmp_path / "absent")
    monkeypatch.setattr(environment, "_output_of", lambda *words: asked.append(words) or "550.1\n")
    assert environment._nvidia_driver() == environment._nvidia_driver() == "550.1"
    assert len(asked) == 1


def test_a_run_is_compared_by_what_may_change_its_result():
    here = {"torch": "2.9", "instruction_sets": ["avx2"], "device": "cuda:0", "gpu": "L4"}
    assert environment.differences({**here, "device": "cuda:1", "cpu": "another"}, here) == []
    assert environment.differences({**here, "gpu": "H100"}, here) == ["gpu H100 then, L4 now"]
    assert environment.differences({**here, "instruction_sets": ["avx2", "avx512f"]}, here) == [
        "instruction sets avx2+avx512f then, avx2 now"
    ]
