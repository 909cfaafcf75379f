"""ONNX files of other origin: quantised, and proven on a dataset against themselves in fp32."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from bench import BenchError, export_onnx, load_results, measure
from bench.data import load_dataset
from bench.export.classifier import ExportedClassifier
from bench.export.parity import Parity
from bench.report.findings.choice import choose, measured_rows
from bench.report.pages.markdown import markdown
from bench.report.pages.study_report import read_study_report
from bench.report.tracking.records import tracked_runs
from bench.store import Store
from bench.store.exports import Exports
from bench.targets.classify import predict

from .conftest import classifier

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Trained = tuple[Path, str]

DATASET = "fashion-mnist-mini"
INT8: dict[str, Any] = {"precision": "int8", "calibration_images": 64, "threads": 1}


@pytest.fixture(scope="module")
def plain(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> onnx.ModelProto:
    """Return a trained network as another program would have written it."""
    folder, (results, run) = tmp_path_factory.mktemp("plain"), trained
    row = export_onnx(results / "runs" / run, results=folder, threads=1).iloc[0]
    proto = onnx.load(str(folder / "exports" / row["export"] / row["file"]))
    del proto.metadata_props[:]
    return proto


@pytest.fixture(scope="module")
def accuracy(trained: Trained) -> float:
    """Return the recorded test accuracy of that network."""
    runs = load_results(trained[0])
    return float(runs.set_index("run").loc[trained[1], "test_accuracy"])


def put_before(proto: onnx.ModelProto, nodes: list[Any], entry: Any, weights: Any = ()) -> None:
    """Put nodes from `raw` to `image` before a graph, whose input becomes *entry*."""
    for place, node in enumerate(nodes):
        proto.graph.node.insert(place, node)
    proto.graph.input[0].CopyFrom(entry)
    proto.graph.initializer.extend(weights)


def channels_last(proto: onnx.ModelProto, path: Path) -> None:
    entry = helper.make_tensor_value_info("raw", TensorProto.FLOAT, ["N", 28, 28, 1])
    node = helper.make_node("Transpose", ["raw"], ["image"], perm=[0, 3, 1, 2])
    put_before(proto, [node], entry)
    onnx.save(proto, path)


def grey_levels(proto: onnx.ModelProto, path: Path) -> None:
    data = load_dataset(DATASET)
    entry = helper.make_tensor_value_info("raw", TensorProto.UINT8, ["N", 1, 28, 28])
    nodes = [
        helper.make_node("Cast", ["raw"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["float", "scale"], ["scaled"]),
        helper.make_node("Sub", ["scaled", "shift"], ["image"]),
    ]
    scale, shift = 1 / (255 * data.std[0]), data.mean[0] / data.std[0]
    weights = [
        numpy_helper.from_array(np.array(value, np.float32), name)
        for name, value in (("scale", scale), ("shift", shift))
    ]
    put_before(proto, nodes, entry, weights)
    onnx.save(proto, path)


def any_size(proto: onnx.ModelProto, path: Path) -> None:
    for dimension, name in zip(
        proto.graph.input[0].type.tensor_type.shape.dim[2:], "hw", strict=True
    ):
        dimension.dim_param = name
    del proto.graph.value_info[:]
    onnx.save(proto, path)


def external(proto: onnx.ModelProto, path: Path) -> None:
    onnx.save(proto, path, save_as_external_data=True, location="weights.data", size_threshold=256)


def in_blocks(proto: onnx.ModelProto, path: Path) -> None:
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 8
    proto.graph.output[0].type.tensor_type.shape.dim[0].dim_value = 8
    del proto.graph.value_info[:]
    onnx.save(proto, path)


def test_external_data_that_cannot_be_read_is_named(plain: onnx.ModelProto, tmp_path: Path) -> None:
    file = tmp_path / "mine.onnx"
    proto = onnx.ModelProto()
    proto.CopyFrom(plain)
    external(proto, file)
    (tmp_path / "weights.data").unlink()
    with pytest.raises(BenchError, match=r"weights in .*weights\.data, which is no file: copy"):
        measure(file, results=tmp_path / "r")
    proto.CopyFrom(plain)
    external(proto, file)
    (tmp_path / "weights.data").rename(tmp_path / "elsewhere")
    for make in ("symlink_to", "hardlink_to"):
        getattr(tmp_path / "weights.data", make)(tmp_path / "elsewhere")
        with pytest.raises(BenchError, match=r"weights\.data, which is a link, .*: copy .* cp -L"):
            measure(file, results=tmp_path / "r")
        (tmp_path / "weights.data").unlink()
    proto.CopyFrom(plain)
    onnx.save(proto, file, save_as_external_data=True, location="all.data", size_threshold=0)
    with pytest.raises(BenchError, match=r"keeps small tensors .* size_threshold=1024"):
        measure(file, results=tmp_path / "r")


@pytest.mark.parametrize("write", [channels_last, grey_levels, any_size, external, in_blocks])
def test_its_own_accuracy_is_the_networks_whatever_its_input(
    plain: onnx.ModelProto, accuracy: float, tmp_path: Path, write: Callable[..., None]
) -> None:
    proto = onnx.ModelProto()
    proto.CopyFrom(plain)
    write(proto, tmp_path / "mine.onnx")
    size = {"input_size": 28} if write is any_size else {}
    row = export_onnx(
        tmp_path / "mine.onnx", results=tmp_path / "r", dataset=DATASET, **INT8, **size
    ).iloc[0]
    assert row["status"] == "complete"
    assert row["torch_accuracy"] == pytest.approx(accuracy, abs=0.0011)  # of one image of 1,000
    assert abs(row["test_accuracy"] - accuracy) < 0.05
    assert row["calibration"] == DATASET
    written = onnx.load(str(tmp_path / "r" / "exports" / row["export"] / row["file"])).graph
    made = {node.output[0]: node.op_type for node in written.node}
    convolutions = [node for node in written.node if node.op_type == "Conv"]
    assert convolutions
    assert {made[node.input[1]] for node in convolutions} == {"DequantizeLinear"}


def test_file_and_original_are_measured_and_chosen_with_their_accuracies(
    plain: onnx.ModelProto, tmp_path: Path
) -> None:
    file, results = tmp_path / "mine.onnx", tmp_path / "r"
    onnx.save(plain, file)
    told: list[str] = []
    given = {"results": results, "dataset": DATASET, "say": told.append, **INT8}
    row = export_onnx(file, output=tmp_path / "out", **given).iloc[0]
    assert (tmp_path / "out" / "mine-int8.onnx").is_file()
    details = next(Exports(results).records()).proof
    assert details["accuracy"]["flipped"] == row["flipped_predictions"]
    assert 0 <= details["accuracy"]["p_value"] <= 1
    assert "mean 0.28" in details["int8"]["images_prepared"]
    assert export_onnx(file, **given)["export"].item() == row["export"]
    assert told[-1].startswith("mine.onnx: exported already")

    rows = measure(
        [file, results / "exports" / row["export"]], results=results, batch_sizes=(1,),
        scenario="single-stream", device="cpu", threads=1, max_seconds=0.3, processes=2,
    )  # fmt: skip
    assert rows["precision"].tolist() == ["fp32", "int8"]
    assert rows["model"].tolist() == ["mine.onnx"] * 2
    assert rows["calibration"].tolist()[1] == DATASET
    assert rows["test_accuracy"].tolist() == [row["torch_accuracy"], row["test_accuracy"]]
    table = measured_rows(Store(results))
    assert table["dataset"].tolist() == [DATASET] * 2
    table["noisy"] = False
    table["processes"] = 6  # the time is too short for them
    table["other_processes"] = 0.0  # other tests run meanwhile
    table["latency_p99_ms"] = table["latency_p99_high_ms"] = 1.0
    assert choose(table, max_latency_ms=5, max_accuracy_drop=100).chosen is not None


def test_two_files_whose_copies_would_have_one_name_are_refused(tmp_path: Path) -> None:
    files = [tmp_path / "a" / "net.onnx", tmp_path / "b" / "net.onnx"]
    for file in files:
        file.parent.mkdir()
        onnx.save(classifier(10), file)
    message = rf"{files[0]} and {files[1]} would both be copied as net-int8: .* --output folder"
    with pytest.raises(BenchError, match=message):
        export_onnx(files, output=tmp_path, results=tmp_path / "r", dataset=DATASET, **INT8)
    assert not list(tmp_path.glob("r/exports/*"))


def save_images(root: Path, size: tuple[int, int]) -> None:
    """Save images of ten classes: the centre is black, and the sides are as grey as the class."""
    for split, count in (("train", 8), ("test", 4)):
        for label in range(10):
            folder = root / split / f"class{label}"
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = np.full(size, 25 * label, np.uint8)
                side = 10 * size[1] // 68
                pixels[:, side:-side] = number % 2
                Image.fromarray(pixels).save(folder / f"{number}.png")


@pytest.mark.parametrize(("resize", "different"), [("crop", False), ("squash", True)])
def test_images_of_a_folder_are_resized_as_requested(
    tmp_path: Path, resize: str, different: bool
) -> None:
    """The class is told by the sides of the images, which cropping removes."""
    save_images(tmp_path / "photos", (28, 68))
    onnx.save(brightness(("N", 1, 28, 28)), tmp_path / "mine.onnx")
    row = export_onnx(
        tmp_path / "mine.onnx", results=tmp_path / "r", dataset=f"imagefolder:{tmp_path}/photos",
        preprocessing={"resize": resize, "normalize": False}, **INT8 | {"calibration_images": 32},
    ).iloc[0]  # fmt: skip
    assert bool(row["torch_accuracy"] > 0.9) is different
    (record,) = Exports(tmp_path / "r").records()
    assert f"28 px, {resize}" in record.proof["int8"]["images_prepared"]


def test_a_file_whose_images_are_not_square_is_proven_on_squashed_ones(tmp_path: Path) -> None:
    save_images(tmp_path / "photos", (56, 136))
    onnx.save(brightness(("N", 1, 28, 68)), tmp_path / "mine.onnx")
    given = {"results": tmp_path / "r", "dataset": f"imagefolder:{tmp_path}/photos", **INT8}
    row = export_onnx(
        tmp_path / "mine.onnx", preprocessing={"normalize": False},
        **given | {"calibration_images": 32},
    ).iloc[0]  # fmt: skip
    assert row["status"] == "complete"
    assert row["torch_accuracy"] > 0.9
    shown = measure(
        tmp_path / "mine.onnx", results=tmp_path / "r", batch_sizes=(8,), device="cpu", threads=1,
        max_seconds=0.1, processes=1,
    ).iloc[0]  # fmt: skip
    assert shown["test_accuracy"] == pytest.approx(row["torch_accuracy"])
    assert shown["test_images"] == 40


@pytest.mark.parametrize(
    ("form", "settings"),
    [
        ("plain", {"normalize": False}),
        ("plain", {"mean": 0.5, "std": 0.25, "antialias": False}),
        ("plain", {"normalize": False, "resize": "pad"}),
        ("channels last", {"normalize": False}),
        ("grey levels", {}),
        ("not square", {"normalize": False}),
        ("in blocks", {"normalize": False}),
    ],
    ids=str,
)
def test_image_files_are_classified_as_in_the_proof_of_the_accuracy(
    tmp_path: Path, form: str, settings: dict[str, Any]
) -> None:
    save_images(tmp_path / "photos", (60, 136))
    shape: list[Any] = [
        8 if form == "in blocks" else "N",
        1,
        28,
        68 if form == "not square" else 28,
    ]
    proto = brightness(shape)
    if form == "channels last":
        entry = helper.make_tensor_value_info("raw", TensorProto.FLOAT, ["N", 28, 28, 1])
        put_before(proto, [helper.make_node("Transpose", ["raw"], ["x"], perm=[0, 3, 1, 2])], entry)
    elif form == "grey levels":
        entry = helper.make_tensor_value_info("raw", TensorProto.UINT8, ["N", 1, 28, 28])
        nodes = [
            helper.make_node("Cast", ["raw"], ["float"], to=TensorProto.FLOAT),
            helper.make_node("Mul", ["float", "scale"], ["x"]),
        ]
        put_before(proto, nodes, entry, [numpy_helper.from_array(np.float32([1 / 255]), "scale")])
    onnx.save(proto, tmp_path / "mine.onnx")
    row = export_onnx(
        tmp_path / "mine.onnx", results=tmp_path / "r", dataset=f"imagefolder:{tmp_path}/photos",
        preprocessing={"resize": "squash"} | settings, **INT8 | {"calibration_images": 32},
    ).iloc[0]  # fmt: skip
    made = tmp_path / "r" / "exports" / row["export"] / row["file"]
    images = sorted((tmp_path / "photos" / "test").glob("*/*.png"))
    found = predict(ExportedClassifier(made), images)
    right = [
        answer["class"] == file.parent.name for answer, file in zip(found, images, strict=True)
    ]
    assert np.mean(right) == pytest.approx(row["test_accuracy"])
    with pytest.raises(BenchError, match=r"mine.onnx does not say .*int8 --dataset NAME. makes"):
        ExportedClassifier(tmp_path / "mine.onnx")


def test_two_sources_have_a_record_each_even_if_their_int8_files_compute_the_same(
    plain: onnx.ModelProto, tmp_path: Path
) -> None:
    found = []
    for producer in ("one", "another"):
        proto = onnx.ModelProto()
        proto.CopyFrom(plain)
        proto.producer_name = producer
        onnx.save(proto, tmp_path / f"{producer}.onnx")
        given = {"results": tmp_path / "r", "dataset": DATASET, **INT8}
        found.append(export_onnx(tmp_path / f"{producer}.onnx", **given)["export"].item())
    assert len(set(found)) == 2
    known = Exports(tmp_path / "r").known_files()
    assert {values["model"] for values in known.values()} == {"one.onnx", "another.onnx"}
    assert len(known) == 4


def test_random_images_are_used_on_request_and_said(plain: onnx.ModelProto, tmp_path: Path) -> None:
    onnx.save(plain, tmp_path / "mine.onnx")
    row = export_onnx(tmp_path / "mine.onnx", results=tmp_path, dataset="random", **INT8).iloc[0]
    assert row["calibration"] == "random"
    assert np.isnan(row["test_accuracy"])
    (record,) = Exports(tmp_path).records()
    assert "random images" in record.proof["int8"]["verdict"]


def test_a_file_whose_logits_are_not_finite_is_rejected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    onnx.save(classifier(10), tmp_path / "mine.onnx")
    monkeypatch.setattr(
        "bench.export.foreign.compare", lambda *_, **__: Parity(1, {1: np.inf}, 1.0, 1, None)
    )
    row = export_onnx(tmp_path / "mine.onnx", results=tmp_path, dataset="random", **INT8).iloc[0]
    assert (row["status"], row["file"]) == ("rejected", "model.rejected.onnx")
    assert row["error"].startswith("its logits are not finite")


def test_the_export_of_a_file_is_in_no_study_s_report(
    plain: onnx.ModelProto, trained: Trained, tmp_path: Path
) -> None:
    results = shutil.copytree(trained[0], tmp_path / "results")
    shutil.rmtree(results / "exports", ignore_errors=True)  # those of other tests
    onnx.save(plain, tmp_path / "mine.onnx")
    export_onnx(tmp_path / "mine.onnx", results=results, dataset="random", **INT8)
    report = read_study_report(Store(results), None)
    assert report.data.exports.empty
    assert "mine.onnx" not in markdown(report)
    assert [run.exports for run in tracked_runs(Store(results), report.study.name)] == [()]


def test_an_accuracy_near_guessing_is_pointed_out(plain: onnx.ModelProto, tmp_path: Path) -> None:
    onnx.save(plain, tmp_path / "mine.onnx")
    wrong = {"mean": [-50.0], "std": 1.0}  # everything is white
    export_onnx(
        tmp_path / "mine.onnx", results=tmp_path, dataset=DATASET, preprocessing=wrong, **INT8
    )
    (record,) = Exports(tmp_path).records()
    assert "near guessing" in record.proof["int8"]["verdict"]


def brightness(shape: Any) -> Any:
    """Return a graph that tells the classes of `save_images` by the mean brightness."""
    levels = np.arange(10, dtype="f") * 25 / 255 * 20 / 68
    # -(x - level)**2 without x**2: 2·level·x - level**2
    weights = [
        numpy_helper.from_array(np.full((1, 1, 1, 1), 1, "f"), "one"),
        numpy_helper.from_array((2 * levels).reshape(1, 10), "w"),
        numpy_helper.from_array(-(levels**2), "b"),
    ]
    nodes = [
        helper.make_node("Conv", ["x", "one"], ["c"]),
        helper.make_node("GlobalAveragePool", ["c"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Gemm", ["f", "w", "b"], ["y"]),
    ]
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 10])
    entry = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
    graph = helper.make_graph(nodes, "g", [entry], [result], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def test_an_old_file_is_converted_to_an_opset_that_can_be_quantised(tmp_path: Path) -> None:
    proto = classifier(10)
    proto.opset_import[0].version, proto.ir_version = 8, 3  # with weights among the inputs
    proto.graph.input.extend(
        helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        for tensor in proto.graph.initializer
    )
    onnx.save(proto, tmp_path / "old.onnx")
    row = export_onnx(tmp_path / "old.onnx", results=tmp_path, dataset=DATASET, **INT8).iloc[0]
    assert (row["status"], row["opset"]) == ("complete", 13)


def test_an_opset_that_onnx_cannot_convert_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_proto: onnx.ModelProto, version: int) -> None:
        raise RuntimeError(f"no adapter of Conv to {version}")

    monkeypatch.setattr("onnx.version_converter.convert_version", refuse)
    proto = classifier(10)
    proto.opset_import[0].version = 11
    onnx.save(proto, tmp_path / "old.onnx")
    wanted = r"is of opset 11, and onnx cannot convert it .no adapter of Conv to 13.: export it"
    with pytest.raises(BenchError, match=wanted):
        export_onnx(tmp_path / "old.onnx", results=tmp_path, dataset=DATASET, **INT8)


@pytest.mark.parametrize(
    ("proto", "given", "message"),
    [
        (classifier(7), {}, "distinguishes 7 classes, and --dataset fashion-mnist-mini has 10"),
        (classifier(10, logits=False), {}, r"returns 1×10×1×1 for 1 images"),
        (
            classifier(10, shape=("N", 1, 28, 32)), {"preprocessing": {"resize": "crop"}},
            "--set resize=crop: .* takes images of 28x32, and only square ones .* resize=squash",
        ),
        (classifier(10), {"preprocessing": {"resize": "pat"}}, "resize=pat is unknown; did you"),
        (classifier(10, shape=("N", 3, 28, 28)), {}, "have 1 channel, and .* takes 3"),
        (classifier(10, shape=("N", 1, "h", "w")), {}, "choose one with --input-size"),
        (classifier(10), {"input_size": 32}, "--input-size 32: .* was made for 28"),
        (classifier(10), {"dataset": None}, "no training images .*--dataset NAME.*random"),
        (
            classifier(10), {"precision": "fp16", "calibration_images": None},
            "what can be made of it is --precision int8",
        ),
        (classifier(10), {"static_batch": 4}, "--static-batch: .* keeps its own input"),
        (classifier(10), {"with_preprocessing": True}, "--with-preprocessing: .* keeps its own"),
        (classifier(10), {"opset": 21}, "--opset: .* keeps its own input and opset; leave it out"),
        (classifier(10), {"preprocessing": {"maen": [0.5]}}, "--set maen is unknown; did you mean"),
        (classifier(10), {"preprocessing": {"input_size": 9}}, "use --input-size"),
        (classifier(10), {"preprocessing": {"mean": [0.5] * 3}}, "--set mean: give one number"),
        (classifier(10), {"preprocessing": {"std": 0.0}}, "--set std: deviations are above 0"),
        (
            classifier(10), {"preprocessing": {"normalize": "False"}},
            "--set normalize=False: write normalize=true or normalize=false",
        ),
        (classifier(10), {"preprocessing": {"image_size": 16}}, "--set image_size is unknown"),
        (classifier(10), {"bundle": True}, "--bundle needs a trained run: .*; leave it out"),
        (
            classifier(10), {"preprocessing": {"std": [1.0], "normalize": False}},
            "--set std: no image is normalised with normalize=false; leave it out",
        ),
        (
            classifier(10, kind=TensorProto.UINT8), {"preprocessing": {"mean": [0.5]}},
            "--set mean: no image is normalised for a file of uint8; leave it out",
        ),
        (
            classifier(10, kind=TensorProto.UINT8), {"preprocessing": {"normalize": True}},
            "--set normalize: the file takes uint8, not real numbers",
        ),
        (classifier(10), {"calibration_images": 7000}, "has 6000 training images"),
    ],
)  # fmt: skip
def test_what_cannot_be_quantised_is_refused_with_the_way_on(
    tmp_path: Path, proto: Any, given: dict[str, Any], message: str
) -> None:
    onnx.save(proto, tmp_path / "mine.onnx")
    values = {"dataset": DATASET, **INT8, **given}
    if values["precision"] != "int8":
        values.pop("dataset")
    with pytest.raises(BenchError, match=message) as error:
        export_onnx(tmp_path / "mine.onnx", results=tmp_path / "r", **values)
    assert "\n" not in str(error.value)
    assert list(Exports(tmp_path / "r").records()) == []


def test_a_quantised_file_is_not_quantised_again(plain: onnx.ModelProto, tmp_path: Path) -> None:
    onnx.save(plain, tmp_path / "mine.onnx")
    row = export_onnx(tmp_path / "mine.onnx", results=tmp_path, dataset="random", **INT8).iloc[0]
    with pytest.raises(BenchError, match="is quantised already: give the fp32 file"):
        export_onnx(
            tmp_path / "exports" / row["export"], results=tmp_path, dataset="random", **INT8
        )


def test_preprocessing_is_for_files(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match=r"--set goes with \.onnx files"):
        export_onnx("resnet8", results=tmp_path, preprocessing={"mean": [0.5]})
