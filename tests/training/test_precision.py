"""Runs in bf16 and fp16: what is recorded is what was computed, and gradients are not scaled."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cosine_similarity

from bench.training import loop
from bench.training.layout import lay_out
from bench.training.loop import Trainer
from bench.training.run import execute
from bench.training.setup import Split, build_network, load_data

CPU = torch.device("cpu")


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_run_computes_in_the_precision_it_is_recorded_with(
    tiny, store, resources, monkeypatch, precision
):
    seen = []
    original = loop.F.cross_entropy

    def watch(logits, *args, **named):
        if logits.requires_grad:
            seen.append(logits.dtype)
        return original(logits, *args, **named)

    monkeypatch.setattr(loop.F, "cross_entropy", watch)
    record = execute(tiny(epochs=1, precision=precision), store, resources)
    assert record.status == "complete"
    assert record.request["precision"] == precision
    expected = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    assert seen == [expected] * 3


def test_an_overflow_in_the_first_step_changes_nothing(tiny, monkeypatch):
    """PyTorch's fused SGD would keep momentum buffers that it never wrote."""
    request = tiny(precision="fp16")
    data = load_data(request)
    split, model = Split.of(data, request, CPU), build_network(request, data)
    batches = split.training_batches(lay_out(model, CPU, split.input_shape))
    trainer = Trainer(model, batches, request.recipe, seed=0, device=CPU, precision="fp16")
    trainer.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**60)
    before = [parameter.detach().clone() for parameter in trainer.parameters]
    # As memory that was used before, which may hold anything.
    monkeypatch.setattr(torch, "empty_like", lambda t, **_: torch.full_like(t, torch.nan))
    first, second, *_ = batches.epoch(0)
    trainer.step(*first)
    assert all(map(torch.equal, before, trainer.parameters))
    (sgd,) = trainer.optimizers
    assert not any(state["momentum_buffer"].any() for state in sgd.state.values())
    trainer.scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    trainer.step(*second)
    assert all(parameter.isfinite().all() for parameter in trainer.parameters)
    assert not any(map(torch.equal, before, trainer.parameters))


@pytest.mark.parametrize("muon_rate", [0.0, 0.05], ids=["SGD", "Muon"])
def test_fp16_trains_as_fp32_does(tiny, muon_rate):
    """The loss is scaled by 65,536 in fp16; the norm and the steps must not be."""

    def train(precision):
        values = {"learning_rate": 0.02, "muon_learning_rate": muon_rate, "batch_size": 90}
        request = tiny(precision=precision, epochs=2, **values)
        data = load_data(request)
        split, model = Split.of(data, request, CPU), build_network(request, data)
        batches = split.training_batches(lay_out(model, CPU, split.input_shape))
        trainer = Trainer(model, batches, request.recipe, seed=0, device=CPU, precision=precision)
        before = torch.cat([p.detach().flatten() for p in trainer.parameters])
        figures = trainer.run_epoch(after_step=lambda: None)
        after = torch.cat([p.detach().flatten() for p in trainer.parameters])
        return figures, after - before

    (full, expected), (half, moved) = train("fp32"), train("fp16")
    for name in ("train_loss", "gradient_norm"):
        assert half[name] == pytest.approx(full[name], rel=0.02), name
    assert cosine_similarity(moved, expected, dim=0) > 0.99
    assert float(moved.norm()) == pytest.approx(float(expected.norm()), rel=0.02)
