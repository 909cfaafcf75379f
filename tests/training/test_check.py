from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace

import pytest

from bench.errors import BenchError
from bench.training import sizes
from bench.training.check import check_shared, check_trainable
from bench.training.run import execute
from bench.training.setup import load_data
from bench.training.sizes import DataSize, data_size, image_macs, memory_of_images

MODELS = """
import torch
from torch import nn

def fixed_classes(in_channels):
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(7))

def two_outputs(num_classes, in_channels):
    class Pair(nn.Module):
        def forward(self, x):
            return x, x
    return Pair()

class Body(nn.Sequential):
    def __init__(self, num_classes, in_channels):
        super().__init__(nn.Flatten(), nn.Linear(64 * in_channels, num_classes))

class PairInEvaluation(Body):
    def forward(self, x):
        x = super().forward(x)
        return x if self.training else (x, x)

class Squeezing(Body):
    def forward(self, x):
        return super().forward(x).squeeze()

def frozen(num_classes, in_channels):
    return Body(num_classes, in_channels).requires_grad_(False)

class PlainState(Body):
    def get_extra_state(self):
        return {"seen": 3}

    def set_extra_state(self, state): ...

class SparseState(Body):
    def __init__(self, num_classes, in_channels):
        super().__init__(num_classes, in_channels)
        self.register_buffer("mask", torch.eye(3).to_sparse())

class LateState(Body):
    def forward(self, x):
        self.register_buffer("cache", torch.zeros(1))
        return super().forward(x)

class MiddleOnly(nn.Sequential):
    def __init__(self, num_classes, in_channels):
        layers = [nn.Linear(n, m, bias=False) for n, m in ((64, 8), (8, 8), (8, num_classes))]
        super().__init__(nn.Flatten(), *layers)
        for end in (layers[0], layers[2]):
            end.requires_grad_(False)

def ready(num_classes, in_channels):
    model = Body(num_classes, in_channels)
    model.load_state_dict(Body(num_classes, in_channels).state_dict())
    return model

def breaks(num_classes, in_channels):
    class Broken(nn.Module):
        def forward(self, x):
            return self.nowhere(x)
    return Broken()

def pools(num_classes, in_channels):
    return nn.Sequential(*[nn.MaxPool2d(2)] * 4, nn.Flatten(), nn.LazyLinear(num_classes))

def deep_norm(num_classes, in_channels):
    return nn.Sequential(
        nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(in_channels), nn.Flatten(),
        nn.Linear(in_channels, num_classes),
    )
"""


@pytest.fixture
def own(tiny, tmp_path, monkeypatch):
    (tmp_path / "checked_networks.py").write_text(MODELS)
    monkeypatch.syspath_prepend(tmp_path)
    return lambda name, **changes: tiny(f"checked_networks:{name}", options={}, **changes)


def refused(request):
    with pytest.raises(BenchError) as caught:
        check_trainable(request, load_data(request))
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_network_that_loads_its_own_weights_is_counted_in_silence(own, recwarn):
    request = own("ready")
    assert image_macs(request, data_size(request)) == 64 * 10
    assert not recwarn.list


def test_what_can_be_trained_passes(tiny, own):
    for request in (tiny(), own("deep_norm")):
        check_trainable(request, load_data(request))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("fixed_classes", "gives (7,) values per image, dataset 'fashion-mnist-mini' has 10 class"),
        ("two_outputs", "of logits, N × classes; in training mode it returns tuple for a"),
        ("PairInEvaluation", "in evaluation mode it returns tuple for a batch of 2"),
        ("frozen", "has no trainable parameters; leave requires_grad"),
        ("PlainState", "keeps '_extra_state' in its state, of dict, which safetensors cannot"),
        ("SparseState", "keeps 'mask' in its state, of float32, which safetensors cannot store"),
        ("LateState", "adds or removes 'cache' of its state in forward"),
        ("breaks", "cannot take an input of 1×8×8: 'Broken' object has no attribute 'nowhere'"),
        ("pools", "its maps vanish at an input of 1×8×8; choose a larger input_size"),
        ("absent", "no 'absent' in checked_networks"),
    ],
)
def test_network_that_does_not_fit_is_refused_in_one_line(own, name, said):
    assert said in refused(own(name))


