"""The accuracy beside a speed is of the runtime that was measured, and wrong answers are errors."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnxruntime
import pandas as pd
import pytest
import torch

import bench
from bench.measurement import accuracy
from bench.measurement.accuracy import Score
from bench.measurement.configurations import Request, expand
from bench.measurement.measured_network import find_targets
from bench.measurement.timing.runner import LocalRunner
from bench.store.exports import Exports
from bench.store.measurements import Measurements
from bench.targets.find import load_trained
from bench.targets.trained_run import TrainedRun

from .conftest import FakeRunner, a_trial

QUICK = {"device": "cpu", "threads": 1, "batch_sizes": (32,), "max_seconds": 0.1, "processes": 1}


@pytest.fixture
def run(results):
    """The id of a trained network."""
    return next(folder.name for folder in sorted((results / "runs").iterdir()))


@pytest.fixture
def answers(results, run):
    """PyTorch's own logits of the test set, and the labels."""
    trained = load_trained(run, results=results)
    test = trained.dataset().test
    with torch.inference_mode():
        logits = trained.model(trained.preprocess(test.images))
    return logits.numpy(), test.labels.numpy(), trained.preprocess(test.images)


def test_each_runtime_is_scored_by_its_own_answers(results, run, answers):
    torch_logits, labels, images = answers
    frame = bench.measure(
        run, results=results, backends=("eager", "onnxruntime"), precisions=("fp32", "int8"),
        **QUICK,
    )  # fmt: skip
    rows = frame[frame["status"] == "complete"].set_index(["backend", "precision"])
    eager = rows.loc[("eager", "fp32")]
    assert eager["test_accuracy"] == (torch_logits.argmax(1) == labels).mean()
    recorded = bench.load_results(results).set_index("run").loc[run]
    assert eager["validation_accuracy"] == pytest.approx(recorded["validation_accuracy"])
    int8 = rows.loc[("onnxruntime", "int8")]
    (record,) = [r for r in Exports(results).records() if r.row["precision"] == "int8"]
    session = onnxruntime.InferenceSession(Exports(results).file(record))
    found = session.run(None, {session.get_inputs()[0].name: images.numpy()})[0]
    assert int8["test_accuracy"] == (found.argmax(1) == labels).mean()
    assert int8["flipped_predictions"] == (found.argmax(1) != torch_logits.argmax(1)).sum()
    assert set(rows["test_images"]) == {len(labels)}
    assert set(rows["dataset"]) == {"fashion-mnist-mini"}
    assert rows.loc[("onnxruntime", "fp32"), "flipped_predictions"] == 0


@pytest.mark.usefixtures("third_party")
def test_answers_beyond_rounding_are_an_error_that_names_the_first_image(results, run, answers):
    images = answers[2]
    first = int(np.flatnonzero(images.mean((1, 2, 3)) > 0.5)[0])
    frame = bench.measure(
        run, results=results, backends=("eager", "wrong"), precisions=("fp32", "bf16"), **QUICK
    )
    wrong = frame[frame["backend"] == "wrong"]
    assert wrong["status"].tolist() == ["failed"] * 2
    for error in wrong["error"]:
        assert f"fashion-mnist-mini, test image {first} is '" in error
        assert "\n" not in error
    assert wrong["images_per_second"].isna().all()
    assert frame.loc[frame["backend"] == "eager", "status"].iloc[0] == "complete"


def test_an_int8_file_is_compared_with_its_own_quantised_values(results, run, monkeypatch):
    whole = LocalRunner.answer

    def answer(self, images):
        return whole(self, images) * (-1 if self.configuration.precision == "int8" else 1)

    monkeypatch.setattr(LocalRunner, "answer", answer)
    frame = bench.measure(
        run, results=results, backends=("onnxruntime",), precisions=("fp32", "int8"), **QUICK
    )
    error = frame[frame["precision"] == "int8"]["error"].iloc[0]
    assert "by the file computed as it is written" in error
    assert "of 256 images)" in error
    assert frame[frame["precision"] == "fp32"]["error"].isna().all()


