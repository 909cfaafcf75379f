"""Our networks against published numbers, torchvision's arithmetic and timm's."""

from __future__ import annotations

import pytest
import timm
import torch
import torchvision
from torch import nn

from bench.models import build_model, default_shape, list_models
from bench.networks.summary import count_macs, count_parameters

# name: parameters (1000 classes, 3 channels), (10 classes, 1 channel), multiply-adds at 224.
IMAGENET = {
    "resnet18": (11_689_512, 11_175_370, 1_814_073_344),
    "resnet34": (21_797_672, 21_283_530, 3_663_761_408),
    "resnet50": (25_557_032, 23_522_250, 4_089_184_256),
    "resnet101": (44_549_160, 42_514_378, 7_801_405_440),
    "resnet152": (60_192_808, 58_158_026, 11_513_626_624),
}
DEEP = {"resnet101", "resnet152"}
NAMES = [pytest.param(n, marks=pytest.mark.slow) if n in DEEP else n for n in IMAGENET]


@torch.no_grad()
def randomise_norms(model):
    """Give every batch norm statistics of its own, mild enough for 152 layers of them."""
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.uniform_(0.3, 0.9, generator=generator)
            module.bias.uniform_(-0.2, 0.2, generator=generator)
            module.running_mean.uniform_(-0.3, 0.3, generator=generator)
            module.running_var.uniform_(0.6, 1.6, generator=generator)


def assert_close(ours, theirs):
    assert theirs.isfinite().all()
    assert theirs.abs().max() > 1e-3, "outputs must be of a size that can differ"
    assert (ours - theirs).abs().max() <= 1e-5 * theirs.abs().max()


@pytest.mark.parametrize("name", IMAGENET)
def test_parameters_and_multiply_adds(name):
    with torch.device("meta"):
        model = build_model(name)
        grey = build_model(name, num_classes=10, in_channels=1)
    parameters, grey_parameters, macs = IMAGENET[name]
    assert count_parameters(model) == parameters
    assert count_parameters(grey) == grey_parameters
    assert count_macs(model, (1, 3, 224, 224)) == macs


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_torchvision_weights_give_torchvision_outputs(name):
    theirs = torchvision.models.get_model(name, weights=None).eval()
    randomise_norms(theirs)
    ours = build_model(name).eval()
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.load_state_dict(theirs.state_dict())
    theirs.load_state_dict(ours.state_dict())
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    assert_close(ours(images), theirs(images))


def test_torchvision_gradients_are_ours_in_training():
    theirs = torchvision.models.resnet18(weights=None).double()
    ours = build_model("resnet18").double()
    ours.load_state_dict(theirs.state_dict())
    images = torch.randn(3, 3, 40, 40, dtype=torch.float64)
    for model in (ours, theirs):
        model(images).square().sum().backward()
    pairs = zip(ours.parameters(), theirs.parameters(), strict=True)
    assert all(torch.allclose(a.grad, b.grad, rtol=1e-7, atol=1e-9) for a, b in pairs)


# He et al. 2016a, table 6: 0.27, 0.46, 0.66, 0.85 and 1.7 million parameters.
@pytest.mark.parametrize(
    ("depth", "parameters"),
    [(20, 269_722), (32, 464_154), (44, 658_586), (56, 853_018), (110, 1_727_962)],
)
def test_cifar_family_has_the_papers_parameters(depth, parameters):
    assert count_parameters(build_model(f"resnet{depth}")) == parameters
    # Option A has no weights, so the plain network has as many (section 4.2).
    assert count_parameters(build_model(f"plain{depth}")) == parameters


def test_bottlenecks_on_cifar_cost_what_the_paper_says():
    # He et al. 2016b, appendix: ResNet-164 has about ResNet-110's parameters; its table 4: 1.7 M.
    model = build_model("resnet164", block="bottleneck", shortcut="projection")
    assert round(count_parameters(model) / 1e6, 1) == 1.7


TIMM_PATHS = {"stem.conv.": "conv1.", "norm.": "final.0.", "head.fc.": "fc."}


