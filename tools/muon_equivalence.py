"""Does training with our Muon end where PyTorch's Muon ends, and do blocks of rows end elsewhere?

    python tools/muon_equivalence.py arithmetic muon.json
    python tools/muon_equivalence.py blocks blocks.json

`arithmetic` trains one small network from many random seeds, each three times: by PyTorch's Muon,
and by ours in bf16 and in fp32. `blocks` trains ResNet-18, whose wide kernels our Muon
orthogonalises in blocks of rows, with blocks and with whole kernels. Everything else is equal, so
the differences are paired by seed.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from scipy.stats import t

from bench.studies.recipe import get_recipe
from bench.studies.run_request import RunRequest
from bench.training import optimisers
from bench.training.evaluation import evaluate
from bench.training.layout import lay_out
from bench.training.loop import Trainer
from bench.training.optimisers import BLOCK_ROWS, DTYPES, KernelMuon
from bench.training.setup import Split, build_network, load_data

EPOCHS = 5


@dataclass(frozen=True)
class Question:
    """What is trained, from how many seeds, and by which kinds of Muon, the reference first."""

    model: str
    options: dict[str, Any]
    train_images: int | None
    seeds: int
    kinds: tuple[str, ...]


QUESTIONS = {
    "arithmetic": Question("resnet8", {"width": 8}, 1500, 40, ("torch", *DTYPES)),
    "blocks": Question("resnet18", {}, None, 20, ("whole", "blocks")),
}


def trained_accuracy(question: Question, kind: str, seed: int) -> float:
    """Train once; return the test accuracy, 0…1."""
    recipe = get_recipe("fast").model_copy(update={"epochs": EPOCHS})
    request = RunRequest(
        question.model, "fashion-mnist-mini", recipe,
        seed=seed, train_images=question.train_images, options=question.options,
    )  # fmt: skip
    data, device = load_data(request), torch.device("cpu")
    split, network = Split.of(data, request, device), build_network(request, data)
    layout = lay_out(network, device, split.input_shape)
    batches = split.training_batches(layout)
    trainer = Trainer(network, batches, recipe, seed=seed, device=device)
    (muon,) = (o for o in trainer.optimizers if isinstance(o, KernelMuon))
    optimisers.BLOCK_ROWS = sys.maxsize if kind == "whole" else BLOCK_ROWS
    if kind == "torch":
        muon.step = lambda: torch.optim.Muon.step(muon)
    elif kind in DTYPES:
        muon.dtype = DTYPES[kind]
    for _ in range(EPOCHS):
        trainer.run_epoch(after_step=lambda: None)
    return evaluate(trainer.network, split.evaluation(split.test, layout)).accuracy


def main() -> None:
    """Train, print the paired differences with their 95 % intervals, write all accuracies."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("question", choices=QUESTIONS)
    parser.add_argument("file", type=Path, help="all accuracies, as JSON")
    options = parser.parse_args()
    question = QUESTIONS[options.question]
    torch.set_num_threads(1)
    found: dict[str, list[float]] = {kind: [] for kind in question.kinds}
    for seed in range(question.seeds):
        for kind, accuracies in found.items():
            accuracies.append(trained_accuracy(question, kind, seed))
        print(f"{seed + 1} of {question.seeds}", file=sys.stderr)
        options.file.write_text(json.dumps(found, indent=1) + "\n")
    first, *others = question.kinds
    reference = found[first]
    print(f"{first}: {100 * statistics.mean(reference):.2f} %, "
          f"standard deviation over seeds {100 * statistics.stdev(reference):.2f}")  # fmt: skip
    for kind in others:
        differences = [100 * (a - b) for a, b in zip(found[kind], reference, strict=True)]
        mean = statistics.mean(differences)
        error = statistics.stdev(differences) / math.sqrt(question.seeds)
        half = float(t.ppf(0.975, question.seeds - 1)) * error
        print(f"{kind} minus {first}: {mean:+.2f} [{mean - half:+.2f}, {mean + half:+.2f}] points")


if __name__ == "__main__":
    main()
