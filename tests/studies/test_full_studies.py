"""The shipped studies, those for a GPU above all: what they ask for, and a cut that trains here."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bench import run_study
from bench.launch.estimate import footprint
from bench.studies import load_study, shipped_studies

FULL = sorted(name for name in shipped_studies() if name.startswith("full-"))
SHIPPED = sorted(set(shipped_studies()) - set(FULL))
CIFAR = [name for name in FULL if "cifar10" in name]


def test_every_file_of_the_folder_ships_under_a_name_that_says_so():
    folder = Path(__file__).parents[2] / "ablations" / "full"
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


def test_the_imagenet_study_needs_the_disk_of_its_weights_and_images(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # without a folder imagenet
    monkeypatch.setenv("BENCH_DATA", str(tmp_path / "data"))
    requests = load_study("full-imagenet-depth").expand().requests
    found = footprint(requests, workers=1)
    parameters = 11_689_512 + 21_797_672 + 25_557_032 + 44_549_160 + 60_192_808  # torchvision's
    plain = 11_689_512 + 21_797_672  # less a projection or three
    expected = 3 * (4 * (parameters + plain) + 7 * 12 * 50_000)
    assert found.results == pytest.approx(expected, rel=0.01)
    assert found.checkpoints == pytest.approx(2 * 4 * 60_192_808, rel=0.01)
    assert found.data == (1_281_167 + 50_000) * 3 * 224**2
    assert "assumed" in str(found)


@pytest.mark.slow
@pytest.mark.parametrize("name", FULL)
def test_a_dry_run_tells_the_time_on_a_gpu_and_the_disk(name, bench, monkeypatch, tmp_path):
    monkeypatch.setenv("BENCH_DATA", str(tmp_path / "data"))  # nothing is downloaded or decoded
    said = bench("run-ablation", name, "--dry-run", "--gpu", "H100", "--device", "cpu").out
    assert re.search(r"one H100: [\d.]+ (h|min|days) \(ESTIMATE: roofline", said)
    assert "disk needed: about" in said
    assert not (tmp_path / "data").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", SHIPPED)
def test_one_epoch_of_every_variant_trains_on_few_images(name, tmp_path):
    study = load_study(name).study
    cut = {"dataset": "fashion-mnist-mini", "train_images": 200, "batch_size": 50, "epochs": 1,
           "input_size": 28, "learning_rate": 0.02}  # fmt: skip
    base = study.base.model_copy(update={**cut, "seeds": [0], "options": study.base.options})
    if not any(v.model == "d2l_resnet18" for v in study.variants):  # it has no width
        base = base.model_copy(update={"options": {**base.options, "width": 2}})
    variants = [
        v.model_copy(
            update={key: cut[key] for key in cut if getattr(v, key) is not None}
            | ({"train_images": 200 + place} if v.train_images else {})  # else two may be the same
        )
        for place, v in enumerate(study.variant)
    ]
    tune = study.tune and study.tune.model_copy(update={"learning_rate": [0.01, 0.02]})
    tiny = study.model_copy(update={"base": base, "variant": variants, "tune": tune})
    rows = run_study(tiny, results=tmp_path, device="cpu", threads=1, workers=1)
    assert len(rows) == len(tiny.variants)
    assert set(rows["status"]) == {"complete"}, rows[["variant", "status", "error"]]
    assert set(rows["epochs"]) == {1}


DECLARED = {"degradation-tuned", "orders-56", "batch-norm", "without-batch-norm"}


@pytest.mark.parametrize("name", sorted(DECLARED))
def test_a_study_that_decides_declares_its_comparison_and_new_seeds(name):
    plan = load_study(name).expand()
    seeds = {seed for variant in plan.variants for seed in variant.requests}
    assert plan.study.primary is not None
    assert plan.study.tune is not None
    assert len(seeds) >= 8
    assert not seeds & {0, 1, 2, 3, 4, *plan.study.tune.seeds}


def test_the_variance_study_varies_one_source_at_a_time_in_20_runs():
    plan = load_study("variance-components").expand()
    assert {len(v.requests) for v in plan.variants} == {20}
    for variant in plan.variants:
        _, source = variant.name.split("-")
        assert {r.recipe.seed_varies for r in variant.requests.values()} == {source}


def test_the_fast_recipes_study_takes_one_ingredient_out_a_row():
    plan = load_study("fast-recipe").expand()
    recipes = {v.name: dict(v.requests[0].recipe) for v in plan.variants}
    whole = recipes["all"]
    changed = {n: {k for k in whole if values[k] != whole[k]} for n, values in recipes.items()}
    assert changed.pop("all") == set()
    assert len(changed.pop("plain-fast")) == 5
    assert changed.pop("lookahead") == {"ema_decay", "lookahead_steps"}
    assert all(len(keys) == 1 for keys in changed.values()), changed
    assert plan.study.target_accuracy == 0.92
    assert all(len(v.requests) >= 3 for v in plan.variants)


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
    rows = run_study(tiny, results=tmp_path, device="cpu", threads=1, workers=1)
    assert len(rows) == len(tiny.variants)
    assert set(rows["status"]) == {"complete"}, rows[["variant", "status", "error"]]
    assert set(rows["epochs"]) == {1}
    assert (rows["images_per_second"] > 0).all()
