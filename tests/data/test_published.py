from __future__ import annotations

import dataclasses
import gzip
import hashlib
import io
import shutil
import struct
import tarfile

import numpy as np
import pytest
import torch

from bench.data import list_datasets
from bench.data.download import RemoteFile
from bench.data.formats import read_cifar, read_idx
from bench.data.published import PUBLISHED, load_published
from bench.errors import BenchError


def idx(array):
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    return header + array.tobytes()


@pytest.fixture
def tiny(tmp_path):
    """An MNIST-like set of 20 + 10 images in the cache, with checksums of its own."""
    random = np.random.default_rng(0)
    arrays = {
        "train-images": random.integers(0, 256, (20, 28, 28), dtype=np.uint8),
        "train-labels": np.arange(20, dtype=np.uint8) % 10,
        "test-images": random.integers(0, 256, (10, 28, 28), dtype=np.uint8),
        "test-labels": np.arange(10, dtype=np.uint8),
    }
    source = PUBLISHED["fashion-mnist"]
    files = {}
    folder = tmp_path / "cache" / "fashion-mnist"
    folder.mkdir(parents=True)
    for role, array in arrays.items():
        name = source.files[role].name
        (folder / name).write_bytes(gzip.compress(idx(array)))
        files[role] = RemoteFile(name, hashlib.sha256(idx(array)).hexdigest(), "content")
    return dataclasses.replace(source, files=files, mirrors=(), system=None), arrays, folder


def test_idx_files_become_uint8_images_and_int64_labels(tiny, own_cache):
    source, arrays, _ = tiny
    dataset = load_published(source, own_cache, quiet=True)
    assert torch.equal(dataset.train.images[:, 0], torch.from_numpy(arrays["train-images"]))
    assert dataset.test.labels.tolist() == list(range(10))
    assert dataset.test.labels.dtype == torch.int64
    levels = arrays["train-images"] / 255
    assert dataset.mean == pytest.approx([levels.mean()], rel=1e-12)
    assert dataset.std == pytest.approx([levels.std()], rel=1e-9)


def test_a_wrong_checksum_names_the_file(tiny, own_cache):
    source, arrays, folder = tiny
    changed = arrays["train-labels"].copy()
    changed[3] ^= 1
    path = folder / source.files["train-labels"].name
    path.write_bytes(gzip.compress(idx(changed)))
    with pytest.raises(BenchError, match=rf"{path}: wrong checksum .*delete it and run again"):
        load_published(source, own_cache, quiet=True)


def test_a_truncated_file_is_named(tiny, own_cache):
    source, _, folder = tiny
    path = folder / source.files["test-images"].name
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(BenchError, match=rf"{path}: truncated"):
        load_published(source, own_cache, quiet=True)


def test_the_systems_folder_comes_after_the_cache(tiny, own_cache, tmp_path):
    source, _, folder = tiny
    system = tmp_path / "system"
    shutil.move(folder, system)
    source = dataclasses.replace(source, system=system)
    assert source.found(own_cache) == system
    assert len(load_published(source, own_cache, quiet=True).train) == 20


def test_without_a_network_the_error_says_what_to_do_instead(tiny, own_cache):
    source, _, folder = tiny
    name = source.files["test-labels"].name
    (folder / name).unlink()
    source = dataclasses.replace(source, mirrors=("https://127.0.0.1:9/",))
    with pytest.raises(BenchError) as caught:
        load_published(source, own_cache, quiet=True)
    message = str(caught.value)
    assert "\n" not in message
    for part in (
        f"'fashion-mnist': {name} could not be downloaded",
        f"put it into {folder}",
        "apt-get install dataset-fashion-mnist",
        "'fashion-mnist-mini'",
        "ConnectionError",
    ):
        assert part in message


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not an idx file"),
        (b"\0\0\x0d\x01\0\0\0\x01\0\0\0\0", "not an idx file"),
        (b"\0\0\x08\x02\0\0\0\x02\0\0\0\x03" + b"x" * 5, "holds 5 bytes .* 2x3"),
    ],
)
def test_a_file_that_is_no_idx_file_is_named(tmp_path, content, message):
    path = tmp_path / "labels.gz"
    path.write_bytes(gzip.compress(content))
    with pytest.raises(BenchError, match=f"labels.gz: {message}"):
        read_idx(path)


