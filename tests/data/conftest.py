from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from bench.data import Images, load_dataset
from bench.data.published import DEBIAN_FASHION


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """No test reads or writes the user's cache."""
    monkeypatch.setenv("BENCH_DATA", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="session")
def fashion_mnist(tmp_path_factory):
    """The full set, from Debian's files."""
    if not DEBIAN_FASHION.exists():
        pytest.skip("Debian's dataset-fashion-mnist is not installed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BENCH_DATA", str(tmp_path_factory.mktemp("data")))
        return load_dataset("fashion-mnist", quiet=True)


@pytest.fixture
def make_images():
    """Random images with labels that run through the classes."""

    def make(count=40, channels=1, size=8, classes=4, seed=0):
        generator = torch.Generator().manual_seed(seed)
        shape = (count, channels, size, size)
        images = torch.randint(256, shape, dtype=torch.uint8, generator=generator)
        return Images(images, torch.arange(count) % classes)

    return make


@pytest.fixture
def write_image():
    """Write random pixels as an image file and return them, HxW or HxWx3."""

    def write(path, size=(6, 6), mode="L", seed=0):
        width, height = size
        shape = (height, width) if mode == "L" else (height, width, 3)
        pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).convert(mode).save(path)
        return pixels

    return write
