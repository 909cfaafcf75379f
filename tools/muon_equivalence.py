"""Does training with our Muon end where PyTorch's Muon ends?

    python tools/muon_equivalence.py muon.json

Trains one small network from many random seeds, each three times: by PyTorch's Muon, and by ours in
bf16 and in fp32. Everything else is equal, so the differences are paired by seed.
"""

from __future__ import annotations

import json
import math
import statistics
import sys
from pathlib import Path

import torch
from scipy.stats import t

from bench.studies.recipe import get_recipe
from bench.studies.run_request import RunRequest
from bench.training.evaluation import evaluate
from bench.training.layout import lay_out
from bench.training.loop import Trainer
from bench.training.optimisers import DTYPES, KernelMuon
from bench.training.setup import Split, build_network, load_data

SEEDS, EPOCHS, IMAGES = 40, 5, 1500
KINDS = ("torch", *DTYPES)


def trained_accuracy(kind: str, seed: int) -> float:
    """Train once; return the test accuracy, 0…1."""
    recipe = get_recipe("fast").model_copy(update={"epochs": EPOCHS})
    request = RunRequest(
        "resnet8", "fashion-mnist-mini", recipe,
        seed=seed, train_images=IMAGES, options={"width": 8},
    )  # fmt: skip
    data, device = load_data(request), torch.device("cpu")
    split, network = Split.of(data, request, device), build_network(request, data)
    layout = lay_out(network, device, split.input_shape)
    batches = split.training_batches(layout)
    trainer = Trainer(network, batches, recipe, seed=seed, device=device)
    (muon,) = (o for o in trainer.optimizers if isinstance(o, KernelMuon))
    if kind == "torch":
        muon.step = lambda: torch.optim.Muon.step(muon)
    else:
        muon.dtype = DTYPES[kind]
    for _ in range(EPOCHS):
        trainer.run_epoch(after_step=lambda: None)
    return evaluate(trainer.network, split.evaluation(split.test, layout)).accuracy


def main() -> None:
    """Train, print the paired differences with their 95 % intervals, write all accuracies."""
    torch.set_num_threads(1)
    found: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for seed in range(SEEDS):
        for kind, accuracies in found.items():
            accuracies.append(trained_accuracy(kind, seed))
        print(f"{seed + 1} of {SEEDS}", file=sys.stderr)
    reference = found["torch"]
    print(f"torch: {100 * statistics.mean(reference):.2f} %, "
          f"standard deviation over seeds {100 * statistics.stdev(reference):.2f}")  # fmt: skip
    for kind in DTYPES:
        differences = [100 * (a - b) for a, b in zip(found[kind], reference, strict=True)]
        mean = statistics.mean(differences)
        error = statistics.stdev(differences) / math.sqrt(SEEDS)
        half = float(t.ppf(0.975, SEEDS - 1)) * error
        print(f"{kind} minus torch: {mean:+.2f} [{mean - half:+.2f}, {mean + half:+.2f}] points")
    Path(sys.argv[1]).write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