@pytest.mark.parametrize(
    ("images", "batch", "fraction"),
    [
        (97, 32, 0.0),  # a last batch of one
        (90, 1, 0.0),  # every batch is of one
        (150, 129, 0.1),  # 15 of a class: 2 are held out, 130 stay
    ],
)
def test_batch_norm_on_one_value_is_refused(own, images, batch, fraction):
    request = own("deep_norm", train_images=images, batch_size=batch, validation_fraction=fraction)
    assert "leaves a single value per channel for batch norm" in refused(request)


@pytest.mark.parametrize(
    ("name", "images", "device", "said"),
    [
        ("Body", 99, "cuda", r"of 99 training images in batches of 32 has 3 image\(s\), which 4"),
        ("deep_norm", 100, "cpu", "leaves a single value per channel for batch norm"),
        ("deep_norm", 100, "cuda", None),  # where it is synchronised
        ("deep_norm", 96, "cpu", None),
    ],
)
def test_processes_that_cannot_share_the_last_batch_are_refused(
    own, monkeypatch, name, images, device, said
):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    monkeypatch.setenv("WORLD_SIZE", "4")
    request = own(name, train_images=images, batch_size=32, validation_fraction=0.0)
    refusal = nullcontext() if said is None else pytest.raises(BenchError, match=said)
    with refusal:
        check_shared(request, load_data(request), device)


def test_a_last_batch_of_one_is_checked_where_it_is_only_evaluated(own):
    request = own("Squeezing", validation_fraction=0.0)
    data = load_data(request)
    check_trainable(request, data)
    batch = next(n for n in range(2, 100) if len(data.test) % n == 1 != len(data.train) % n)
    said = refused(own("Squeezing", validation_fraction=0.0, batch_size=batch))
    assert "in evaluation mode it returns (10,) for a batch of 1" in said


def test_what_muon_trains_alone_is_trained(own, store, resources):
    request = own("MiddleOnly", muon_learning_rate=0.1)
    assert execute(request, store, resources).status == "complete"


@pytest.mark.parametrize(
    ("images", "batch", "fraction"),
    [
        (150, 67, 0.1),  # 135 = 2·67 + 1 would stay if the split were not by class
        (97, 31, 0.0),
    ],
)
def test_last_batch_of_more_than_one_passes(own, images, batch, fraction):
    request = own("deep_norm", train_images=images, batch_size=batch, validation_fraction=fraction)
    check_trainable(request, load_data(request))


def test_last_batch_of_one_passes_where_the_maps_are_larger(tiny):
    request = tiny(train_images=97, validation_fraction=0.0)
    check_trainable(request, load_data(request))


def test_seed_and_determinism_change_no_network(tiny):
    assert tiny(seed=1).seedless_hash == tiny(seed=2, deterministic=False).seedless_hash
    assert tiny().seedless_hash != tiny(input_size=9).seedless_hash


def test_memory_of_images_is_known_without_decoding_them(tiny, tmp_path, monkeypatch):
    named = tiny(train_images=100, input_size=8)
    test = len(load_data(named).test)
    assert memory_of_images(named) == (100 + test) * 28 * 28
    assert memory_of_images(tiny(dataset="absent:images")) == 0
    monkeypatch.setattr(sizes, "_whole", lambda _: DataSize(10, 3, 8, 1000, 0))
    folder = tiny(dataset=f"imagefolder:{tmp_path}", train_images=None, input_size=8)
    for left, expected in ((10**9, 192_000), (300_000, 0)):  # memory-mapped
        monkeypatch.setattr(sizes, "memory_left", lambda left=left: left)
        assert memory_of_images(folder) == expected
    assert memory_of_images(replace(folder, input_size=None)) == 0
