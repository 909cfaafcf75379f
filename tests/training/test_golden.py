"""Figures of a few tiny trainings, so that a change of training's meaning is noticed.

The learning rates are small: a rounding that crosses a ReLU's kink is not to grow into a
difference. Between instruction sets (SSE4.1, AVX, AVX2) the figures moved by less than 1e-4. In
bf16, where Muon computes on some processors, they move by 2e-3, so its figures are of steps of one
matrix in fp32; each step is compared with an SVD in test_ingredients.py.
After a change that is meant, `python tests/training/test_golden.py` writes them again.
"""

from __future__ import annotations

import csv
import io
import json
import tempfile
from pathlib import Path

import pytest
import torch

from bench.store import Store
from bench.studies.recipe import get_recipe
from bench.studies.run_request import MUON_REVISION, TRAINING_REVISION, RunRequest
from bench.training.optimisers import KernelMuon
from bench.training.resources import Resources
from bench.training.run import execute

GOLDEN = Path(__file__).with_name("golden.json")
SGD = {"learning_rate": 0.02, "muon_learning_rate": 0.0, "crop_padding": 2}
CASES = {
    "SGD": ("fast", SGD, {}),
    "SGD with everything": (
        "fast",
        {**SGD, "ema_decay": 0.8, "cutout": 2, "schedule": "cosine"},
        {"shortcut": "dropout"},
    ),
    "book": ("book", {"learning_rate": 0.005}, {}),
}


def train(case: str, root: Path) -> dict[str, list[float]]:
    """Train two epochs; returns the losses of each epoch and of the test set."""
    recipe, changes, options = CASES[case]
    values = {"batch_size": 64, "epochs": 2, **changes}
    request = RunRequest(
        model="resnet14",
        options={"width": 8, **options},
        dataset="fashion-mnist-mini",
        recipe=get_recipe(recipe).model_copy(update=values),
        seed=0,
        train_images=300,
        input_size=12,
        deterministic=True,
    )
    store = Store(root)
    record = execute(request, store, Resources(device="cpu", threads=1))
    text = store.checked_file(record.run, "history.csv").read_text()
    return {
        "train_loss": [float(row["train_loss"]) for row in csv.DictReader(io.StringIO(text))],
        "test_loss": [record.result["test_loss"]],
    }


@pytest.mark.parametrize("case", CASES)
def test_training_means_what_it_meant(case, tmp_path):
    golden = json.loads(GOLDEN.read_text())
    found = train(case, tmp_path)
    for name, values in golden["cases"][case].items():
        assert found[name] == pytest.approx(values, rel=1e-3), (
            f"{name} of '{case}' is {found[name]}, it was {values}: if the change is meant, raise "
            "TRAINING_REVISION in bench/studies/run_request.py and run "
            "python tests/training/test_golden.py"
        )


def take_muons_steps() -> list[list[float]]:
    """Take three steps of one large matrix; returns a few of its values from each block of rows."""
    rows, columns = torch.arange(260.0)[:, None], torch.arange(150.0)
    matrix = torch.nn.Parameter(torch.sin(rows + columns))
    muon = KernelMuon(
        [{"params": [matrix], "weight_decay": 0.1}], lr=0.1, momentum=0.9, nesterov=True
    )
    muon.dtype = torch.float32
    for step in range(3):
        matrix.grad = torch.cos(rows * columns + step * columns)
        muon.take_gradients()
        muon.step()
    return matrix.detach()[[0, 100, 259], :3].tolist()


def test_muon_means_what_it_meant():
    found, golden = take_muons_steps(), json.loads(GOLDEN.read_text())["muon"]
    for values, expected in zip(found, golden, strict=True):
        assert values == pytest.approx(expected, abs=1e-4), (
            "if the change is meant, raise MUON_REVISION in bench/studies/run_request.py and run "
            "python tests/training/test_golden.py"
        )


def test_figures_are_of_this_revision():
    golden = json.loads(GOLDEN.read_text())
    assert (golden["training_revision"], golden["muon_revision"]) == (
        TRAINING_REVISION,
        MUON_REVISION,
    )


def write() -> None:
    with tempfile.TemporaryDirectory() as root:
        cases = {case: train(case, Path(root) / case) for case in CASES}
    document = {
        "training_revision": TRAINING_REVISION, "cases": cases,
        "muon_revision": MUON_REVISION, "muon": take_muons_steps(),
    }  # fmt: skip
    GOLDEN.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    write()
