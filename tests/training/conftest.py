"""Tiny requests: networks of width 4 on a hundred embedded images of 8×8 pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from bench.training.resources import Resources
from builders import make_request

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.studies.run_request import RunRequest

# The recipe `fast` trained by SGD alone, on random crops: most tests are of that.
SGD = {"muon_learning_rate": 0.0, "crop_padding": 2}
# Everything that a resumed training must take up: momentum, average, augmentation, schedule.
RICH = {"ema_decay": 0.8, "cutout": 2, "batch_size": 32, "epochs": 2}
# Every ingredient of a fast recipe that is one key, at a value that matters.
INGREDIENTS: dict[str, dict[str, Any]] = {
    "whitening": {"whitening": "initial"},
    "frozen whitening": {"whitening": "frozen"},
    "alternating flips": {"flip": "alternating"},
    "Muon": {"muon_learning_rate": 0.1},
    "lookahead": {"lookahead_steps": 2},
    "average": {"ema_decay": 0.8},
    "growing images": {"initial_size": 0.5, "epochs": 3},
    "flip at test time": {"test_time_flip": True},
    "decay of the branches": {"branch_weight_decay": 0.1},
    "recorded blocks": {"record_blocks": True},
    "padding to a square": {"resize": "pad"},
}


@pytest.fixture
def tiny() -> Callable[..., RunRequest]:
    """Make a request of three steps an epoch; keywords replace its fields or recipe values.

    It trains by SGD alone unless asked otherwise (`SGD`).
    """

    def make(model: str = "resnet14", recipe: str = "fast", **changes: Any) -> RunRequest:
        values = {"dataset": "fashion-mnist-mini", "options": {"width": 4}, "train_images": 100}
        values |= {"input_size": 8, "deterministic": True, "batch_size": 32, "epochs": 2}
        values |= SGD if recipe == "fast" else {}
        return make_request(model, recipe=recipe, **values | changes)

    return make


@pytest.fixture
def rich(tiny: Callable[..., RunRequest]) -> RunRequest:
    """Whatever makes resuming hard, at once: see `RICH`, and dropout on the shortcut."""
    return tiny(options={"width": 4, "shortcut": "dropout"}, **RICH)


@pytest.fixture(params=INGREDIENTS.values(), ids=INGREDIENTS)
def ingredient(request: pytest.FixtureRequest) -> dict[str, Any]:
    """One ingredient of a recipe, as the values that switch it on."""
    values: dict[str, Any] = request.param
    return values


@pytest.fixture
def resources() -> Resources:
    return Resources(device="cpu", threads=1)
