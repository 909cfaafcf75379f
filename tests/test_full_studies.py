"""The studies for a GPU: what they ask for, and a cut of each that two cores can train."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import run_study
from bench.studies import load_study, shipped_studies

FULL = sorted(name for name in shipped_studies() if name.startswith("full-"))
CIFAR = [name for name in FULL if "cifar10" in name]


def test_every_file_of_the_folder_ships_under_a_name_that_says_so():
    folder = Path(__file__).parent.parent / "ablations" / "full"
    assert sorted(path.stem for path in folder.iterdir()) == FULL


@pytest.mark.parametrize("name", CIFAR)
def test_the_cifar_studies_train_64_000_iterations_with_five_seeds(name):
    plan = load_study(name).expand()
    assert len(plan.requests) == 5 * len(plan.variants)
    for request in plan.requests:
        recipe = request.recipe
        steps = recipe.epochs * (45_000 // recipe.batch_size)
        assert abs(steps - 64_000) < 45_000 // recipe.batch_size
        assert (recipe.learning_rate, recipe.weight_decay, recipe.momentum) == (0.1, 1e-4, 0.9)
        assert (recipe.schedule, recipe.milestones) == ("step", (0.5, 0.75))
        assert (recipe.nesterov, recipe.label_smoothing, recipe.ema_decay) == (False, 0.0, None)


def test_the_imagenet_study_reaches_from_18_to_152_layers():
    plan = load_study("full-imagenet-depth").expand()
    names = {variant.name for variant in plan.variants}
    assert names >= {f"resnet{depth}" for depth in (18, 34, 50, 101, 152)}
    assert {(r.recipe.epochs, r.input_size) for r in plan.requests} == {(90, 224)}


@pytest.mark.slow
@pytest.mark.parametrize("name", FULL)
def test_one_epoch_of_every_variant_trains_on_tiny_images(name, tmp_path):
    study = load_study(name).study
    # Three steps leave none for the warm-up over 400 iterations, so the rate is that of its first.
    cut = {"learning_rate": 0.1 / 400, "dataset": "synthetic", "train_images": 200,
           "batch_size": 60, "epochs": 1, "input_size": 32, "seeds": [0], "crop_padding": 2,
           "validation_fraction": 0.1}  # fmt: skip
    base = study.base.model_copy(update={**cut, "options": {**study.base.options, "width": 2}})
    grid = {key: values for key, values in study.grid.items() if key != "input_size"}
    tiny = study.model_copy(update={"base": base, "grid": grid, "reference": None})
    rows = run_study(tiny, name=name, results=tmp_path, device="cpu", threads=1, workers=1)
    assert len(rows) == len(tiny.variants)
    assert set(rows["status"]) == {"complete"}, rows[["variant", "status", "error"]]
    assert set(rows["epochs"]) == {1}
    assert (rows["images_per_second"] > 0).all()
