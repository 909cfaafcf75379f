"""Programs for developers: what they are asked for is not taken for something else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

TOOLS = Path(__file__).parents[2] / "tools"


@pytest.mark.parametrize(
    "program", ["calibration.py", "costs.py", "fashion_mnist_mini.py", "republish.py"]
)
def test_help_is_shown_and_nothing_is_done(program: str, tmp_path: Path) -> None:
    published = TOOLS.parent / "ablations" / "costs.json"
    before = published.stat().st_mtime_ns
    command = [sys.executable, str(TOOLS / program), "--help"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage: ")
    assert published.stat().st_mtime_ns == before
    assert not list(tmp_path.iterdir())


def test_a_study_that_is_not_published_is_refused() -> None:
    command = [sys.executable, str(TOOLS / "republish.py"), "dept"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "not published: dept" in done.stderr
