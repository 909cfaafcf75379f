"""The folder that is handed over runs where torch is not."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest

from bench import export_onnx

if TYPE_CHECKING:
    from pathlib import Path

# Only what a colleague has may be imported, of this environment.
ONLY = """
import runpy, sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "bench", "PIL", "onnx", "pandas", "scipy"}:
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Absent())
sys.argv = ["predict.py", *sys.argv[1:]]
runpy.run_path("predict.py", run_name="__main__")
assert "torch" not in sys.modules
"""


def run(folder: Path, *arguments: str) -> str:
    command = [sys.executable, "-c", ONLY, *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_bundle_runs_without_torch(trained: tuple[Path, str], tmp_path: Path) -> None:
    results, name = trained
    export_onnx(name, results=results, bundle=True, output=tmp_path, threads=1)
    folder = tmp_path / f"{name}-bundle"
    said = run(folder).splitlines()
    assert len(said) == 11
    label, figure = said[-1].split(": ")
    assert label == "largest difference from PyTorch"
    assert float(figure) < 1e-3
    grey = np.load(folder / "images.npy")[0, :, :, 0]  # as PIL's mode L gives it
    np.save(tmp_path / "photo.npy", grey)
    (only,) = run(folder, str(tmp_path / "photo.npy")).splitlines()
    assert only.partition(" (")[0] == said[0].partition(" (")[0]
    command = [sys.executable, "predict.py", "photo.jpg"]
    refused = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert "open('photo.jpg').convert('L')" in refused.stderr
    readme = (folder / "README.md").read_text()
    row = export_onnx(name, results=results, with_preprocessing=True, threads=1).iloc[0]
    assert row["sha256"] in readme
    assert f"{row['test_accuracy'] * 100:.2f} %" in readme
    assert len((folder / "predict.py").read_text().splitlines()) <= 32


@pytest.mark.slow
def test_the_bundle_runs_in_an_environment_of_its_own(
    trained: tuple[Path, str], tmp_path: Path
) -> None:
    results, name = trained
    export_onnx(name, results=results, bundle=True, output=tmp_path, threads=1)
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True)
    python = str(tmp_path / "venv" / "bin" / "python")
    install = [python, "-m", "pip", "install", "--quiet", "onnxruntime", "numpy"]
    subprocess.run(install, check=True)
    without = [python, "-c", "import torch"]
    assert subprocess.run(without, check=False, capture_output=True).returncode != 0
    folder = tmp_path / f"{name}-bundle"
    done = subprocess.run(
        [python, "predict.py"], cwd=folder, capture_output=True, text=True, check=True
    )
    assert "largest difference from PyTorch" in done.stdout
