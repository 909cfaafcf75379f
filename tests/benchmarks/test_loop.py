from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional as F

from bench.data import Augmentation, Batches, Preprocessing, load_dataset
from bench.models import build_model
from bench.studies.recipe import get_recipe
from bench.training.loop import Trainer
from bench.training.optimisers import parameter_groups

if TYPE_CHECKING:
    from collections.abc import Callable

STEPS = 2


def bare_loop(model: nn.Module, batches: Batches, optimizer: torch.optim.Optimizer) -> None:
    """Do the arithmetic of the `fast` recipe by SGD and nothing else."""
    for _, (images, labels) in zip(range(STEPS), batches.epoch(0), strict=False):
        F.cross_entropy(model(images), labels, label_smoothing=0.1).backward()
        optimizer.step()
        optimizer.zero_grad()


def our_loop(trainer: Trainer) -> None:
    trainer.position.epoch = trainer.position.batch = 0
    for _, (images, labels) in zip(range(STEPS), trainer.batches.epoch(0), strict=False):
        trainer.step(images, labels)


def test_training_loop_against_a_bare_one(paired: Callable[..., None]) -> None:
    """Goal: a ratio above 0.97, that is less than 3 % on top of the arithmetic."""
    torch.set_num_threads(1)
    data = load_dataset("fashion-mnist-mini", quiet=True)
    recipe = get_recipe("fast").model_copy(update={"muon_learning_rate": 0.0})
    batches = Batches(
        data.train, batch_size=recipe.batch_size, seed=0,
        augmentation=Augmentation(crop_padding=2, flip=True),
        preprocessing=Preprocessing(28, data.mean, data.std),
        memory_format=torch.channels_last,
    )  # fmt: skip
    model = build_model("resnet20", num_classes=10, in_channels=1)
    model = model.to(memory_format=torch.channels_last).train()
    bare = copy.deepcopy(model)
    optimizer = torch.optim.SGD(
        parameter_groups(bare, recipe), lr=0.1, momentum=0.9, nesterov=True, fused=True
    )
    trainer = Trainer(model, batches, recipe, seed=0, device=torch.device("cpu"))
    paired(
        lambda: our_loop(trainer),
        lambda: bare_loop(bare, batches, optimizer),
        rounds=40,
    )
