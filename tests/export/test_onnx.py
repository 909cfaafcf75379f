"""ONNX files: what they compute, what they hold, and how they are refused."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from PIL import Image
from torch import nn

from bench import BenchError, export_onnx, load_model, load_results, train
from bench.data import load_dataset
from bench.export import files
from bench.export.graph import trace
from bench.export.parity import FP32_TOLERANCE, compare, first_divergence, reference_logits
from bench.export.session import open_session
from bench.store import files as store_files
from bench.store.exports import refuse_damaged
from bench.store.files import Disk
from bench.targets.find import from_model, load_trained
from builders import make_record

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.store import Store

    Cli = Callable[..., Any]

Trained = tuple[Path, str]


@pytest.fixture(scope="module")
def exported(trained: Trained) -> Any:
    results, run = trained
    return export_onnx(run, results=results, threads=1).iloc[0]


def path_of(results: Path, row: Any) -> Path:
    return results / "exports" / row["export"] / row["file"]


def test_the_file_answers_as_pytorch_does(trained: Trained, exported: Any) -> None:
    results, run = trained
    test = load_dataset("fashion-mnist-mini").test
    prepared = load_trained(run, results=results).preprocess(test.images)
    with torch.inference_mode():
        expected = load_model(run, results=results)(prepared).numpy()
    session = ort.InferenceSession(path_of(results, exported), providers=["CPUExecutionProvider"])
    (answers,) = session.run(["logits"], {"image": prepared.numpy()})
    assert np.abs(answers - expected).max() <= 1e-4 * np.abs(expected).max()
    labels = test.labels.numpy()
    assert exported["test_accuracy"] == pytest.approx((answers.argmax(1) == labels).mean())
    assert exported["torch_accuracy"] == pytest.approx((expected.argmax(1) == labels).mean())
    assert exported["flipped_predictions"] == (answers.argmax(1) != expected.argmax(1)).sum()
    assert exported["status"] == "complete"
    assert exported["images_compared"] >= 256
    assert exported["executed_precision"] == "fp32"


def test_the_proof_lies_beside_the_file_and_in_the_table(trained: Trained, exported: Any) -> None:
    results, run = trained
    file = path_of(results, exported)
    proof = json.loads((file.parent / "export.json").read_text())
    assert set(proof["proof"]["parity"]["max_abs_diff_by_batch_size"]) == {"1", "3", "32"}
    assert files.sha256_of(file) == exported["sha256"] == file.parent.name
    table = load_results(results, "exports")
    row = table[table["sha256"] == exported["sha256"]].iloc[0]
    assert row["run"] == run
    assert len(load_results(results / "runs" / run, "exports")) >= 1


def test_the_file_is_sound_and_says_what_it_is(trained: Trained, exported: Any) -> None:
    results, run = trained
    file = path_of(results, exported)
    onnx.checker.check_model(str(file), full_check=True)
    proto = onnx.load(str(file))
    assert [(e.domain, e.version) for e in proto.opset_import] == [("", 20)]
    assert proto.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    assert not any(node.op_type == "BatchNormalization" for node in proto.graph.node)
    said = {entry.key: entry.value for entry in proto.metadata_props}
    assert said["run"] == run
    assert said["run_hash"] == run.rsplit("-", 1)[-1]
    assert said["dataset"] == "fashion-mnist-mini"
    assert len(json.loads(said["classes"])) == 10
    assert {"mean", "std", "model", "options", "bench_version"} <= said.keys()


@pytest.mark.slow
def test_the_same_bytes_from_another_folder(
    trained: Trained, exported: Any, bench_process: Cli
) -> None:
    results, run = trained
    words = ("export-onnx", run, "--results", results, "--force", "--threads", 1, "--json")
    assert bench_process(*words).document["rows"][0]["sha256"] == exported["sha256"]
    content = path_of(results, exported).read_bytes()
    for trace_of_machine in (str(Path.cwd()), "site-packages", "stack_trace", str(results)):
        assert trace_of_machine.encode() not in content


def test_exporting_again_takes_what_is_there(trained: Trained, exported: Any) -> None:
    results, run = trained
    told: list[str] = []
    again = export_onnx(run, results=results, threads=1, say=told.append)
    assert again["sha256"].item() == exported["sha256"]
    assert any("already" in line for line in told)


@pytest.mark.slow
def test_static_batch(trained: Trained) -> None:
    results, run = trained
    row = export_onnx(run, results=results, static_batch=7, threads=1).iloc[0]
    session = ort.InferenceSession(path_of(results, row), providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].shape[0] == 7
    assert row["test_accuracy"] == row["torch_accuracy"]


def test_preprocessing_in_the_graph_takes_any_size(trained: Trained) -> None:
    results, run = trained
    row = export_onnx(run, results=results, with_preprocessing=True, threads=1).iloc[0]
    assert row["status"] == "complete"
    session = ort.InferenceSession(path_of(results, row), providers=["CPUExecutionProvider"])
    known = load_trained(run, results=results)
    for height, width in ((28, 28), (61, 40), (9, 33)):
        images = torch.randint(0, 256, (2, 1, height, width), dtype=torch.uint8)
        with torch.inference_mode():
            expected = known.model(known.preprocess(images)).numpy()
        (answers,) = session.run(None, {"image": images.permute(0, 2, 3, 1).numpy()})
        assert np.abs(answers - expected).max() <= 1e-4 * np.abs(expected).max()


def test_a_changed_layer_is_found_and_named(tmp_path: Path) -> None:
    source = from_model("resnet8", {"width": 4}).load()
    traced = trace(source)
    name = "layer2.0.conv2.weight"
    (weight,) = (i for i in traced.proto.graph.initializer if i.name == name)
    changed = onnx.numpy_helper.to_array(weight).copy()
    changed[0] *= 1.5
    weight.CopyFrom(onnx.numpy_helper.from_array(changed, name))
    file = tmp_path / "broken.onnx"
    files.save(traced.proto, file)
    images = source.proof_images()
    parity = compare(
        open_session(file, threads=1), reference_logits(source, images), images.numpy(),
        tolerance=FP32_TOLERANCE,
    )  # fmt: skip
    assert not parity.accepted
    found = first_divergence(source, traced, file, images[:4].numpy(), images[:4], FP32_TOLERANCE)
    assert found == "layer2.0.bn2"  # the normalisation that the convolution was folded into


def test_a_wrong_file_is_rejected_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = files.save

    def save_broken(proto: onnx.ModelProto, path: Path, **limits: int) -> None:
        weight = next(i for i in proto.graph.initializer if i.name == "fc.weight")
        broken = onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(weight) * 2, "fc.weight")
        weight.CopyFrom(broken)
        whole(proto, path, **limits)

    monkeypatch.setattr("bench.export.pipeline.save", save_broken)
    row = export_onnx("resnet8", options={"width": 4}, results=tmp_path, threads=1).iloc[0]
    assert row["status"] == "rejected"
    assert "'fc'" in row["error"]
    assert path_of(tmp_path, row).name == "model.rejected.onnx"
    assert path_of(tmp_path, row).is_file()


def test_large_weights_lie_beside_the_file(tmp_path: Path) -> None:
    source = from_model("resnet8", {"width": 4}).load()
    traced = trace(source)
    images = source.proof_images()[:8]
    expected = reference_logits(source, images)
    files.save(traced.proto, tmp_path / "model.onnx", limit=1000)
    assert (tmp_path / "model.onnx.data").is_file()
    files.check(tmp_path / "model.onnx")
    assert files.onnx_sha256(tmp_path / "model.onnx") == files.sha256_of(tmp_path / "model.onnx")
    session = open_session(tmp_path / "model.onnx", threads=1)
    assert compare(session, expected, images.numpy(), tolerance=FP32_TOLERANCE).accepted


class DataDependent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x.mean((2, 3))
        if y.sum() > 0:
            y = y * 2
        return self.fc(y)


class OneBatchSize(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean((2, 3)).reshape(2, 3)


@pytest.mark.parametrize(
    ("network", "message"),
    [(DataDependent, r"test_onnx.py:\d+ \(if y.sum\(\) > 0:\).*data-dependent"),
     (OneBatchSize, "one batch size only.*--static-batch")],
)  # fmt: skip
def test_networks_that_cannot_be_captured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any, network: type, message: str
) -> None:
    monkeypatch.setattr("bench.targets.network.build_model", lambda *_, **__: network())
    with pytest.raises(BenchError, match=message) as refusal:
        export_onnx("resnet8", results=tmp_path, threads=1)
    assert "\n" not in str(refusal.value)
    assert capfd.readouterr().err == ""
    assert list((tmp_path / "exports").iterdir()) == []


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"opset": 99}, "--opset 99 cannot be written.*use 20"),
    ({"opset": 11}, "--opset 11 cannot be written.*use 20"),
    ({"with_preprocessing": True}, "--with-preprocessing needs a trained run"),
    ({"bundle": True}, "needs a trained run"),
    ({"precision": "int4"}, "--precision int4 is unknown.*fp32, fp16, int8"),
    ({"precision": "int8", "calibration_images": 8}, "smaller than one batch of 32"),
    ({"precision": "int8", "static_batch": 64, "calibration_images": 40}, "batch of 64"),
    ({"precision": "fp16", "calibration_images": 8}, "--calibration-images goes with .* int8"),
    ({"calibration_seed": 3}, "--calibration-seed goes with --precision int8"),
    ({"static_batch": 0}, "--static-batch 0: it must be at least 1"),
    ({"io_precision": "fp16"}, "goes with --precision fp16"),
    ({"max_accuracy_drop": 1.0}, "goes with --precision int8"),
    ({"precision": "int8", "max_accuracy_drop": -1.0}, "in points"),
    ({"output": "/proc/exports"}, "cannot write /proc/exports: .*another --output folder"),
]


@pytest.mark.parametrize(("settings", "message"), REFUSED)
def test_refusals(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(BenchError, match=message) as refusal:
        export_onnx("resnet8", results=tmp_path, threads=1, **settings)
    assert "\n" not in str(refusal.value)


def test_a_model_that_cannot_be_built_says_why(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="14 and 20"):
        export_onnx("resnet19", results=tmp_path)


def test_unknown_target(tmp_path: Path) -> None:
    message = "no model, run, study or file 'resnt18'; did you mean 'resnet1"
    with pytest.raises(BenchError, match=message):
        export_onnx("resnt18", results=tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("force", [False, True])
def test_a_diverged_run(tmp_path: Path, force: bool) -> None:
    settings = {"train_images": 200, "learning_rate": 1e6}
    row = train(
        "resnet8", options={"width": 4}, epochs=2, settings=settings, results=tmp_path,
        threads=1,
    )  # fmt: skip
    assert row["status"].item() == "diverged"
    with pytest.raises(BenchError, match="kept no weights: train it again"):
        export_onnx(row["run"].item(), results=tmp_path, force=force)


def test_an_unfinished_run(store: Store) -> None:
    record = make_record(status="interrupted", error="stopped")
    store.mark_unfinished(record)
    with pytest.raises(BenchError, match=r"is interrupted \(.*\), and only a complete run"):
        export_onnx(record.run, results=store.root)


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class FullDisk(Disk):
        def write(self, path: Path, content: bytes) -> None:
            super().write(path, content[: len(content) // 2])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(store_files, "disk", FullDisk())
    with pytest.raises(BenchError, match="disk is full"):
        export_onnx("resnet8", options={"width": 4}, results=tmp_path, threads=1)
    assert list((tmp_path / "exports").iterdir()) == []


@pytest.mark.parametrize("content", [b"hello", b"", b"\x08\x0a" * 50])
def test_files_that_are_not_onnx(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bad.onnx").write_bytes(content)
    with pytest.raises(BenchError, match=r"is (no|not a valid) ONNX file"):
        files.load(tmp_path / "bad.onnx")


def test_a_truncated_file(trained: Trained, exported: Any, tmp_path: Path) -> None:
    content = path_of(trained[0], exported).read_bytes()
    (tmp_path / "cut.onnx").write_bytes(content[: len(content) // 2])
    with pytest.raises(BenchError, match="no ONNX file, or was cut off"):
        files.load(tmp_path / "cut.onnx")


def test_an_export_is_named_from_inside_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = export_onnx("resnet8", results=tmp_path, options={"width": 2}, threads=1).iloc[0]
    monkeypatch.chdir(tmp_path / "exports" / row["export"])
    refuse_damaged(Path(row["file"]))


@pytest.mark.parametrize(
    "words",
    [
        "predict {file} image.png",
        "throughput {file}",
        "export-onnx {file} --precision int8 --dataset fashion-mnist-mini",
        "export-tensorrt {file}",
    ],
)
def test_an_export_that_is_damaged_since_is_refused_by_its_path(
    trained: Trained, exported: Any, bench: Cli, tmp_path: Path, words: str
) -> None:
    if "tensorrt" in words:
        pytest.importorskip("tensorrt_rtx")
    Image.new("L", (28, 28)).save(tmp_path / "image.png")
    original = path_of(trained[0], exported)
    copy = shutil.copytree(original.parent, tmp_path / "made" / "exports" / original.parent.name)
    file = copy / original.name
    content = bytearray(file.read_bytes())
    weights = max((w.raw_data for w in onnx.load(file).graph.initializer), key=len)
    content[content.index(weights)] ^= 1
    file.write_bytes(content)
    onnx.checker.check_model(onnx.load(file), full_check=True)  # nothing else would notice it
    refusal = bench(*words.format(file=file).split(), "--results", tmp_path / "made").refusal
    assert f"{file} is missing or damaged (its checksum differs); export it again" in refusal


@pytest.mark.slow
def test_predict_takes_an_export(
    trained: Trained, exported: Any, bench_process: Cli, tmp_path: Path
) -> None:
    results, run = trained
    pixels = load_dataset("fashion-mnist-mini").test.images[0, 0].numpy()
    Image.fromarray(pixels).save(tmp_path / "image.png")
    answers = [
        bench_process("predict", what, "image.png", "--results", results, "--json").document["rows"]
        for what in (run, path_of(results, exported))
    ]
    (one,), (other,) = answers
    assert one["class"] == other["class"]
    assert one["probability"] == pytest.approx(other["probability"], abs=1e-4)
