"""A pickle that runs code, put wherever something of ours is read: it is never run."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import io
import os
import pickle
import tarfile
import warnings
from typing import TYPE_CHECKING, Any

import pytest
import torch

from bench import load_results
from bench.data.formats import read_cifar, read_idx
from bench.data.imagecache import load_imagefolder
from bench.errors import BenchError
from bench.store import Store
from bench.store.archive import pack, unpack
from bench.targets.find import load_model
from bench.training.weights import load_weights

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class Malice:
    """Unpickled, it makes a folder."""

    def __init__(self, trap: Path) -> None:
        self.trap = trap

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.trap),)


@pytest.fixture
def trap(tmp_path: Path) -> Path:
    return tmp_path / "the-code-ran"


@pytest.fixture(params=["plain", "torch", "gzip"])
def malice(request: pytest.FixtureRequest, trap: Path) -> bytes:
    """The pickle, as Python, torch or gzip would carry it."""
    if request.param == "torch":
        stream = io.BytesIO()
        torch.save({"weight": Malice(trap)}, stream)
        return stream.getvalue()
    content = pickle.dumps(Malice(trap))
    return gzip.compress(content) if request.param == "gzip" else content


def test_the_trap_works(malice: bytes, trap: Path) -> None:
    if malice[:2] == b"PK":
        torch.load(io.BytesIO(malice), weights_only=False)
    else:
        content = gzip.decompress(malice) if malice[:2] == b"\x1f\x8b" else malice
        pickle.loads(content)
    assert trap.is_dir()


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin", ".safetensors", ".pkl", ""])
def test_weights_to_start_from(malice: bytes, trap: Path, tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"weights{suffix}"
    file.write_bytes(malice)
    with pytest.raises(BenchError, match=f"--weights {file} cannot be read"):
        load_weights(torch.nn.Linear(1, 1), file)
    assert not trap.exists()


def test_published_images(malice: bytes, trap: Path, tmp_path: Path) -> None:
    """Whole files of another content, and members of an archive that is one."""
    file = tmp_path / "images.gz"
    file.write_bytes(malice)
    names: dict[str, Any] = {"train": ("a.bin",), "test": "t.bin", "names": "n.txt"}
    with pytest.raises(BenchError):
        read_idx(file)
    with pytest.raises(BenchError):
        read_cifar(file, label_bytes=1, **names)
    with tarfile.open(file, "w:gz") as tar:
        for name in ("a.bin", "t.bin", "n.txt"):
            member = tarfile.TarInfo(name)
            member.size = len(malice)
            tar.addfile(member, io.BytesIO(malice))
    with pytest.raises(BenchError):
        read_cifar(file, label_bytes=1, **names)
    assert not trap.exists()


def read_everything(store: Store, run: str) -> None:
    """Call all that reads a run's folder; refusals and warnings are as good as success."""
    calls: list[Callable[[], object]] = [
        lambda: load_results(store.root),
        lambda: load_results(store.root, "epochs"),
        lambda: load_results(store.root, "exports"),
        lambda: load_results(store.root, "throughput"),
        lambda: load_model(run, results=store.root),
        lambda: store.read_tensors(run, "predictions.safetensors"),
        lambda: store.load_checkpoint(run),
        lambda: list(store.unfinished()),
        store.studies,
        lambda: pack(store, [run], store.root.parent / "runs.tar.gz"),
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for call in calls:
            try:
                call()
            except BenchError:
                continue


def test_every_file_of_a_run(malice: bytes, trap: Path, results: Path) -> None:
    store = Store(results)
    record = next(store.runs())
    folder, digest = store.folder(record.run), hashlib.sha256(malice).hexdigest()
    for file in sorted(folder.iterdir()):
        content = file.read_bytes()
        file.write_bytes(malice)
        if file.name in record.files:  # sealed, as who wrote it would: no checksum stops it
            sealed = dataclasses.replace(record, files={**record.files, file.name: digest})
            (folder / "run.json").write_bytes(sealed.to_json())
        read_everything(store, record.run)
        file.write_bytes(content)
        (folder / "run.json").write_bytes(record.to_json())
    assert not trap.exists()


@pytest.mark.parametrize("place", [
    "runs/x.partial/checkpoint.safetensors", "runs/x.partial/unfinished.json",
    "exports/x/export.json", "measurements/x/measurement.json", "studies/x.json",
])  # fmt: skip
def test_every_other_place_of_a_results_folder(
    place: str, malice: bytes, trap: Path, results: Path
) -> None:
    store = Store(results)
    run = next(record.run for record in store.runs())
    file = results / place.replace("/x.partial", f"/{run}.partial")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(malice)
    read_everything(store, run)
    assert not trap.exists()


def test_an_archive_of_runs(malice: bytes, trap: Path, tmp_path: Path) -> None:
    archive = tmp_path / "runs.tar.gz"
    archive.write_bytes(malice)
    with pytest.raises(BenchError, match="cannot be unpacked"):
        unpack(Store(tmp_path / "there"), archive)
    assert not trap.exists()


def test_the_cache_of_an_image_folder(malice: bytes, trap: Path, tmp_path: Path) -> None:
    from PIL import Image

    for split in ("train", "test"):
        for label in ("cat", "dog"):
            (tmp_path / "set" / split / label).mkdir(parents=True)
            Image.new("L", (4, 4), 7).save(tmp_path / "set" / split / label / "a.png")

    def load() -> torch.Tensor:
        return load_imagefolder("x", tmp_path / "set", tmp_path / "cache", quiet=True).train.images

    expected = load()
    files = [f for f in (tmp_path / "cache").rglob("*") if f.suffix in {".bin", ".json"}]
    assert len(files) == 5
    for file in files:
        file.write_bytes(malice)
        assert torch.equal(load(), expected)  # noticed, and made anew
    assert not trap.exists()
