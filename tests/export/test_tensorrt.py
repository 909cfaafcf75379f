"""Engines: built for real with TensorRT RTX, the classic library through a fake of its API."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
import torch

from bench import BenchError, export_onnx, load_results
from bench.api import export_tensorrt
from bench.data import Preprocessing
from bench.export.engines import Sidecar, read_sidecar, why_rebuild, write_engine
from bench.export.preprocess import with_preprocessing
from bench.export.tensorrt import Profile, Toolkit

from .conftest import classifier

if TYPE_CHECKING:
    from pathlib import Path


class FakeTensorRT:
    """What `Toolkit` uses of TensorRT's Python API; the engine names what it was told."""

    __version__ = "11.0.fake"

    class ILogger:
        ERROR, INTERNAL_ERROR = "error", "internal"

    class ComputeCapability:
        CURRENT = 0
        SM75, SM86, SM120 = 75, 86, 120

    class NetworkDefinitionCreationFlag:
        STRONGLY_TYPED = 1

    class BuilderFlag:
        TF32 = "tf32"

    def __init__(self, *, gpu: bool = True, refuses: str | None = None) -> None:
        self.gpu, self.refuses, self.built = gpu, refuses, 0
        self.calls: list[Any] = []

    def Builder(self, logger: Any) -> FakeTensorRT:  # noqa: N802 - the library's name
        if not self.gpu:
            logger.log(self.ILogger.ERROR, "CUDA initialization failure with error: 35")
            raise TypeError("pybind11::init(): factory function returned nullptr")
        return self

    def OnnxParser(self, network: Any, logger: Any) -> FakeTensorRT:  # noqa: ARG002, N802
        return self

    def parse_from_file(self, _path: str) -> bool:
        return self.refuses is None

    num_errors = 1

    def get_error(self, _index: int) -> FakeTensorRT:
        return self

    def node_name(self) -> str:
        return "conv1/Conv"

    def desc(self) -> str:
        return str(self.refuses)

    def create_network(self, flags: int) -> FakeTensorRT:
        assert flags == 1 << 1  # strongly typed
        return self

    name = "image"
    shape = (-1, 3, 32, 32)

    def get_input(self, _index: int) -> FakeTensorRT:
        return self

    def create_builder_config(self) -> FakeTensorRT:
        return self

    def clear_flag(self, flag: str) -> None:
        self.calls.append(("cleared", flag))

    def set_compute_capability(self, capability: int, _index: int) -> None:
        self.calls.append(("capability", capability))

    def create_optimization_profile(self) -> FakeTensorRT:
        return self

    def set_shape(self, *shapes: Any) -> None:
        self.calls.append(("profile", *shapes))

    def add_optimization_profile(self, _profile: Any) -> None: ...

    def create_timing_cache(self, content: bytes) -> bytes:
        self.calls.append(("cache", content))
        return content

    def set_timing_cache(self, cache: bytes, *, ignore_mismatch: bool) -> bool:
        """Refuse the cache of another GPU."""
        assert not ignore_mismatch
        self.timings = None if cache == b"another GPU's" else self
        return self.timings is not None

    def get_timing_cache(self) -> FakeTensorRT | None:
        return self.timings

    def serialize(self) -> bytes:
        return b"timings"

    def build_serialized_network(self, _network: Any, _config: Any) -> bytes:
        self.built += 1
        return f"engine {self.built}".encode()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a small ONNX file."""
    folder = tmp_path_factory.mktemp("onnx")
    export_onnx("resnet8", options={"width": 4}, results=folder, output=folder, threads=1)
    (file,) = folder.glob("*.onnx")
    return file


def build(model: str | Path | list[Path], results: Path, fake: FakeTensorRT, **options: Any) -> Any:
    def toolkit(flavor: Any) -> Toolkit:
        return Toolkit(flavor, load=lambda _name: fake)

    return export_tensorrt(model, results=results, toolkit=toolkit, **options)


def test_standard_flavor_keeps_a_timing_cache(model: Path, tmp_path: Path) -> None:
    fake = FakeTensorRT()
    frame = build(model, tmp_path, fake, flavor="standard")
    assert frame["format"].item() == "tensorrt-standard"
    assert frame["status"].item() == "unverified"
    assert (
        "profile", "image", (1, 3, 32, 32), (32, 3, 32, 32), (64, 3, 32, 32),
    ) in fake.calls  # fmt: skip
    assert ("cache", b"") in fake.calls
    assert ("cleared", "tf32") in fake.calls  # else TensorRT computes fp32 in TF32
    build(model, tmp_path, fake, flavor="standard", profile=Profile(1, 8, 8))
    assert ("cache", b"timings") in fake.calls
    (kept,) = tmp_path.rglob("timing-caches/*.cache")
    kept.write_bytes(b"another GPU's")
    assert build(model, tmp_path, fake, flavor="standard", profile=Profile(1, 4, 4))[
        "status"
    ].tolist() == ["unverified"]
    assert kept.read_bytes() == b"timings"


def test_an_engine_is_reused_only_if_everything_matches(model: Path, tmp_path: Path) -> None:
    fake = FakeTensorRT()
    told: list[str] = []
    options: dict[str, Any] = {"compute_capabilities": ["86"], "say": told.append}
    first = build(model, tmp_path, fake, **options)
    build(model, tmp_path, fake, **options)
    assert fake.built == 1
    assert "built already" in told[-1]
    build(model, tmp_path, fake, profile=Profile(1, 32, 128), **options)
    assert fake.built == 2
    assert "building again, since max batch 64 then, 128 now" in told[-1]
    fake.__version__ = "12.0.fake"
    build(model, tmp_path, fake, **options)
    assert fake.built == 3
    assert "tensorrt 11.0.fake then, 12.0.fake now" in told[-1]
    table = load_results(tmp_path, "exports")
    assert set(first["sha256"]) <= set(table["sha256"])
    assert set(table["target"]) == {"sm86"}


def test_other_external_weights_make_another_engine(tmp_path: Path) -> None:
    fake = FakeTensorRT()
    file, results = tmp_path / "model.onnx", tmp_path / "results"
    for number in range(3):
        weight = onnx.numpy_helper.from_array(np.full((3, 5), number // 2, "f"), "w")
        graph = onnx.helper.make_graph(
            [onnx.helper.make_node("MatMul", ["image", "w"], ["logits"])], "g",
            [onnx.helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, ["n", 3])],
            [onnx.helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, ["n", 5])],
            [weight],
        )  # fmt: skip
        for old in tmp_path.glob("model.onnx*"):
            old.unlink()
        proto = onnx.helper.make_model(
            graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10
        )
        onnx.save(
            proto, file, save_as_external_data=True, location="model.onnx.data", size_threshold=0
        )
        build(file, results, fake, compute_capabilities=["86"])
    assert fake.built == 2  # the second time nothing had changed
    (tmp_path / "model.onnx.data").unlink()
    with pytest.raises(BenchError, match=r"model\.onnx"):
        build(file, results, fake, compute_capabilities=["86"])


def a_file(path: Path, *sides: str | int) -> Path:
    onnx.save(classifier(10, shape=("n", 1, *sides)), path)
    return path


def test_a_file_of_any_size_is_built_for_the_one_that_is_given(tmp_path: Path) -> None:
    fake = FakeTensorRT()
    fake.shape = (-1, 1, -1, -1)
    file = a_file(tmp_path / "any.onnx", "h", "w")
    with pytest.raises(BenchError, match=r"takes images of any size .*--input-size H or HxW"):
        build(file, tmp_path, fake, compute_capabilities=["86"])
    profile = Profile(1, 2, 4)
    for size in (64, (32, 48), (32, 48)):
        build(file, tmp_path, fake, compute_capabilities=["86"], input_size=size, profile=profile)
    sizes = [shapes[2] for kind, *shapes in fake.calls if kind == "profile"]
    assert sizes == [(2, 1, 64, 64), (2, 1, 32, 48)]  # the last was built already
    with pytest.raises(BenchError, match=r"--input-size 64: .* was made for 28"):
        build(a_file(tmp_path / "one.onnx", 28, 28), tmp_path, fake, input_size=64)


def test_the_engine_of_a_file_of_one_batch_size_is_for_that_one(tmp_path: Path) -> None:
    fake, file = FakeTensorRT(), tmp_path / "four.onnx"
    fake.shape = (4, 1, 28, 28)
    onnx.save(classifier(10, shape=(4, 1, 28, 28)), file)
    row = build(file, tmp_path, fake, compute_capabilities=["86"]).iloc[0]
    sidecar = read_sidecar(tmp_path / "exports" / row["export"] / row["file"])
    assert [sidecar[f"{kind}_batch"] for kind in ("min", "opt", "max")] == [4, 4, 4]
    with pytest.raises(BenchError, match=r"four\.onnx takes batches of 4 only: leave out --min-ba"):
        build(file, tmp_path, fake, profile=Profile(1, 4, 8))


def test_preparing_images_is_refused_where_none_are_used(model: Path, tmp_path: Path) -> None:
    given: dict[str, Any] = {"preprocessing": {"mean": [0.5]}, "compute_capabilities": ["86"]}
    targets: list[tuple[str | Path, str]] = [(model, "fp32"), ("resnet8", "int8")]
    for target, precision in targets:
        with pytest.raises(BenchError, match=r"--set goes with \.onnx files and --precision int8"):
            build(target, tmp_path, FakeTensorRT(), precision=precision, **given)


def test_a_file_is_quantised_for_tensorrt_before_it_is_built(tmp_path: Path) -> None:
    file, fake = a_file(tmp_path / "mine.onnx", 28, 28), FakeTensorRT()
    fake.shape = (-1, 1, 28, 28)
    given: dict[str, Any] = {"precision": "int8", "compute_capabilities": ["86"], "threads": 1}
    with pytest.raises(BenchError, match=r"no training images .*--dataset NAME"):
        build(file, tmp_path, fake, **given)
    row = build(file, tmp_path, fake, dataset="fashion-mnist-mini", **given).iloc[0]
    assert (row["precision"], row["calibration"]) == ("int8", "fashion-mnist-mini")
    exports = load_results(tmp_path, "exports")
    assert set(exports["target"]) == {"tensorrt", "sm86"}


def test_two_files_whose_engines_would_have_one_name_are_refused(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
    files, fake = [a_file(tmp_path / name / "net.onnx", 28, 28) for name in "ab"], FakeTensorRT()
    given: dict[str, Any] = {"compute_capabilities": ["86"], "output": tmp_path / "out"}
    with pytest.raises(BenchError, match=rf"{files[1]} would both be copied as net-fp32: "):
        build(files, tmp_path, fake, **given)
    assert fake.built == 0


def test_a_damaged_engine_is_built_again(model: Path, tmp_path: Path) -> None:
    fake = FakeTensorRT()
    told: list[str] = []
    options: dict[str, Any] = {"compute_capabilities": ["86"], "say": told.append}
    row = build(model, tmp_path, fake, **options).iloc[0]
    (tmp_path / "exports" / row["export"] / row["file"]).write_bytes(b"something else")
    build(model, tmp_path, fake, **options)
    assert fake.built == 2
    assert "is damaged" in told[-1]


SIDECAR = Sidecar("a" * 64, "1.7", "rtx", "86", 1, 32, 64, "fp32")


@pytest.mark.parametrize(
    ("field", "value"),
    [("onnx_sha256", "b" * 64), ("tensorrt", "1.8"), ("flavor", "standard"),
     ("compute_capability", "120"), ("min_batch", 2), ("opt_batch", 16), ("max_batch", 128),
     ("precision", "int8"), ("builder_flags", ())],
)  # fmt: skip
def test_an_engine_that_does_not_fit_is_not_reused(tmp_path: Path, field: str, value: Any) -> None:
    from dataclasses import replace

    path = tmp_path / "model.engine"
    write_engine(path, b"engine", SIDECAR)
    assert why_rebuild(path, SIDECAR) is None
    changed = why_rebuild(path, replace(SIDECAR, **{field: value}))
    assert changed is not None
    assert field.replace("_", " ") in changed


def test_corrupted_and_foreign_engines_are_never_used(tmp_path: Path) -> None:
    path, beside = tmp_path / "model.engine", tmp_path / "model.engine.json"
    write_engine(path, b"engine", SIDECAR)
    path.write_bytes(b"engin3")
    with pytest.raises(BenchError, match="damaged, or not the engine of its sidecar"):
        read_sidecar(path)
    assert "damaged" in str(why_rebuild(path, SIDECAR))
    for content in ("{", "[]", "{}"):
        beside.write_text(content)
        with pytest.raises(BenchError, match="cannot be read"):
            read_sidecar(path)
    beside.unlink()
    with pytest.raises(BenchError, match="an engine needs its sidecar"):
        read_sidecar(path)


def test_without_the_library_or_a_gpu(model: Path, tmp_path: Path) -> None:
    def missing(name: str) -> Any:
        raise ModuleNotFoundError(f"No module named '{name}'")

    with pytest.raises(BenchError, match="pip install tensorrt --extra-index-url"):
        Toolkit("standard", load=missing)
    with pytest.raises(BenchError, match="pip install tensorrt-rtx"):
        Toolkit("rtx", load=missing)
    with pytest.raises(BenchError, match=r"no usable NVIDIA GPU here .CUDA initialization"):
        build(model, tmp_path, FakeTensorRT(gpu=False), flavor="standard")


TURING = "Turing does not support FP32 convolutions"


def test_what_tensorrt_fails_to_build_is_a_failure(model: Path, tmp_path: Path) -> None:
    fake = FakeTensorRT(refuses="unknown operator")
    for reason in ("node conv1/Conv: unknown operator", "no engine"):
        row = build(model, tmp_path, fake, compute_capabilities=["86"]).iloc[0]
        assert row["status"] == "failed"
        assert reason in row["error"]
        fake = FakeTensorRT()
        fake.build_serialized_network = lambda *_: None  # type: ignore[method-assign]
    with pytest.raises(BenchError, match=r"Turing .* --precision fp16"):  # a limit of the target
        build(model, tmp_path, FakeTensorRT(refuses=TURING), compute_capabilities=["75"])


def test_refusals(model: Path, tmp_path: Path) -> None:
    inside = with_preprocessing(
        onnx.load(str(model)), Preprocessing(32, (0.5,) * 3, (0.5,) * 3), 3, None
    )
    onnx.save(inside, tmp_path / "inside.onnx")
    row = build(
        tmp_path / "inside.onnx", tmp_path, FakeTensorRT(refuses="Unsupported type DOUBLE"),
        compute_capabilities=["86"], input_size=32,
    ).iloc[0]  # fmt: skip
    assert row["status"] == "failed"
    assert re.search(r"no double .* without --with-preprocessing", row["error"])
    with pytest.raises(BenchError, match=r"cannot target it.*\(it can: 75, 86, 120\)"):
        build(model, tmp_path, FakeTensorRT(), compute_capabilities=["90"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "is_available", lambda: True)
        patch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
        with pytest.raises(BenchError, match=r"cannot target this GPU, of compute capability 90"):
            build(model, tmp_path, FakeTensorRT())
    with pytest.raises(BenchError, match="goes with --flavor rtx"):
        build(model, tmp_path, FakeTensorRT(), flavor="standard", compute_capabilities=["86"])
    with pytest.raises(BenchError, match="in this order"):
        Profile(8, 4, 16)
    (tmp_path / "bad.onnx").write_text("hello")
    with pytest.raises(BenchError, match="no ONNX file"):
        build(tmp_path / "bad.onnx", tmp_path, FakeTensorRT(), compute_capabilities=["86"])
    assert not list(tmp_path.glob("exports/*/model.engine"))


def rtx(targets: Any, results: Path, **options: Any) -> Any:
    pytest.importorskip("tensorrt_rtx")
    return export_tensorrt(targets, results=results, threads=1, **options)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_rtx_builds_without_a_gpu(
    trained: tuple[Path, str], tmp_path: Path, precision: Any
) -> None:
    results, run = trained
    frame = rtx(
        run, results, precision=precision, compute_capabilities=["86", "sm120"], output=tmp_path
    )
    assert list(frame["target"]) == ["sm86", "sm120"]
    assert (frame["bytes"] > 10_000).all()
    engines = sorted(tmp_path.glob("*.engine"))
    assert len(engines) == 2
    said = read_sidecar(engines[0])
    assert said["flavor"] == "rtx"
    assert said["precision"] == precision
    onnx_file = results / "exports" / said["onnx_sha256"] / "model.onnx"
    assert onnx_file.is_file()


@pytest.mark.slow
def test_rtx_refuses_int8_that_is_for_a_cpu(trained: tuple[Path, str]) -> None:
    pytest.importorskip("tensorrt_rtx")
    results, run = trained
    row = export_onnx(
        run, results=results, precision="int8", calibration_images=64, threads=1
    ).iloc[0]
    file = results / "exports" / row["export"] / row["file"]
    row = rtx(file, results, compute_capabilities=["86"]).iloc[0]
    assert row["status"] == "failed"
    assert "--precision int8 --target tensorrt" in row["error"]
    assert "\n" not in row["error"]


def test_rtx_lists_what_it_can_target(model: Path, tmp_path: Path) -> None:
    with pytest.raises(BenchError, match=r"cannot target it.*it can: 75, 80, 86, 89"):
        rtx(model, tmp_path, compute_capabilities=["90"])


def test_rtx_builds_for_all_that_it_can(model: Path, tmp_path: Path) -> None:
    rows = rtx(model, tmp_path, compute_capabilities=["75", "86"]).to_dict("records")
    assert [row["target"] for row in rows] == ["sm75", "sm86"]
    assert rows[1]["bytes"] > 10_000
    # Turing has no fp32 matrix product in TensorRT RTX: a row, and the others go on.
    assert rows[0]["status"] == "unsupported"
    assert "--precision fp16" in rows[0]["error"]
    with pytest.raises(BenchError, match="--precision fp16"):
        rtx(model, tmp_path, compute_capabilities=["75"])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18", "resnet50", "resnet152", "resnet20"])
def test_rtx_builds_whole_networks(tmp_path: Path, name: str) -> None:
    size = 32 if name == "resnet20" else 64  # the engine is as large as at 224
    frame = rtx(name, tmp_path, input_size=size, compute_capabilities=["86", "89", "120"])
    assert list(frame["target"]) == ["sm86", "sm89", "sm120"]
    for row in frame.itertuples():
        print(name, row.target, row.bytes, f"{row.seconds:.2f} s")  # noqa: T201 - shown by -s
        sidecar = json.loads((tmp_path / "exports" / row.export / "model.engine.json").read_text())
        assert sidecar["engine_sha256"] == row.sha256


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_standard_flavor_builds_on_a_gpu(trained: tuple[Path, str], precision: Any) -> None:
    pytest.importorskip("tensorrt")
    results, run = trained
    frame = export_tensorrt(run, results=results, flavor="standard", precision=precision)
    assert frame["bytes"].item() > 10_000
