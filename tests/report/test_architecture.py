"""Diagrams against the networks themselves: operations, repeats, shapes, words, escapes."""

from __future__ import annotations

import json
from itertools import chain
from xml.etree import ElementTree as ET

import pytest
import torch
from torch import nn

from bench.models import build_model, list_models
from bench.networks.summary import describe as describe_layers
from bench.networks.traced_architecture import Block, Fork, Network, trace, trace_to_document
from bench.report.pages.diagram import WIDTH, describe, draw

OWN = [name for name in list_models() if ":" not in name]


def network(name: str, size: int = 32, **options: object) -> tuple[nn.Module, Network]:
    with torch.device("meta"):
        model = build_model(name, in_channels=1, num_classes=7, **options).eval()
    return model, trace(model, (1, size, size))


def lines(block: Block) -> list[str]:
    """Every line of a block, forks included."""
    found: list[str] = []
    for part in block.parts:
        found += [part] if isinstance(part, str) else [*part.branch, *chain(*part.shortcuts)]
    return found


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
    drawn = {block.name: block.shape for block in network(name, 64)[1].blocks}
    shared = drawn.keys() & real.keys()
    assert len(shared) >= 3
    assert {name: drawn[name] for name in shared} == {name: real[name] for name in shared}


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
    assert fork.shortcuts == (shortcut,)
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
        assert all("sigmoid" in " ".join(fork.shortcuts[0]) for fork in forks)
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


def foreign(name: str) -> tuple[nn.Module, Network]:
    pytest.importorskip(name.partition(":")[0])
    with torch.device("meta"):
        model = build_model(name, in_channels=3, num_classes=7).eval()
    return model, trace(model, (3, 224, 224))


def test_a_librarys_resnet_is_drawn_as_our_own() -> None:
    """Other names and other code, the same blocks."""
    theirs = foreign("timm:resnet18")[1].blocks
    with torch.device("meta"):
        ours = trace(build_model("resnet18", num_classes=7).eval(), (3, 224, 224)).blocks
    assert [b.parts for b in theirs[:-2]] == [b.parts for b in ours[:-1]]


def test_each_path_of_an_inception_block_is_drawn() -> None:
    model, found = foreign("torchvision:googlenet")
    (block,) = (b for b in found.blocks if b.name == "inception3a")
    (fork,) = block.parts
    assert isinstance(fork, Fork)
    assert fork.join == "concatenate"
    assert len(fork.shortcuts) == 3
    drawn = sum(" conv, " in text for line in lines(block) for text in line.split(" · "))
    inception = model.get_submodule("inception3a")
    assert drawn == sum(isinstance(m, nn.Conv2d) for m in inception.modules())
    svg = ET.fromstring(draw(found, "a", "title"))
    assert "concatenate" in {e.text for e in svg.iter("text")}


def test_attention_is_one_path_beside_the_identity() -> None:
    (block,) = (b for b in foreign("timm:vit_tiny_patch16_224")[1].blocks if b.name == "blocks.0")
    first, second = block.parts
    assert isinstance(first, Fork)
    assert isinstance(second, Fork)
    assert first.shortcuts == second.shortcuts == ((),)
    assert "attention" in " ".join(first.branch)
    assert block.count == 12


def test_a_document_gives_the_network_back_and_leaves_training_alone() -> None:
    model = build_model("resnet20", in_channels=1, num_classes=7)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.random.get_rng_state()
    document = trace_to_document(model, (1, 32, 32))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert document is not None
    assert Network.from_document(json.loads(json.dumps(document))) == network("resnet20")[1]


def test_a_network_that_cannot_be_traced_has_no_document() -> None:
    class Branching(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x if x.sum() > 0 else -x

    assert trace_to_document(Branching(), (1, 32, 32)) is None


class Creating(nn.Module):
    """A network that creates a tensor, on a device or where torch does by default."""

    def __init__(self, device: str | None = None) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.device = device

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x) + torch.ones(4, 1, 1, device=self.device)


def test_tensors_that_a_network_creates_are_where_it_is() -> None:
    assert trace_to_document(Creating(), (1, 8, 8)) is not None


def test_a_network_that_fails_without_values_prints_nothing(
    capfd: pytest.CaptureFixture[str],
) -> None:
    assert trace_to_document(Creating("cpu"), (1, 8, 8)) is None
    assert capfd.readouterr() == ("", "")
