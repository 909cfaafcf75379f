"""Which pictures a page has, in order."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.report.page.chart import Section
from bench.report.page.cost import fronts, latencies, measured_speed, quantisation
from bench.report.page.training import accuracies, curves, forest

if TYPE_CHECKING:
    from bench.report.page.material import Material


def sections(material: Material) -> list[Section]:
    """Make every chart of a study."""
    return [
        Section("outcome", "Outcome", (accuracies(material), forest(material))),
        Section("training", "Training", curves(material)),
        Section("cost", "Cost", (*fronts(material), measured_speed(material), latencies(material))),
        Section("quantisation", "Quantisation", quantisation(material)),
    ]
