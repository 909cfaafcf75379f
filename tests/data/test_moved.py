from __future__ import annotations

import json
import shutil

import pytest
import torch

from bench.data import load_dataset
from bench.data.moved import record_move
from bench.errors import BenchError


@pytest.fixture
def folder(tmp_path, write_image):
    """An image folder of two classes."""
    root = tmp_path / "here" / "set"
    for split in ("train", "test"):
        for seed, name in enumerate(("a", "b")):
            write_image(root / split / name / "0.png", seed=seed)
    return root


@pytest.mark.parametrize("name", ["imagefolder:/server/set", "imagefolder:set"])
def test_a_moved_folder_is_found_by_its_old_name(folder, own_cache, name):
    record_move("imagefolder:/server/other", folder.parent, own_cache)
    record_move(name, folder, own_cache)
    moved, expected = load_dataset(name), load_dataset(f"imagefolder:{folder}")
    assert moved.name == name
    assert moved.fingerprint == expected.fingerprint
    assert torch.equal(moved.test.images, expected.test.images)


def test_a_recorded_move_goes_before_other_images_at_the_old_place(
    folder, own_cache, write_image, tmp_path
):
    other = tmp_path / "there"
    for seed, name in enumerate(("train/a", "train/b", "test/a", "test/b"), 5):
        write_image(other / name / "0.png", seed=seed)
    name = f"imagefolder:{folder}"
    before, expected = load_dataset(name), load_dataset(f"imagefolder:{other}").fingerprint
    record_move(name, other, own_cache)
    moved = load_dataset(name)
    assert moved.fingerprint == expected
    assert f"{name} is read from {other}" in moved.notes[-1]
    shutil.rmtree(other)
    assert load_dataset(name).fingerprint == before.fingerprint


@pytest.mark.parametrize("content", ["", "{", "[1]", json.dumps({"imagefolder:/gone": "/gone2"})])
def test_without_a_record_the_old_name_is_missing(own_cache, content):
    own_cache.mkdir()
    (own_cache / "moved-folders.json").write_text(content)
    with pytest.raises(BenchError, match=r"imagefolder /gone2?: no such folder: .*results locate"):
        load_dataset("imagefolder:/gone")


def test_a_data_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BenchError, match=r"cannot write .*moved-folders.json .*BENCH_DATA"):
        record_move("imagefolder:/old", tmp_path, tmp_path / "file")
