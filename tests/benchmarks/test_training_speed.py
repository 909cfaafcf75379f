from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import pytest
import torch

from bench.data import load_dataset
from bench.models import build_model
from bench.request import RunRequest
from bench.training.loop import Trainer
from bench.training.recipe import get_recipe
from bench.training.setup import Split, preferred_memory_format

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")


def our_steps(trainer: Trainer, steps: int) -> None:
    trainer.position.epoch = trainer.position.batch = 0
    for _, (images, labels) in zip(range(steps), trainer.batches.epoch(0), strict=False):
        trainer.step(images, labels)


@pytest.mark.parametrize(
    ("name", "size", "batch", "steps"),
    [
        ("resnet20", 28, 128, 3),
        ("resnet18", 28, 128, 1),
        ("resnet18", 96, 32, 2),
    ],
)
def test_training_against_the_textbook_program(
    textbook,
    paired: Callable[..., None],
    name: str,
    size: int,
    batch: int,
    steps: int,
) -> None:
    """Goal: at least 1.2 times the images a second, data included, with two threads."""
    torch.set_num_threads(2)
    data = load_dataset("fashion-mnist-mini", quiet=True)
    recipe = get_recipe("fast").model_copy(update={"batch_size": batch})
    request = RunRequest(name, "fashion-mnist-mini", recipe, seed=0, input_size=size)
    model = build_model(name, num_classes=10, in_channels=1).train()
    theirs = copy.deepcopy(model)
    memory_format = preferred_memory_format(CPU)
    trainer = Trainer(
        model.to(memory_format=memory_format),
        Split.of(data, request, CPU).training_batches(memory_format),
        recipe,
        seed=0,
        device=CPU,
    )
    batches = textbook.loader(data.train, data.mean, data.std, batch_size=batch, input_size=size)
    paired(
        lambda: our_steps(trainer, steps),
        lambda: textbook.train(theirs, batches, steps),
        rounds=12,
    )
