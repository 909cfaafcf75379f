from __future__ import annotations

import argparse
import copy
import hashlib
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file, save_model
from torch import nn

from bench.errors import BenchError
from bench.models import build_model
from bench.training.setup import build_network, load_data
from bench.training.weights import load_weights, weights_digest


def network(**options):
    return build_model("resnet14", num_classes=10, in_channels=1, **{"width": 4, **options})


def write(path, state):
    if path.suffix.lower() == ".safetensors":
        save_file(state, path)
    else:
        torch.save(state, path)
    return path


@pytest.mark.parametrize("name", ["w.safetensors", "w.SafeTensors", "w.pt", "w.pth", "w.ckpt"])
def test_weights_are_loaded_as_they_are(tmp_path, name):
    source, target = network(), network()
    load_weights(target, write(tmp_path / name, source.state_dict()))
    for key, tensor in source.state_dict().items():
        assert torch.equal(target.state_dict()[key], tensor)


def test_a_file_edited_since_the_request_was_made_is_refused(tmp_path, tiny):
    data, path = load_data(tiny()), tmp_path / "w.pt"
    write(path, network().state_dict())
    request = replace(tiny(), initial_weights=weights_digest(path))
    build_network(request, data, path)
    write(path, network().state_dict())
    with pytest.raises(BenchError, match=r"w.pt: the file has changed since the command began"):
        build_network(request, data, path)
    build_network(replace(request, initial_weights=None), data, path)  # it grows from a run


def prefixed(prefix, state):
    return {prefix + name: tensor for name, tensor in state.items()}


def averaged(model):
    average = torch.optim.swa_utils.AveragedModel(model)
    return average.state_dict()  # with n_averaged


def compiled_inside(model):
    model = copy.deepcopy(model)
    model.layer1 = torch.compile(model.layer1)
    return model.state_dict()


def with_optimizer(model):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model(torch.zeros(2, 1, 28, 28)).sum().backward()
    optimizer.step()
    return optimizer.state_dict()


SHAPES = {
    "a state dict": lambda m: m.state_dict(),
    "parameters": lambda m: {
        k: nn.Parameter(t, requires_grad=False) for k, t in m.state_dict().items()
    },
    "timm": lambda m: {"epoch": 3, "arch": "x", "state_dict": m.state_dict()},
    "torchvision": lambda m: {"model": m.state_dict(), "optimizer": with_optimizer(m), "epoch": 3},
    "kuangliu": lambda m: {"net": m.state_dict(), "acc": np.float64(93.0), "epoch": np.int64(1)},
    "any key": lambda m: {"student": m.state_dict(), "loss": torch.tensor(0.1)},
    "tensors beside others": lambda m: {**m.state_dict(), "epoch": 3},
    "arguments": lambda m: {
        "model_state_dict": m.state_dict(), "args": argparse.Namespace(out=Path("x"), lr=0.1)
    },
    "DataParallel": lambda m: nn.DataParallel(m).state_dict(),
    "compiled": lambda m: torch.compile(m).state_dict(),
    "compiled inside": compiled_inside,
    "compiled, in DistributedDataParallel": lambda m: prefixed("module._orig_mod.", m.state_dict()),
    "activation checkpointing": lambda m: {
        k.replace("layer1.", "layer1._checkpoint_wrapped_module."): t
        for k, t in m.state_dict().items()
    },
    "Lightning": lambda m: {
        "state_dict": {**prefixed("model.", m.state_dict()), "criterion.weight": torch.ones(10)},
        "hyper_parameters": {"width": 4}, "pytorch-lightning_version": "2.5.0",
    },
    "Lightning, compiled": lambda m: {"state_dict": prefixed("net._orig_mod.", m.state_dict())},
    "an average": averaged,
    "an average in a dictionary": lambda m: {"ema": {"module": m.state_dict(), "decay": 0.99}},
}  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", ["w.pt", "w.safetensors"])
@pytest.mark.filterwarnings("error:--weights")
def test_weights_of_other_trainers_are_found(tmp_path, shape, name):
    source, target = network(), network()
    content = SHAPES[shape](source)
    if name.endswith(".safetensors"):
        if not all(type(value) is torch.Tensor for value in content.values()):
            pytest.skip("such a file holds nothing but tensors")
        content = {key: tensor.clone() for key, tensor in content.items()}
    load_weights(target, write(tmp_path / name, content))
    for key, tensor in source.state_dict().items():
        assert torch.equal(target.state_dict()[key], tensor), key


@pytest.mark.parametrize(
    ("plain", "average"),
    [
        (lambda s: {"state_dict": s}, lambda s: {"state_dict_ema": s}),
        (lambda s: {"model": s}, lambda s: {"model_ema": prefixed("module.", s)}),
        (lambda s: {"model": s, "x": 1}, lambda s: {"ema": {"state_dict": s}}),
        (lambda s: prefixed("model.", s), lambda s: prefixed("ema_model.", s)),
    ],
)
def test_weights_are_loaded_rather_than_their_average(tmp_path, plain, average):
    source, other, target = network(), network(), network()
    content = {**average(other.state_dict()), **plain(source.state_dict())}
    path = write(tmp_path / "w.pt", content)
    with pytest.warns(UserWarning, match="is loaded; the file also holds '.*ema"):
        load_weights(target, path)
    assert torch.equal(target.fc.weight, source.fc.weight)


