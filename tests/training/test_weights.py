from __future__ import annotations

import hashlib
import os

import pytest
import torch
from safetensors.torch import save_file

from bench.errors import BenchError
from bench.models import build_model
from bench.training.weights import load_weights, weights_digest


def network(**options):
    return build_model("resnet14", num_classes=10, in_channels=1, **{"width": 4, **options})


def write(path, state):
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save(state, path)
    return path


@pytest.mark.parametrize("name", ["w.safetensors", "w.pt", "w.pth"])
def test_weights_are_loaded_as_they_are(tmp_path, name):
    source, target = network(), network()
    load_weights(target, write(tmp_path / name, source.state_dict()))
    for key, tensor in source.state_dict().items():
        assert torch.equal(target.state_dict()[key], tensor)


def test_state_dict_inside_a_training_checkpoint_is_found(tmp_path):
    source, target = network(), network()
    load_weights(target, write(tmp_path / "w.pt", {"state_dict": source.state_dict()}))
    assert torch.equal(target.fc.weight, source.fc.weight)


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
