"""The published datasets: what they are, where they lie, and how they are recognised.

Every checksum is a SHA-256. Those of Fashion-MNIST were computed from Debian's package
``dataset-fashion-mnist`` (0.0~git20200523). The others could not be computed, because no network
was available: CIFAR's are those that TensorFlow Datasets publishes (``url_checksums/``), and
MNIST's, of the decompressed files, are those that many public repositories agree on.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from bench.data.download import RemoteFile, download, verify
from bench.data.formats import read_cifar, read_idx_split
from bench.data.images import Dataset, Images, make_dataset
from bench.errors import BenchError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Splits = tuple[Images, Images, tuple[str, ...]]


@dataclass(frozen=True)
class Published:
    """A dataset that others publish.

    Attributes:
        name: As `bench.data.load_dataset` takes it.
        num_classes: Number of classes.
        channels: Colour channels of an image.
        size: Height and width of an image in pixels.
        train: Number of training images.
        test: Number of test images.
        files: What has to be there, by the role that *read* knows it under.
        mirrors: Where to download from, in order.
        read: Decodes the files: paths by role → training split, test split, class names.
        system: A folder in which the operating system's package puts the files.
        offline: What to do without a network, for the error message.
    """

    name: str
    num_classes: int
    channels: int
    size: int
    train: int
    test: int
    files: Mapping[str, RemoteFile]
    mirrors: tuple[str, ...]
    read: Callable[[Mapping[str, Path]], Splits]
    system: Path | None = None
    offline: str = ""

    def folders(self, data_dir: Path) -> list[Path]:
        """Return the folders to look in, the first one being where downloads go."""
        return [data_dir / self.name, *([self.system] if self.system else [])]

    def found(self, data_dir: Path) -> Path | None:
        """Return the folder of the first file if every file is there, else None."""
        paths = [_locate(file, self.folders(data_dir)) for file in self.files.values()]
        return paths[0].parent if paths[0] and all(paths) else None


def load_published(source: Published, data_dir: Path, *, quiet: bool = False) -> Dataset:
    """Find or download a dataset's files, verify and decode them.

    Args:
        source: Which dataset.
        data_dir: Its files are looked for, and put, in *data_dir*/NAME.
        quiet: Show no progress bar.

    Raises:
        BenchError: A file cannot be downloaded, is truncated, or has the wrong checksum.
    """
    paths = {role: _obtain(file, source, data_dir, quiet) for role, file in source.files.items()}
    train, test, classes = source.read(paths)
    return make_dataset(source.name, classes, train, test)


def _obtain(file: RemoteFile, source: Published, data_dir: Path, quiet: bool) -> Path:
    folders = source.folders(data_dir)
    if path := _locate(file, folders):
        verify(path, file)
        return path
    try:
        return download(file, folders[0], source.mirrors, quiet=quiet)
    except BenchError as error:
        raise BenchError(f"dataset '{source.name}': {error}{source.offline}") from error


def _locate(file: RemoteFile, folders: list[Path]) -> Path | None:
    return next((path for folder in folders if (path := folder / file.name).is_file()), None)


FASHION_CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
DEBIAN_FASHION = Path("/usr/share/datasets/fashion-mnist")


def _read_mnist_family(classes: tuple[str, ...], paths: Mapping[str, Path]) -> Splits:
    return (
        read_idx_split(paths["train-images"], paths["train-labels"]),
        read_idx_split(paths["test-images"], paths["test-labels"]),
        classes,
    )


def _mnist_family(
    name: str,
    classes: tuple[str, ...],
    hashes: Mapping[str, str],
    mirrors: tuple[str, ...],
    *,
    system: Path | None = None,
    offline: str = "",
) -> Published:
    file_names = {
        "train-images": "train-images-idx3-ubyte.gz",
        "train-labels": "train-labels-idx1-ubyte.gz",
        "test-images": "t10k-images-idx3-ubyte.gz",
        "test-labels": "t10k-labels-idx1-ubyte.gz",
    }
    return Published(
        name,
        num_classes=10,
        channels=1,
        size=28,
        train=60_000,
        test=10_000,
        files={
            role: RemoteFile(file, hashes[role], "content") for role, file in file_names.items()
        },
        mirrors=mirrors,
        read=partial(_read_mnist_family, classes),
        system=system,
        offline=offline,
    )


def _cifar(
    name: str,
    num_classes: int,
    file: RemoteFile,
    mirrors: tuple[str, ...],
    *,
    train: tuple[str, ...],
    test: str,
    names: str,
) -> Published:
    label_bytes = 1 if num_classes == 10 else 2  # noqa: PLR2004  # CIFAR-100 has coarse labels too

    def read(paths: Mapping[str, Path]) -> Splits:
        return read_cifar(
            paths["archive"], train=train, test=test, names=names, label_bytes=label_bytes
        )

    return Published(
        name,
        num_classes,
        channels=3,
        size=32,
        train=50_000,
        test=10_000,
        files={"archive": file},
        mirrors=mirrors,
        read=read,
    )


_ALL = (
    _mnist_family(
        "fashion-mnist",
        FASHION_CLASSES,
        {
            "train-images": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
            "train-labels": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
            "test-images": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
            "test-labels": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
        },
        (
            "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
            "https://storage.googleapis.com/tensorflow/tf-keras-datasets/",
        ),
        system=DEBIAN_FASHION,
        offline=", or run `apt-get install dataset-fashion-mnist` on Debian, or use the dataset "
        "'fashion-mnist-mini', which needs no network",
    ),
    _mnist_family(
        "mnist",
        tuple("0123456789"),
        {
            "train-images": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
            "train-labels": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
            "test-images": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
            "test-labels": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        },
        (
            "https://ossci-datasets.s3.amazonaws.com/mnist/",
            "https://storage.googleapis.com/cvdf-datasets/mnist/",
        ),
    ),
    _cifar(
        "cifar10",
        10,
        RemoteFile(
            "cifar-10-binary.tar.gz",
            "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
        ),
        (
            "https://www.cs.toronto.edu/~kriz/",
            "https://mindspore-website.obs.cn-north-4.myhuaweicloud.com/notebook/datasets/",
        ),
        train=tuple(f"data_batch_{number}.bin" for number in range(1, 6)),
        test="test_batch.bin",
        names="batches.meta.txt",
    ),
    _cifar(
        "cifar100",
        100,
        RemoteFile(
            "cifar-100-binary.tar.gz",
            "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
        ),
        ("https://www.cs.toronto.edu/~kriz/",),
        train=("train.bin",),
        test="test.bin",
        names="fine_label_names.txt",
    ),
)
PUBLISHED = {source.name: source for source in _ALL}
