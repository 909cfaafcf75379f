from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn

from bench.data.splits import stable_seed
from bench.models import build_model
from bench.training.initialise import digests, initialise


def fresh(name, seed=0, scheme="he", **options):
    model = build_model(name, num_classes=10, in_channels=1, **options)
    initialise(model, seed, scheme)
    return model


@pytest.mark.parametrize("scheme", ["he", "xavier"])
@pytest.mark.parametrize("other", ["plain20", "preact_resnet20", "resnet32"])
def test_equal_names_and_shapes_start_equal(other, scheme):
    ours, theirs = (dict(fresh(m, scheme=scheme).named_parameters()) for m in ("resnet20", other))
    common = [n for n in ours if n in theirs and ours[n].shape == theirs[n].shape]
    assert sum("conv" in name for name in common) >= 19
    assert all(torch.equal(ours[name], theirs[name]) for name in common)


def test_projection_leaves_the_rest_of_the_network_as_it_is():
    with_projection = digests(fresh("resnet20", shortcut="projection"))
    without = digests(fresh("resnet20"))
    assert set(without) < set(with_projection)
    assert all(with_projection[name] == digest for name, digest in without.items())


def test_weights_do_not_depend_on_what_was_drawn_or_built_before():
    class Network(nn.Module):
        def __init__(self, names):
            super().__init__()
            for name in names:
                self.add_module(name, nn.Conv2d(3, 8, 3))

    first, second = Network(["a", "b"]), Network(["b", "a"])
    torch.manual_seed(1)
    initialise(first, 0)
    torch.manual_seed(2)
    initialise(second, 0)
    assert digests(first) == digests(second)
    assert not torch.equal(first.a.weight, first.b.weight)


def test_seed_changes_every_drawn_weight():
    first, second = (dict(fresh("resnet20", seed).named_parameters()) for seed in (0, 1))
    drawn = [n for n, p in first.items() if p.ndim > 1]
    assert len(drawn) == 20
    assert not any(torch.equal(first[name], second[name]) for name in drawn)


def test_he_draws_from_a_normal_of_two_over_fan_out():
    weight = fresh("resnet18").get_parameter("layer4.0.conv1.weight")  # of 256 channels
    assert weight.std().item() == pytest.approx((2 / (512 * 9)) ** 0.5, rel=0.005)
    assert weight.mean().item() == pytest.approx(0, abs=1e-4)
    assert (weight.abs() > 3 * weight.std()).float().mean().item() == pytest.approx(0.0027, rel=0.1)


def test_he_draws_linear_layers_uniformly_by_fan_in():
    weight = fresh("resnet18").get_parameter("fc.weight")
    assert weight.abs().max().item() == pytest.approx(512**-0.5, rel=0.01)
    assert weight.std().item() == pytest.approx((1 / 3 / 512) ** 0.5, rel=0.03)


@pytest.mark.parametrize(
    ("name", "fans"), [("layer4.1.conv2.weight", 2 * 512 * 9), ("fc.weight", 512 + 10)]
)
def test_xavier_draws_uniformly_by_both_fans(name, fans):
    weight = fresh("resnet18", scheme="xavier").get_parameter(name)
    assert weight.abs().max().item() == pytest.approx((6 / fans) ** 0.5, rel=0.01)
    assert weight.std().item() == pytest.approx((2 / fans) ** 0.5, rel=0.02)


@pytest.mark.parametrize("scheme", ["he", "xavier"])
def test_biases_are_zero(scheme):
    model = fresh("d2l_resnet18", scheme=scheme)
    biases = [m.bias for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert len(biases) == 21
    assert not any(bias.any() for bias in biases)


def test_constants_of_the_network_are_kept():
    model = fresh("resnet20", zero_init_residual=True)
    last = [p for n, p in model.named_parameters() if n.endswith("bn2.weight")]
    assert len(last) == 9
    assert not any(p.any() for p in last)
    gated = fresh("resnet20", shortcut="gated", gate_bias=-5.0)
    biases = [p for n, p in gated.named_parameters() if n.endswith("gate.bias")]
    assert len(biases) == 9
    assert all((p == -5).all() for p in biases)


def test_model_scheme_changes_nothing():
    torch.manual_seed(3)
    model = build_model("resnet20", num_classes=10, in_channels=1)
    before = digests(model)
    initialise(model, 0, "model")
    assert digests(model) == before


def test_digests_tell_shape_and_value_apart():
    flat, square = nn.Module(), nn.Module()
    flat.weight, square.weight = (nn.Parameter(torch.ones(*s)) for s in ((4,), (2, 2)))
    assert digests(flat) != digests(square)
    assert digests(flat) == digests(flat)


def test_seeds_are_the_same_on_every_machine():
    assert stable_seed("initial", 0, "conv1.weight") == 7635228259225723077


def test_weights_made_of_others_are_left_alone():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch calls this weight_norm the old one
        model = nn.Sequential(nn.utils.weight_norm(nn.Conv2d(3, 8, 3)), nn.Linear(2, 2))
    before = digests(model)
    initialise(model, 0)
    changed = {name for name, digest in digests(model).items() if digest != before[name]}
    assert changed == {"0.bias", "1.weight", "1.bias"}
