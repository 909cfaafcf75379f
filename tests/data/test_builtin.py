from __future__ import annotations

from pathlib import Path

import fashion_mnist_mini as script
import pytest
import torch

import bench.data
from bench.data import list_datasets, load_dataset
from bench.data.published import DEBIAN_FASHION
from bench.errors import BenchError

EMBEDDED = Path(bench.data.__file__).parent / "embedded"


def test_the_embedded_set_is_balanced_everywhere():
    dataset = load_dataset("fashion-mnist-mini")
    assert dataset.train.images.shape == (6000, 1, 28, 28)
    assert dataset.test.images.shape == (1000, 1, 28, 28)
    assert dataset.train.images.dtype == torch.uint8
    assert dataset.train.labels.bincount().tolist() == [600] * 10
    assert dataset.test.labels[:20].tolist() == list(range(10)) * 2
    assert dataset.classes[9] == "Ankle boot"
    assert not dataset.timing_only


def test_the_embedded_set_never_changes():
    fingerprint = load_dataset("fashion-mnist-mini").fingerprint
    assert fingerprint == "12088313199a25c7223e586d18dd1633098bc6bd53d49c087799b875749e9bc6"


def test_the_embedded_set_is_small_and_licensed():
    assert sum(path.stat().st_size for path in EMBEDDED.glob("*.png")) < 3_000_000
    assert "Copyright (c) 2017 Zalando SE" in (EMBEDDED / "LICENSE-fashion-mnist").read_text()


def test_the_script_makes_the_embedded_pixels_from_the_full_set(fashion_mnist):
    full = fashion_mnist
    mini = load_dataset("fashion-mnist-mini")
    for name, split, whole in (("train", mini.train, full.train), ("test", mini.test, full.test)):
        mosaic = torch.from_numpy(script.mosaic(whole, script.PER_CLASS[name]).copy())
        tiles = mosaic.view(-1, 28, 100, 28).swapaxes(1, 2).reshape(10, -1, 1, 28, 28)
        assert torch.equal(tiles.swapaxes(0, 1).reshape(-1, 1, 28, 28), split.images)
        # Independently of the script: every pair of image and label is in the full set.
        pairs = {
            (image.tobytes(), int(label))
            for image, label in zip(whole.images.numpy(), whole.labels, strict=True)
        }
        assert all(
            (image.tobytes(), int(label)) in pairs
            for image, label in zip(split.images.numpy(), split.labels, strict=True)
        )


@pytest.mark.slow
@pytest.mark.skipif(not DEBIAN_FASHION.exists(), reason="the full set is not installed")
def test_the_script_gives_the_same_bytes_twice(tmp_path):
    contents = []
    for run in ("first", "second"):
        (tmp_path / run).mkdir()
        script.main(tmp_path / run)
        contents.append([path.read_bytes() for path in sorted((tmp_path / run).iterdir())])
    assert contents[0] == contents[1]


def test_a_damaged_installation_is_named(tmp_path, monkeypatch):
    (tmp_path / "fashion-mnist-mini-train.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    monkeypatch.setattr("bench.data.builtin._FOLDER", tmp_path)
    with pytest.raises(BenchError, match=r"mini-train\.png: damaged .*install the package again"):
        load_dataset("fashion-mnist-mini")


def test_synthetic_images_are_the_same_every_time_and_marked():
    first, second = load_dataset("synthetic"), load_dataset("synthetic")
    assert first.fingerprint == second.fingerprint
    assert first.timing_only
    assert (first.channels, first.size, first.num_classes) == (3, 32, 10)
    info = next(info for info in list_datasets() if info.name == "synthetic")
    assert (info.train, info.test) == (len(first.train), len(first.test))


def test_synthetic_images_have_the_size_that_is_asked_for():
    assert load_dataset("synthetic", image_size=12).train.images.shape[2:] == (12, 12)
    with pytest.raises(BenchError, match="image size 0"):
        load_dataset("synthetic", image_size=0)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("cifar-10", "'cifar10'"),
        ("fashion_mnist", "'fashion-mnist'"),
        ("imagfolder:./PATH", "'imagefolder:PATH'"),
        ("", "known: fashion-mnist"),
    ],
)
def test_an_unknown_name_gets_the_nearest_and_the_list(name, hint):
    with pytest.raises(BenchError) as caught:
        load_dataset(name)
    assert hint in str(caught.value)
    assert "package.module:function" in str(caught.value)
