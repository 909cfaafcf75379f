"""Grown networks compute what their parents do; those that cannot are refused by layer."""

from __future__ import annotations

from dataclasses import asdict, replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from bench.data import load_dataset
from bench.errors import BenchError
from bench.models import ResidualBlock, build_model, canonical
from bench.networks.nesting import check_nesting
from bench.networks.same_function import prove
from bench.networks.widen import transplant
from bench.system.caller_state import caller_state

DEEPER = {
    "ImageNet family": ("resnet18", "resnet34", {"width": 4}),
    "bottlenecks": ("resnet50", "resnet101", {"width": 2}),
    "CIFAR family": ("resnet8", "resnet20", {"width": 4}),
    "CIFAR bottlenecks": ("resnet11", "resnet20", {"width": 4, "block": "bottleneck"}),
    "option B": ("resnet8", "resnet14", {"width": 4, "shortcut": "projection"}),
    "pre-activation": ("preact_resnet18", "preact_resnet34", {"width": 4}),
    "CIFAR pre-activation": ("preact_resnet8", "preact_resnet14", {"width": 4}),
    "ReLU before": ("resnet8", "resnet14", {"width": 4, "activation_order": "relu_preact"}),
}
WIDER = {
    **{name: (small, large, options) for name, (small, large, options) in DEEPER.items()},
    "plain": ("plain8", "plain8", {"width": 4}),
    "gated": ("resnet8", "resnet8", {"width": 4, "shortcut": "gated", "gate_bias": -1.0}),
    "BN after addition": ("resnet8", "resnet8", {"width": 4, "activation_order": "bn_after_add"}),
    "option C": ("resnet8", "resnet8", {"width": 4, "shortcut": "all_projection"}),
}


@pytest.fixture(scope="module")
def images():
    pixels = load_dataset("fashion-mnist-mini").test.images[:24]
    return pixels.float() / 255


def trained(name, options):
    """A network whose every number is its own, as after a training."""
    torch.manual_seed(0)
    model = build_model(name, in_channels=1, num_classes=5, **options)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                for tensor in (module.weight, module.running_var):
                    tensor.uniform_(0.5, 1.5)
                for tensor in (module.bias, module.running_mean):
                    tensor.uniform_(-0.3, 0.3)
    return model


def grown(small, large, options, **changes):
    parent = trained(small, options)
    child = trained(large, {**options, **changes})
    for module in child.modules():  # as a fresh network has them
        if isinstance(module, nn.BatchNorm2d):
            module.reset_parameters()
    transplant(parent, child, seed=3)
    return parent, child


@pytest.mark.parametrize(("small", "large", "options"), DEEPER.values(), ids=DEEPER)
@pytest.mark.parametrize("training", [False, True], ids=["evaluating", "training"])
def test_a_deeper_network_computes_exactly_the_same(small, large, options, training, images):
    parent, child = grown(small, large, options)
    check_nesting(canonical(small, options), canonical(large, options))
    with torch.no_grad():
        before, after = (model.train(training)(images) for model in (parent, child))
    assert before.std() > 0
    assert torch.equal(before, after)


@pytest.mark.parametrize(("small", "large", "options"), DEEPER.values(), ids=DEEPER)
def test_new_blocks_learn(small, large, options, images):
    parent, child = grown(small, large, options)
    known = dict(parent.named_modules())
    F.cross_entropy(child.train()(images), torch.arange(24) % 5).backward()
    new = {
        path: block
        for path, block in child.named_modules()
        if isinstance(block, ResidualBlock) and path not in known
    }
    assert new
    for path, block in new.items():
        assert sum(float(p.grad.abs().sum()) for p in block.parameters()) > 0, path


@pytest.mark.parametrize(("small", "large", "options"), WIDER.values(), ids=WIDER)
@pytest.mark.parametrize("factor", [1.5, 2])
@pytest.mark.parametrize("training", [False, True], ids=["evaluating", "training"])
def test_a_wider_network_computes_the_same(small, large, options, factor, training, images):
    width = int(factor * options["width"])
    check_nesting(canonical(small, options), canonical(large, {**options, "width": width}))
    parent, child = grown(small, large, options, width=width)
    with torch.no_grad():
        before, after = (
            model.double().train(training)(images.double()) for model in (parent, child)
        )
    torch.testing.assert_close(before, after, rtol=1e-4, atol=1e-4 * float(before.abs().max()))


