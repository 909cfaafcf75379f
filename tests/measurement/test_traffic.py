"""What a network moves, against counting by hand and against the exported file's shapes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from bench.export.examine import examine
from bench.measurement.measured_network import find_target
from bench.measurement.preparation import make_file
from bench.models import build_model
from bench.networks.memory_traffic import Traffic, count_traffic


def test_each_layer_reads_input_and_weights_once_and_writes_its_output_once():
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(4, 5),
    )  # fmt: skip
    images = 3 * 8 * 8 + 4 * 6 * 6  # into and out of the convolution
    assert count_traffic(model, (3, 8, 8)) == Traffic(
        weights=(4 * 3 * 9 + 4) + (4 * 5 + 5), activations=images + 4 + 5
    )


def test_a_batch_reads_the_weights_once_and_each_image_its_activations():
    traffic = Traffic(weights=100, activations=10)
    assert traffic.bytes_moved(1, "fp32") == 4 * 110
    assert traffic.bytes_moved(32, "int8") == 100 + 320
    assert traffic.bytes_moved(1, "int8 in 3 of 9 layers") is None


def test_a_network_that_looks_at_values_is_counted_with_some():
    class Looks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(1, 1, 1, bias=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.conv(x) * (2 if float(x.sum()) > 1 else 1)

    model = Looks()
    assert count_traffic(model, (1, 4, 4)) == Traffic(weights=1, activations=32)
    assert model.training


@pytest.mark.parametrize("name", ["resnet20", "preact_resnet20"])
def test_the_exported_file_moves_the_same(name, tmp_path):
    target = find_target(name, input_size=16)
    found = examine(make_file(target, "fp32", tmp_path, threads=1).path)
    own = count_traffic(build_model(name), target.input_shape)
    assert target.traffic == own
    assert found.traffic is not None
    assert found.traffic.activations == own.activations
    assert found.macs == target.macs
    # A normalisation that is folded into a convolution leaves it a bias.
    channels = sum(m.num_features for m in build_model(name).modules()
                   if isinstance(m, nn.BatchNorm2d))  # fmt: skip
    assert own.weights <= found.traffic.weights <= own.weights + channels
