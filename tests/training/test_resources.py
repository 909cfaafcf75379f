"""PyTorch's settings during a run, and what a run of a GPU does once; no GPU is needed."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from bench.data import Images, Preprocessing
from bench.data.augmentation import Augmentation
from bench.data.batches import Batches
from bench.system import environment
from bench.system.caller_state import caller_state
from bench.training import loop
from bench.training.loop import Trainer
from bench.training.outcome import begin_record, failure
from bench.training.resources import Resources, torch_settings
from bench.training.setup import Split, build_network, load_data

CUDNN, MATMUL = torch.backends.cudnn, torch.backends.cuda.matmul


@pytest.fixture
def settings():
    """Restore the settings of PyTorch that a test changes."""
    before = CUDNN.conv.fp32_precision, CUDNN.rnn.fp32_precision, MATMUL.fp32_precision
    yield
    CUDNN.conv.fp32_precision, CUDNN.rnn.fp32_precision, MATMUL.fp32_precision = before


def float32():
    return CUDNN.conv.fp32_precision, MATMUL.fp32_precision


@pytest.mark.parametrize("set_by", ["fp32_precision", "allow_tf32"])
@pytest.mark.usefixtures("settings")
def test_fp32_means_fp32_whichever_setting_a_program_used(tiny, resources, set_by):
    if set_by == "fp32_precision":
        CUDNN.conv.fp32_precision, MATMUL.fp32_precision = "ieee", "tf32"
        with pytest.raises(RuntimeError):
            _ = CUDNN.allow_tf32
    else:
        CUDNN.allow_tf32 = MATMUL.allow_tf32 = True
    before = float32()
    with caller_state():
        with torch_settings(tiny(), resources):
            assert float32() == ("ieee", "ieee")
        with torch_settings(tiny(precision="bf16"), resources):
            assert CUDNN.conv.fp32_precision == "tf32"
        assert float32() == before
        CUDNN.conv.fp32_precision = MATMUL.fp32_precision = "ieee"
    assert float32() == before
    if set_by == "allow_tf32":
        assert CUDNN.allow_tf32
        assert MATMUL.allow_tf32


@pytest.mark.parametrize("deterministic", [False, True])
def test_cudnn_searches_unless_bits_are_to_be_reproducible(tiny, resources, deterministic):
    before = CUDNN.benchmark
    with torch_settings(tiny(deterministic=deterministic), resources):
        assert CUDNN.benchmark is not deterministic
    assert CUDNN.benchmark is before


def test_held_out_images_of_a_memory_mapped_set_are_not_copied(tiny):
    request = tiny(validation_fraction=0.2)
    data = load_data(request)
    plain, mapped = (
        Split.of(replace(data, memory_mapped=there), request, torch.device("cpu"))
        for there in (False, True)
    )
    for name in ("train", "validation"):
        own, view = getattr(plain, name), getattr(mapped, name)
        assert view.images.data_ptr() == data.train.images.data_ptr()
        assert torch.equal(torch.cat(list(view.chunks(7))), own.images)
        assert torch.equal(view.labels, own.labels)
        for (seen, labels), (images, expected) in zip(
            mapped.evaluation(view), plain.evaluation(own), strict=True
        ):
            assert torch.equal(seen, images)
            assert torch.equal(labels, expected)
        again = view.view(torch.tensor([3, 0, 5])).subset(torch.tensor([2, 0]))
        assert torch.equal(again.images, own.images[[5, 3]])
    batches = (s.training_batches(torch.contiguous_format).epoch(1) for s in (plain, mapped))
    for (images, labels), (others, other_labels) in zip(*batches, strict=True):
        assert torch.equal(images, others)
        assert torch.equal(labels, other_labels)


def test_compiled_code_is_made_for_its_sizes(tiny, monkeypatch):
    request, seen = tiny(), []
    monkeypatch.setattr(loop.torch, "compile", lambda f, **options: seen.append(options) or f)
    data = load_data(request)
    split = Split.of(data, request, torch.device("cpu"))
    batches = split.training_batches(torch.contiguous_format)
    model = build_network(request, data)
    Trainer(model, batches, request.recipe, seed=0, device=torch.device("cpu"), compiled=True)
    assert seen == [{"dynamic": False}]


def test_growing_images_are_compiled_at_every_size(tiny, resources):
    import torch._dynamo.config as dynamo

    usual, compiled = dynamo.recompile_limit, replace(resources, compiled=True)
    for initial_size, limit in ((0.5, 60), (1, usual)):
        with torch_settings(tiny(initial_size=initial_size, epochs=30), compiled):
            assert dynamo.recompile_limit == limit
            assert dynamo.accumulated_recompile_limit >= limit
    assert dynamo.recompile_limit == usual


def test_a_gpu_that_is_full_is_named_with_its_memory(tiny, monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _device: (3 << 30, 80 << 30))
    record = begin_record(tiny(), Resources())
    record.environment["device"] = "cuda:1"
    error = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9.00 GiB.")
    found = failure(record, error, seconds=1.0).error
    assert found.endswith("(cuda:1 has 81920 MiB; 3072 MiB were free afterwards)")
    assert "MiB of memory were left" in failure(record, MemoryError("no"), seconds=1.0).error


def test_the_driver_is_asked_for_once(monkeypatch):
    calls = []

    def run(command, **_options):
        calls.append(command[0])
        return SimpleNamespace(stdout="570.1\n570.1\n")

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _device: "GPU")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: (9, 0))
    environment._nvidia_driver.cache_clear()
    described = [environment.describe_environment("cuda", threads=1) for _ in range(3)]
    environment._nvidia_driver.cache_clear()
    assert [d["driver"] for d in described] == ["570.1"] * 3
    assert calls.count("nvidia-smi") == 1


def test_nothing_is_copied_to_the_device_in_a_step(monkeypatch):
    """What is made on the host would have to be copied, for which an accelerator waits."""
    images = Images(torch.zeros(70, 1, 8, 8, dtype=torch.uint8), torch.zeros(70, dtype=torch.int64))
    batches = Batches(
        images, batch_size=32, seed=0,
        augmentation=Augmentation(crop_padding=1, flip=True, cutout=2),
        preprocessing=Preprocessing(None, (0.3,), (0.4,)),
    )  # fmt: skip
    made = []
    steps = batches.epoch(0)
    next(steps)
    for name in ("tensor", "as_tensor", "from_numpy", "randint"):
        original = getattr(torch, name)
        monkeypatch.setattr(
            torch, name, lambda *a, f=original, n=name, **k: made.append(n) or f(*a, **k)
        )
    assert len(list(steps)) == 2
    assert made == []