@pytest.mark.usefixtures("third_party")
def test_scores_of_another_packages_backend_are_not_used_again(results, run):
    request = Request(backends=("rounded", "eager"), batch_sizes=(32,))
    theirs, ours = expand(request, find_targets([run], results=results), device="cpu", threads=1)[
        :2
    ]
    assert (theirs.backend, accuracy.identity(theirs)) == ("rounded", None)
    assert accuracy.identity(ours) is not None


@pytest.mark.usefixtures("third_party")
def test_what_rounding_explains_is_no_error_but_counted(results, run, answers):
    logits = torch.from_numpy(answers[0])
    rounded = logits.to(torch.bfloat16).float()
    frame = bench.measure(
        run, results=results, backends=("rounded",), precisions=("bf16",), **QUICK
    )
    row = frame.iloc[0]
    assert row["status"] == "complete", row["error"]
    assert row["flipped_predictions"] == int((rounded.argmax(1) != logits.argmax(1)).sum())
    row = bench.measure(run, results=results, backends=("rounded",), **QUICK).iloc[0]
    assert row["status"] == "failed"  # in fp32 nothing is rounded so


@pytest.mark.usefixtures("third_party")
def test_another_batch_size_is_scored_itself_if_its_answers_differ(results, run, monkeypatch):
    asked = []
    whole = LocalRunner.answer

    def answer(self, images):
        asked.append((self.configuration.backend, self.configuration.batch_size, len(images)))
        return whole(self, images)

    monkeypatch.setattr(LocalRunner, "answer", answer)
    frame = bench.measure(
        run, results=results, backends=("eager", "wrongalone"), **QUICK | {"batch_sizes": (1, 8)}
    )
    status = frame.set_index(["backend", "batch_size"])["status"]
    assert status["wrongalone", 8] == "complete"
    assert status["wrongalone", 1] == "failed"
    assert status["eager", 1] == "complete"
    assert sum(n for backend, size, n in asked if (backend, size) == ("eager", 1)) == 64


def test_what_was_scored_on_this_machine_is_not_answered_again(results, run, monkeypatch):
    first = bench.measure(run, results=results, backends=("eager",), **QUICK)
    monkeypatch.setattr(LocalRunner, "answer", lambda *_: pytest.fail("answered again"))
    again = bench.measure(run, results=results, backends=("eager",), **QUICK)
    columns = ["test_accuracy", "validation_accuracy", "flipped_predictions", "test_images"]
    assert again[columns].equals(first[columns])
    lanes = [lane for r in Measurements(results).records() for lane in r.lanes.values()]
    assert all(lane["score"]["identity"]["threads"] == 1 for lane in lanes if "score" in lane)
    monkeypatch.undo()
    monkeypatch.setattr(
        "bench.measurement.accuracy.describe_environment", lambda *_, **__: {"cpu": "another"}
    )
    monkeypatch.setattr(LocalRunner, "answer", lambda *_: np.zeros((1, 1), np.float32))
    frame = bench.measure(run, results=results, backends=("eager",), **QUICK)
    assert frame["status"].tolist() == ["failed"]  # on another processor it is


