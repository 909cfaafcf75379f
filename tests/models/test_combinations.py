"""Every option with every family: it trains, or one line says why it cannot be built."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

from bench.models import CHOICES, ModelError, build_model

# (family, block) → its smallest network.
SMALLEST = {
    ("imagenet", "basic"): "resnet18",
    ("imagenet", "bottleneck"): "resnet50",
    ("cifar", "basic"): "resnet8",
    ("cifar", "bottleneck"): "resnet11",
}
SHORTCUTS, ORDERS = CHOICES["shortcut"], CHOICES["activation_order"]


def cannot_train(shortcut, order):
    """Whether a zero-initialised branch would leave the network dead."""
    return shortcut == "none" or order == "relu_before_add"


def grad_check(name, **options):
    torch.manual_seed(0)
    model = build_model(name, num_classes=7, in_channels=2, width=4, **options)
    scores = model(torch.randn(5, 2, 24, 24))
    assert scores.shape == (5, 7)
    torch.nn.functional.cross_entropy(scores, torch.arange(5)).backward()
    gradients = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    assert gradients.keys() == dict(model.named_parameters()).keys()
    assert all(gradient.isfinite().all() for gradient in gradients.values())
    return gradients


@pytest.mark.parametrize("stem", CHOICES["stem"])
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("shortcut", SHORTCUTS)
@pytest.mark.parametrize(("family", "block"), SMALLEST)
def test_all_weights_get_a_gradient(family, block, shortcut, order, stem):
    gradients = grad_check(
        SMALLEST[family, block], block=block, shortcut=shortcut, activation_order=order, stem=stem
    )
    assert [name for name, gradient in gradients.items() if not gradient.any()] == []


@pytest.mark.parametrize(
    ("shortcut", "order"),
    [pair for pair in itertools.product(SHORTCUTS, ORDERS) if not cannot_train(*pair)],
)
@pytest.mark.parametrize("block", CHOICES["block"])
def test_zero_initialised_branches_get_a_gradient_at_their_end(block, shortcut, order):
    name = SMALLEST["cifar", block]
    options = {"block": block, "shortcut": shortcut, "activation_order": order}
    gradients = grad_check(name, zero_init_residual=True, **options)
    torch.manual_seed(0)
    model = build_model(name, width=4, zero_init_residual=True, **options)
    zeroed = [n for n, p in model.named_parameters() if n.endswith(".weight") and not p.any()]
    assert len(zeroed) == 3  # one in each block
    for weight in zeroed:
        assert gradients[weight].any()
    # Only the branch itself (convolutions and norms of a block) may wait for it.
    silent = {name for name, gradient in gradients.items() if not gradient.any()}
    assert all(n.startswith("layer") and "downsample" not in n and "join" not in n for n in silent)


@pytest.mark.parametrize("norm", ["group", "none"])
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("shortcut", SHORTCUTS)
@pytest.mark.parametrize("block", CHOICES["block"])
def test_all_weights_get_a_gradient_without_batch_norm(block, shortcut, order, norm):
    gradients = grad_check(
        SMALLEST["cifar", block], block=block, shortcut=shortcut, activation_order=order, norm=norm
    )
    assert [name for name, gradient in gradients.items() if not gradient.any()] == []


@pytest.mark.parametrize("norm", ["group", "none"])
def test_without_batch_norm_images_do_not_depend_on_each_other(norm):
    torch.manual_seed(0)
    model = build_model("resnet8", width=8, norm=norm).train()
    images = torch.randn(4, 3, 16, 16)
    torch.testing.assert_close(model(images)[:1], model(images[:1]))
    assert not [m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)]


@pytest.mark.parametrize("order", ["post", "preact"])
@pytest.mark.parametrize("shortcut", ["zero_pad", "projection"])
def test_without_normalisation_the_signal_keeps_its_size_at_every_depth(shortcut, order):
    sizes = []
    for depth in (20, 110):
        torch.manual_seed(0)
        model = build_model(
            f"resnet{depth}", width=8, norm="none", shortcut=shortcut, activation_order=order
        )
        features = []
        model.avgpool.register_forward_hook(lambda _, x, __, seen=features: seen.append(x[0]))
        model(torch.randn(8, 3, 16, 16))
        sizes.append(features[0].square().mean().sqrt().item())
        factors = [p for n, p in model.named_parameters() if n.endswith("scale.weight")]
        assert len(factors) == (depth - 2) // 2
        assert all(f.item() == pytest.approx(len(factors) ** -0.5) for f in factors)
    assert 0.2 < sizes[1] / sizes[0] < 5


def test_a_plain_network_without_normalisation_has_no_factors():
    torch.manual_seed(0)
    model = build_model("plain20", width=8, norm="none")
    assert not [name for name, _ in model.named_parameters() if "scale" in name]


def test_groups_are_at_most_16_of_two_channels_or_more():
    model = build_model("resnet8", width=4, norm="group")
    groups = {m.num_channels: m.num_groups for m in model.modules() if isinstance(m, nn.GroupNorm)}
    assert groups == {4: 2, 8: 4, 16: 8}
    wide = build_model("resnet8", width=64, norm="group")
    assert wide.layer1[0].bn1.num_groups == 16


def test_without_normalisation_a_factor_behind_the_last_relu_gets_a_gradient():
    gradients = grad_check(
        "resnet8", activation_order="relu_before_add", norm="none", zero_init_residual=True
    )
    assert gradients["layer1.0.scale.weight"].any()


def test_without_normalisation_zero_initialised_branches_leave_the_shortcut():
    torch.manual_seed(0)
    model = build_model("resnet8", width=8, norm="none", zero_init_residual=True)
    x = torch.rand(2, 8, 16, 16)
    assert torch.equal(model.layer1[0](x), x)


@pytest.mark.parametrize(
    ("shortcut", "order"), [p for p in itertools.product(SHORTCUTS, ORDERS) if cannot_train(*p)]
)
def test_dead_networks_are_refused(shortcut, order):
    with pytest.raises(ModelError, match="never train") as refusal:
        build_model("resnet8", shortcut=shortcut, activation_order=order, zero_init_residual=True)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("name", ["plain_cnn", "d2l_resnet18"])
def test_single_networks_train(name):
    torch.manual_seed(0)
    model = build_model(name, num_classes=7, in_channels=2)
    torch.nn.functional.cross_entropy(model(torch.randn(5, 2, 24, 24)), torch.arange(5)).backward()
    for path, parameter in model.named_parameters():
        assert parameter.grad is not None
        assert parameter.grad.isfinite().all()
        # A bias ahead of a batch norm is taken out by it, up to rounding.
        assert parameter.grad.any() or path.endswith(("conv1.bias", "conv2.bias", "conv.bias"))


REFUSED = [
    ("resnet32", {"block": "bottleneck"}, r"9n\+2 .* 29 and 38"),
    ("resnet29", {}, r"6n\+2 .* 26 and 32, or block='bottleneck' for 29"),
    ("resnet19", {}, "14 and 20 .*18, 34, 50"),
    ("resnet3", {}, "nearest: 8"),
    ("resnet1", {}, "nearest: 8"),
    ("resnet29", {"block": "botleneck"}, "block='botleneck' is unknown; did you mean 'bottleneck'"),
    ("resnet34", {"block": "bottleneck"}, "are resnet50; bottleneck blocks are in resnet50"),
    ("resnet18", {"block": "bottleneck"}, "bottleneck blocks are in resnet50, resnet101"),
    ("resnet50", {"block": "basic"}, "are resnet34; basic blocks are in resnet18"),
    ("resnet101", {"block": "basic"}, "basic blocks are in resnet18, resnet34"),
    ("resnet18", {"block": "botleneck"}, "block='botleneck' is unknown; did you mean 'bottle"),
    ("resnet20", {"block": ["basic"]}, "block=.* is unknown"),
    ("resnt18", {}, "unknown model 'resnt18'; did you mean 'resnet18'"),
    ("", {}, "unknown model ''"),
    ("resnet18", {"widht": 8}, "no option 'widht'; did you mean 'width'"),
    ("plain_cnn", {"shortcut": "none"}, "no option 'shortcut' .options: width"),
    ("d2l_resnet18", {"width": 8}, "no option 'width' .options: none"),
    ("plain18", {"shortcut": "gated"}, "for shortcut='gated' ask for resnet18"),
    ("preact_resnet20", {"activation_order": "post"}, "ask for resnet20"),
    ("resnet18", {"gate_bias": -6}, "no meaning with shortcut='projection'; use .*'gated'"),
    ("resnet18", {"shortcut": "gated", "shortcut_scale": 0.5}, "use it with shortcut='scaled'"),
    ("plain18", {"dropout_rate": 0.1}, "no meaning with shortcut='none'"),
    ("resnet18", {"shortcut": "scaled", "shortcut_scale": 0}, "use shortcut='none'"),
    ("resnet18", {"shortcut": "scaled", "residual_scale": -1}, "must be above 0"),
    ("resnet18", {"shortcut": "dropout", "dropout_rate": 1}, "below 1"),
    (
        "resnet18",
        {"shortcut": "gated", "gate_bias": float("nan")},
        "gate_bias=nan must be a finite",
    ),
    ("resnet18", {"shortcut": "gated", "gate_bias": "low"}, "gate_bias='low' must be a finite"),
    ("resnet18", {"shortcut": "gatd"}, "did you mean 'gated'"),
    ("resnet18", {"width": 0}, "width=0 must be a whole number"),
    ("plain_cnn", {"width": 1.5}, "width=1.5 must be a whole number"),
    ("resnet18", {"width": True}, "width=True must be a whole number"),
    ("resnet18", {"zero_init_residual": 1}, "zero_init_residual=1 must be true or false"),
    ("resnet18", {"num_classes": 0}, "num_classes=0 must be a whole number"),
    ("resnet18", {"in_channels": -1}, "in_channels=-1 must be a whole number"),
]


@pytest.mark.parametrize(("name", "options", "message"), REFUSED)
def test_refusals_say_what_would_work(name, options, message):
    with pytest.raises(ModelError, match=message) as refusal:
        build_model(name, **options)
    assert "\n" not in str(refusal.value)
    assert isinstance(refusal.value, ValueError)
