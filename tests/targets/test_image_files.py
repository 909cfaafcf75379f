"""One preprocessing: training, prediction and exported files see the same pixels of image files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime as ort
import pytest
from PIL import Image, ImageDraw

import bench
from bench.errors import BenchError
from bench.export.classifier import ExportedClassifier
from bench.export.files import save
from bench.export.graph import set_properties, trace
from bench.store import Store
from bench.store.exports import Exports
from bench.targets.classify import predict
from bench.targets.find import from_model, load_trained

if TYPE_CHECKING:
    from pathlib import Path

QUICK = {"device": "cpu", "threads": 1, "workers": 1}
SIZES = ((48, 20), (20, 48), (33, 33), (16, 16), (61, 40))
HOW = [
    ("fast", {}),
    ("book", {}),
    ("fast", {"resize": "pad"}),
    ("book", {"resize": "squash"}),
]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Discs against ellipses with fine texture, in pictures of five shapes."""
    monkeypatch.setenv("BENCH_DATA", str(tmp_path / "cache"))
    draw = np.random.default_rng(0)
    for split, count in (("train", 30), ("test", 20)):
        for squeeze, name in ((1, "disc"), (3, "tall")):
            path = tmp_path / "shapes" / split / name
            path.mkdir(parents=True)
            for number in range(count):
                width, height = SIZES[number % len(SIZES)]
                noise = draw.integers(0, 90, (height, width), dtype=np.uint8)
                image = Image.fromarray(noise)
                x, y, r = width / 2, height / 2, min(width, height) / 2 - 2
                box = [x - r / squeeze, y - r, x + r / squeeze, y + r]
                ImageDraw.Draw(image).ellipse(box, fill=int(draw.integers(150, 255)))
                image.save(path / f"{number:02}.png")
    return tmp_path / "shapes"


@pytest.mark.parametrize(("recipe", "settings"), HOW, ids=str)
def test_all_ways_to_classify_a_file_agree_to_the_image(
    folder: Path, tmp_path: Path, recipe: str, settings: dict[str, Any]
) -> None:
    results = tmp_path / "r"
    settings = {"input_size": 16, "batch_size": 20, "learning_rate": 0.02, **settings}
    row = bench.train(
        "resnet8", options={"width": 4}, dataset=f"imagefolder:{folder}", recipe=recipe,
        epochs=2, settings=settings, results=results, **QUICK,
    ).iloc[0]  # fmt: skip
    assert row["status"] == "complete", row["error"]
    run, files = row["run"], sorted((folder / "test").glob("*/*.png"))
    recorded = Store(results).read_tensors(run, "predictions.safetensors")
    names = Store(results).read_run(run).result["classes"]
    expected = [names[int(index)] for index in recorded["predictions"]]
    confidence = recorded["confidence"].tolist()

    networks = {"run": load_trained(run, results=results)}
    for inside in (False, True):
        export = bench.export_onnx(run, results=results, with_preprocessing=inside, threads=1)
        exports = Exports(results)
        path = exports.file(exports.named(export["export"].item()))
        networks[f"file {inside}"] = ExportedClassifier(path)
    for network in networks.values():
        rows = predict(network, files)
        assert [row["class"] for row in rows] == expected
        assert [row["probability"] for row in rows] == pytest.approx(confidence, abs=1e-4)

    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    for file, name in zip(files, expected, strict=True):
        pixels = np.asarray(Image.open(file))[None, :, :, None]
        (logits,) = session.run(None, {session.get_inputs()[0].name: pixels})
        assert names[logits.argmax()] == name


def test_how_images_are_resized_is_part_of_the_run(folder: Path, tmp_path: Path) -> None:
    def train(**settings: Any) -> str:
        row = bench.train(
            "resnet8", options={"width": 2}, dataset=f"imagefolder:{folder}", epochs=1,
            settings={"input_size": 16, "batch_size": 20, **settings}, results=tmp_path / "r",
            **QUICK,
        )  # fmt: skip
        return row["run"].item()

    first, padded = train(), train(resize="pad")
    assert train(resize="crop") == first != padded
    found = {r.run: r.result["dataset_fingerprint"] for r in Store(tmp_path / "r").runs()}
    assert found[first] != found[padded]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ({}, "does not say how images are prepared"),
        ({"classes": "5"}, "does not say rightly"),
        ({"classes": '["a"]'}, "does not say rightly .*'input_shape'"),
        ({"classes": '["a"]', "input_shape": "[3, 32]"}, "does not say rightly"),
    ],
)
def test_a_file_whose_properties_are_damaged_is_refused(
    damage: dict[str, str], message: str, tmp_path: Path
) -> None:
    proto = trace(from_model("resnet8", {"width": 2}).load()).proto
    set_properties(proto, damage)
    save(proto, tmp_path / "net.onnx")
    with pytest.raises(BenchError, match=message):
        ExportedClassifier(tmp_path / "net.onnx")
