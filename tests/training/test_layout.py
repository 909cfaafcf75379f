"""Layout in memory: chosen by the maps a convolution sees, and of no effect but rounding."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from torch import nn

from bench.models import build_model
from bench.networks.summary import count_macs
from bench.training.layout import SMALL_MAP, OnePixelConv2d, lay_out

CPU = torch.device("cpu")


def laid_out(size):
    torch.manual_seed(0)
    model = build_model("resnet18", num_classes=10, in_channels=3)
    twin = build_model("resnet18", num_classes=10, in_channels=3)
    twin.load_state_dict(model.state_dict())
    assert lay_out(model, CPU, (3, size, size)) is torch.channels_last
    return model.train(), twin.train()


def is_channels_last(tensor):
    return tensor.is_contiguous(memory_format=torch.channels_last) and not tensor.is_contiguous()


def test_only_convolutions_of_small_maps_stay_contiguous():
    model, _ = laid_out(96)  # maps of 24, 12, 6 and 3 pixels' side
    seen = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d) and module.kernel_size != (1, 1):
            module.register_forward_hook(
                lambda m, inputs, out, name=name: seen.__setitem__(name, (inputs[0], m.weight, out))
            )
    model(torch.randn(2, 3, 96, 96).contiguous(memory_format=torch.channels_last))
    assert len(seen) == 17
    for given, weight, out in seen.values():
        small = given.shape[-1] * given.shape[-2] <= SMALL_MAP
        assert is_channels_last(weight) is not small
        assert is_channels_last(out) is not small
    assert sum(not is_channels_last(weight) for _, weight, _ in seen.values()) == 3


def test_the_arithmetic_is_the_same():
    model, twin = laid_out(32)
    images = torch.randn(4, 3, 32, 32)
    for network in (model, twin):
        network(images).square().mean().backward()
    for ours, theirs in zip(model.parameters(), twin.parameters(), strict=True):
        scale = theirs.grad.abs().max()
        torch.testing.assert_close(ours.grad / scale, theirs.grad / scale, rtol=0, atol=1e-3)


@pytest.mark.parametrize("changes", [{}, {"stride": 2}, {"groups": 4}, {"kernel_size": (3, 5)}])
def test_maps_of_one_pixel_meet_the_middle_of_a_kernel_only(changes):
    torch.manual_seed(0)
    values = {"kernel_size": 3, **changes}
    padding = (1, 2) if values["kernel_size"] == (3, 5) else 1
    layer = nn.Conv2d(8, 12, padding=padding, **values)
    twin = nn.Conv2d(8, 12, padding=padding, **values)
    twin.load_state_dict(layer.state_dict())
    lay_out(nn.Sequential(layer), CPU, (8, 1, 1))
    assert isinstance(layer, OnePixelConv2d)
    for side in (1, 4):  # larger ones are still computed as before
        images = [torch.randn(2, 8, side, side, requires_grad=True)]
        images.append(images[0].detach().clone().requires_grad_())
        for network, given in zip((layer, twin), images, strict=True):
            network.zero_grad()
            network(given).square().mean().backward()
        torch.testing.assert_close(images[0].grad, images[1].grad)
        for ours, theirs in zip(layer.parameters(), twin.parameters(), strict=True):
            torch.testing.assert_close(ours.grad, theirs.grad)
    assert count_macs(layer, (1, 8, 1, 1)) == count_macs(twin, (1, 8, 1, 1))


def test_kernels_without_a_middle_are_left_alone():
    for layer in (nn.Conv2d(3, 4, 2), nn.Conv2d(3, 4, 3, padding=2), nn.Conv2d(3, 4, 1),
                  nn.Conv2d(3, 4, 3, padding="same"),
                  nn.Conv2d(3, 4, 3, padding=1, padding_mode="circular")):  # fmt: skip
        assert not OnePixelConv2d.fits(layer)


def test_statistics_and_mode_are_left_alone():
    model, twin = laid_out(32)
    assert model.training
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, twin.state_dict()[name], rtol=0, atol=0)


WALK = """
import sys, torch
from bench.training.layout import move
torch.set_num_threads(1)
for width in range(1, 10):
    for kernel, stride in ((1, 1), (1, 2), (2, 2), (3, 2)):
        layer = torch.nn.Conv2d(width, 8, kernel, stride, kernel // 2, bias=False)
        model = torch.nn.Sequential(layer)
        layout = move(model, torch.device("cpu"))
        images = torch.randn(64, width, 28, 28).contiguous(memory_format=layout)
        for _ in range(4):
            model(images.requires_grad_()).square().mean().backward()
print("walked")
"""


def test_small_convolutions_do_not_corrupt_memory():
    """With glibc's checks and AVX2 alone, plain channels-last dies of SIGABRT or SIGSEGV here."""
    checks = {"ONEDNN_MAX_CPU_ISA": "AVX2", "MALLOC_CHECK_": "3", "MALLOC_PERTURB_": "165"}
    done = subprocess.run(
        [sys.executable, "-c", WALK],
        env={**os.environ, **checks}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "walked\n"), done.stderr


class Flattening(nn.Module):
    """As in many tutorials, the map is flattened with `view`."""

    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv2d(1, 6, 5)
        self.head = nn.Linear(6 * 8 * 8, 10)

    def forward(self, x):
        x = self.convolution(x).relu()
        return self.head(x.view(x.size(0), -1))


def test_a_network_that_views_its_maps_stays_contiguous():
    model = Flattening()
    layout = lay_out(model, CPU, (1, 12, 12))
    assert layout is torch.contiguous_format
    model(torch.randn(4, 1, 12, 12).contiguous(memory_format=layout)).sum().backward()
    assert model.training
