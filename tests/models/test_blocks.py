"""What the papers and the book say of a single block, and of the shapes between them."""

from __future__ import annotations

import doctest

import pytest
import torch
from torch import nn

from bench.models import BLOCKS, ORDERS, Residual, ResNetConfig, book, build_model, registry
from bench.models.shortcuts import Projection

# The orders whose block ends with a ReLU are the identity on what a ReLU made.
IDENTITY_ON_ALL = ("relu_before_add", "relu_preact", "preact")


def make(block, in_channels=8, stride=1, **options):
    config = ResNetConfig(stages=(1,), block=block, **options)  # type: ignore[arg-type]
    made = BLOCKS[block](config, in_channels, 8 // BLOCKS[block].expansion, stride)
    for parameter in made.parameters():
        nn.init.uniform_(parameter, -1, 1)
    return made


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("order", ["post", *IDENTITY_ON_ALL])
@pytest.mark.parametrize("block", BLOCKS)
def test_zero_branch_is_exactly_the_identity(block, order, training):
    made = make(block, activation_order=order).train(training)
    silence(made, order)
    x = torch.randn(3, 8, 6, 6)
    if order == "post":
        x = x.relu() + (x > 0) * 0.1
    x.requires_grad_()
    out = made(x)
    assert torch.equal(out, x)
    positive = torch.randn(3, 8, 6, 6)
    (gradient,) = torch.autograd.grad(out, x, positive)
    where = x > 0 if order == "post" else torch.ones_like(x, dtype=torch.bool)
    assert torch.equal(gradient[where], positive[where])


def test_identity_holds_on_negative_input_only_without_a_relu_at_the_end():
    made = make("basic")
    silence(made, "post")
    x = -torch.rand(2, 8, 4, 4)
    assert torch.equal(made(x), torch.zeros_like(x))


@pytest.mark.parametrize("stride", [1, 2])
def test_the_books_block_with_a_zero_branch_is_the_identity(stride):
    made = Residual(3, 3, use_1x1conv=stride > 1, stride=stride)
    nn.init.zeros_(made.bn2.weight)
    x = torch.rand(2, 3, 6, 6)
    expected = x if stride == 1 else made.conv3(x).relu()
    assert torch.equal(made(x), expected)


def silence(block, order):
    """Make the residual branch zero, biases included."""
    block.zero_residual()
    if order in {"post", "relu_before_add", "relu_preact"}:
        last = [module for module in block.children() if isinstance(module, nn.BatchNorm2d)][-1]
        nn.init.zeros_(last.bias)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("block", BLOCKS)
def test_orders_are_those_of_the_figure(block, order):
    """Record which layers run, and compare with figure 4 of He et al. 2016b."""
    made = make(block, activation_order=order).eval()
    ran: list[str] = []
    for child in made.children():
        name = {nn.Conv2d: "conv", nn.BatchNorm2d: "bn", nn.ReLU: "relu"}.get(type(child), "add")
        if not isinstance(child, nn.Identity):
            child.register_forward_hook(lambda *_, name=name: ran.append(name))
    made(torch.randn(1, 8, 4, 4))
    inner = {"basic": 1, "bottleneck": 2}[block]  # convolutions ahead of the last
    figure = {
        "post": "conv bn relu " * inner + "conv bn add relu",
        "bn_after_add": "conv bn relu " * inner + "conv add bn relu",
        "relu_before_add": "conv bn relu " * inner + "conv bn relu add",
        "relu_preact": "relu conv bn " * inner + "relu conv bn add",
        "preact": "bn relu conv " * inner + "bn relu conv add",
    }
    assert " ".join(ran) == figure[order]


class TestShortcuts:
    """Each kind against its formula, in a pre-activation block, which ends at the sum."""

    x = torch.randn(2, 8, 6, 6, generator=torch.Generator().manual_seed(0))

    def parts(self, **options):
        made = make("basic", activation_order="preact", **options).eval()
        plain = make("basic", activation_order="preact", shortcut="none").eval()
        plain.load_state_dict(made.state_dict(), strict=False)
        return made, made(self.x), plain(self.x)

    def test_identity(self):
        _, out, residual = self.parts()
        assert torch.allclose(out, self.x + residual)

    def test_scaled(self):
        _, out, residual = self.parts(shortcut="scaled", shortcut_scale=0.25, residual_scale=2)
        assert torch.allclose(out, 0.25 * self.x + 2 * residual)

    @pytest.mark.parametrize("kind", ["gated", "shortcut_only_gated"])
    def test_gates(self, kind):
        made, out, residual = self.parts(shortcut=kind)
        gate = torch.sigmoid(made.join.get_submodule("gate")(self.x))
        kept = gate * residual if kind == "gated" else residual
        assert torch.allclose(out, (1 - gate) * self.x + kept, atol=1e-6)

    def test_dropout(self):
        made, out, residual = self.parts(shortcut="dropout", dropout_rate=0.25)
        assert torch.allclose(out, self.x + residual)  # in evaluation
        torch.manual_seed(0)
        made.zero_residual()
        dropped = made.train()(self.x)
        zeros = (dropped == 0).float().mean()
        assert 0.15 < zeros < 0.35
        assert torch.allclose(dropped[dropped != 0], (self.x / 0.75)[dropped != 0])

    def test_zero_pad(self):
        config = ResNetConfig(stages=(1,), shortcut="zero_pad", activation_order="relu_before_add")
        made = BLOCKS["basic"](config, 4, 8, 2)
        silence(made, "relu_before_add")
        x = torch.randn(2, 4, 5, 5)
        out = made(x)
        assert out.shape == (2, 8, 3, 3)
        assert torch.equal(out[:, :4], x[:, :, ::2, ::2])
        assert not out[:, 4:].any()

    def test_all_projection(self):
        made, out, residual = self.parts(shortcut="all_projection")
        assert isinstance(made.downsample, Projection)
        entered = torch.relu(made.bn1(self.x))  # a projection takes the activated input (2016b)
        assert torch.allclose(out, made.downsample(entered) + residual, atol=1e-6)

    def test_gates_start_with_the_bias_that_was_asked_for(self):
        model = build_model("resnet8", shortcut="gated", gate_bias=-3)
        biases = [p for name, p in model.named_parameters() if name.endswith("gate.bias")]
        assert len(biases) == 3
        assert all((bias == -3).all() for bias in biases)


@pytest.mark.parametrize("name", ["resnet18", "preact_resnet18", "plain18", "d2l_resnet18"])
def test_stage_shapes_are_the_books(name):
    model = build_model(name, num_classes=10, in_channels=1).eval()
    stages = {
        child: module
        for child, module in model.named_children()
        if child.startswith(("layer", "module")) or child in {"maxpool", "fc"}
    }
    shapes = {}
    for child, module in stages.items():
        module.register_forward_hook(
            lambda _module, _input, output, child=child: shapes.update({child: output.shape})
        )
    with torch.no_grad():
        model(torch.rand(1, 1, 224, 224))
    assert [tuple(shape) for shape in shapes.values()] == [
        (1, 64, 56, 56),
        (1, 64, 56, 56),
        (1, 128, 28, 28),
        (1, 256, 14, 14),
        (1, 512, 7, 7),
        (1, 10),
    ]


def test_the_books_network_has_the_books_parameters():
    model = build_model("d2l_resnet18")
    assert sum(p.numel() for p in model.parameters()) == 11_178_378
    biased = [m.bias is not None for m in model.modules() if isinstance(m, nn.Conv2d)]
    assert all(biased)
    assert len(biased) == 1 + 8 * 2 + 3


@pytest.mark.parametrize("module", [book, registry])
def test_examples_in_the_documentation(module):
    ran = doctest.testmod(module)
    assert ran.attempted
    assert not ran.failed
