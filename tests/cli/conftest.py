"""A tiny run's command line."""

from __future__ import annotations

import pytest


@pytest.fixture
def tiny_run():
    """Words that train what the tiny study calls `residual`, seed 0."""
    return (
        "train", "resnet8", "--option", "width=4", "--epochs", 1, "--set", "train_images=200",
        "--set", "batch_size=50", "--device", "cpu", "--threads", 1,
    )  # fmt: skip
