"""Readers of the published file formats; nothing here ever unpickles."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from typing import IO, TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from bench.data.images import Images
from bench.errors import BenchError
from bench.system.tarball import TarballError, read_files

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_MOST_BYTES = 1 << 30  # decompressed; CIFAR's archives hold 185 MB, the others less
_MOST_DIMENSIONS = 8
_IDX_UINT8 = 0x08  # the element type in an idx header


def read_idx(path: Path) -> Tensor:
    """Read a gzipped idx file of bytes (Y. LeCun's format of MNIST) as a uint8 tensor.

    Raises:
        BenchError: It is no such file, or its length is not what its header says.
    """
    try:
        with gzip.open(path, "rb") as stream:
            return _read_idx(path, stream)
    except (EOFError, OSError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise BenchError(f"{path}: unreadable ({reason}): delete it and run again") from error


def _read_idx(path: Path, stream: gzip.GzipFile) -> Tensor:
    """Read no more than the header announces, and that only if it is a plausible size."""
    magic, count = stream.read(3), stream.read(1)
    dimensions = count[0] if magic == bytes((0, 0, _IDX_UINT8)) and count else 0
    header = stream.read(4 * dimensions)
    if not 1 <= dimensions <= _MOST_DIMENSIONS or len(header) != 4 * dimensions:
        raise BenchError(f"{path}: not an idx file of bytes: delete it and run again")
    shape = struct.unpack(f">{dimensions}I", header)
    size = math.prod(shape)
    if size == 0:
        raise BenchError(f"{path}: an idx file of nothing: delete it and run again")
    content = stream.read(min(size, _MOST_BYTES) + 1)
    if len(content) != size:
        found = f"more than {size}" if len(content) > size else len(content)
        raise BenchError(
            f"{path}: holds {found} bytes where its header says "
            f"{'x'.join(map(str, shape))}: delete it and run again"
        )
    return torch.from_numpy(np.frombuffer(content, np.uint8).reshape(shape).copy())


def read_idx_split(images: Path, labels: Path) -> Images:
    """Read one split of the MNIST family: Nx1xHxW images and N labels."""
    split = Images(read_idx(images).unsqueeze(1), read_idx(labels).long())
    if len(split.images) != len(split.labels):
        raise BenchError(
            f"{images} has {len(split.images)} images but {labels} {len(split.labels)} labels: "
            "delete both and run again"
        )
    return split


def read_cifar(
    archive: Path, *, train: tuple[str, ...], test: str, names: str, label_bytes: int
) -> tuple[Images, Images, tuple[str, ...]]:
    """Read the binary version of CIFAR (A. Krizhevsky, 2009) straight from its archive.

    A record is the label bytes, of which the last is the fine label, then 3x32x32 bytes.

    Args:
        archive: The .tar.gz file.
        train: Member files of the training split, without their folder.
        test: Member file of the test split.
        names: Member file of the class names, one per line.
        label_bytes: 1 for CIFAR-10, 2 (coarse, fine) for CIFAR-100.

    Returns:
        Training split, test split, class names.

    Raises:
        BenchError: The archive cannot be read, lacks a member, or a record is not whole.
    """
    wanted = {*train, test, names}
    members: dict[str, bytes] = {}

    def take(name: str, content: IO[bytes]) -> None:
        if (base := name.rpartition("/")[2]) in wanted:
            members[base] = content.read()

    try:
        read_files(archive, take, most_bytes=_MOST_BYTES)
    except TarballError as error:
        raise BenchError(f"{archive}: unreadable ({error}): delete it and run again") from error
    if missing := sorted(wanted - members.keys()):
        raise BenchError(f"{archive}: lacks {missing[0]}: delete it and run again")
    classes = tuple(members[names].decode(errors="replace").split())

    def split(files: Sequence[str]) -> Images:
        images = _cifar_records(b"".join(members[f] for f in files), label_bytes, len(classes))
        if images is None:
            raise BenchError(
                f"{archive}: {files[0]} holds no whole records of {len(classes)} classes: "
                "delete it and run again"
            )
        return images

    return split(train), split([test]), classes


def _cifar_records(content: bytes, label_bytes: int, classes: int) -> Images | None:
    """Cut the records apart; None if the last is not whole or a label is of no class."""
    length = label_bytes + 3 * 32 * 32
    if not content or len(content) % length:
        return None
    records = np.frombuffer(content, np.uint8).reshape(-1, length)
    images = records[:, label_bytes:].reshape(-1, 3, 32, 32).copy()
    labels = records[:, label_bytes - 1].astype(np.int64)
    if labels.max() >= classes:
        return None
    return Images(torch.from_numpy(images), torch.from_numpy(labels))
