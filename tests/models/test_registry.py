"""Names: what they stand for, which are the same network, and who may take one."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from bench.models import (
    ModelError,
    SingleFamily,
    build_model,
    canonical,
    default_shape,
    list_models,
    register,
)

SAME = [
    (("plain18", {}), ("resnet18", {"shortcut": "none"})),
    (("plain18", {"shortcut": "none"}), ("resnet18", {"shortcut": "none"})),
    (("preact_resnet20", {}), ("resnet20", {"activation_order": "preact"})),
    (("plain14", {"width": 8}), ("resnet14", {"shortcut": "none", "width": 8})),
    (("resnet18", {"shortcut": "projection", "block": "basic"}), ("resnet18", {})),
    (("resnet20", {"shortcut": "zero_pad", "width": 16, "stem": "cifar"}), ("resnet20", {})),
    (("resnet20", {"zero_init_residual": False}), ("resnet20", {})),
    (("resnet20", {"norm": "batch"}), ("resnet20", {})),
    (("resnet20", {"norm": "none"}), ("resnet20", {"norm": "none"})),
    (("resnet20", {"shortcut": "gated", "gate_bias": -6}), ("resnet20", {"shortcut": "gated"})),
    (
        ("resnet20", {"shortcut": "scaled", "shortcut_scale": 1, "residual_scale": 1}),
        ("resnet20", {}),
    ),
    (("resnet20", {"shortcut": "dropout", "dropout_rate": 0}), ("resnet20", {})),
    # Without an addition there is nothing that an activation could stand before or after.
    (("preact_resnet20", {"shortcut": "none"}), ("resnet20", {"shortcut": "none"})),
    (("resnet38", {"block": "bottleneck"}), ("resnet38", {"block": "bottleneck"})),
    (("plain_cnn", {"width": 64}), ("plain_cnn", {})),
    # Each of its three blocks changes the shape, and has a projection either way.
    (
        ("resnet11", {"block": "bottleneck", "shortcut": "all_projection"}),
        ("resnet11", {"block": "bottleneck", "shortcut": "projection"}),
    ),
]


def shapes(name, options):
    with torch.device("meta"):
        model = build_model(name, **options)
    return {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}


@pytest.mark.parametrize(("asked", "expected"), SAME)
def test_one_network_has_one_spelling(asked, expected):
    assert canonical(*asked) == expected
    assert canonical(*expected) == expected
    assert shapes(*asked) == shapes(*expected)


@pytest.mark.parametrize("name", list_models())
def test_canonical_names_build_the_same_network(name):
    spelled = canonical(name)
    assert canonical(*spelled) == spelled
    if spelled != (name, {}):
        assert shapes(name, {}) == shapes(*spelled)


def test_one_spelling_computes_one_thing():
    images = torch.randn(2, 3, 16, 16)
    scores = []
    for name in ("preact_resnet8", canonical("preact_resnet8")):
        torch.manual_seed(0)
        base, options = name if isinstance(name, tuple) else (name, {})
        scores.append(build_model(base, **options).eval()(images))
    assert torch.equal(*scores)


def test_numbers_are_written_alike_and_options_in_order():
    _, options = canonical("resnet20", {"width": 8, "shortcut": "gated", "gate_bias": -5})
    assert list(options) == ["gate_bias", "shortcut", "width"]
    assert repr(options["gate_bias"]) == "-5.0"


def test_foreign_names_come_back_as_they_are():
    for name in ("timm:resnet18", "torchvision:vgg11", "my.package:make"):
        options = {"anything": 1}
        assert canonical(name, options) == (name, options)
        assert default_shape(name) == (3, 224, 1000)


def test_default_shapes():
    assert default_shape("plain34") == (3, 224, 1000)
    assert default_shape("preact_resnet110") == (3, 32, 10)
    assert default_shape("d2l_resnet18") == (1, 96, 10)
    assert default_shape("resnet14") == (3, 32, 10)
    deep = {"block": "bottleneck"}  # 9n+2 layers, and not 6n+2
    assert default_shape("resnet83", deep) == (3, 32, 10)
    with pytest.raises(ModelError, match="or block='bottleneck' for 83"):
        default_shape("resnet83")


def test_the_listed_names_are_the_designs():
    imagenet, cifar = (18, 34, 50, 101, 152), (20, 32, 44, 56, 110)
    expected = {"plain18", "plain34", "plain_cnn", "d2l_resnet18"}
    expected |= {f"{form}{n}" for form in ("resnet", "preact_resnet") for n in imagenet + cifar}
    expected |= {f"plain{n}" for n in cifar}
    assert len(list_models()) == len(expected)
    assert set(list_models()) == expected


def family(name, *names):
    return SingleFamily(name=name, source="a test", names=names, builder=nn.Identity)


@pytest.mark.parametrize(
    ("new", "message"),
    [
        (family("other", "resnet18"), "'resnet18' is already registered, by the family 'imagenet'"),
        (family("cifar"), "family 'cifar' is already registered"),
        (family("other", "twice", "twice"), "'twice' is already registered, by the family 'other'"),
    ],
)
def test_a_name_is_registered_once(new, message):
    before = list_models()
    with pytest.raises(ModelError, match=message):
        register(new)
    assert list_models() == before
