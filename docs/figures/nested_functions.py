"""Draw the figure of the page on nested function classes.

Run from the repository: `python docs/figures/nested_functions.py`. It writes `nested.svg` to its
own folder, and `nested_functions.snippet`, which states how the figure was made.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import matplotlib as mpl
import torch
from matplotlib.figure import Figure
from torch import nn

from bench.data import load_dataset
from bench.models import build_model
from bench.networks.widen import transplant
from bench.report.charts.chart import PALETTE
from bench.report.charts.draw_matplotlib import STYLE
from bench.system.environment import git_state, processor, version_of
from bench.training.initialise import initialise

HERE = Path(__file__).parent
IMAGES = 200
SMALLEST = 1e-9  # position of zero on a logarithmic axis
KINDS = {
    "post-activation": {},
    "pre-activation": {"activation_order": "preact"},
    "ReLU-only pre-activation": {"activation_order": "relu_preact"},
    "twice as wide": {},
    "BN after addition": {"activation_order": "bn_after_add"},
    "option C": {"shortcut": "all_projection"},
    "scaled": {"shortcut": "scaled"},
    "gated": {"shortcut": "gated"},
    "plain": {"shortcut": "none"},
}


def largest_change(kind: str) -> float:
    """Return the largest change of a logit, relative to the largest, from ResNet-8 to ResNet-20.

    Both networks are in training mode, as in the first training step. The new blocks' last scale
    and shift (or last kernel) are zero. In a plain network this would block the signal, so there
    the new blocks are identities: kernels with a single one in the centre. `bench grow` refuses
    networks that do not nest, so its parts are called here one by one.
    """
    options = {"width": 8, **KINDS[kind]}
    small = build_model("resnet8", num_classes=10, in_channels=1, **options)
    initialise(small, 0)
    wide = {"width": 16} if kind == "twice as wide" else {}
    name = "resnet8" if wide else "resnet20"
    large = build_model(name, num_classes=10, in_channels=1, **{**options, **wide})
    initialise(large, 1)
    transplant(small, large, seed=0)
    if kind == "plain":
        _make_new_blocks_pass(small, large)
    images = load_dataset("fashion-mnist-mini").test.images[:IMAGES].float() / 255
    with torch.no_grad():
        before, after = small.train()(images), large.train()(images)
    return float((before - after).abs().max() / before.abs().max())


@torch.no_grad()
def _make_new_blocks_pass(small: nn.Module, large: nn.Module) -> None:
    known = dict(small.named_modules())
    for path, module in large.named_modules():
        if path in known:
            continue
        if isinstance(module, nn.Conv2d):
            nn.init.dirac_(module.weight)
        if isinstance(module, nn.BatchNorm2d):
            module.reset_parameters()


def main() -> None:
    """Compute and draw the figure, and record how it was made."""
    changes = {kind: largest_change(kind) for kind in KINDS}
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6, 3), layout="constrained")
        axes = figure.subplots()
        for place, change in enumerate(reversed(changes.values())):
            nests = change < 1e-4  # noqa: PLR2004 - rounding limit of bench grow
            axes.plot(max(change, SMALLEST), place, "o", color=PALETTE[0 if nests else 1])
            told = "exactly 0" if change == 0 else f"{change:.1g}"
            axes.annotate(told, (max(change, SMALLEST), place), (6, -3), textcoords="offset points")
        axes.set_yticks(range(len(changes)), list(reversed(changes)))
        axes.set(
            xscale="log", xlim=(SMALLEST / 2, 20), xlabel="largest change of a logit, relative"
        )
        figure.savefig(HERE / "nested.svg", metadata={"Date": None})
    cpu, sets = processor()
    commit, _ = git_state()
    made = (
        f"`python docs/figures/nested_functions.py`, {datetime.now(UTC):%Y-%m-%d}, {cpu} "
        f"({' '.join(sets)}), torch {version_of('torch')}, commit {(commit or 'unknown')[:12]}."
    )
    (HERE / "nested_functions.snippet").write_text(made + "\n")
    for kind, change in changes.items():
        print(f"{kind}: {change:.2g}")  # noqa: T201


if __name__ == "__main__":
    main()
