"""Lesions of networks whose answer is known."""

from __future__ import annotations

import pandas as pd
import pytest
import torch
from torch import nn

from bench import load_model
from bench.data import load_dataset
from bench.models import build_model
from bench.networks.blocks import dropped, find_blocks, norm_ratios, swapped
from bench.networks.gradient_norms import gradient_norms
from bench.report.pages.study_report import read_study_report
from bench.report.study_data import load_results
from bench.store import Store
from bench.store.analyses import Analyses
from bench.store.tables.frames import rows_of
from bench.targets.find import load_trained

KINDS = {
    "CIFAR family": ("resnet14", {}),
    "bottlenecks": ("resnet50", {"width": 2}),
    "option C": ("resnet14", {"shortcut": "all_projection"}),
    "pre-activation": ("preact_resnet14", {}),
    "BN after addition": ("resnet14", {"activation_order": "bn_after_add"}),
    "ReLU before": ("resnet14", {"activation_order": "relu_preact"}),
}


def network(name, options):
    """A network in evaluation mode whose every number is its own, as after a training."""
    torch.manual_seed(0)
    model = build_model(name, in_channels=1, num_classes=5, **{"width": 4, **options}).eval()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5)
                module.bias.uniform_(-0.3, 0.3)
    return model


@pytest.fixture
def images():
    return torch.randn(6, 1, 16, 16, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("name", "options"), KINDS.values(), ids=KINDS)
@torch.inference_mode()
def test_dropping_a_block_is_setting_its_branch_to_zero(name, options, images):
    model, twin = network(name, options), network(name, options)
    before = model(images)
    for place, other in zip(find_blocks(model, name), find_blocks(twin, name), strict=True):
        last = [step for step in other.block.branch_steps if step != "relu"][-1]
        kept = {k: v.clone() for k, v in getattr(other.block, last).state_dict().items()}
        for parameter in getattr(other.block, last).parameters():
            parameter.zero_()
        with dropped(place):
            assert torch.equal(model(images), twin(images))
            assert not torch.equal(model(images), before)
        getattr(other.block, last).load_state_dict(kept)
    assert torch.equal(model(images), before)  # all is put back


@torch.inference_mode()
def test_a_block_whose_branch_is_zero_can_go_and_no_other(images):
    model = network("resnet14", {})
    places = find_blocks(model, "resnet14")
    idle = places[3]
    idle.block.bn2.weight.zero_()
    idle.block.bn2.bias.zero_()
    before = model(images)
    changed = []
    for place in places:
        with dropped(place):
            changed.append(not torch.equal(model(images), before))
    assert changed == [place is not idle for place in places]
    with norm_ratios(places) as ratios:
        model(images)
    assert ratios[idle.name][0].tolist() == [0.0] * 6
    assert all((ratios[place.name][0] > 0).all() for place in places if place is not idle)


@torch.inference_mode()
def test_swapped_blocks_are_a_network_with_their_weights_exchanged(images):
    model, twin = network("resnet20", {}), network("resnet20", {})
    before = model(images)
    first, second = (twin.layer2[1], twin.layer2[2])
    held = {name: tensor.clone() for name, tensor in first.state_dict().items()}
    first.load_state_dict(second.state_dict())
    second.load_state_dict(held)
    named = {place.name: place for place in find_blocks(model, "resnet20")}
    with swapped(named["layer2.1"], named["layer2.2"]):
        assert torch.equal(model(images), twin(images))
        assert not torch.equal(model(images), before)
    assert torch.equal(model(images), before)


@torch.inference_mode()
def test_a_plain_block_passes_its_input_on(images):
    model = network("plain14", {})
    place = find_blocks(model, "plain14")[1]
    shorter = network("plain14", {})
    shorter.layer1[1] = nn.Identity()
    with dropped(place):
        assert torch.equal(model(images), shorter(images))
    for other in find_blocks(model, "plain14"):  # those that change the shape too
        with dropped(other):
            assert model(images).shape == (6, 5)


def test_gradient_norms_are_the_derivatives_size(images):
    labels = torch.arange(6) % 5
    model, twin = network("resnet8", {}), network("resnet8", {})
    norms = gradient_norms(model, find_blocks(model, "resnet8"), images, labels)
    twin.train()
    weight = [twin.layer2[0].conv1.weight, twin.layer2[0].conv2.weight]
    parts = torch.autograd.grad(nn.functional.cross_entropy(twin(images), labels), weight)
    expected = sum(float(part.square().sum()) for part in parts) ** 0.5
    assert norms["layer2.0"] == pytest.approx(expected, rel=1e-5)


