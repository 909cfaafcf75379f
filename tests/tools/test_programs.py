"""Programs for developers: what they are asked for is not taken for something else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

TOOLS = Path(__file__).parents[2] / "tools"
# A command that saves its state for a while after the first request to stop.
BENCH = """#!{python}
import pathlib, signal, sys, time
def stop(number, frame):
    time.sleep(0.5)
    pathlib.Path("saved").write_text(str(number))
    sys.exit(75)
signal.signal(signal.SIGTERM, stop)
signal.signal(signal.SIGINT, stop)
pathlib.Path("begun").touch()
time.sleep(60)
"""


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


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_study_saves_its_state(number: int, tmp_path: Path) -> None:
    bench = tmp_path / "bin" / "bench"
    bench.parent.mkdir()
    bench.write_text(BENCH.format(python=sys.executable))
    bench.chmod(0o755)
    path = f"{bench.parent}{os.pathsep}{os.environ['PATH']}"
    command = [sys.executable, str(TOOLS / "experiments.py"), "--results", "somewhere"]
    with subprocess.Popen(command, cwd=tmp_path, env={**os.environ, "PATH": path}) as program:
        while not (tmp_path / "begun").exists():
            assert program.poll() is None
            time.sleep(0.02)
        program.send_signal(number)
        assert program.wait() == 75
    assert (tmp_path / "saved").read_text() == str(int(number))
