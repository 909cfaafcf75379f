"""A run's network taken back, and asked about image files."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from PIL import Image

import bench
from bench.data import Preprocessing, evaluation_batches, load_dataset
from bench.errors import BenchError
from bench.store import Store
from bench.targets.classify import predict
from bench.targets.find import load_trained

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def run(trained: Path) -> Path:
    """The folder of a finished run."""
    return trained / "runs" / next(Store(trained).runs()).run


def save(path: Path, mode: str = "L", size: tuple[int, int] = (28, 28)) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(path)
    return path


def test_a_loaded_network_gives_the_predictions_that_were_recorded(run: Path) -> None:
    loaded = load_trained(run)
    recorded = Store(run.parent.parent).read_tensors(run.name, "predictions.safetensors")
    test = load_dataset("fashion-mnist-mini").test
    with torch.no_grad():
        logits = loaded.model(loaded.preprocess(test.images))
    assert (logits.argmax(1) == recorded["predictions"]).float().mean() > 0.995
    accuracy = (logits.argmax(1) == test.labels).float().mean().item()
    assert accuracy == pytest.approx(loaded.record.result["test_accuracy"], abs=0.005)
    batches = evaluation_batches(
        test, batch_size=100,
        preprocessing=Preprocessing(
            28, tuple(loaded.record.result["mean"]), tuple(loaded.record.result["std"])
        ),
    )  # fmt: skip
    images, _ = next(iter(batches))
    torch.testing.assert_close(loaded.preprocess(test.images[:100]), images)


def test_a_model_is_loaded_by_id_beginning_and_folder(run: Path, trained: Path) -> None:
    models = [
        bench.load_model(run),
        bench.load_model(str(run)),
        bench.load_model(run.name, results=trained),
        bench.load_model(run.name[:-2], results=trained),
    ]
    weights = [torch.cat([p.flatten() for p in model.parameters()]) for model in models]
    assert all(torch.equal(w, weights[0]) for w in weights)
    assert not any(module.training for model in models for module in model.modules())


@pytest.mark.parametrize(
    ("mode", "size", "suffix"),
    [
        ("L", (28, 28), "png"),
        ("RGB", (64, 48), "jpg"),
        ("RGBA", (9, 9), "png"),
        ("P", (28, 28), "gif"),
    ],
)
def test_any_image_file_is_classified(
    mode: str, size: tuple[int, int], suffix: str, run: Path, tmp_path: Path
) -> None:
    file = save(tmp_path / f"image.{suffix}", mode, size)
    rows = predict(load_trained(run), [file], top=20)
    assert [row["rank"] for row in rows] == list(range(1, 11))
    assert {row["image"] for row in rows} == {str(file)}
    probabilities = [row["probability"] for row in rows]
    assert probabilities == sorted(probabilities, reverse=True)
    assert sum(probabilities) == pytest.approx(1, abs=1e-5)
    assert set(load_trained(run).classes) == {row["class"] for row in rows}


def test_a_dataset_image_gets_the_class_of_the_test(run: Path, tmp_path: Path) -> None:
    loaded = load_trained(run)
    recorded = Store(run.parent.parent).read_tensors(run.name, "predictions.safetensors")
    images = load_dataset("fashion-mnist-mini").test.images[:5]
    files = []
    for number, image in enumerate(images):
        files.append(tmp_path / f"{number}.png")
        Image.fromarray(image[0].numpy()).save(files[-1])
    rows = predict(loaded, files)
    assert [row["image"] for row in rows] == [str(file) for file in files]
    names = [loaded.classes[int(index)] for index in recorded["predictions"][:5]]
    assert [row["class"] for row in rows] == names
    confidence = recorded["confidence"][:5].tolist()
    assert [row["probability"] for row in rows] == pytest.approx(confidence, abs=1e-4)


def test_a_network_of_two_channels_takes_no_image_files(tmp_path: Path) -> None:
    network: Any = SimpleNamespace(input_shape=(2, 8, 8), classes=["a", "b"])
    with pytest.raises(BenchError, match="one channel or three, and the network takes 2"):
        predict(network, [save(tmp_path / "x.png")])


def test_what_is_no_image_is_named(run: Path, tmp_path: Path) -> None:
    loaded = load_trained(run)
    text, whole = tmp_path / "notes.png", save(tmp_path / "whole.png", size=(200, 200))
    text.write_text("no image")
    broken = tmp_path / "broken.png"
    broken.write_bytes(whole.read_bytes()[:5000])
    for file, message in (
        (text, "notes.png: unreadable image .no image that Pillow can read"),
        (tmp_path / "nowhere.png", "cannot read the image .*nowhere.png: No such file"),
        (tmp_path, ": unreadable image .Is a directory"),
        (broken, "broken.png: unreadable image .*truncated"),
    ):
        with pytest.raises(BenchError, match=message) as refusal:
            predict(loaded, [whole, file])
        assert "\n" not in str(refusal.value)


def test_a_run_without_weights_is_refused(results: Path) -> None:
    store = Store(results)
    record = next(store.runs())
    store.finish_run(replace(record, status="diverged", error="the loss was not finite"))
    with pytest.raises(
        BenchError, match=r"is diverged \(the loss was not finite\) and kept no weights"
    ):
        load_trained(record.run, results=results)


def test_weights_of_another_network_are_refused_in_one_line(
    results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = next(Store(results).runs())
    monkeypatch.setattr("bench.training.setup.build_model", lambda *_, **__: torch.nn.Linear(2, 2))
    with pytest.raises(BenchError, match="its weights do not fit the network") as refusal:
        load_trained(record.run, results=results)
    assert "\n" not in str(refusal.value)