def test_copied_channels_part_ways(images):
    _, child = grown("resnet8", "resnet8", {"width": 4}, width=8)
    F.cross_entropy(child.train()(images), torch.arange(24) % 5).backward()
    gradient = child.conv1.weight.grad
    assert torch.equal(child.conv1.weight[:4], child.conv1.weight[4:])
    assert not torch.allclose(gradient[:4], gradient[4:], rtol=1e-3)


REFUSED = {
    "plain": (
        ("plain20", {}), ("plain32", {}), r"layer1\.3\.bn1 breaks the nesting: without a shortcut",
    ),
    "BN after addition": (
        ("resnet8", {"activation_order": "bn_after_add"}),
        ("resnet14", {"activation_order": "bn_after_add"}),
        r"layer1\.1\.bn2 breaks the nesting: it stands behind the addition",
    ),
    "ReLU before addition": (
        ("resnet8", {"activation_order": "relu_before_add"}),
        ("resnet14", {"activation_order": "relu_before_add"}),
        r"layer1\.1\.relu breaks the nesting: it ends the branch",
    ),
    "option C": (
        ("resnet8", {"shortcut": "all_projection"}),
        ("resnet14", {"shortcut": "all_projection"}),
        r"layer1\.1\.downsample breaks the nesting",
    ),
    "gated": (
        ("resnet8", {"shortcut": "gated"}), ("resnet14", {"shortcut": "gated"}),
        r"layer1\.1\.join breaks the nesting: its gate is a sigmoid",
    ),
    "other order": (
        ("resnet20", {}), ("preact_resnet32", {}), r"layer1\.0 breaks the nesting \(activation",
    ),
    "other block": (("resnet34", {}), ("resnet50", {}), r"layer1\.0 breaks the nesting \(block"),
    "other stem": (("resnet20", {}), ("resnet34", {}), r"conv1 breaks the nesting \(stem"),
    "shortcut taken away": (
        ("resnet20", {}), ("plain32", {}), r"layer1\.0\.join breaks the nesting \(shortcut",
    ),
    "group norm": (
        ("resnet8", {"norm": "group"}), ("resnet14", {"norm": "group"}),
        "only networks with batch norm can grow; use norm=batch",
    ),
    "narrower": (("resnet20", {}), ("resnet32", {"width": 8}), "give --width 16 or more"),
    "shallower": (("resnet32", {}), ("resnet20", {}), "layer1 has 3 blocks there and 5 here"),
    "another family": (("resnet20", {}), ("plain_cnn", {}), "plain_cnn cannot grow, nor be grown"),
}  # fmt: skip


@pytest.mark.parametrize(("parent", "child", "message"), REFUSED.values(), ids=REFUSED)
def test_what_does_not_nest_is_refused_by_layer(parent, child, message):
    with pytest.raises(BenchError, match=message):
        check_nesting(canonical(*parent), canonical(*child))


def test_only_the_stages_that_grow_are_named():
    plain = {"shortcut": "none"}
    with pytest.raises(BenchError, match=r"layer3\.6\.bn1 breaks"):
        check_nesting(canonical("resnet50", plain), canonical("resnet101", plain))


def test_the_proof_fails_for_a_network_that_differs(images):
    parent, child = grown("resnet8", "resnet14", {"width": 4})
    batches = [(images, torch.arange(24) % 5)]
    proof = prove(parent, child, batches, split="validation")
    assert proof.max_abs_diff == 0
    assert proof.accuracy == proof.parent_accuracy
    assert replace(proof) == proof.of({**asdict(proof), "parent": "x"})
    with torch.no_grad():
        child.layer1[1].bn2.weight.fill_(0.1)
    with pytest.raises(BenchError, match="does not compute what its parent does"):
        prove(parent, child, batches, split="validation")


def test_the_proof_computes_in_float32_whatever_the_run_trains_in(images):
    cudnn, matmul, seen = torch.backends.cudnn, torch.backends.cuda.matmul, []

    class Noting(nn.Flatten):
        def forward(self, x):
            seen.append((cudnn.conv.fp32_precision, matmul.fp32_precision))
            return super().forward(x)[:, :5]

    with caller_state():
        cudnn.conv.fp32_precision = matmul.fp32_precision = "tf32"
        prove(Noting(), Noting(), [(images, torch.arange(24) % 5)], split="validation")
        assert (cudnn.conv.fp32_precision, matmul.fp32_precision) == ("tf32", "tf32")
    assert seen == [("ieee", "ieee")] * 2
