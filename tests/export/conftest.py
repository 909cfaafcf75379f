"""One short training for all tests of this room; exports are made from it."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from bench import train

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Results folder and id of a small run."""
    results = tmp_path_factory.mktemp("results")
    settings = {"train_images": 1000, "learning_rate": 0.05}
    row = train(
        "resnet8", options={"width": 8}, epochs=3, settings=settings, results=results,
        threads=1, quiet=True,
    )  # fmt: skip
    assert row["status"].item() == "complete"
    return results, row["run"].item()


@pytest.fixture
def cli(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the installed command in an empty folder."""

    def run(*arguments: str, cwd: Path = tmp_path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-P", "-c", "from bench.cli import main; main()", *arguments]
        return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)

    return run
