"""The table of layers: rows that add up, for any network, which stays as it was."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from bench.errors import BenchError
from bench.models import build_model
from bench.networks.summary import count_macs, count_parameters, describe


def assert_adds_up(described):
    assert sum(row.macs for row in described.rows) == described.macs
    assert sum(row.parameters for row in described.rows) == described.parameters


def test_the_books_table():
    described = describe(build_model("d2l_resnet18"), (1, 1, 224, 224))
    rows = {row.layer: row for row in described.rows}
    assert list(rows)[:6] == ["conv", "bn", "relu", "maxpool", "module1.0", "module1.1"]
    assert rows["module4.1"].output_shape == (1, 512, 7, 7)
    assert rows["module4.1"].kind == "Residual"
    assert rows["fc"].output_shape == described.output_shape == (1, 10)
    assert rows["fc"].macs == 512 * 10
    assert rows["conv"].macs == 64 * 49 * 112 * 112
    assert described.parameters == 11_178_378
    assert_adds_up(described)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("resnet18", (2, 3, 64, 64)),
        ("preact_resnet20", (1, 3, 32, 32)),
        ("plain_cnn", (1, 3, 28, 28)),
        ("timm:resnetv2_50", (1, 3, 64, 64)),
        ("timm:swin_tiny_patch4_window7_224", (1, 3, 224, 224)),
        ("torchvision:vit_b_16", (1, 3, 224, 224)),
        ("torchvision:mobilenet_v3_small", (1, 3, 64, 64)),
    ],
)
def test_rows_add_up_for_any_network(name, shape):
    with torch.device("meta" if name.startswith("torchvision:v") else "cpu"):
        model = build_model(name)
    described = describe(model, shape)
    assert described.macs == count_macs(model, shape) > 0
    assert described.parameters == count_parameters(model)
    assert described.output_shape[0] == shape[0]
    assert described.output_shape[1] in {10, 1000}
    assert_adds_up(described)


def test_multiply_adds_are_those_of_the_batch():
    model = build_model("resnet8")
    assert count_macs(model, (4, 3, 32, 32)) == 4 * count_macs(model, (1, 3, 32, 32))


@pytest.mark.parametrize("works", [True, False])
def test_the_model_is_left_as_it_was(works):
    model = build_model("resnet8")
    model.layer1.eval()
    modes = [module.training for module in model.modules()]
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    if works:
        describe(model, (2, 3, 16, 16))
    else:
        with pytest.raises(BenchError):
            describe(model, (2, 1, 16, 16))
    assert [module.training for module in model.modules()] == modes
    after = model.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert not any(module._forward_hooks for module in model.modules())


class Odd(nn.Module):
    """Everything that a table could miss or count twice."""

    def __init__(self):
        super().__init__()
        self.own = nn.Parameter(torch.ones(12, 5))
        self.twice = nn.Linear(12, 12)
        self.tied = nn.Linear(12, 12)
        self.tied.weight = self.twice.weight
        self.never = nn.Linear(2, 2)
        self.nothing = nn.Identity()

    def forward(self, x):
        if x.sum().item() > 1e9:  # looks at values, which a network without data has not
            raise AssertionError
        x = self.nothing(self.tied(self.twice(self.twice(x.flatten(1)))))
        return {"scores": F.relu(x) @ self.own}


def test_shared_repeated_unused_and_own_parts_are_counted_once():
    described = describe(Odd(), (1, 3, 2, 2))
    rows = {row.layer: row for row in described.rows}
    assert rows["twice"].macs == 2 * 144
    assert rows["twice"].parameters == 156
    assert rows["tied"].parameters == 12
    assert rows["(other)"].macs == 12 * 5
    assert rows["(other)"].parameters == 60 + 6
    assert set(rows) == {"twice", "tied", "(other)"}
    assert described.output_shape == (1, 5)
    assert_adds_up(described)


class Attending(nn.Module):
    """Attention, written out or with PyTorch's layer, in a network that looks at values or not."""

    def __init__(self, layer, looks):
        super().__init__()
        self.layer = nn.MultiheadAttention(16, 4, batch_first=True) if layer else None
        self.looks = looks

    def forward(self, x):
        if self.looks:
            assert torch.isfinite(x).all()
        if self.layer is not None:
            return self.layer(x.flatten(2), x.flatten(2), x.flatten(2), need_weights=False)[0]
        return F.scaled_dot_product_attention(x, x, x)


@pytest.mark.parametrize("layer", [True, False])
def test_attention_has_the_same_arithmetic_where_real_values_are_needed(layer):
    shape = (2, 6, 4, 4)  # B×S×(H·W), and B×H×S×D
    found = [count_macs(Attending(layer, looks).eval(), shape) for looks in (False, True)]
    by_hand = 2 * (2 * 6 * 6 * 16 + 4 * 6 * 16 * 16) if layer else 2 * 2 * 6 * 4 * 4 * 4
    assert found == [by_hand, by_hand]


def test_a_lazy_network_is_described():
    described = describe(nn.Sequential(nn.Flatten(), nn.LazyLinear(7)), (1, 3, 2, 2))
    assert described.parameters == 12 * 7 + 7
    assert_adds_up(described)


def test_nested_sequences_count_once():
    inner = nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.Linear(4, 4)))
    described = describe(nn.Sequential(inner, inner[0]), (1, 4))
    assert described.macs == 48
    assert_adds_up(described)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 1, 32, 32), "cannot take an input of 1x1x32x32 .*: .*channels"),
        ((1, 3, 0, 32), "input 1x3x0x32: every size must be at least 1"),
        ((), "every size"),
    ],
)
def test_an_impossible_input_is_one_line(shape, message):
    with pytest.raises(BenchError, match=message) as refusal:
        describe(build_model("resnet8"), shape)
    assert "\n" not in str(refusal.value)


def test_an_input_that_vanishes_is_one_line():
    with pytest.raises(
        BenchError, match=r"AlexNet cannot take an input of 1x3x8x8 .*: "
    ) as refusal:
        count_macs(build_model("torchvision:alexnet"), (1, 3, 8, 8))
    assert "\n" not in str(refusal.value)
