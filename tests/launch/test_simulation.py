from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_no_run_is_lost_or_done_twice_when_workers_are_killed(tmp_path):
    """The simulation of docs/scale.md, smaller."""
    script = Path(__file__).parents[2] / "tools" / "simulation.py"
    words = ["--runs", "400", "--workers", "100", "--kills", "3", "--training-seconds", "1"]
    done = subprocess.run(
        [sys.executable, script, *words, "--results", tmp_path],
        capture_output=True, text=True, check=True, timeout=300,
    )  # fmt: skip
    figures = json.loads(done.stdout)
    assert figures["killed_workers"] > 0
    assert figures["attempts"] > figures["runs"]  # some were begun again
    assert figures["lost"] == figures["done_twice"] == figures["half_recorded"] == 0