def from_timm(state):
    """Rename timm's pre-activation weights to ours; its first norm is our stem's."""
    renamed = {}
    for path, tensor in state.items():
        new = path
        for theirs, ours in TIMM_PATHS.items():
            new = ours + path.removeprefix(theirs) if path.startswith(theirs) else new
        if path.startswith("stages."):
            _, stage, _, block, rest = path.split(".", 4)
            rest = rest.replace("downsample.conv", "downsample.0").replace("norm", "bn")
            new = f"layer{int(stage) + 1}.{block}.{rest}"
        new = new.replace("layer1.0.bn1.", "bn1.")
        # timm keeps its classifier as a 1x1 convolution.
        renamed[new] = tensor.flatten(1) if new == "fc.weight" else tensor
    return renamed


def timm_pair(name, theirs_name):
    theirs = timm.create_model(theirs_name, num_classes=7).eval()
    randomise_norms(theirs)
    ours = build_model(name, num_classes=7).eval()
    ours.load_state_dict(from_timm(theirs.state_dict()))
    return ours, theirs


@pytest.mark.parametrize("depth", [50, pytest.param(101, marks=pytest.mark.slow)])
@torch.no_grad()
def test_preactivation_bottlenecks_give_timms_outputs(depth):
    ours, theirs = timm_pair(f"preact_resnet{depth}", f"resnetv2_{depth}")
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    assert_close(ours(images), theirs(images))
    # timm pools ahead of the first BN-ReLU, the paper's order is the other way round. The
    # two commute while BN's weights are positive, and only in evaluation.
    first_norm = theirs.get_submodule("stages.0.blocks.0.norm1")
    first_norm.weight[0] = ours.bn1.weight[0] = -1.0
    assert not torch.allclose(ours(images), theirs(images))


@torch.no_grad()
def test_preactivation_basic_blocks_differ_from_timm_in_the_first_shortcut_alone():
    ours, theirs = timm_pair("preact_resnet18", "resnetv2_18")
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    # timm's first block carries its input past the first activation; He et al. 2016b,
    # appendix, apply that activation "before splitting into two paths".
    assert not torch.allclose(ours(images), theirs(images))
    first = theirs.get_submodule("stages.0.blocks.0")
    ours_after_first = first(theirs.stem(images))
    for block in [*ours.layer1[1:], ours.layer2, ours.layer3, ours.layer4]:
        ours_after_first = block(ours_after_first)
    scores = ours.fc(ours.avgpool(ours.final(ours_after_first)).flatten(1))
    assert_close(scores, theirs(images))


@pytest.mark.parametrize("width", [16, 32, 64])
@pytest.mark.parametrize(("channels", "classes"), [(3, 1000), (1, 10)])
def test_plain_cnn_costs_what_resnet18_costs(width, channels, classes):
    options = {"width": width, "num_classes": classes, "in_channels": channels}
    with torch.device("meta"):
        plain, residual = (build_model(name, **options) for name in ("plain_cnn", "resnet18"))
    for size in (28, 32, 96, 224):
        shape = (1, channels, size, size)
        assert 0.85 <= count_macs(plain, shape) / count_macs(residual, shape) <= 1.15


@pytest.mark.parametrize("size", [14, 28])
def test_plain_cnn_trains_on_small_images(size):
    torch.manual_seed(0)
    model = build_model("plain_cnn", num_classes=7, in_channels=1, width=8)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.02)
    images, labels = torch.randn(7, 1, size, size), torch.arange(7)
    losses = []
    for _ in range(30):
        loss = nn.functional.cross_entropy(model(images), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize("name", list_models())
def test_every_name_builds_with_its_own_shape(name):
    channels, size, classes = default_shape(name)
    with torch.device("meta"):
        model = build_model(name).eval()
        assert model(torch.empty(2, channels, size, size)).shape == (2, classes)


@pytest.mark.parametrize("name", ["resnet18", "preact_resnet18", "resnet20", "d2l_resnet18"])
@pytest.mark.parametrize("size", [1, 13])
def test_any_input_size_is_taken(name, size):
    model = build_model(name, num_classes=7, in_channels=2).eval()
    assert model(torch.randn(1, 2, size, size)).shape == (1, 7)
