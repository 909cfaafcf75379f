"""How much disk space a study needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.training.sizes import blank_network, data_size

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.studies.request import RunRequest

PREDICTION_BYTES = 12  # class, confidence and label of a test image


@dataclass(frozen=True)
class Footprint:
    """Bytes on disk.

    Attributes:
        results: weights and predictions of finished runs.
        checkpoints: of the runs trained at a time.
        data: downloads and decoded images still missing, estimated.
        notes: what was assumed about the data.
    """

    results: int
    checkpoints: int
    data: int
    notes: tuple[str, ...]

    def __str__(self) -> str:
        """Return one readable line."""
        parts = [f"{_size(self.results)} of results", f"{_size(self.checkpoints)} of checkpoints"]
        if self.data:
            parts.append(f"{_size(self.data)} of images")
        noted = f" ({'; '.join(self.notes)})" if self.notes else ""
        return f"disk needed: about {', '.join(parts)}{noted}"


def footprint(requests: Sequence[RunRequest], workers: int) -> Footprint:
    """Count the disk space that *requests*, the runs still to do, need.

    Raises:
        BenchError: a dataset cannot be used.
    """
    weights: dict[object, int] = {}
    data: dict[object, int] = {}
    results, notes = 0, []
    for request in requests:
        size = data_size(request)
        network = (request.model, *sorted(request.options.items()))
        if network not in weights:
            tensors = blank_network(request, size).state_dict().values()
            weights[network] = sum(t.numel() * t.element_size() for t in tensors)
        results += weights[network] + size.test * PREDICTION_BYTES
        if not size.on_hand:
            data[request.dataset, size.side] = size.image_bytes
        if size.note:
            notes.append(size.note)
    # A checkpoint holds weights and momentum; averaged and slow weights if the recipe has them.
    largest = max(weights.values(), default=0)
    recipes = [request.recipe for request in requests]
    copies = max((2 + bool(r.ema_decay) + bool(r.lookahead_steps) for r in recipes), default=0)
    return Footprint(
        results, largest * copies * workers, sum(data.values()), tuple(dict.fromkeys(notes))
    )


def _size(count: int) -> str:
    for limit, unit in ((1e9, "GB"), (1e6, "MB")):
        if count >= limit:
            return f"{count / limit:.3g} {unit}"
    return f"{count / 1e3:.3g} kB"
