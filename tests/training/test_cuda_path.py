"""The CUDA path without a GPU: fake tensors have a device and a shape, and no numbers.

`FakeTensorMode` accepts the device `cuda` anywhere and raises where two devices meet, as
CUDA would. `backward` needs a real device: it is replaced by gradients on the parameters'
own devices, and all the rest of a step is walked as it is.
"""

from __future__ import annotations

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import ShapeEnv
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from bench.data import Images
from bench.data.images import Dataset
from bench.models import build_model
from bench.training import setup
from bench.training.evaluation import evaluate
from bench.training.layout import preferred_memory_format
from bench.training.loop import Trainer
from bench.training.setup import Split

CUDA = torch.device("cuda")


@pytest.fixture(autouse=True)
def _fake_mode(monkeypatch):
    # A copied network's tensors belong to the same mode, and autocast is to be walked too.
    monkeypatch.setattr(FakeTensorMode, "__deepcopy__", lambda mode, _: mode, raising=False)
    monkeypatch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: (8, 0))
    with FakeTensorMode(shape_env=ShapeEnv()):
        yield


@pytest.fixture(autouse=True)
def _gradients_without_a_device(monkeypatch):
    def backward(loss):
        assert loss.device.type == "cuda"
        assert loss.grad_fn is not None
        for parameter in backward.parameters:
            parameter.grad = torch.zeros_like(parameter)

    monkeypatch.setattr(torch.Tensor, "backward", backward)
    monkeypatch.setattr(backward, "parameters", [], raising=False)


def make_images(count, device):
    shape = (count, 1, 28, 28)
    return Images(
        torch.zeros(shape, dtype=torch.uint8, device=device),
        torch.zeros(count, dtype=torch.int64, device=device),
    )


def make_trainer(request, model_device=CUDA, data_device=CUDA, precision="fp32"):
    data = Dataset(
        "fake", tuple("0123456789"), make_images(70, data_device), make_images(40, data_device),
        (0.3,), (0.4,), "",
    )  # fmt: skip
    split = Split(data.train, data.train, data.test, data, request, data_device)
    with model_device:
        model = build_model(request.model, num_classes=10, in_channels=1, **request.options)
    torch.Tensor.backward.parameters[:] = model.parameters()
    batches = split.training_batches(preferred_memory_format(CUDA))
    trainer = Trainer(model, batches, request.recipe, seed=0, device=CUDA, precision=precision)
    for group in trainer.optimizers[0].param_groups:
        group |= {"fused": False, "foreach": True}  # the fused kernel has no fake
    return trainer, split


def walk(trainer):
    trainer.model.train()
    for images, labels in trainer.batches.epoch(0):
        assert images.device.type == labels.device.type == "cuda"
        trainer.step(images, labels)
    return trainer.position.batch


OPTIONS = [{}, {"shortcut": "dropout"}, {"shortcut": "gated"}, {"shortcut": "projection"}]


@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: o.get("shortcut", "default"))
def test_training_leaves_no_tensor_behind(tiny, options):
    request = tiny(options={"width": 4, **options}, ema_decay=0.9, cutout=3, input_size=20,
                   flip="alternating", muon_learning_rate=0.1, lookahead_steps=2)  # fmt: skip
    trainer, _ = make_trainer(request)
    assert len(trainer.optimizers) == 2
    assert walk(trainer) == 3
    assert {loss.device.type for _, loss, _, _ in trainer._unread} == {"cuda"}
    assert {norm.device.type for norm in trainer._norms} == {"cuda"}
    for optimizer in trainer.optimizers:
        state = optimizer.state.values()
        assert {entry["momentum_buffer"].device.type for entry in state} == {"cuda"}
    assert {p.device.type for p in trainer.network.parameters()} == {"cuda"}


@pytest.mark.parametrize("model", ["preact_resnet20", "plain20", "d2l_resnet18", "plain_cnn"])
def test_every_kind_of_network_trains_there(tiny, model):
    trainer, _ = make_trainer(tiny(model, options={}, input_size=32))
    assert walk(trainer) == 3