def test_scores_of_other_versions_files_and_processors_are_not_reused(results, run, monkeypatch):
    exported = bench.export_onnx(run, results=results, threads=1)
    file = results / "exports" / exported["export"].item() / exported["file"].item()
    first = bench.measure(file, results=results, input_size=28, **QUICK)
    lanes = [lane for r in Measurements(results).records() for lane in r.lanes.values()]
    known = [lane["score"] for lane in lanes if "score" in lane]
    request = Request(backends=("onnxruntime",), batch_sizes=(32,))
    targets = find_targets([file], results=results, input_size=28)
    (made,) = expand(request, targets, device="cpu", threads=1)
    score = accuracy.recorded_score(made, known)
    assert score.test_accuracy == first["test_accuracy"].item()

    for changed in ({"file_sha256": "0" * 64}, {"batch_size": 8}, {"threads": 2}):
        assert accuracy.recorded_score(replace(made, **changed), known) is None, changed
    version, describe = accuracy.version_of, accuracy.describe_environment
    for package in ("torch", "onnxruntime", "onnxruntime-gpu", "openvino", "tensorrt"):
        monkeypatch.setattr(
            accuracy, "version_of", lambda name, new=package: "0" if name == new else version(name)
        )
        assert accuracy.recorded_score(made, known) is None, package
    monkeypatch.setattr(accuracy, "version_of", version)
    for name in ("cpu", "instruction_sets", "torch_cpu_capability", "gpu", "driver", "cudnn"):
        monkeypatch.setattr(
            accuracy, "describe_environment", lambda *a, n=name, **k: describe(*a, **k) | {n: "0"}
        )
        assert accuracy.recorded_score(made, known) is None, name


def test_validation_images_are_those_that_the_runs_own_split_held_out(tmp_path, monkeypatch):
    results = tmp_path / "bench-runs"
    row = bench.train(
        "resnet8", options={"width": 4}, results=results, device="cpu", threads=1, epochs=2, seed=3,
        settings={"train_images": 600, "seed_varies": "split", "validation_fraction": 0.5},
    )  # fmt: skip
    run = row["run"].item()
    how = {"results": results, "backends": ("eager",), **QUICK}
    with monkeypatch.context() as patch:  # as an earlier version scored and recorded it
        every = bench.data.validation_split
        patch.setattr(
            "bench.measurement.examples.split_places",
            lambda request, data: every(data.train.labels, request.recipe.validation_fraction),
        )
        known = accuracy.identity
        patch.setattr(
            accuracy, "identity",
            lambda made: {k: v for k, v in known(made).items() if k != "split_seed"},
        )  # fmt: skip
        before = bench.measure(run, **how)["validation_accuracy"].item()
    measured = bench.measure(run, **how)["validation_accuracy"].item()
    assert measured == pytest.approx(row["validation_accuracy"].item())
    assert measured != before


def test_an_exported_file_has_the_accuracy_of_its_run_whatever_it_takes(results, run, answers):
    labels = answers[1]
    exported = bench.export_onnx(run, results=results, threads=1, with_preprocessing=True)
    file = results / "exports" / exported["export"].item()
    row = bench.measure(file, results=results, input_size=28, **QUICK).iloc[0]
    assert row["test_accuracy"] == (answers[0].argmax(1) == labels).mean()
    other = bench.measure(file, results=results, input_size=32, **QUICK).iloc[0]
    assert other["status"] == "complete"
    assert other["test_images"] is pd.NA
    assert "measured on images of 32×32×1, and its dataset's are 28×28×1" in other["warnings"]


@pytest.mark.usefixtures("third_party")
def test_images_that_are_gone_leave_the_accuracy_unknown_and_say_why(results, run, monkeypatch):
    def gone(_self):
        raise bench.BenchError("the dataset is gone")

    monkeypatch.setattr(TrainedRun, "dataset", gone)
    frame = bench.measure(run, results=results, backends=("eager", "rounded"), **QUICK)
    assert frame["status"].tolist() == ["complete"] * 2
    assert all("accuracy unknown: the dataset is gone" in text for text in frame["warnings"])
    assert frame["test_accuracy"].notna().tolist() == [True, False]  # training's own is PyTorch's


def test_a_process_that_finds_wrong_answers_ends_the_trial_at_once():
    trial, measured = (a_trial("a", FakeRunner(None, None)) for _ in range(2))
    measured.status, measured.error = "failed", "it answers wrongly: image 7"
    measured.score = Score(wrong="it answers wrongly: image 7")
    trial.add_replicate(0, measured)
    assert (trial.status, trial.error) == ("failed", "it answers wrongly: image 7")
