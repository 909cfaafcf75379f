"""One single-threaded worker of ours: trains so many steps for every line on stdin.

Arguments: model, input size, batch size, random seed.
"""

from __future__ import annotations

import sys
from itertools import islice

import torch

from bench.data import load_dataset
from bench.models import build_model
from bench.request import RunRequest
from bench.training.loop import Trainer
from bench.training.recipe import get_recipe
from bench.training.setup import Split, preferred_memory_format

CPU = torch.device("cpu")


def make_trainer(name: str, size: int, batch: int, seed: int = 0) -> Trainer:
    """Make what a run of this network trains with."""
    data = load_dataset("fashion-mnist-mini", quiet=True)
    recipe = get_recipe("fast").model_copy(update={"batch_size": batch})
    request = RunRequest(name, "fashion-mnist-mini", recipe, seed=seed, input_size=size)
    memory_format = preferred_memory_format(CPU)
    model = build_model(name, num_classes=10, in_channels=1).to(memory_format=memory_format)
    batches = Split.of(data, request, CPU).training_batches(memory_format)
    return Trainer(model, batches, recipe, seed=seed, device=CPU)


def train(trainer: Trainer, steps: int) -> None:
    """Train the first steps of an epoch again."""
    trainer.model.train()
    trainer.position.epoch = trainer.position.batch = 0
    for images, labels in islice(trainer.batches.epoch(0), steps):
        trainer.step(images, labels)


def main() -> None:
    torch.set_num_threads(1)
    name, *numbers = sys.argv[1:]
    trainer = make_trainer(name, *map(int, numbers))
    for line in sys.stdin:
        train(trainer, int(line))
        print("done", flush=True)  # noqa: T201 - the answer


if __name__ == "__main__":
    main()
