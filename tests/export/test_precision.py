"""int8 and fp16 files: what they hold, what they cost, and how the verdict is reached."""

from __future__ import annotations

import json
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnxruntime.quantization.calibrate import (
    CalibrationDataReader,
    CalibrationMethod,
    HistogramCollector,
    create_calibrator,
    save_tensors_data,
)
from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry
from scipy.stats import binomtest

from bench import BenchError, export_onnx
from bench.cli import export_onnx as export_command
from bench.export import quantise as quantiser_module
from bench.export.accuracy import compare_answers
from bench.export.convert import to_fp16
from bench.export.files import save
from bench.export.graph import trace
from bench.export.half import SAFE_MAX, convert_to_fp16, overflowing_layers
from bench.export.parity import (
    NO_LOGITS,
    Parity,
    compare,
    relative_difference,
    rounding_tolerance,
)
from bench.export.proof import Proof
from bench.export.quantise import Quantiser
from bench.export.sensitivity import Effect, fewest_kept
from bench.export.settings import Settings
from bench.export.verdict import Speed, relative_speed, verdict
from bench.store.exports import ExportRecord
from bench.system.environment import processor
from bench.system.processor_use import ProcessorUse
from bench.targets.find import from_model

from .conftest import classifier

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

Trained = tuple["Path", str]


def quantise(trained: Trained, **settings: Any) -> tuple[Any, onnx.ModelProto, dict[str, Any]]:
    results, run = trained
    values = {"precision": "int8", "calibration_images": 64, **settings}
    row = export_onnx(run, results=results, threads=1, **values).iloc[0]
    folder = results / "exports" / row["export"]
    proof = json.loads((folder / "export.json").read_text())["proof"]
    return row, onnx.load(str(folder / row["file"])), proof["int8"]


def zero_point_types(proto: onnx.ModelProto) -> set[int]:
    types = {i.name: i.data_type for i in proto.graph.initializer}
    nodes = [n for n in proto.graph.node if n.op_type == "QuantizeLinear"]
    return {types[n.input[2]] for n in nodes}


def test_int8_for_this_cpu(trained: Trained) -> None:
    row, proto, details = quantise(trained, sensitivity=True, calibration_draws=2)
    assert zero_point_types(proto) == {onnx.TensorProto.UINT8}
    scales = {i.name: i for i in proto.graph.initializer}
    weight = next(i for n, i in scales.items() if n.startswith("conv1.weight") and "scale" in n)
    assert onnx.numpy_helper.to_array(weight).size == 8  # per channel: one for each filter
    assert row["status"] == "complete"
    assert row["executed_precision"] == "int8"
    assert row["test_accuracy"] == details["accuracy"]["accuracy"] == details["draws"][0]
    assert abs(row["test_accuracy"] - row["torch_accuracy"]) < 0.1
    assert len(details["draws"]) == 2
    layers = {e["layer"] for e in details["sensitivity"]}
    assert {"conv1/Conv", "fc/Gemm"} <= layers
    assert "int8" in details["verdict"]
    picture = trained[0] / "exports" / row["export"] / "sensitivity.svg"
    assert all(layer in picture.read_text() for layer in layers)


def test_a_difference_that_is_no_number_is_never_accepted() -> None:
    def compared(other: Any) -> Parity:
        """Compare logits with others, without a tolerance as in int8."""
        session = SimpleNamespace(get_inputs=lambda: [SimpleNamespace(shape=("N", 3))])
        logits = np.ones((4, 10), "f")
        return compare(session, logits, logits, tolerance=None, batch_sizes=(4,), known={4: other})

    assert compared(np.full((4, 10), 2.0, "f")).accepted
    for other in (np.full((4, 10), np.nan, "f"), np.full((4, 10), np.inf, "f"), np.ones((4, 9))):
        parity = compared(other)
        assert not parity.accepted
        error = Proof(parity, None, None, "int8", "fc").error
        assert error == f"{NO_LOGITS}; first at layer 'fc'"
    good = compared(np.ones((4, 10), "f"))
    sizes = relative_difference(np.full((2, 3), np.nan, "f"), np.ones((2, 3), "f"))
    assert not Proof(good, None, sizes, "int8").accepted


