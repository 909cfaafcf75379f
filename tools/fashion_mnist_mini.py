"""Make the embedded subset of Fashion-MNIST from the full set.

Run ``python tools/fashion_mnist_mini.py FOLDER``; it writes the two PNG files into FOLDER (they
are in ``bench/data/embedded``). The same full set and the same Pillow give the same bytes; another
Pillow may compress otherwise, the pixels stay the same.

Layout: a mosaic of 28x28 tiles, 100 a row, one class after the other, so that the labels
need no file of their own: 60 + 10 rows are 10 classes x (600 training + 100 test) images.
Within a class, images keep the order they have in the full set. PNG is smaller than a
compressed .npz here (2.7 against 3.1 MB), can be looked at, and holds no code.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from bench.data import Images, load_dataset
from bench.data.splits import balanced_subset

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

TILES_A_ROW = 100
PER_CLASS = {"train": 600, "test": 100}


def mosaic(split: Images, per_class: int, num_classes: int = 10) -> npt.NDArray[np.uint8]:
    """Return the grey-level mosaic of a balanced subset of *split*."""
    chosen = split.subset(balanced_subset(split.labels, per_class * num_classes))
    by_class = chosen.images[chosen.labels.argsort(stable=True)].numpy()
    side = by_class.shape[-1]
    tiles = by_class.reshape(-1, TILES_A_ROW, side, side)
    return tiles.swapaxes(1, 2).reshape(-1, TILES_A_ROW * side)


def main(folder: Path) -> None:
    """Write both splits into *folder*."""
    dataset = load_dataset("fashion-mnist")
    for split, images in (("train", dataset.train), ("test", dataset.test)):
        picture = Image.fromarray(mosaic(images, PER_CLASS[split], dataset.num_classes))
        picture.save(folder / f"fashion-mnist-mini-{split}.png", optimize=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="where the two files go")
    wanted = parser.parse_args().folder
    wanted.mkdir(parents=True, exist_ok=True)
    main(wanted)
