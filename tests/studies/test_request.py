"""A run's identity: what it depends on, and what it does not."""

from __future__ import annotations

import dataclasses
import json
import re

import pytest

from bench.errors import BenchError
from bench.models import canonical
from bench.studies import adhoc_study, expand, run_request
from bench.studies.growth import grown_request
from bench.studies.recipe import Recipe, get_recipe
from bench.studies.run_request import RunRequest

# Written out, so that a recipe that is improved changes no identity here.
RECIPE = Recipe(
    epochs=5,
    batch_size=128,
    learning_rate=0.3,
    momentum=0.9,
    nesterov=True,
    weight_decay=5e-4,
    schedule="one_cycle",
    warmup_fraction=0.2,
    label_smoothing=0.1,
    crop_padding=2,
    flip=True,
)
REQUEST = RunRequest(
    model="resnet20", dataset="fashion-mnist-mini", recipe=RECIPE, seed=3, input_size=28
)


def test_the_identity_of_a_request_stays_what_it_was() -> None:
    # Results folders out there are addressed by it. If this changes on purpose, so must
    # FORMAT_VERSION, TRAINING_REVISION or MUON_REVISION.
    assert REQUEST.run_id == "resnet20-fashion-mnist-mini-s3-0ee2ada44096"


def test_the_identity_of_a_run_with_muon_stays_what_it_was() -> None:
    """The arithmetic that a machine prefers is no part of it: see `tools/muon_equivalence.py`."""
    with_muon = REQUEST.with_recipe(muon_learning_rate=0.02)
    assert with_muon.run_id == "resnet20-fashion-mnist-mini-s3-0ea184b141fa"


def test_a_new_revision_changes_the_identity_of_what_it_is_of(monkeypatch) -> None:
    with_muon = REQUEST.with_recipe(muon_learning_rate=0.02)
    imported = with_muon.with_recipe(epochs=0)
    requests = (REQUEST, with_muon, imported)
    before = [request.hash for request in requests]
    seedless = [request.seedless_hash for request in requests]
    monkeypatch.setattr(run_request, "MUON_REVISION", run_request.MUON_REVISION + 1)
    assert [r.hash == old for r, old in zip(requests, before, strict=True)] == [True, False, True]
    monkeypatch.setattr(run_request, "TRAINING_REVISION", run_request.TRAINING_REVISION + 1)
    assert not set(before) & {request.hash for request in requests}
    assert [request.seedless_hash for request in requests] == seedless


PARTS: dict[str, object] = {
    "model": "resnet32",
    "options": {"shortcut": "none"},
    "dataset": "fashion-mnist",
    "train_images": 100,
    "input_size": 32,
    "recipe": get_recipe("book"),
    "seed": 4,
    "precision": "bf16",
    "deterministic": True,
    "initial_weights": "0" * 64,
    "grown_from": "resnet20-fashion-mnist-mini-s3-0123456789ab",
    "mean": (0.5,),
    "std": (0.25,),
    "evaluate_test": False,
}


def test_every_part_of_a_request_is_part_of_the_identity() -> None:
    assert set(PARTS) == {f.name for f in dataclasses.fields(RunRequest)}, "name the new one too"
    changed = [dataclasses.replace(REQUEST, **{k: v}) for k, v in PARTS.items()]  # type: ignore[arg-type]
    assert len({request.hash for request in [REQUEST, *changed]}) == len(PARTS) + 1


CHANGED = {
    "epochs": 6,
    "batch_size": 64,
    "learning_rate": 0.2,
    "momentum": 0.8,
    "nesterov": False,
    "weight_decay": 1e-3,
    "decay_norm_and_bias": True,
    "schedule": "cosine",
    "warmup_fraction": 0.1,
    "milestones": (0.4, 0.6),
    "label_smoothing": 0.0,
    "ema_decay": 0.99,
    "crop_padding": 4,
    "padding_mode": "zero",
    "flip": False,
    "cutout": 8,
    "normalize": False,
    "antialias": False,
    "initialization": "xavier",
    "validation_fraction": 0.2,
    "test_every_epoch": True,
    "muon_learning_rate": 0.02,
    "branch_weight_decay": 1e-4,
    "lookahead_steps": 5,
    "whitening": "initial",
    "initial_size": 0.5,
    "test_time_flip": True,
    "record_blocks": True,
    "resize": "pad",
    "seed_varies": "order",
}


def test_every_value_of_the_recipe_is_part_of_the_identity() -> None:
    assert set(CHANGED) == set(Recipe.model_fields), "name the new value here too"
    hashes = {REQUEST.with_recipe(**{name: value}).hash for name, value in CHANGED.items()}
    assert len(hashes | {REQUEST.hash}) == len(CHANGED) + 1


def test_the_order_of_options_is_no_part_of_the_identity() -> None:
    one = dataclasses.replace(REQUEST, options={"width": 4, "shortcut": "none"})
    other = dataclasses.replace(REQUEST, options={"shortcut": "none", "width": 4})
    assert one.run_id == other.run_id


@pytest.mark.parametrize("depth", [18, 20, 34, 110])
def test_a_plain_network_is_the_residual_one_without_shortcuts(depth: int) -> None:
    plain, residual = (
        expand("x", adhoc_study("?", {"name": "v", **said}, 0)).requests[0]
        for said in (
            {"model": f"plain{depth}"},
            {"model": f"resnet{depth}", "options": {"shortcut": "none"}},
        )
    )
    assert plain.run_id == residual.run_id
    assert canonical(f"plain{depth}") == (f"resnet{depth}", {"shortcut": "none"})


def test_a_request_survives_json() -> None:
    request = dataclasses.replace(REQUEST, options={"width": 4}, train_images=200)
    again = RunRequest.from_dict(json.loads(json.dumps(request.as_dict())))
    assert again == request
    assert again.run_id == request.run_id


@pytest.mark.parametrize(
    ("model", "dataset"),
    [
        ("mine.models:net", "imagefolder:/data/with space/ü"),
        ("timm:" + "x" * 200, "../../etc"),
    ],
)
def test_a_run_id_is_a_safe_folder_name(model: str, dataset: str) -> None:
    run_id = dataclasses.replace(REQUEST, model=model, dataset=dataset).run_id
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", run_id)
    assert run_id.endswith(f"-s3-{run_id.rsplit('-', 1)[-1]}")


@pytest.mark.parametrize(
    ("model", "settings", "scheme"),
    [
        ("resnet20", {}, "he"),
        ("resnet20", {"recipe": "book"}, "xavier"),
        ("timm:resnet18", {}, "model"),
        ("mine.models:net", {"recipe": "book"}, "model"),
        ("mine.models:net", {"initialization": "he"}, "he"),
    ],
)
def test_networks_from_elsewhere_keep_their_own_start(model, settings, scheme) -> None:
    study = adhoc_study("?", {"name": "v", "model": model, **settings}, 0)
    assert expand("x", study).requests[0].recipe.initialization == scheme


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epocs": 3}, r"epocs is unknown; did you mean 'epochs'\? \(known: epochs, batch_size"),
        ({"momentum": 2}, "momentum = 2: input should be less than 1"),
    ],
)
def test_a_setting_of_a_grown_run_is_checked_as_one_of_the_recipe(settings, message) -> None:
    with pytest.raises(BenchError, match=message):
        grown_request(REQUEST, "parent", "resnet32", width=None, epochs=None, settings=settings)
