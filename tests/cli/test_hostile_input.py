"""Input made to harm: every one is one line and exit code 2, and nothing is left behind."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    Bench = Callable[..., Any]

STUDY = 'question = "q"\n[[variant]]\nname = "a"\nmodel = "resnet8"\n'
GRID = "".join(f"options.o{n} = [1, 2, 3, 4, 5, 6, 7, 8, 9]\n" for n in range(12))
FILES = {
    "nested too deeply": (f"x = {'[' * 100_000}", "nested too deeply for a study"),
    "a number of 5,000 digits": (f"x = {'9' * 5_000}", "not valid TOML: Exceeds the limit"),
    "a grid that multiplies out to billions": (
        f'question = "q"\n[grid]\nmodel = ["resnet8"]\n{GRID}',
        r"study.toml:2: the grid multiplies out to 282,429,536,481 variants, .* at most 1,000",
    ),
    "ten megabytes": (STUDY + "#" * 10_000_000, "more than 1,000,000 bytes"),
    "a rate that is no number": (
        f"{STUDY}learning_rate = nan\n",
        "learning_rate = NaN: input should be greater than 0",
    ),
}


@pytest.mark.parametrize(("content", "message"), FILES.values(), ids=FILES)
def test_a_hostile_study_is_refused_in_one_line(
    content: str, message: str, bench: Bench, tmp_path: Path, entries: Callable[[Path], set[str]]
) -> None:
    (tmp_path / "study.toml").write_text(content)
    refusal = bench("run-ablation", "study.toml", "--dry-run").refusal
    assert re.search(message, refusal), refusal
    assert entries(tmp_path) == {"study.toml"}


def test_a_pipe_is_no_study(bench: Bench, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.toml")
    assert "it is a device or pipe; give a file" in bench("run-ablation", "pipe.toml").refusal


@pytest.mark.parametrize("name", ["a\x1b[2Jb.toml", "a\udcffb.toml", "a\x07b.toml"])
def test_a_name_cannot_steer_the_terminal(name: str, bench: Bench) -> None:
    assert bench("run-ablation", name).refusal.isprintable()


def test_a_network_larger_than_any_memory_is_refused(bench: Bench, tmp_path: Path) -> None:
    outcome = bench("train", "resnet8", "--option", "width=99999999")
    assert "not enough memory" in outcome.refusal
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full")
@pytest.mark.parametrize("words", [["list", "models"], ["list", "models", "--json"]], ids=" ".join)
def test_output_to_a_full_disk_is_one_line(
    words: list[str], program: Callable[..., Any], tmp_path: Path
) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            program(*words), stdout=full, stderr=subprocess.PIPE, text=True, check=False,
            cwd=tmp_path,
        )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith("bench: error: cannot write the output: No space left")
    assert done.stderr.count("\n") == 1, done.stderr
