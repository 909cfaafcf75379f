"""A process that trains: so many steps for every line on stdin, by our loop or the textbook's.

Arguments: `textbook`, `ours` (the same SGD, crops and flips by our loop), `fast` or `book` (our
loop by the recipe of that name), `sgd` (`fast` without Muon), `bf16` or `flush` (`ours` in bf16,
or with denormal numbers taken for zero), model, input size, batch size, threads, random seed.
"""

from __future__ import annotations

import sys
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING

import textbook
import torch

from bench.data import load_dataset
from bench.models import build_model
from bench.studies.recipe import get_recipe
from bench.studies.run_request import RunRequest
from bench.system.memory import keep_freed_memory
from bench.training.layout import lay_out
from bench.training.loop import Trainer
from bench.training.setup import Split

if TYPE_CHECKING:
    from collections.abc import Callable

CPU = torch.device("cpu")
OURS = get_recipe("fast").model_copy(update={"muon_learning_rate": 0.0, "crop_padding": 2})
RECIPES = {
    "ours": OURS,
    "bf16": OURS,
    "flush": OURS,
    "fast": get_recipe("fast"),
    "sgd": get_recipe("fast").model_copy(update={"muon_learning_rate": 0.0}),
    "book": get_recipe("book"),
}


def make_trainer(side: str, name: str, size: int, batch: int, seed: int) -> Trainer:
    """Make what a run of this network trains with."""
    recipe = RECIPES[side]
    data = load_dataset("fashion-mnist-mini", quiet=True)
    recipe = recipe.model_copy(update={"batch_size": batch})
    request = RunRequest(name, "fashion-mnist-mini", recipe, seed=seed, input_size=size)
    split = Split.of(data, request, CPU)
    model = build_model(name, num_classes=10, in_channels=1)
    batches = split.training_batches(lay_out(model, CPU, split.input_shape))
    precision = "bf16" if side == "bf16" else "fp32"
    return Trainer(model, batches, recipe, seed=seed, device=CPU, precision=precision)


def train(trainer: Trainer, steps: int) -> None:
    """Train the first steps of an epoch again."""
    trainer.model.train()
    trainer.position.epoch = trainer.position.batch = 0
    for images, labels in islice(trainer.batches.epoch(0), steps):
        trainer.step(images, labels)


def ours(side: str, name: str, size: int, batch: int, seed: int) -> Callable[[int], None]:
    """Train as `bench train` does."""
    keep_freed_memory()
    torch.set_flush_denormal(side == "flush")
    return partial(train, make_trainer(side, name, size, batch, seed))


def theirs(name: str, size: int, batch: int, seed: int) -> Callable[[int], None]:
    """Train as a textbook's program does."""
    torch.manual_seed(seed)
    data = load_dataset("fashion-mnist-mini", quiet=True)
    model = build_model(name, num_classes=10, in_channels=1)
    batches = textbook.loader(data.train, data.mean, data.std, batch_size=batch, input_size=size)
    return partial(textbook.train, model, batches)


def main() -> None:
    program, name, *numbers = sys.argv[1:]
    size, batch, threads, seed = map(int, numbers)
    torch.set_num_threads(threads)
    start = theirs if program == "textbook" else partial(ours, program)
    train_steps = start(name, size, batch, seed)
    for line in sys.stdin:
        train_steps(int(line))
        print("done", flush=True)  # noqa: T201 - the answer


if __name__ == "__main__":
    main()