@pytest.mark.parametrize("setting", [{"max_accuracy_drop": 1.0}, {"calibration_draws": 2}])
def test_what_measures_accuracy_is_refused_without_a_labelled_test_set(
    tmp_path: Path, setting: dict[str, Any]
) -> None:
    onnx.save(classifier(10), tmp_path / "plain.onnx")
    fixes: dict[str | Path, str] = {
        "resnet8": "make a run of the trained network with 'bench import'",
        tmp_path / "plain.onnx": "give --dataset with the images it was trained for",
    }
    for target, fix in fixes.items():
        option = next(iter(setting)).replace("_", "-")
        with pytest.raises(BenchError, match=rf"--{option}: .* has no labelled test set.*{fix}"):
            export_onnx(
                target, results=tmp_path, precision="int8", dataset="random", input_size=28,
                **setting,
            )  # fmt: skip


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_a_run_of_few_images_is_converted_with_all_of_them(
    tmp_path: Path, train_here: Any, monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    read: list[int] = []

    def reader(batches: Any) -> Any:
        batches = list(batches)
        read.extend(len(images) for batch in batches for images in batch.values())
        return original(batches)

    original = quantiser_module._reader
    monkeypatch.setattr(quantiser_module, "_reader", reader)
    row = train_here("resnet8", settings={"train_images": 60})
    results, run = tmp_path / "bench-runs", row["run"]
    made = export_onnx(run, results=results, threads=1, precision=precision).iloc[0]
    proof = json.loads((results / "exports" / made["export"] / "export.json").read_text())["proof"]
    assert proof[precision]["images"] == 50
    if precision == "int8":
        assert read == [32, 18]
        with pytest.raises(BenchError, match=r"--calibration-images 100: run .* was trained on 50"):
            export_onnx(run, results=results, precision=precision, calibration_images=100)


def test_a_run_of_fewer_images_than_a_batch_names_another_way(
    tmp_path: Path, train_here: Any
) -> None:
    run = train_here("resnet8", settings={"train_images": 30, "validation_fraction": 0})["run"]
    with pytest.raises(BenchError, match="calibrating int8 takes 32 or more; give another --data"):
        export_onnx(run, results=tmp_path / "bench-runs", precision="int8")


def test_without_vnni_weights_keep_seven_bits_and_the_file_is_proven_there(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if on a processor with AVX2 only, whose int8 products saturate at 16 bits."""
    results = tmp_path / "r"
    settings: dict[str, Any] = {"precision": "int8", "calibration_images": 32, "threads": 1}
    run = trained[0] / "runs" / trained[1]

    def weights(row: Any) -> list[Any]:
        graph = onnx.load(str(results / "exports" / row["export"] / row["file"])).graph
        read = {n.input[0] for n in graph.node if n.op_type == "DequantizeLinear"}
        values = [onnx.numpy_helper.to_array(i) for i in graph.initializer if i.name in read]
        return [v for v in values if v.dtype == np.int8]

    sets = ("avx", "avx2", "fma")
    for module in ("bench.export.quantise", "bench.system.environment"):
        monkeypatch.setattr(f"{module}.processor", lambda: ("an AVX2 processor", sets))
    narrow = export_onnx(run, results=results, **settings).iloc[0]
    assert max(np.abs(w.astype(int)).max() for w in weights(narrow)) <= 64
    for module in ("bench.export.quantise", "bench.system.environment"):
        monkeypatch.setattr(f"{module}.processor", lambda: ("newer", (*sets, "avx512_vnni")))
    wide = export_onnx(run, results=results, **settings).iloc[0]  # not reused: proven here, too
    assert wide["export"] != narrow["export"]
    assert max(np.abs(w.astype(int)).max() for w in weights(wide)) > 64
    assert (narrow["cpu"], wide["cpu"]) == (
        "an AVX2 processor (avx avx2 fma)", "newer (avx avx2 fma avx512_vnni)",
    )  # fmt: skip


@pytest.mark.slow
def test_int8_for_tensorrt(trained: Trained) -> None:
    _, proto, details = quantise(trained, target="tensorrt")
    assert zero_point_types(proto) == {onnx.TensorProto.INT8}
    assert details["reduce_range"] is False
    dequantised = {n.input[0] for n in proto.graph.node if n.op_type == "DequantizeLinear"}
    types = {i.name: i.data_type for i in proto.graph.initializer}
    assert onnx.TensorProto.INT32 not in {types[n] for n in dequantised & types.keys()}


@pytest.mark.slow
@pytest.mark.parametrize("method", ["entropy", "percentile"])
def test_calibration_methods(trained: Trained, method: str) -> None:
    row, _, details = quantise(trained, calibration_method=method)
    assert row["status"] == "complete"
    assert details["method"] == method


@pytest.mark.parametrize(
    ("method", "target"),
    [("entropy", "cpu"), ("percentile", "cpu"), ("percentile", "tensorrt")],
)
def test_streamed_histograms_give_the_ranges_of_onnx_runtime(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: Any, target: Any
) -> None:
    proto = trace(from_model("resnet8", {"width": 4}).load()).proto
    save(proto, tmp_path / "fp32.onnx")
    images = np.random.default_rng(0).normal(size=(96, 3, 32, 32)).astype("f")
    images *= np.linspace(0.2, 2, 96, dtype="f")[:, None, None, None]  # ranges grow batch by batch
    settings = Settings(precision="int8", calibration_method=method, target=target)
    quantiser = Quantiser(tmp_path / "fp32.onnx", tmp_path, images, settings)
    held: list[int] = []
    collect = HistogramCollector.collect

    def watch(self: Any, arrays: dict[str, list[np.ndarray]]) -> None:
        held.append(max(sum(len(array) for array in found) for found in arrays.values()))
        collect(self, arrays)

    monkeypatch.setattr(HistogramCollector, "collect", watch)
    quantiser.write(tmp_path / "int8.onnx")
    assert held == [8] * 12
    ranges = json.loads(quantiser.ranges.read_text())["data"]

    reference = create_calibrator(
        quantiser.prepared, list({*QLinearOpsRegistry, *QDQRegistry}),
        str(tmp_path / "augmented.onnx"), getattr(CalibrationMethod, method.capitalize()),
    )  # fmt: skip
    reference.collect_data(iter_batches({"image": images[i : i + 8]} for i in range(0, 96, 8)))
    assert held[12:] == [96]
    save_tensors_data(reference.compute_data(), tmp_path / "reference.json")
    assert ranges == json.loads((tmp_path / "reference.json").read_text())["data"]


def iter_batches(batches: Iterable[dict[str, np.ndarray]]) -> Any:
    left = iter(batches)

    class Reader(CalibrationDataReader):
        def get_next(self) -> Any:
            return next(left, None)

    return Reader()


def test_a_network_without_images_is_not_calibrated_on_noise_unasked(tmp_path: Path) -> None:
    given: dict[str, Any] = {
        "results": tmp_path, "options": {"width": 4}, "precision": "int8", "threads": 1,
        "calibration_images": 32,
    }  # fmt: skip
    with pytest.raises(BenchError, match=r"--dataset NAME.*--dataset random"):
        export_onnx("resnet8", **given)
    with pytest.raises(BenchError, match="unknown dataset 'cifa'; did you mean 'cifar10'"):
        export_onnx("resnet8", **given, dataset="cifa")
    with pytest.raises(BenchError, match="have 1 channel, and resnet8-width-4 takes 3"):
        export_onnx("resnet8", **given, dataset="fashion-mnist-mini")
    with pytest.raises(BenchError, match="--dataset goes with --precision int8"):
        export_onnx("resnet8", results=tmp_path, dataset="random")
    row = export_onnx("resnet8", **given, dataset="random").iloc[0]
    assert row["calibration"] == "random"
    record = json.loads((tmp_path / "exports" / row["export"] / "export.json").read_text())
    assert "random images" in record["proof"]["int8"]["verdict"]


def test_another_dataset_calibrates(trained: Trained) -> None:
    own, _, details = quantise(trained)
    assert own["calibration"] == "training"
    other, _, other_details = quantise(trained, dataset="fashion-mnist-mini")
    assert other["calibration"] == "fashion-mnist-mini"
    assert other["sha256"] != own["sha256"]  # other images of the same set
    assert "random images" not in details["verdict"] + other_details["verdict"]


@pytest.mark.slow
def test_layers_are_kept_until_the_drop_is_small_enough(
    trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bench.export import convert

    # As if this network lost 5 points while any of two layers is quantised.
    fragile = {"fc/Gemm", "conv1/Conv"}
    honest = convert.Int8._score

    def pessimistic(self: Any, file: Path) -> Any:
        scored = honest(self, file)
        quantised = onnx.load(str(file)).graph
        made = {n.output[0]: n.op_type for n in quantised.node}
        low = {
            n.name for n in quantised.node
            if n.name in fragile and made.get(n.input[1]) == "DequantizeLinear"
        }  # fmt: skip
        return convert.replace(scored, reference=0.5, accuracy=0.45 if low else 0.5)

    monkeypatch.setattr(convert.Int8, "_score", pessimistic)
    _, proto, details = quantise(trained, max_accuracy_drop=0.5)
    assert fragile <= set(details["kept_fp32"])
    assert len(details["kept_fp32"]) < len(details["sensitivity"])
    assert {e["layer"] for e in details["sensitivity"] if e["kept"]} == set(details["kept_fp32"])
    assert details["all_layers"]["drop"] == pytest.approx(5)
    assert details["accuracy"]["drop"] == pytest.approx(0)
    inputs = {n.name: n.input[1] for n in proto.graph.node if n.name in fragile}
    assert all(name.endswith("weight") for name in inputs.values())


@pytest.mark.slow
def test_no_int8_file_without_an_int8_layer(
    trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bench.export import convert

    honest = convert.Int8._score
    monkeypatch.setattr(
        convert.Int8,
        "_score",
        lambda self, file: convert.replace(honest(self, file), reference=0.5, accuracy=0.45),
    )
    with pytest.raises(BenchError, match=r"--max-accuracy-drop 0\.4: int8 loses more with any"):
        quantise(trained, max_accuracy_drop=0.4)  # not exported before


@pytest.mark.parametrize("needed", range(1, 8))
def test_the_fewest_layers_are_found(needed: int) -> None:
    effects = [Effect(f"layer{i}", 1.0 / (i + 1)) for i in range(7)]
    asked: list[int] = []

    def good_enough(kept: list[str]) -> bool:
        asked.append(len(kept))
        return len(kept) >= needed

    kept = fewest_kept(effects, good_enough)
    assert kept == [e.layer for e in effects[:needed]]
    assert len(asked) <= 3


def test_rounding_explains_what_the_documentation_says() -> None:
    assert rounding_tolerance("fp32", 10) == 1e-4
    assert rounding_tolerance("fp16", 10) == rounding_tolerance("tf32", 10) == 20 / 2**11
    assert rounding_tolerance("bf16", 10) == 20 / 2**8


def test_mcnemar_is_the_binomial_test_of_the_flips() -> None:
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 10, 500)
    a = np.where(generator.random(500) < 0.8, labels, (labels + 1) % 10)
    b = np.where(generator.random(500) < 0.7, labels, (labels + 2) % 10)
    found = compare_answers(a, b, labels)
    assert found.drop == pytest.approx(100 * ((a == labels).mean() - (b == labels).mean()))
    lost, won = ((a == labels) & (b != labels)).sum(), ((a != labels) & (b == labels)).sum()
    assert (found.lost, found.won) == (lost, won)
    assert found.p_value == pytest.approx(binomtest(lost, lost + won).pvalue)
    assert found.flipped == (a != b).sum()


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (1.4, 1.6, "int8 seems to pay here"),
        (0.6, 0.9, "int8 does not seem to pay here"),
        (0.98, 1.02, "The times do not show whether int8 pays here"),
        (0.20, 5.73, "The times do not show whether int8 pays here"),
    ],
)
def test_the_verdict_follows_the_measurement(low: float, high: float, words: str) -> None:
    sentence = verdict(Speed((low + high) / 2, low, high, 9, 32), 0.3, 0.5, 1000)
    assert sentence.startswith(words)
    assert "-0.30 points" in sentence
    assert sentence.count(". ") == 0


@pytest.mark.parametrize(
    ("others", "words"),
    [
        (4.0, "No verdict on the speed of int8: other processes used 40 % of the processor"),
        (1.0, "The times do not show whether int8 pays here"),
    ],
)
def test_a_busy_machine_gives_no_verdict(
    monkeypatch: pytest.MonkeyPatch, others: float, words: str
) -> None:
    """Ten core seconds pass while two equal sessions are timed."""
    used = iter([ProcessorUse(0, 0, 0, 0, 1), ProcessorUse(10, others + 5, 5, others + 5, 1)])
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    monkeypatch.setattr("bench.export.verdict.read_processor_use", lambda: next(used))
    monkeypatch.setattr("bench.export.verdict._time", lambda _session, _batch: 1.0)
    speed = relative_speed(None, None, np.zeros((32, 1)))
    assert speed.other_processes == pytest.approx(others / 10)
    sentence = verdict(speed, 0.3, 0.5, 1000)
    assert sentence.startswith(words)
    assert "-0.30 points" in sentence
    assert ("times fp32's speed" in sentence) == (others < 2)


def test_fp16_says_that_a_cpu_computes_it_in_fp32(trained: Trained) -> None:
    results, run = trained
    row = export_onnx(run, results=results, precision="fp16", threads=1).iloc[0]
    file = results / "exports" / row["export"] / row["file"]
    proto = onnx.load(str(file))
    assert row["executed_precision"] == "fp32"
    assert np.isnan(row["test_accuracy"])  # that of true fp16 takes a GPU
    assert {i.data_type for i in proto.graph.initializer if i.name.endswith("weight")} == {
        onnx.TensorProto.FLOAT16
    }
    assert proto.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    layers = sum(n.op_type in {"Conv", "Gemm"} for n in proto.graph.node)
    assert row["max_rel_diff"] <= rounding_tolerance("fp16", layers)


@pytest.mark.slow
def test_fp16_input_and_output(trained: Trained) -> None:
    results, run = trained
    row = export_onnx(run, results=results, precision="fp16", io_precision="fp16", threads=1)
    file = results / "exports" / row["export"].item() / row["file"].item()
    proto = onnx.load(str(file))
    kinds = {v.type.tensor_type.elem_type for v in (*proto.graph.input, *proto.graph.output)}
    assert kinds == {onnx.TensorProto.FLOAT16}


def test_layers_that_would_overflow_stay_in_fp32() -> None:
    from onnx import TensorProto, helper, numpy_helper

    shape = ["batch", 4]
    nodes = [
        helper.make_node("MatMul", ["image", "small"], ["a"], "small/MatMul"),
        helper.make_node("MatMul", ["a", "huge"], ["b"], "huge/MatMul"),
        helper.make_node("MatMul", ["b", "tiny"], ["c"], "tiny/MatMul"),
        helper.make_node("MatMul", ["c", "small"], ["logits"], "last/MatMul"),
    ]
    weights = {"small": 1.0, "huge": 5e4, "tiny": 1e-4}
    graph = helper.make_graph(
        nodes, "g",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(np.eye(4, dtype="f") * v, k) for k, v in weights.items()],
    )  # fmt: skip
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    images = np.ones((3, 4), np.float32)
    kept = overflowing_layers(proto, images, threads=1)
    assert set(kept) == {"huge/MatMul", "tiny/MatMul"}
    assert min(kept.values()) > SAFE_MAX
    half = convert_to_fp16(proto, keep=list(kept))
    types = {i.name: i.data_type for i in half.graph.initializer}
    assert types["huge"] == TensorProto.FLOAT
    assert TensorProto.FLOAT16 in types.values()
    onnx.checker.check_model(half, full_check=True)


def test_overflow_is_looked_for_in_every_image_that_is_recorded() -> None:
    """Also in those that fill no batch of a file of one batch size."""
    images = torch.ones(128, 1, 28, 28)
    images[-1] = 1e5
    source: Any = SimpleNamespace(calibration_images=lambda count, **_: images[:count])
    proto = classifier(10, shape=(100, 1, 28, 28))
    details = to_fp16(proto, source, Settings("fp16", static_batch=100), threads=1).details
    assert details["images"] == 128
    assert details["kept_fp32"]


@pytest.mark.gpu
def test_fp16_is_as_accurate_in_true_fp16(trained: Trained) -> None:
    """Accuracy of the file where its arithmetic is really fp16, which no CPU gives."""
    from bench.export.accuracy import Judge, feed
    from bench.export.parity import reference_logits
    from bench.targets.find import find_network

    results, run = trained
    row = export_onnx(run, results=results, precision="fp16").iloc[0]
    file = results / "exports" / row["export"] / row["file"]
    session = onnxruntime.InferenceSession(file, providers=["CUDAExecutionProvider"])
    assert "CUDAExecutionProvider" in session.get_providers()
    source = find_network(run, results=results).load()
    judge = Judge(source.test_images(), partial(reference_logits, source), partial(feed, source))
    scored = judge.score(judge.answers(session))
    assert scored.p_value > 0.01 or abs(scored.drop) < 0.5, scored


@pytest.mark.parametrize(
    ("changed", "words"),
    [({}, ""), ({"threads": 99}, "with 99 threads"), ({"cpu": "Old CPU"}, "measured on Old CPU")],
)
def test_a_stored_verdict_names_the_machine_it_was_measured_on(
    changed: dict[str, Any], words: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    here = {"cpu": processor()[0], "threads": 1}
    details = {"int8": {"verdict": "int8 seems to pay here."}}
    record = ExportRecord("a", {}, {}, details, environment=here | changed)
    row = {"error": None, "precision": "int8", "file": "model.onnx"}
    export_command._remark(row, "net", record, tmp_path, threads=1)
    out = capsys.readouterr().out
    assert words in out
    assert ("stored result" in out) == bool(changed)
