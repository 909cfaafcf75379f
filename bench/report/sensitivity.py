"""Picture of what int8 costs, layer by layer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.report.plots import PALETTE, STYLE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.figure import Figure

    from bench.export.sensitivity import Effect

_ROW = 0.17  # inches a layer


def draw_sensitivity(effects: Sequence[Effect], title: str) -> Figure:
    """Draw a bar for each layer that int8 alone was given to.

    Args:
        effects: of `bench.export.sensitivity.layer_effects`, the most sensitive first.
        title: the network's name.

    Returns:
        A figure; layers that stay in fp32 have the second colour.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7, 1.1 + _ROW * len(effects)), layout="constrained")
        axes = figure.subplots()
        for kept, label in ((False, "int8"), (True, "kept in fp32")):
            bars = [(i, e.effect * 100) for i, e in enumerate(effects) if e.kept is kept]
            if bars:
                axes.barh(*zip(*bars, strict=True), color=PALETTE[int(kept)], label=label)
        axes.set_yticks(range(len(effects)), [e.layer for e in effects], fontsize=7)
        axes.set_ylim(len(effects) - 0.4, -0.6)
        axes.set(xlabel="change of the logits, % of their length", title=title)
        axes.legend(frameon=False, loc="lower right")
    return figure