class Copies(TorchDispatchMode):
    """Lists the copies between devices."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        output = func(*args, **(kwargs or {}))
        leaves = tree_leaves((args, kwargs, output))
        places = {leaf.device.type for leaf in leaves if isinstance(leaf, torch.Tensor)}
        if func._overloadpacket in {torch.ops.aten._to_copy, torch.ops.aten.copy_}:
            self.seen += [str(func)] if len(places) > 1 else []
        return output


def test_a_step_copies_nothing_between_the_devices(tiny):
    """For each such copy a GPU waits. What an epoch needs is copied before its first step."""
    request = tiny(cutout=3, crop_padding=2, input_size=20, flip="alternating",
                   muon_learning_rate=0.1, lookahead_steps=2, ema_decay=0.9)  # fmt: skip
    trainer, _ = make_trainer(request)
    batches = trainer.batches.epoch(0)
    trainer.step(*next(batches))
    with Copies() as copies:
        for images, labels in batches:
            trainer.step(images, labels)
        assert trainer.position.batch == 3
        assert copies.seen == []
        for copy in (lambda host: host.to(CUDA), lambda host: torch.as_tensor(host, device=CUDA)):
            copy(torch.zeros(3))
            assert copies.seen.pop() == "aten._to_copy.default"


def test_forward_pass_runs_in_half_precision(tiny, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    trainer, _ = make_trainer(tiny(), precision="bf16")
    seen = []
    trainer.model.fc.register_forward_hook(lambda _m, _i, output: seen.append(output.dtype))
    assert walk(trainer) == 3
    assert seen == [torch.bfloat16] * 3


def test_evaluation_leaves_no_tensor_behind(tiny):
    trainer, split = make_trainer(tiny(ema_decay=0.9))
    found = evaluate(trainer.network, split.evaluation(split.test))
    for tensor in (found.predictions, found.confidence, found.labels, found.confusion(10)):
        assert tensor.device.type == "cpu"
    assert found.predictions.shape == (40,)


def test_checkpoint_is_taken_to_the_host(tiny):
    from bench.training.checkpoint import capture

    trainer, _ = make_trainer(tiny(ema_decay=0.9))
    walk(trainer)
    trainer._unread.clear()  # fake losses have no numbers to read
    trainer._norms.clear()
    tensors, state = capture(trainer)
    assert {tensor.device.type for tensor in tensors.values()} == {"cpu"}
    assert {name.split("/")[0] for name in tensors} == {"model", "average", "momentum"}
    assert state["position"]["batch"] == 3


def test_mapped_images_stay_on_the_host_and_their_batches_move(tiny):
    data = Dataset(
        "fake", tuple("01"), make_images(70, "cpu"), make_images(40, "cpu"), (0.3,), (0.4,), "",
        memory_mapped=True,
    )  # fmt: skip
    split = Split(data.train, data.train, data.test, data, tiny(), CUDA)
    for batches in (
        split.training_batches(torch.channels_last).epoch(0),
        split.evaluation(split.test),
    ):
        images, labels = next(iter(batches))
        assert images.device.type == labels.device.type == "cuda"
    assert split.train.images.device.type == "cpu"


@pytest.mark.parametrize(("free", "moved"), [(10**9, True), (10_000, False)])
def test_images_stay_on_the_host_where_the_gpu_has_no_room(tiny, monkeypatch, free, moved):
    train, test = make_images(70, "cpu"), make_images(40, "cpu")
    with monkeypatch.context() as as_if:
        as_if.setattr(torch.cuda, "is_available", lambda: True)
        as_if.setattr(torch.cuda, "mem_get_info", lambda _device: (free, 10**9))
        fits = setup._fits([train, test], CUDA)
    assert fits is moved
    monkeypatch.setattr(setup, "_fits", lambda *_: fits)
    monkeypatch.setattr(setup, "split_places", lambda *_: (torch.arange(70), torch.arange(0)))
    data = Dataset("fake", tuple("01"), train, test, (0.3,), (0.4,), "")
    split = Split.of(data, tiny(), CUDA)
    assert split.train.images.device.type == ("cuda" if moved else "cpu")
    images, labels = next(iter(split.training_batches(torch.channels_last).epoch(0)))
    assert images.device.type == labels.device.type == "cuda"


@pytest.mark.parametrize("left_behind", ["model", "data"])
def test_tensor_left_on_the_host_is_noticed(tiny, left_behind):
    """The tests above can fail."""
    cpu = torch.device("cpu")
    trainer, _ = make_trainer(
        tiny(),
        model_device=cpu if left_behind == "model" else CUDA,
        data_device=cpu if left_behind == "data" else CUDA,
    )
    images, labels = next(trainer.batches.epoch(0))
    with pytest.raises(RuntimeError, match=r"device.*(cuda|cpu)"):
        trainer.step(images, labels)


def test_label_left_on_the_host_is_noticed(tiny):
    trainer, _ = make_trainer(tiny())
    images, labels = next(trainer.batches.epoch(0))
    with pytest.raises(RuntimeError, match="device"):
        trainer.step(images, torch.zeros_like(labels, device="cpu"))
