"""Draw the figures of the page on residual learning, in English and Vietnamese.

Run from the repository: `python docs/figures/residual_learning.py`. It writes the SVG files to its
own folder, and `residual_learning.snippet`, which states how they were made.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import nn

from bench.models import build_model
from bench.report.charts.chart import PALETTE
from bench.report.charts.draw_matplotlib import STYLE
from bench.system.environment import git_state, processor, version_of
from bench.training.initialise import initialise

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent
QUICKSTART = HERE.parents[1] / "results" / "quickstart" / "epochs.csv"
DEPTHS = (8, 20, 32, 44, 56)
SEEDS = range(5)

WORDS = {
    "en": {
        "nested": "nested: each class holds the one before",
        "separate": "not nested: each class is another one",
        "size": "functions in the class",
        "distance": "distance of the best one to $f^*$",
        "residual": "residual",
        "plain": "plain",
        "depth": "layers",
        "gradient": "gradient norm, first layer / last",
        "epoch": "epoch",
        "error": "training error (%)",
    },
    "vi": {
        "nested": "lồng nhau: lớp sau chứa lớp trước",
        "separate": "không lồng nhau: mỗi lớp một khác",
        "size": "số hàm trong lớp",
        "distance": "khoảng cách từ hàm tốt nhất đến $f^*$",
        "residual": "phần dư",
        "plain": "thông thường",
        "depth": "số tầng",
        "gradient": "chuẩn gradient, tầng đầu / tầng cuối",
        "epoch": "epoch",
        "error": "sai số huấn luyện (%)",
    },
}


def function_classes() -> dict[str, list[float]]:
    """Return the RMS distance of the best function of each class to one smooth target."""
    x = np.linspace(0, 1, 400)
    target = np.exp(-2 * x) + 0.3 * np.sin(9 * x**2)
    waves = [np.cos(np.pi * k * x) for k in range(10)]
    nested = [_distance(waves[: k + 1], target) for k in range(len(waves))]
    # As many functions in each class, but none of those of the class before.
    mixed = np.random.default_rng(0).normal(size=(60, len(x))).cumsum(axis=1)
    starts = np.cumsum([0, *range(1, 10)])
    separate = [_distance(mixed[s : s + k + 1], target) for k, s in enumerate(starts)]
    return {"nested": nested, "separate": separate}


def _distance(functions: Any, target: Any) -> float:
    matrix = np.stack(list(functions), axis=1)
    weights, *_ = np.linalg.lstsq(matrix, target, rcond=None)
    return float(np.sqrt(np.mean((matrix @ weights - target) ** 2)))


def gradient_ratios(name: str, depth: int) -> Iterator[float]:
    """Yield the ratio of the first and last layer's gradient norms before training, per seed."""
    for seed in SEEDS:
        network = build_model(f"{name}{depth}", num_classes=10, in_channels=1)
        initialise(network, seed, "he")
        generator = torch.Generator().manual_seed(seed)
        images = torch.randn(32, 1, 28, 28, generator=generator)
        labels = torch.randint(10, (32,), generator=generator)
        nn.functional.cross_entropy(network.train()(images), labels).backward()
        kernels = [p for p in network.parameters() if p.ndim == 4]  # noqa: PLR2004 - convolutions
        first, last = (
            p.grad.norm().item() for p in (kernels[0], kernels[-1]) if p.grad is not None
        )
        yield first / last


def draw_classes(axes: Any, words: dict[str, str], data: dict[str, list[float]]) -> None:
    """Draw the distances over the size of the class."""
    for (name, values), colour in zip(data.items(), PALETTE, strict=False):
        axes.plot(range(1, len(values) + 1), values, "o-", color=colour, label=words[name])
    axes.set(xlabel=words["size"], ylabel=words["distance"], ylim=(0, None))
    axes.legend(frameon=False)


def draw_gradients(axes: Any, words: dict[str, str], data: dict[str, list[list[float]]]) -> None:
    """Draw the ratio of gradient norms over depth: a point per seed, and the median."""
    for (name, values), colour in zip(data.items(), PALETTE, strict=False):
        axes.plot(DEPTHS, [np.median(v) for v in values], "-", color=colour, label=words[name])
        for depth, seeds in zip(DEPTHS, values, strict=True):
            axes.plot([depth] * len(seeds), seeds, "o", color=colour, alpha=0.4, markersize=4)
    axes.set(xlabel=words["depth"], ylabel=words["gradient"], yscale="log", xticks=DEPTHS)
    axes.legend(frameon=False)


def draw_training(axes: Any, words: dict[str, str], epochs: pd.DataFrame) -> None:
    """Draw the published training error of both networks: mean, minimum and maximum."""
    for (name, variant), colour in zip(
        (("residual", "resnet34"), ("plain", "plain34")), PALETTE, strict=False
    ):
        rows = epochs[epochs["variant"] == variant]
        error = (1 - rows["train_accuracy"]) * 100
        by_epoch = error.groupby(rows["epoch"]).agg(["mean", "min", "max"])
        axes.plot(by_epoch.index, by_epoch["mean"], "o-", color=colour, label=words[name])
        axes.fill_between(
            by_epoch.index, by_epoch["min"], by_epoch["max"], color=colour, alpha=0.15, lw=0
        )
    axes.set(xlabel=words["epoch"], ylabel=words["error"], ylim=(0, 100), xticks=by_epoch.index)
    axes.legend(frameon=False)


def main() -> None:
    """Compute once, draw in both languages, and record how it was made."""
    gradients = {
        "residual": [list(gradient_ratios("resnet", depth)) for depth in DEPTHS],
        "plain": [list(gradient_ratios("plain", depth)) for depth in DEPTHS],
    }
    figures = {
        "function-classes": (draw_classes, function_classes()),
        "gradients": (draw_gradients, gradients),
        "training": (draw_training, pd.read_csv(QUICKSTART)),
    }
    for language, words in WORDS.items():
        for name, (draw, data) in figures.items():
            with mpl.rc_context(STYLE):
                figure = Figure(figsize=(5.2, 3), layout="constrained")
                draw(figure.subplots(), words, data)
                figure.savefig(HERE / f"{name}-{language}.svg", metadata={"Date": None})
    cpu, sets = processor()
    commit, _ = git_state()
    made = (
        f"`python docs/figures/residual_learning.py`, {datetime.now(UTC):%Y-%m-%d}, {cpu} "
        f"({' '.join(sets)}), torch {version_of('torch')}, commit {(commit or 'unknown')[:12]}."
    )
    (HERE / "residual_learning.snippet").write_text(made + "\n")
    for name, values in gradients.items():
        print(name, dict(zip(DEPTHS, (float(np.median(v)) for v in values), strict=True)))  # noqa: T201


if __name__ == "__main__":
    main()
