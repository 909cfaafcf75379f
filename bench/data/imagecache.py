"""An image folder's decoded pixels, kept on disk between runs.

A cache is a folder named by what it was made from (file names, sizes, modification times,
the bytes of some files, image size, how images are resized). It holds one raw file each of
images and labels for each split and a manifest with their shapes and checksum, is written
under a temporary name, and gets its own only once it is whole.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from bench.data.imagefolder import FileList, Folder, common_shape, decode, scan
from bench.data.images import Dataset, Images, channel_statistics, fingerprint
from bench.data.progress import progress_bar
from bench.errors import BenchError
from bench.system.memory import memory_left

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy.typing as npt

    from bench.data.preprocessing import Resize

_FORMAT = 1  # raise when the files' layout, or the pixels made from a given image, change
_MANIFEST = "manifest.json"
_SPLITS = ("train", "test")
_SAMPLED = 16  # images of a split, up to twice as many


@dataclass(frozen=True)
class _Manifest:
    """The manifest of a complete cache; *fingerprint* is its checksum, too."""

    classes: list[str]
    shapes: dict[str, list[int]]  # split → N, C, H, W
    mean: list[float]
    std: list[float]
    fingerprint: str

    @property
    def image_bytes(self) -> int:
        return sum(int(np.prod(shape)) for shape in self.shapes.values())


def load_imagefolder(
    name: str,
    root: Path,
    data_dir: Path,
    *,
    image_size: int | None = None,
    resize: Resize = "crop",
    quiet: bool = False,
) -> Dataset:
    """Decode an image folder once, and read it from the cache afterwards.

    A set of more than half of the free memory is memory-mapped instead of read; the
    checksum of a memory-mapped cache is not computed again, its size is checked.

    Args:
        name: Of the dataset.
        root: See `bench.data.imagefolder.scan` for its layout.
        data_dir: The cache is in *data_dir*/imagefolder.
        image_size: H and W in pixels to resize to; None if all images are of one size.
        resize: See `bench.data.preprocessing.resize_image`.
        quiet: Show no progress bar.

    Raises:
        BenchError: The folder or one of its images is not usable (the message names it), or
            the cache cannot be written.
    """
    from filelock import FileLock

    if image_size is not None and image_size < 1:
        raise BenchError(f"image size {image_size} is below 1: use for example 64 or 224")
    folder = scan(root.expanduser().resolve())
    parent = data_dir / "imagefolder"
    cache = parent / _key(folder, image_size, resize)
    try:
        try:
            dataset = _read(name, cache)  # also where nothing can be written
        except (OSError, RuntimeError):  # torch's; another process replaces a damaged cache
            dataset = None
        if dataset is None:
            parent.mkdir(parents=True, exist_ok=True)
            with FileLock(cache.with_suffix(".lock")):  # one process decodes, the others wait
                dataset = _read(name, cache)
                if dataset is None:
                    shape = common_shape(folder.paths, image_size)
                    _write(cache, folder, shape, resize, quiet=quiet)
                    dataset = _read(name, cache)
    except OSError as error:
        raise BenchError(
            f"{cache} cannot be written or read ({error.strerror or error}): free the disk, or "
            "name another folder in the environment variable BENCH_DATA"
        ) from error
    if dataset is None:
        raise BenchError(f"{cache}: written, but not readable as written: check the disk")
    return replace(dataset, notes=folder.notes)


def _key(folder: Folder, image_size: int | None, resize: Resize) -> str:
    """Return a hash of everything the pixels depend on; of the files' bytes, only some are read."""
    digest = hashlib.sha256(repr((_FORMAT, image_size, folder.classes, resize)).encode())
    for files in (folder.train, folder.test):
        for path, label in zip(files.paths, files.labels, strict=True):
            status = path.stat()
            relative = path.relative_to(folder.root).as_posix()
            line = (relative, label, status.st_size, status.st_mtime_ns)
            digest.update(repr(line).encode())
        digest.update(b"/")
        # Two folders may agree in all this, such as uncompressed images out of an archive.
        for path in files.paths[:: max(1, len(files.paths) // _SAMPLED)]:
            with contextlib.suppress(OSError):  # decoding names what cannot be read
                digest.update(path.read_bytes())
    return digest.hexdigest()[:32]


def _write(
    cache: Path, folder: Folder, shape: tuple[int, int, int], resize: Resize, *, quiet: bool
) -> None:
    """Decode into a temporary folder, and give it its name once it is whole."""
    # Under the lock, whatever is there of this name was left by a process that died.
    for remains in cache.parent.glob(f"{cache.name}*.tmp"):
        shutil.rmtree(remains)
    shutil.rmtree(cache, ignore_errors=True)
    temporary = Path(tempfile.mkdtemp(".tmp", f"{cache.name}-", cache.parent))
    try:
        with progress_bar(f"decoding {folder.root.name}", len(folder.paths), quiet=quiet) as step:
            for split, files in zip(_SPLITS, (folder.train, folder.test), strict=True):
                decoded = decode(files.paths, shape, resize)
                _write_split(temporary, split, files, decoded, step)
        shapes = {
            split: [len(files.paths), *shape]
            for split, files in zip(_SPLITS, (folder.train, folder.test), strict=True)
        }
        train, test = (_open_split(temporary, split, shapes[split]) for split in _SPLITS)
        mean, std = channel_statistics(train)
        manifest = _Manifest(
            list(folder.classes), shapes, list(mean), list(std), fingerprint(train, test)
        )
        (temporary / _MANIFEST).write_text(json.dumps(asdict(manifest)), encoding="utf-8")
        temporary.replace(cache)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _write_split(
    folder: Path,
    split: str,
    files: FileList,
    decoded: Iterator[npt.NDArray[np.uint8]],
    step: Callable[[int], None],
) -> None:
    # Written as a stream: on a full disk, writing through a memory map kills the process.
    with (folder / f"{split}-images.bin").open("wb") as stream:
        for pixels in decoded:
            stream.write(np.ascontiguousarray(pixels).data)
            step(1)
    np.array(files.labels, dtype="<i8").tofile(folder / f"{split}-labels.bin")


def _open_split(folder: Path, split: str, shape: list[int]) -> Images:
    """Map a split's files into memory, privately and without reading them."""
    images = torch.from_file(
        str(folder / f"{split}-images.bin"), size=int(np.prod(shape)), dtype=torch.uint8
    )
    labels = np.fromfile(folder / f"{split}-labels.bin", dtype="<i8").astype(np.int64)
    return Images(images.view(shape), torch.from_numpy(labels))


def _read(name: str, cache: Path) -> Dataset | None:
    """Return the cached dataset, or None if there is no whole one."""
    manifest = _read_manifest(cache)
    if manifest is None:
        return None
    mapped = manifest.image_bytes > memory_left() / 2
    train, test = (_open_split(cache, split, manifest.shapes[split]) for split in _SPLITS)
    if not mapped:
        train, test = (Images(split.images.clone(), split.labels) for split in (train, test))
        if fingerprint(train, test) != manifest.fingerprint:
            return None  # damaged since: decode again
    return Dataset(
        name,
        tuple(manifest.classes),
        train,
        test,
        tuple(manifest.mean),
        tuple(manifest.std),
        manifest.fingerprint,
        memory_mapped=mapped,
    )


def _read_manifest(cache: Path) -> _Manifest | None:
    """Return the manifest if it is readable and the files are as long as it says."""
    try:
        manifest = _Manifest(**json.loads((cache / _MANIFEST).read_text(encoding="utf-8")))
        for split, shape in manifest.shapes.items():
            images, labels = (cache / f"{split}-{part}.bin" for part in ("images", "labels"))
            if images.stat().st_size != np.prod(shape) or labels.stat().st_size != 8 * shape[0]:
                return None
    except (FileNotFoundError, ValueError, TypeError):
        return None
    return manifest
