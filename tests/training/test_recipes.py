"""The recipes against the same training written down again in plain PyTorch."""

from __future__ import annotations

import copy
import hashlib
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from bench.training import loop, run
from bench.training.loop import Trainer
from bench.training.optimisers import Average, parameter_groups
from bench.training.run import execute
from bench.training.schedule import learning_rate_at
from bench.training.setup import Split, build_network, load_data

CPU = torch.device("cpu")


def assert_same_weights(ours, theirs, tolerance):
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        torch.testing.assert_close(
            ours[name],
            tensor,
            rtol=tolerance,
            atol=tolerance,
            msg=lambda text, name=name: f"{name}: {text}",
        )


def order(seed, epoch, count):
    """The documented data order, from its definition."""
    digest = hashlib.sha256(f"order/{seed}/{epoch}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
    return torch.randperm(count, generator=generator)


def train_as_the_book_does(model, images, labels, epochs):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    loss_function = nn.CrossEntropyLoss()
    model.train()
    for epoch in range(epochs):
        for chosen in order(0, epoch, len(labels)).split(256):
            inputs = F.interpolate(images[chosen] / 255, (12, 12), mode="bilinear")
            optimizer.zero_grad()
            loss_function(model(inputs), labels[chosen]).backward()
            optimizer.step()


def test_book_is_the_books_training_to_the_letter(tiny, store, resources, monkeypatch):
    # The layout as well: batch norm sums channels-last maps up in another order, and where
    # such a rounding crosses a ReLU's kink the gradient jumps.
    monkeypatch.setattr(run, "lay_out", lambda *_: torch.contiguous_format)
    torch.set_num_threads(resources.threads)  # another number sums in another order, too
    request = tiny(recipe="book", batch_size=256, train_images=600, input_size=12)
    data = load_data(request)
    model = build_network(request, data)
    train_as_the_book_does(model, data.train.images, data.train.labels, epochs=2)
    execute(request, store, resources)
    ours = store.read_tensors(request.run_id, "model.safetensors")
    assert_same_weights(ours, model.state_dict(), 2e-6)


def test_layout_in_memory_changes_nothing_but_rounding(tiny):
    request = tiny(recipe="book", input_size=12)
    data = load_data(request)
    losses = []
    for layout in (torch.contiguous_format, torch.channels_last):
        batches = Split.of(data, request, CPU).training_batches(layout)
        model = build_network(request, data).to(memory_format=layout)
        trainer = Trainer(model, batches, request.recipe, seed=0, device=CPU)
        images, labels = next(batches.epoch(0))
        assert images.is_contiguous(memory_format=layout)
        trainer.step(images, labels)
        losses.append(trainer.position.sums.loss)
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_book_records_the_test_accuracy_of_every_epoch_and_validates_on_nothing(
    tiny, store, resources
):
    record = execute(tiny(recipe="book"), store, resources)
    history = pd.read_csv(store.checked_file(record.run, "history.csv"))
    assert history["test_accuracy"].between(0, 1).all()
    assert len(history) == 2
    assert "validation_accuracy" not in history
    assert record.result["validation_accuracy"] is None


def smoothed_cross_entropy(logits, labels, smoothing):
    logs = logits.log_softmax(1)
    right = logs[torch.arange(len(labels)), labels]
    return -((1 - smoothing) * right + smoothing * logs.mean(1)).mean()


def train_by_hand(model, request, steps):
    """Nesterov's SGD, decay, smoothing, schedule and average, written out."""
    recipe = request.recipe
    average = copy.deepcopy(model).requires_grad_(requires_grad=False)
    velocity = {}
    batches = Split.of(load_data(request), request, CPU).training_batches(torch.contiguous_format)
    model.train()
    step = 0
    for epoch in range(recipe.epochs):
        for images, labels in batches.epoch(epoch):
            model.zero_grad()
            smoothed_cross_entropy(model(images), labels, recipe.label_smoothing).backward()
            rate = learning_rate_at(recipe, step, steps)
            for name, weight in model.named_parameters():
                decay = recipe.weight_decay if weight.ndim > 1 else 0
                gradient = weight.grad + decay * weight.detach()
                velocity[name] = recipe.momentum * velocity.get(name, 0) + gradient
                weight.data -= rate * (gradient + recipe.momentum * velocity[name])
            follow(average, model, recipe.ema_decay if step else 0)
            step += 1
    return average


def follow(average, model, decay):
    for mean, value in zip(average.state_dict().values(), model.state_dict().values(), strict=True):
        mean.copy_(decay * mean + (1 - decay) * value)


class WithTables(nn.Module):
    """As Swin's relative positions, its mask, and batch norm."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(3)
        self.register_buffer("moving_mean", torch.zeros(3))  # a user's own normalisation
        self.register_buffer("order", torch.arange(16))
        self.register_buffer("mask", torch.tensor([0.0, -torch.inf]))


def test_indices_and_masks_are_copied_and_statistics_averaged():
    model = WithTables()
    average = Average(model, 0.9)
    for step in range(3):
        for statistic in (model.norm.running_mean, model.moving_mean):
            statistic.fill_(step + 1.0)
        average.after_step(step, model)
    assert torch.equal(average.module.order, torch.arange(16))
    assert average.module.mask.tolist() == [0.0, -torch.inf]
    for statistic in (average.module.norm.running_mean, average.module.moving_mean):
        assert statistic[0].item() == pytest.approx(0.9 * (0.9 + 0.2) + 0.3)


def test_fast_with_an_average_is_the_same_written_by_hand(tiny, store, resources):
    # Augmentation is on: the hand-written loop takes the batches, whose tests are elsewhere.
    request = tiny(ema_decay=0.5, weight_decay=0.05)
    model = build_network(request, load_data(request))
    average = train_by_hand(model, request, steps=6)
    execute(request, store, resources)
    ours = store.read_tensors(request.run_id, "model.safetensors")
    expected = {k: v for k, v in average.state_dict().items() if "num_batches" not in k}
    assert_same_weights({k: ours[k] for k in expected}, expected, 2e-5)


def test_weight_decay_spares_norms_and_biases(tiny):
    request = tiny(model="d2l_resnet18", options={}, input_size=32, weight_decay=0.1)
    model = build_network(request, load_data(request))
    groups = parameter_groups(model, request.recipe)
    decay = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    for path, module in model.named_modules():
        for kind, parameter in module.named_parameters(recurse=False):
            spared = kind == "bias" or isinstance(module, nn.BatchNorm2d)
            assert decay[id(parameter)] == (0 if spared else 0.1), f"{path}.{kind}"
    everything = request.with_recipe(decay_norm_and_bias=True).recipe
    assert [group["weight_decay"] for group in parameter_groups(model, everything)] == [0.1]


def test_learning_rate_of_every_step_follows_the_schedule(tiny):
    request = tiny()
    model = build_network(request, load_data(request))
    batches = Split.of(load_data(request), request, CPU).training_batches(torch.contiguous_format)
    trainer = Trainer(model, batches, request.recipe, seed=0, device=CPU)
    used = []
    for epoch in range(2):
        group = trainer.optimizers[0].param_groups[0]
        trainer.run_epoch(after_step=lambda group=group: used.append(group["lr"]))
        assert trainer.position.epoch == epoch + 1
    assert used == [learning_rate_at(request.recipe, step, 6) for step in range(6)]


def test_history_has_the_figures_of_every_epoch(tiny, store, resources):
    record = execute(tiny(), store, resources)
    history = pd.read_csv(store.checked_file(record.run, "history.csv"))
    assert list(history["epoch"]) == [1, 2]
    for column in ("train_loss", "validation_loss", "gradient_norm", "images_per_second"):
        assert (history[column] > 0).all(), column
    for column in ("train_accuracy", "validation_accuracy"):
        assert history[column].between(0, 1).all(), column
    assert list(history["learning_rate"]) == [
        learning_rate_at(tiny().recipe, step, 6) for step in (2, 5)
    ]
    assert "test_accuracy" not in history


def test_gradient_norm_is_that_of_all_gradients_together(tiny):
    request = tiny()
    model = build_network(request, load_data(request))
    batches = Split.of(load_data(request), request, CPU).training_batches(torch.contiguous_format)
    trainer = Trainer(copy.deepcopy(model), batches, request.recipe, seed=0, device=CPU)
    figures = trainer.run_epoch(after_step=lambda: None)
    images, labels = next(batches.epoch(0))
    F.cross_entropy(model.train()(images), labels, label_smoothing=0.1).backward()
    norm = torch.cat([p.grad.flatten() for p in model.parameters()]).norm().item()
    assert (
        figures["gradient_norm"] == torch.tensor(norm).item()
        or abs(figures["gradient_norm"] / norm - 1) < 1e-5
    )


def test_the_time_that_a_checkpoint_waits_for_the_device_is_training(
    tiny, store, resources, monkeypatch
):
    clock, read, make = [0.0], Trainer.read_losses, Trainer.__init__

    def make_as_on_a_gpu(trainer, *args, **named):
        make(trainer, *args, **named)
        trainer.read_together = 100

    def wait(trainer):
        clock[0] += len(trainer._unread)  # a second for each step
        read(trainer)

    monkeypatch.setattr(Trainer, "__init__", make_as_on_a_gpu)
    monkeypatch.setattr(Trainer, "read_losses", wait)
    monkeypatch.setattr(loop, "time", SimpleNamespace(perf_counter=lambda: clock[0]))
    monkeypatch.setattr(run, "CHECKPOINT_SECONDS", -1)
    record = execute(tiny(), store, resources)
    assert record.error is None
    history = pd.read_csv(store.checked_file(record.run, "history.csv"))
    assert history["seconds"].tolist() == [3, 3]
