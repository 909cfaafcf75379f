"""What the random seed of a run varies, and which images a run of a search leaves alone."""

from __future__ import annotations

import pytest
import torch

from bench.store.tables.runs import run_row
from bench.training import loop
from bench.training.run import execute
from bench.training.setup import Split, build_network, load_data

CPU = torch.device("cpu")
PARTS = {
    "training": {"weights", "order"},
    "initialization": {"weights"},
    "order": {"order"},
    "split": {"images"},
    "subset": {"images"},
    "everything": {"weights", "order", "images"},
}


def sources(request):
    """Return initial weights, the images trained on, and the seed of their order."""
    dataset = load_data(request)
    split = Split.of(dataset, request, CPU)
    return {
        "weights": build_network(request, dataset).conv1.weight,
        "images": (split.train.images, dataset.train.images),
        "order": split.training_batches(torch.contiguous_format).seed,
    }


@pytest.mark.parametrize("varies", PARTS)
def test_the_seed_varies_what_the_recipe_says_and_nothing_else(tiny, varies):
    first, second = (sources(tiny(seed=seed, seed_varies=varies)) for seed in (4, 5))
    equal = {
        "weights": torch.equal(first["weights"], second["weights"]),
        "images": torch.equal(first["images"][0], second["images"][0]),
        "order": first["order"] == second["order"],
    }
    assert {name for name, same in equal.items() if not same} == PARTS[varies]
    # The split is taken out of one subset; another subset is split as well.
    kept = torch.equal(first["images"][1], second["images"][1])
    assert kept == (varies not in {"subset", "everything"})


@pytest.mark.parametrize("varies", PARTS)
def test_dropout_is_drawn_by_the_seed_of_the_order(tiny, store, resources, monkeypatch, varies):
    drawn = []
    original = loop.stable_seed
    monkeypatch.setattr(loop, "stable_seed", lambda *k: drawn.append(k[1]) or original(*k))
    request = tiny(seed=7, seed_varies=varies, epochs=1)
    execute(request, store, resources)
    order = Split.of(load_data(request), request, CPU).training_batches(torch.contiguous_format)
    assert set(drawn) == {order.seed}


@pytest.mark.parametrize("varies", ["initialization", "order", "split", "subset"])
def test_seed_0_is_the_common_start_of_all_that_vary_one_source(tiny, varies):
    def order(request):
        batches = Split.of(load_data(request), request, CPU).training_batches(
            torch.contiguous_format
        )
        return torch.cat([labels for _, labels in batches.epoch(0)])

    default, other, again = (
        tiny(seed=0), tiny(seed=7, seed_varies=varies), tiny(seed=0, seed_varies=varies),
    )  # fmt: skip
    weights = [build_network(r, load_data(r)).conv1.weight for r in (default, other, again)]
    assert torch.equal(weights[0], weights[2])
    assert torch.equal(weights[0], weights[1]) == (varies != "initialization")
    if varies in {"initialization", "order"}:
        assert torch.equal(order(default), order(again))
        assert torch.equal(order(default), order(other)) == (varies != "order")


def test_a_run_of_a_search_never_evaluates_the_test_images(tiny, store, resources, monkeypatch):
    evaluated = []
    original = Split.evaluation

    def watch(self, images, memory_format=None):
        evaluated.append("test" if images is self.test else "other")
        return original(self, images, memory_format)

    monkeypatch.setattr(Split, "evaluation", watch)
    values = {"epochs": 1, "test_every_epoch": True, "test_time_flip": True}
    record = execute(tiny(evaluate_test=False, **values), store, resources)
    assert record.status == "complete"
    assert set(evaluated) == {"other"}
    assert record.result["validation_accuracy"] is not None
    assert not [name for name in record.result if name.startswith("test_")]
    assert "predictions.safetensors" not in record.files
    assert "test_accuracy" not in run_row(record)
    tested = execute(tiny(**values), store, resources)
    assert tested.run != record.run
    assert tested.result["validation_accuracy"] == record.result["validation_accuracy"]
    assert "test" in evaluated
