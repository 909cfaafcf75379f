"""Runs of an image folder that is elsewhere on this machine than where they were trained."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench import train
from bench.store import Store
from bench.store.archive import pack
from bench.training import setup


def write_images(folder, seed=0):
    """Write an image folder with two classes that differ in brightness."""
    generator = np.random.default_rng(seed)
    for split, count in (("train", 20), ("test", 8)):
        for label, name in enumerate(("dark", "light")):
            (folder / split / name).mkdir(parents=True)
            for i in range(count):
                pixels = generator.integers(0, 60, (16, 16, 3)) + 120 * label
                Image.fromarray(pixels.astype(np.uint8)).save(folder / split / name / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """An archive with a run trained elsewhere, its images, and its id."""
    root = tmp_path_factory.mktemp("server")
    images = write_images(root / "flowers")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BENCH_DATA", str(root / "cache"))
        train(
            "resnet8", options={"width": 4}, dataset=f"imagefolder:{images}", epochs=1,
            results=root / "bench-runs", device="cpu", threads=1, workers=1,
        )  # fmt: skip
    store = Store(root / "bench-runs")
    run = next(store.runs()).run
    pack(store, [run], root / "runs.tar.gz")
    return root / "runs.tar.gz", shutil.move(images, root / "moved"), run


@pytest.fixture
def laptop(packed, bench, tmp_path, monkeypatch):
    """Unpack the run on a machine that has the images elsewhere; returns its id."""
    monkeypatch.setenv("BENCH_DATA", str(tmp_path / "cache"))
    setup._dataset.cache_clear()  # another machine has another process
    archive, images, run = packed
    shutil.copytree(images, tmp_path / "flowers")
    assert bench("results", "unpack", archive).code == 0
    return run


COMMANDS = {
    "lesion": ("--test-images", 4),
    "landscape": ("--points", 3, "--images", 4),
    "gradients": ("--correlation",),
    "export-onnx": ("--precision", "int8", "--calibration-images", 32, "--quiet"),
    "grow": ("--to", "resnet14", "--epochs", 1, "--quiet"),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_finds_located_images(bench, laptop, command):
    words = (command, laptop, *COMMANDS[command])
    refused = bench(*words)
    assert refused.code != 0
    assert "no such folder" in refused.err
    assert "'bench results locate RUN PATH'" in refused.err
    located = bench("results", "locate", laptop, "imagefolder:flowers")
    assert located.code == 0, located.err
    assert "is read from flowers" in located.out
    setup._dataset.cache_clear()
    done = bench(*words)
    assert done.code == 0, done.err


def test_a_training_on_located_images_is_estimated(bench, laptop, tmp_path):
    name = Store(tmp_path / "bench-runs").read_run(laptop).request["dataset"]
    words = ("train", "resnet8", "--dataset", name, "--set", "input_size=8", "--dry-run")
    assert "no such folder" in bench(*words).refusal
    assert bench("results", "locate", laptop, "flowers").code == 0
    done = bench(*words)
    assert done.code == 0, done.err


def test_located_images_go_before_others_at_the_recorded_path(bench, laptop, tmp_path):
    name = Store(tmp_path / "bench-runs").read_run(laptop).request["dataset"]
    at_old_path = write_images(Path(name.removeprefix("imagefolder:")), seed=1)
    try:
        assert "fingerprint differs" in bench("lesion", laptop, "--test-images", 4).refusal
        assert bench("results", "locate", laptop, "flowers").code == 0
        setup._dataset.cache_clear()
        done = bench("lesion", laptop, "--test-images", 4)
        assert done.code == 0, done.err
    finally:
        shutil.rmtree(at_old_path)


def test_other_images_are_refused(bench, laptop, tmp_path):
    write_images(tmp_path / "others", seed=1)
    refusal = bench("results", "locate", laptop, "others").refusal
    assert "does not hold the images" in refusal
    assert laptop in refusal
    assert "no such folder" in bench("lesion", laptop).refusal


def test_a_run_of_a_named_dataset_is_refused(bench, results, tmp_path):
    run = next(Store(results).runs()).run
    refusal = bench("results", "locate", run, tmp_path, "--results", results).refusal
    assert "was trained on 'fashion-mnist-mini', not on an image folder" in refusal