def test_the_usual_key_decides_between_two_state_dicts(tmp_path):
    source, target = network(), network()
    content = {"best": network().state_dict(), "model": source.state_dict()}
    with pytest.warns(UserWarning, match="'model' is loaded; the file also holds 'best'"):
        load_weights(target, write(tmp_path / "w.pt", content))
    assert torch.equal(target.fc.weight, source.fc.weight)


def test_two_state_dicts_of_the_network_are_refused(tmp_path):
    content = {"first": network().state_dict(), "last": network().state_dict()}
    said = refused(write(tmp_path / "w.pt", content))
    assert "holds several state dicts of the network: 'first', 'last'; save" in said


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("key", [None, "model"])
def test_counters_of_batch_norm_may_be_missing(tmp_path, prefix, key):
    """PyTorch before 0.4.1 had none."""
    source, target = network(), network()
    old = {n: t for n, t in source.state_dict().items() if "num_batches_tracked" not in n}
    content = prefixed(prefix, old)
    load_weights(target, write(tmp_path / "w.pt", {key: content, "epoch": 3} if key else content))
    for name, tensor in old.items():
        assert torch.equal(target.state_dict()[name], tensor), name


def test_a_tied_tensor_may_be_stored_once(tmp_path):
    def tied():
        layers = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
        layers[1].weight = layers[0].weight
        return layers

    source, target = tied(), tied()
    save_model(source, str(tmp_path / "w.safetensors"))
    load_weights(target, tmp_path / "w.safetensors")
    for name, tensor in source.state_dict().items():
        assert torch.equal(target.state_dict()[name], tensor), name


def test_a_whole_module_is_refused_with_what_to_do(tmp_path):
    said = refused(write(tmp_path / "w.pt", network()))
    assert "it holds an object of bench.models." in said
    assert said.endswith("torch.save(model.state_dict(), FILE)")


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model.module."])
def test_a_head_of_other_classes_is_named_without_the_prefix(tmp_path, prefix):
    other = build_model("resnet14", num_classes=1000, in_channels=1, width=4)
    said = refused(write(tmp_path / "w.pt", prefixed(prefix, other.state_dict())))
    assert "'fc.weight' is (1000, 16), the network has (10, 16)" in said
    lacking = without_bias(network().state_dict())
    said = refused(write(tmp_path / "w.pt", {"state_dict": prefixed(prefix, lacking)}))
    assert "lacks 'fc.bias': 1 missing, 0 unknown" in said


def test_digest_is_the_files_sha256(tmp_path):
    path = write(tmp_path / "w.safetensors", network().state_dict())
    assert weights_digest(path) == hashlib.sha256(path.read_bytes()).hexdigest()


def test_missing_file_is_an_error_of_one_line(tmp_path):
    with pytest.raises(BenchError, match="No such file or directory"):
        weights_digest(tmp_path / "absent.pt")


def refused(path):
    with pytest.raises(BenchError) as caught:
        load_weights(network(), path)
    message = str(caught.value)
    assert message.startswith(f"--weights {path}")
    assert "\n" not in message
    return message


def without_bias(state):
    return {k: v for k, v in state.items() if k != "fc.bias"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (without_bias, "lacks 'fc.bias': 1 missing, 0 unknown"),
        (lambda s: {**s, "extra": s["fc.bias"]}, "has 'extra', unknown here"),
        (lambda s: {**s, "fc.bias": torch.zeros(7)}, r"'fc.bias' is (7,), the network has (10,)"),
        (lambda s: {**s, "fc.bias": s["fc.bias"] * torch.nan}, "'fc.bias' is not finite"),
        (lambda s: {**s, "bn1.running_var": s["bn1.running_var"] * torch.nan}, "holds NaN"),
        (lambda s: {**s, "fc.bias": s["fc.bias"].int()}, "'fc.bias' is a tensor of int32"),
        (lambda s: {**s, "fc.bias": s["fc.bias"].to_sparse()}, "'fc.bias' is a tensor of float32"),
        (lambda s: {**s, "fc.bias": s["fc.bias"].to("meta")}, "on meta; give dense"),
        (lambda _: {"epoch": 3}, "holds no state dict"),
        (lambda _: [1, 2], "holds no state dict"),
    ],
)
def test_weights_of_another_network_are_refused_in_one_line(tmp_path, change, said):
    assert said in refused(write(tmp_path / "w.pt", change(network().state_dict())))


@pytest.mark.parametrize(
    "content", [b"", b"hello\nworld", b"\x80\x04garbage", b"PK\x03\x04 no zip"]
)
@pytest.mark.parametrize("name", ["w.safetensors", "w.pt"])
def test_files_that_are_no_weights_are_refused_in_one_line(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    assert "cannot be read" in refused(tmp_path / name)


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_pickle_that_runs_code_is_refused(tmp_path):
    torch.save({"w": Evil(tmp_path / "made")}, tmp_path / "w.pt")
    assert "cannot be read" in refused(tmp_path / "w.pt")
    assert not (tmp_path / "made").exists()