def test_the_command_measures_draws_and_agrees_with_the_run(bench, train_here, tmp_path):
    row = train_here("resnet14")
    words = ("lesion", row["run"], "--device", "cpu", "--threads", 1)
    rows = bench(*words, "--output", "out", "--json").document["rows"]
    kinds = [r["lesion"] for r in rows]
    assert [kinds.count(kind) for kind in ("none", "drop", "swap")] == [1, 6, 1]
    assert rows[0]["test_accuracy"] == pytest.approx(row["test_accuracy"], abs=1e-6)
    for r in rows:
        difference = rows[0]["test_accuracy"] - r["test_accuracy"]
        assert r["accuracy_drop"] == pytest.approx(difference, abs=1e-8)  # ten digits are shown
    assert any(r["accuracy_drop"] for r in rows[1:7])
    data = load_dataset("fashion-mnist-mini").test
    inputs = load_trained(row["run"], results="bench-runs").preprocessing.apply(data.images)

    def scored(lesion, *names):
        model = load_model(row["run"], results="bench-runs")
        blocks = {place.name: place for place in find_blocks(model, "resnet14")}
        with torch.inference_mode(), lesion(*(blocks[name] for name in names)):
            return (model(inputs).argmax(1) == data.labels).float().mean().item()

    for r in (rows[1], rows[4], rows[6]):
        assert r["test_accuracy"] == pytest.approx(scored(dropped, r["block"]), abs=1e-6)
    exchanged = scored(swapped, "layer1.0", "layer1.1")
    assert rows[7]["test_accuracy"] == pytest.approx(exchanged, abs=1e-6)
    assert all(r["norm_ratio"] > 0 and r["initial_gradient_norm"] > 0 for r in rows[1:7])
    assert [(r["block"], r["other"]) for r in rows[7:]] == [("layer1.0", "layer1.1")]
    assert len(pd.read_csv(tmp_path / "out" / "lesion.csv")) == 8
    recorded = load_results(tmp_path / "bench-runs" / "runs" / row["run"], "lesions")
    assert rows_of(recorded) == rows
    assert (tmp_path / "out" / "lesion.svg").read_text().count("layer3.1") >= 2
    assert (tmp_path / "out" / "lesion.png").read_bytes()[:4] == b"\x89PNG"
    said = bench(*words, "--no-swaps", "--test-images", 100, "--quiet").out
    assert "100 test images" in said
    assert "without layer3.1" in said
    both = load_results(tmp_path / "bench-runs", "lesions")
    assert sorted(both.groupby("analysis")["images"].first()) == [100, 1000]


VIEWS = """
from torch import nn
from bench.models import build_model

class Net(nn.Module):
    def __init__(self, num_classes, in_channels):
        super().__init__()
        self.stem = nn.Conv2d(in_channels, 2, 3, padding=1)
        self.body = build_model("resnet8", num_classes=num_classes, in_channels=2, width=4)

    def forward(self, x):
        x = self.stem(x)
        return self.body(x.view(x.size(0), -1).view(x.shape))
"""


def test_a_network_that_views_its_maps_is_analysed(bench, train_here, tmp_path):
    """Such a network takes contiguous maps only, in every command."""
    (tmp_path / "viewing_net.py").write_text(VIEWS)
    run = train_here("viewing_net:Net", options={})["run"]
    for command in ("lesion", "gradients"):
        assert bench(command, run, "--device", "cpu", "--json").document["rows"]


BY_CLASS = """
import numpy as np

def data():
    images = np.random.default_rng(0).integers(0, 256, (40, 8, 8), dtype=np.uint8)
    rare = np.arange(40) > 35
    return (images, rare.astype(int)), (images, np.arange(40) // 20)
"""


def test_some_images_are_of_every_class(bench, train_here, tmp_path):
    """Test images sorted by class, as in a folder, of which the network takes all for the first."""
    (tmp_path / "by_class.py").write_text(BY_CLASS)
    few = {"train_images": None, "batch_size": 8}
    run = train_here("resnet8", dataset="by_class:data", settings=few)["run"]
    for count in (2, 40):
        words = ("lesion", run, "--test-images", count, "--device", "cpu", "--json")
        whole = bench(*words).document["rows"][0]
        assert (whole["images"], whole["test_accuracy"]) == (count, 0.5)


def test_an_analysis_of_the_first_images_is_not_replaced(bench, results):
    analyses, run = Analyses(results), next(Store(results).runs()).run
    before = {"run": run, "test_images": 50, "no_swaps": True}
    analyses.publish("lesion", before, {"lesions": []}, {})
    assert bench("lesion", run, "--test-images", 50, "--no-swaps", "--device", "cpu").code == 0
    assert [record.request.get("from_first") for record in analyses.records()] == [None, False]
    assert read_study_report(Store(results), "tiny").commands[1:] == [
        f"bench lesion {run} --test-images 50 --no-swaps"
    ]


def test_what_has_no_blocks_is_refused(bench, train_here):
    run = train_here("plain_cnn")["run"]
    assert "has no block whose shortcut" in bench("lesion", run).refusal
    assert "no run 'nobody'" in bench("lesion", "nobody").refusal
    assert "--test-images 0" in bench("lesion", run, "--test-images", 0).refusal


def test_where_nothing_can_be_recorded_nothing_is_measured(bench, results, tmp_path):
    run = next(Store(results).runs()).run
    (tmp_path / "bench-runs" / "analyses").write_text("mine")
    for command in ("lesion", "landscape", "gradients"):
        outcome = bench(command, run, "--device", "cpu", "--threads", 1, "--quiet")
        assert "cannot write bench-runs/analyses" in outcome.refusal
        assert outcome.out == ""
