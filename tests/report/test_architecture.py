"""Diagrams against the networks themselves: operations, repeats, shapes, words, escapes."""

from __future__ import annotations

from xml.etree import ElementTree as ET

import pytest
import torch
from torch import nn

from bench.models import build_model, list_models
from bench.networks.graph import Block, Fork, Network, trace
from bench.networks.summary import describe as describe_layers
from bench.report.pages.diagram import WIDTH, describe, draw

OWN = [name for name in list_models() if ":" not in name]


def network(name: str, size: int = 32, **options: object) -> tuple[nn.Module, Network]:
    with torch.device("meta"):
        model = build_model(name, in_channels=1, num_classes=7, **options).eval()
    return model, trace(model, (1, size, size))


def lines(block: Block) -> list[str]:
    """Every line of a block, forks included."""
    return [
        line
        for part in block.parts
        for line in ([*part.branch, *part.shortcut] if isinstance(part, Fork) else [part])
    ]


@pytest.mark.parametrize("name", OWN)
def test_every_convolution_is_drawn_once_with_its_channels(name: str) -> None:
    model, found = network(name)
    convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    drawn: list[str] = []
    for block in found.blocks:
        texts = [t for line in lines(block) for t in line.split(" · ") if " conv, " in t]
        drawn += texts * block.count
    assert sorted(drawn) == sorted(
        f"{'×'.join(map(str, m.kernel_size))} conv, {m.out_channels}"
        + (f", /{m.stride[0]}" if m.stride[0] > 1 else "")
        for m in convolutions
    )
    assert found.blocks[-1].shape == (7,)


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("resnet18", [1, 2, 1, 1, 1, 1, 1, 1, 1]),
        ("resnet152", [1, 1, 2, 1, 7, 1, 35, 1, 2, 1]),
        ("plain34", [1, 3, 1, 3, 1, 5, 1, 2, 1]),
        ("resnet110", [1, 18, 1, 17, 1, 17, 1]),
    ],
)
def test_equal_blocks_are_drawn_once_with_their_number(name: str, counts: list[int]) -> None:
    assert [block.count for block in network(name)[1].blocks] == counts


@pytest.mark.parametrize("name", ["resnet50", "preact_resnet20", "d2l_resnet18", "plain_cnn"])
def test_shapes_are_those_of_a_real_pass(name: str) -> None:
    model = build_model(name, in_channels=1, num_classes=7)
    real = {row.layer: row.output_shape[1:] for row in describe_layers(model, (1, 1, 64, 64)).rows}
    for block in network(name, 64)[1].blocks:
        if block.name in real:
            assert block.shape == real[block.name]


@pytest.mark.parametrize(
    ("options", "shortcut"),
    [
        ({}, ("subsample, /2 · zero-pad to 32",)),
        ({"shortcut": "projection"}, ("1×1 conv, 32, /2 · BN",)),
        ({"shortcut": "all_projection"}, ("1×1 conv, 32, /2 · BN",)),
        ({"shortcut": "none"}, None),
    ],
)
def test_the_shortcut_is_what_the_option_says(
    options: dict[str, object], shortcut: tuple[str, ...] | None
) -> None:
    blocks = network("resnet20", **options)[1].blocks
    (block,) = (b for b in blocks if b.name == "layer2.0")
    forks = [part for part in block.parts if isinstance(part, Fork)]
    if shortcut is None:
        assert forks == []
        return
    (fork,) = forks
    assert fork.shortcut == shortcut
    assert fork.branch == ("3×3 conv, 32, /2 · BN · ReLU", "3×3 conv, 32 · BN")
    assert fork.join == "+"
    assert block.parts[-1] == "ReLU"


@pytest.mark.parametrize("shortcut", ["scaled", "gated", "shortcut_only_gated", "dropout"])
@pytest.mark.parametrize("order", ["post", "bn_after_add", "relu_before_add", "relu_preact"])
def test_every_kind_of_shortcut_and_order_can_be_drawn(shortcut: str, order: str) -> None:
    found = network("resnet20", shortcut=shortcut, activation_order=order)[1]
    forks = [p for block in found.blocks for p in block.parts if isinstance(p, Fork)]
    assert sum(b.count for b in found.blocks if any(isinstance(p, Fork) for p in b.parts)) == 9
    assert {fork.join for fork in forks} == {"+"}
    if "gated" in shortcut:
        assert all("sigmoid" in " ".join(fork.shortcut) for fork in forks)
    ET.fromstring(draw(found, "a", "title"))


def test_the_picture_is_narrow_sound_and_told_in_words() -> None:
    found = network("resnet152", 224)[1]
    svg = ET.fromstring(draw(found, "n", "<script>alert(1)</script> & co"))
    assert svg.findtext("title") == "<script>alert(1)</script> & co"
    assert svg.get("aria-labelledby") == "n n-d"
    assert svg.findtext("desc") == describe(found)
    assert int(svg.get("width", 0)) == WIDTH <= 328  # a phone of 360 px less its margins
    assert float(svg.get("height", 0)) < 2500
    texts = [e.text for e in svg.iter("text")]
    assert "× 35" in texts
    assert "identity" in texts
    assert "layer3.1" in texts
    assert "35 times" in describe(found)
