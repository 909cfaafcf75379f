"""Readers of the published file formats; nothing here ever unpickles."""

from __future__ import annotations

import gzip
import tarfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bench.data.images import Images
from bench.errors import BenchError

_IDX_UINT8 = 0x08  # the element type in an idx header


def read_idx(path: Path) -> Tensor:
    """Read a gzipped idx file of bytes (Y. LeCun's format of MNIST) as a uint8 tensor.

    Raises:
        BenchError: It is no such file, or its length is not what its header says.
    """
    with gzip.open(path, "rb") as stream:
        content = stream.read()
    dimensions = content[3] if len(content) >= 4 else 0  # noqa: PLR2004  # the magic number
    start = 4 + 4 * dimensions
    if not dimensions or content[:3] != bytes((0, 0, _IDX_UINT8)) or len(content) < start:
        raise BenchError(f"{path}: not an idx file of bytes: delete it and run again")
    shape = tuple(np.frombuffer(content, dtype=">u4", count=dimensions, offset=4).tolist())
    if len(content) - start != np.prod(shape):
        raise BenchError(
            f"{path}: holds {len(content) - start} bytes where its header says "
            f"{'x'.join(map(str, shape))}: delete it and run again"
        )
    return torch.from_numpy(np.frombuffer(content, np.uint8, offset=start).reshape(shape).copy())


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
        names: Member file of the class names, one a line.
        label_bytes: 1 for CIFAR-10, 2 (coarse, fine) for CIFAR-100.

    Returns:
        Training split, test split, class names.

    Raises:
        BenchError: The archive cannot be read, or lacks a member.
    """
    wanted = {*train, test, names}
    members: dict[str, bytes] = {}
    try:
        with tarfile.open(archive, "r:gz") as tar:
            for member in tar:
                name = Path(member.name).name
                stream = tar.extractfile(member) if name in wanted else None
                if stream is not None:
                    members[name] = stream.read()
    except (tarfile.TarError, EOFError, OSError) as error:
        raise BenchError(f"{archive}: unreadable ({error}): delete it and run again") from error
    if missing := sorted(wanted - members.keys()):
        raise BenchError(f"{archive}: lacks {missing[0]}: delete it and run again")
    classes = tuple(members[names].decode().split())
    return (
        _cifar_records(b"".join(members[name] for name in train), label_bytes),
        _cifar_records(members[test], label_bytes),
        classes,
    )


def _cifar_records(content: bytes, label_bytes: int) -> Images:
    records = np.frombuffer(content, np.uint8).reshape(-1, label_bytes + 3 * 32 * 32)
    images = records[:, label_bytes:].reshape(-1, 3, 32, 32).copy()
    labels = records[:, label_bytes - 1].astype(np.int64)
    return Images(torch.from_numpy(images), torch.from_numpy(labels))
