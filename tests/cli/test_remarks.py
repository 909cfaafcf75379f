"""What is said before training about data that is too little to say much."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from conftest import Outcome


def test_data_that_says_little_is_reported_before_training(
    bench_process: Callable[..., Outcome], tmp_path: Path
) -> None:
    draw = np.random.default_rng(0)
    for name, count in (("common", 60), ("seldom", 4), ("once", 1)):
        folder = tmp_path / "rare" / name
        folder.mkdir(parents=True)
        for number in range(count):
            pixels = draw.integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{number}.png")
    (tmp_path / "rare" / "once" / "notes.txt").write_text("x")
    words = ["train", "resnet8", "--option", "width=2", "--dataset", "imagefolder:rare"]
    words += [
        "--epochs",
        1,
        "--set",
        "batch_size=24",
        "--results",
        "r",
        "--quiet",
        "--device",
        "cpu",
    ]
    first, again = bench_process(*words), bench_process(*words)
    assert first.code == again.code == 0, first.err
    for remark in (
        "passed over 1 file without the suffix of an image (1 .txt)",
        "class 'once' has one training image",
        "class 'once' has no test image",
        "the test set has 13 images, of which one is 7.7 points of accuracy",
        "47 training images in batches of 24 are 2 steps an epoch",
    ):
        assert first.err.count(remark) == 1, first.err
    assert all(line.startswith("bench: warning: ") for line in first.err.splitlines())
    assert not again.err