def make_archive(path, members):
    with tarfile.open(path, "w:gz") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(f"folder/{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


def cifar_records(images, *labels):
    return np.concatenate([*(label[:, None] for label in labels), images], axis=1).tobytes()


@pytest.mark.parametrize("label_bytes", [1, 2])
def test_cifar_is_read_from_the_binary_archive(tmp_path, label_bytes):
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (6, 3072), dtype=np.uint8)
    fine = np.array([0, 1, 1, 0, 1, 0], dtype=np.uint8)
    labels = [np.full(6, 77, np.uint8), fine][-label_bytes:]
    records = cifar_records(images, *labels)
    half = len(records) // 2
    members = {"a.bin": records[:half], "b.bin": records[half:], "t.bin": records}
    make_archive(tmp_path / "c.tar.gz", members | {"names.txt": b"cat\ndog\n\n"})
    train, test, classes = read_cifar(
        tmp_path / "c.tar.gz",
        train=("a.bin", "b.bin"),
        test="t.bin",
        names="names.txt",
        label_bytes=label_bytes,
    )
    assert classes == ("cat", "dog")
    for split in (train, test):
        assert torch.equal(split.images, torch.from_numpy(images.reshape(6, 3, 32, 32)))
        assert torch.equal(split.labels, torch.from_numpy(fine).long())


def test_a_broken_or_incomplete_archive_is_named(tmp_path):
    path = tmp_path / "c.tar.gz"
    wanted = {"train": ("a.bin",), "test": "t.bin", "names": "n.txt", "label_bytes": 1}
    make_archive(path, {"a.bin": b""})
    with pytest.raises(BenchError, match=r"c\.tar\.gz: lacks n\.txt"):
        read_cifar(path, **wanted)
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(BenchError, match=r"c\.tar\.gz: unreadable"):
        read_cifar(path, **wanted)


@pytest.mark.parametrize(
    ("train", "test", "names"),
    [
        (b"\0" * 3072, b"\0" * 3073, b"cat\n"),  # a byte is missing
        (b"\0" * 3073, b"", b"cat\n"),
        (b"\x01" * 3073, b"\0" * 3073, b"cat\n"),  # label 1 of one class
        (b"\0" * 3073, b"\0" * 3073, b""),
    ],
)
def test_records_that_are_not_whole_or_of_no_class_are_named(tmp_path, train, test, names):
    path = tmp_path / "c.tar.gz"
    make_archive(path, {"a.bin": train, "t.bin": test, "n.txt": names})
    with pytest.raises(BenchError, match=r"c\.tar\.gz: [at]\.bin holds no whole records of"):
        read_cifar(path, train=("a.bin",), test="t.bin", names="n.txt", label_bytes=1)


def test_a_header_of_an_idx_file_cannot_ask_for_all_memory(tmp_path):
    path = tmp_path / "labels.gz"
    path.write_bytes(gzip.compress(b"\0\0\x08\x04" + b"\xff" * 16 + b"x"))
    with pytest.raises(BenchError, match=r"labels\.gz: holds 1 bytes where its header says 42949"):
        read_idx(path)


def test_debians_files_are_fashion_mnist(fashion_mnist):
    dataset = fashion_mnist
    assert dataset.train.labels.bincount().tolist() == [6000] * 10
    assert dataset.test.labels.bincount().tolist() == [1000] * 10
    assert (dataset.channels, dataset.size, dataset.num_classes) == (1, 28, 10)
    assert dataset.mean == pytest.approx([0.2860], abs=5e-5)  # the figures everybody uses
    assert dataset.std == pytest.approx([0.3530], abs=5e-5)


def test_the_list_says_where_each_dataset_is(tiny, own_cache, monkeypatch):
    monkeypatch.setitem(PUBLISHED, "fashion-mnist", tiny[0])
    rows = {info.name: info for info in list_datasets()}
    assert list(rows)[:2] == ["fashion-mnist", "fashion-mnist-mini"]
    assert rows["fashion-mnist"].where == str(own_cache / "fashion-mnist")
    assert rows["fashion-mnist-mini"].where == "embedded"
    assert (rows["mnist"].where, rows["mnist"].available) == ("download", False)
    assert (rows["cifar100"].classes, rows["cifar100"].channels) == (100, 3)
    assert {info.name for info in rows.values() if info.available} == {
        "fashion-mnist",
        "fashion-mnist-mini",
        "synthetic",
    }
