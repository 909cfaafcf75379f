"""ONNX files as other exporters write them: what they take, cost and really compute."""

from __future__ import annotations

from functools import partial

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import bench
from bench.data import Preprocessing
from bench.errors import BenchError
from bench.export.examine import examine
from bench.export.graph import trace
from bench.export.messages import short
from bench.export.preprocess import with_preprocessing
from bench.measurement import tuning
from bench.measurement.compared_speeds import load_speeds
from bench.measurement.configurations import Request
from bench.measurement.measured_network import find_target
from bench.measurement.preparation import make_context
from bench.measurement.speed_changes import compare
from bench.measurement.tuning import Bounds, candidates, tune

FLOAT = TensorProto.FLOAT
QUICK = {"device": "cpu", "threads": 1, "batch_sizes": (2,), "max_seconds": 0.2, "processes": 1}


def values(name, *shape, kind=np.float32):
    drawn = np.random.default_rng(0).standard_normal(shape) * 0.1
    return numpy_helper.from_array(drawn.astype(kind), name)


def numbers(name, *given):
    return numpy_helper.from_array(np.array(given, np.int64), name)


def entry(name, shape, kind=FLOAT):
    return helper.make_tensor_value_info(name, kind, shape)


def save(path, nodes, inputs, weights, *, outputs=None, opset=13, ir=8, domains=(), functions=()):
    graph = helper.make_graph(nodes, "g", inputs, outputs or [entry("y", ["N", 10])], weights)
    imports = [helper.make_opsetid("", opset), *(helper.make_opsetid(d, 1) for d in domains)]
    model = helper.make_model(
        graph, opset_imports=imports, ir_version=ir, functions=list(functions)
    )
    onnx.save(model, path)
    return path


def head(value):
    """Pool, flatten, and a linear layer from 32 channels to 10 classes."""
    return [
        helper.make_node("GlobalAveragePool", [value], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Gemm", ["f", "fc"], ["y"], transB=1),
    ]


def small(path, shape=("N", 3, 32, 32), *, kind=FLOAT, channels_last=False, extra=(), **settings):
    """Two convolutions (3 to 16 at half the size, 16 to 32 there) and a linear layer."""
    nodes, value = [], "x"
    if kind != FLOAT:
        nodes.append(helper.make_node("Cast", [value], ["float"], to=FLOAT))
        value = "float"
    if channels_last:
        nodes.append(helper.make_node("Transpose", [value], ["first"], perm=[0, 3, 1, 2]))
        value = "first"
    nodes += [
        helper.make_node("Conv", [value, "w1"], ["c1"], pads=[1] * 4, strides=[2, 2]),
        helper.make_node("Relu", ["c1"], ["r1"]),
        helper.make_node("Conv", ["r1", "w2"], ["c2"], pads=[1] * 4),
        *head("c2"),
    ]
    weights = [values("w1", 16, 3, 3, 3), values("w2", 32, 16, 3, 3), values("fc", 10, 32)]
    return save(path, nodes, [entry("x", shape, kind), *extra], weights, **settings)


def small_macs(height, width):
    pixels = (height // 2) * (width // 2)
    return (16 * 27 + 32 * 144) * pixels + 320


def resized(path):
    """The size of a second convolution is computed in the graph, from the first one's input."""
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["c1"], pads=[1] * 4, strides=[2, 2]),
        helper.make_node("Shape", ["x"], ["all"]),
        helper.make_node("Slice", ["all", "two", "four"], ["hw"]),
        helper.make_node("Shape", ["c1"], ["some"]),
        helper.make_node("Slice", ["some", "zero", "two"], ["nc"]),
        helper.make_node("Mul", ["hw", "one"], ["same"]),
        helper.make_node("Concat", ["nc", "same"], ["sizes"], axis=0),
        helper.make_node("Resize", ["c1", "", "", "sizes"], ["up"], mode="nearest"),
        helper.make_node("Conv", ["up", "w2"], ["c2"], pads=[1] * 4),
        *head("c2"),
    ]
    weights = [values("w1", 16, 3, 3, 3), values("w2", 32, 16, 3, 3), values("fc", 10, 32)]
    weights += [numbers("zero", 0), numbers("one", 1), numbers("two", 2), numbers("four", 4)]
    save(path, nodes, [entry("x", ["N", 3, 64, 64])], weights)
    return 16 * 27 * 32 * 32 + 32 * 144 * 64 * 64 + 320


def reshaped(path):
    """A convolution reads a tensor whose shape is computed."""
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["c1"], pads=[1] * 4),
        helper.make_node("Shape", ["c1"], ["s"]),
        helper.make_node("Mul", ["s", "ones"], ["t"]),
        helper.make_node("Reshape", ["c1", "t"], ["r"]),
        helper.make_node("Conv", ["r", "w2"], ["c2"], pads=[1] * 4),
        *head("c2"),
    ]
    weights = [values("w1", 16, 3, 3, 3), values("w2", 32, 16, 3, 3), values("fc", 10, 32)]
    save(path, nodes, [entry("x", ["N", 3, 32, 32])], [*weights, numbers("ones", 1, 1, 1, 1)])
    return (16 * 27 + 32 * 144) * 32 * 32 + 320


def tokens(path):
    """A linear layer over tokens, as a Gemm of N·T rows."""
    nodes = [
        helper.make_node("Conv", ["x", "w0"], ["c"], strides=[8, 8]),
        helper.make_node("Transpose", ["c"], ["t"], perm=[0, 2, 3, 1]),
        helper.make_node("Reshape", ["t", "flat"], ["rows"]),
        helper.make_node("Gemm", ["rows", "w1"], ["g"]),
        helper.make_node("Reshape", ["g", "back"], ["b"]),
        helper.make_node("ReduceMean", ["b"], ["m"], axes=[1], keepdims=0),
        helper.make_node("Gemm", ["m", "fc"], ["y"], transB=1),
    ]
    weights = [values("w0", 64, 3, 8, 8), values("w1", 64, 256), values("fc", 10, 256)]
    weights += [numbers("flat", -1, 64), numbers("back", -1, 64, 256)]
    save(path, nodes, [entry("x", ["N", 3, 64, 64])], weights)
    return 64 * 3 * 64 * 64 + 64 * 64 * 256 + 2560


def windows(path):
    """Windows of attention in the batch dimension, so that a product has N·W rows of matrices."""
    nodes = [
        helper.make_node("Conv", ["x", "w0"], ["c"], strides=[4, 4]),
        helper.make_node("Reshape", ["c", "split"], ["a"]),
        helper.make_node("Transpose", ["a"], ["b"], perm=[0, 2, 4, 3, 5, 1]),
        helper.make_node("Reshape", ["b", "win"], ["w"]),
        helper.make_node("MatMul", ["w", "w1"], ["m"]),
        helper.make_node("Reshape", ["m", "back"], ["d"]),
        helper.make_node("ReduceMean", ["d"], ["e"], axes=[1], keepdims=0),
        helper.make_node("Gemm", ["e", "fc"], ["y"], transB=1),
    ]
    weights = [values("w0", 64, 3, 4, 4), values("w1", 64, 192), values("fc", 10, 192)]
    weights += [numbers("split", -1, 64, 4, 4, 4, 4), numbers("win", -1, 16, 64)]
    weights += [numbers("back", -1, 256, 192)]
    save(path, nodes, [entry("x", ["N", 3, 64, 64])], weights)
    return 64 * 3 * 16 * 256 + 256 * 64 * 192 + 1920


def fused(path):
    """An operator of ONNX Runtime's own, for which ONNX infers no shape."""
    nodes = [
        helper.make_node("FusedConv", ["x", "w"], ["c"], domain="com.microsoft", pads=[1] * 4,
                         activation="Relu"),
        *head("c"),
    ]  # fmt: skip
    weights = [values("w", 32, 3, 3, 3), values("fc", 10, 32)]
    save(path, nodes, [entry("x", ["N", 3, 32, 32])], weights, domains=["com.microsoft"])
    return 32 * 27 * 32 * 32 + 320


def transposed(path):
    nodes = [
        helper.make_node("ConvTranspose", ["x", "w"], ["c"], strides=[2, 2]),
        *head("c"),
    ]
    weights = [values("w", 3, 32, 2, 2), values("fc", 10, 32)]
    save(path, nodes, [entry("x", ["N", 3, 16, 16])], weights)
    return 3 * 16 * 16 * 32 * 4 + 320


def in_a_function(path):
    """A convolution inside a function of the file, as torch's exporter may write it."""
    body = [helper.make_node("Conv", ["a", "b"], ["o"], pads=[1] * 4)]
    made = helper.make_function("own", "Block", ["a", "b"], ["o"], body,
                                [helper.make_opsetid("", 13)])  # fmt: skip
    nodes = [helper.make_node("Block", ["x", "w"], ["c"], domain="own"), *head("c")]
    weights = [values("w", 32, 3, 3, 3), values("fc", 10, 32)]
    save(path, nodes, [entry("x", ["N", 3, 16, 16])], weights, domains=["own"], functions=[made])
    return 32 * 27 * 16 * 16 + 320


GRAPHS = [resized, reshaped, tokens, windows, fused, transposed, in_a_function]


@pytest.mark.parametrize("write", GRAPHS)
def test_multiply_adds_of_foreign_files_are_those_counted_by_hand(write, tmp_path):
    expected = write(tmp_path / "m.onnx")
    found = examine(tmp_path / "m.onnx")
    assert found.macs == expected
    assert found.traffic is not None


def test_a_static_batch_is_counted_for_one_image(tmp_path):
    small(tmp_path / "m.onnx", (4, 3, 32, 32), outputs=[entry("y", [4, 10])])
    one = examine(small(tmp_path / "one.onnx"))
    found = examine(tmp_path / "m.onnx")
    assert found.macs == one.macs == small_macs(32, 32)
    assert found.traffic == one.traffic


def test_what_cannot_be_counted_leaves_the_cells_empty(tmp_path):
    branch = helper.make_graph([helper.make_node("Conv", ["x", "w"], ["z"], pads=[1] * 4)], "b",
                               [], [entry("z", None)])  # fmt: skip
    nodes = [
        helper.make_node("If", ["yes"], ["c"], then_branch=branch, else_branch=branch),
        *head("c"),
    ]
    weights = [values("w", 32, 3, 3, 3), values("fc", 10, 32)]
    weights.append(numpy_helper.from_array(np.array(True), "yes"))
    path = save(tmp_path / "m.onnx", nodes, [entry("x", ["N", 3, 16, 16])], weights)
    assert (examine(path).macs, examine(path).traffic) == (None, None)
    row = bench.measure(path, results=tmp_path / "r", **QUICK).iloc[0]
    assert row["status"] == "complete", row["error"]
    for column in ("macs", "flops_per_second", "peak_fraction", "arithmetic_intensity"):
        assert np.isnan(row.astype(object).fillna(np.nan)[column])


@pytest.mark.parametrize("kind", ["FLOAT16", "DOUBLE", "UINT8", "INT32"])
def test_a_file_is_fed_the_type_that_it_declares(kind, tmp_path):
    path = small(tmp_path / "m.onnx", kind=getattr(TensorProto, kind))
    frame = bench.measure(
        path, results=tmp_path / "r", boundaries=("compute", "copies", "end-to-end"), **QUICK
    )
    assert frame["status"].tolist() == ["complete"] * 3, frame["error"].tolist()
    names = {"FLOAT16": "float16", "DOUBLE": "float64", "UINT8": "uint8", "INT32": "int32"}
    assert set(frame["input_type"]) == {names[kind]}
    assert set(frame["macs"]) == {small_macs(32, 32)}


def test_the_shape_of_the_input_is_recorded_in_the_files_own_order(tmp_path):
    files = [
        small(tmp_path / "last.onnx", ("N", 64, 64, 3), channels_last=True),
        small(tmp_path / "first.onnx", ("N", 3, 64, 64)),
        small(tmp_path / "wide.onnx", ("N", 3, 32, 128)),
    ]
    frame = bench.measure(files, results=tmp_path / "r", **QUICK)
    assert frame["input_shape"].tolist() == ["64x64x3", "3x64x64", "3x32x128"]
    assert frame["input_size"].fillna(0).tolist() == [64, 64, 0]
    assert frame["macs"].tolist() == [small_macs(64, 64)] * 2 + [small_macs(32, 128)]
    last = files[0]
    assert find_target(str(last), input_size=64).image_size == (64, 64)
    with pytest.raises(BenchError, match=r"--input-size 32: .*last\.onnx was made for 64"):
        find_target(str(last), input_size=32)
    with pytest.raises(BenchError, match=r"--input-size 64: .*wide\.onnx was made for 32x128"):
        find_target(str(files[2]), input_size=64)


@pytest.mark.parametrize("channels_last", [False, True])
def test_open_sizes_are_chosen_by_the_input_size(channels_last, tmp_path):
    shape = ("N", "h", "w", 3) if channels_last else ("N", 3, "h", "w")
    kind = TensorProto.UINT8 if channels_last else FLOAT  # as with the preprocessing inside
    path = small(tmp_path / "m.onnx", shape, kind=kind, channels_last=channels_last)
    for size, macs in ((64, small_macs(64, 64)), ((32, 64), small_macs(32, 64))):
        row = bench.measure(path, results=tmp_path / "r", input_size=size, **QUICK).iloc[0]
        assert (row["status"], row["macs"]) == ("complete", macs), row["error"]
    with pytest.raises(BenchError, match=r"any size .*choose one with --input-size"):
        bench.measure(path, results=tmp_path / "r", **QUICK)


def test_the_command_takes_height_and_width(bench, tmp_path):
    path = small(tmp_path / "m.onnx", ("N", 3, "h", "w"))
    words = ["throughput", path, "--batch-size", 2, "--max-seconds", 0.2, "--processes", 1]
    words += ["--json", "--threads", 1]
    done = bench(*words, "--input-size", "32x64")
    assert done.code == 0, done.err
    row = done.document["rows"][0]
    assert (row["input_shape"], row["input_size"]) == ("3x32x64", None)
    for text in ("32x", "axb", "1x2x3", "0x4"):
        done = bench(*words, "--input-size", text)
        assert done.code == 2
        assert "--input-size" in done.err


@pytest.mark.parametrize(
    ("message", "settings"),
    [
        ("2 inputs .*others fixed", {"extra": [entry("training", [], TensorProto.BOOL)]}),
        ("how many channels", {"shape": ("N", "c", "h", "w")}),
        ("of type bool", {"kind": TensorProto.BOOL}),
        ("newer than onnx .* Upgrade onnx", {"ir": onnx.IR_VERSION + 1}),
    ],
)
def test_files_that_take_something_else_are_refused_in_one_line(message, settings, tmp_path):
    path = small(tmp_path / "m.onnx", **settings)
    with pytest.raises(BenchError, match=message) as error:
        examine(path)
    assert "\n" not in str(error.value)


def test_vectors_are_no_images(tmp_path):
    nodes = [helper.make_node("Gemm", ["x", "fc"], ["y"], transB=1)]
    path = save(tmp_path / "m.onnx", nodes, [entry("x", ["N", 32])], [values("fc", 10, 32)])
    with pytest.raises(BenchError, match=r"takes an input of \?×32; .* images, N×C×H×W"):
        examine(path)


def test_files_newer_than_the_runtime_are_refused_with_its_limit_and_a_way_on(tmp_path):
    path = small(tmp_path / "m.onnx", opset=onnx.defs.onnx_opset_version() + 1, ir=10)
    wanted = r"opset \d+ is newer than this runtime's \d+: export it for that opset"
    with pytest.raises(BenchError, match=wanted) as error:
        bench.measure(path, results=tmp_path / "r", **QUICK)
    assert "\n" not in str(error.value)


def test_the_runtimes_message_on_a_newer_ir_version_is_read():
    message = (
        "[ONNXRuntimeError] : 1 : FAIL : Load model from m.onnx failed:/src/model.cc:256 "
        "onnxruntime::Model::Model(onnx::ModelProto&&, ...) Unsupported model IR version: 14, max "
        "supported IR version: 13\n"
    )
    assert short(RuntimeError(message)).startswith(
        "its IR version 14 is newer than this runtime's 13: save it with that ir_version"
    )


def test_types_that_the_runtime_does_not_compute_are_refused_before_anything_runs(tmp_path):
    import ml_dtypes

    nodes = [
        helper.make_node("Cast", ["x"], ["b"], to=TensorProto.BFLOAT16),
        helper.make_node("Conv", ["b", "w"], ["c"], pads=[1] * 4),
        helper.make_node("Cast", ["c"], ["d"], to=FLOAT),
        *head("d"),
    ]
    weights = [values("w", 32, 3, 3, 3, kind=ml_dtypes.bfloat16), values("fc", 10, 32)]
    path = save(tmp_path / "m.onnx", nodes, [entry("x", ["N", 3, 32, 32])], weights,
                opset=22, ir=10)  # fmt: skip
    assert examine(path).precision == "bf16"
    with pytest.raises(BenchError, match="onnxruntime has no bf16 on cpu"):
        bench.measure(path, results=tmp_path / "r", **QUICK)


def half(path):
    """A convolution in fp16 whose weights are in a Constant node, and a linear layer."""
    weight = values("w", 32, 3, 3, 3, kind=np.float16)
    nodes = [
        helper.make_node("Constant", [], ["w"], value=weight),
        helper.make_node("Cast", ["x"], ["b"], to=TensorProto.FLOAT16),
        helper.make_node("Conv", ["b", "w"], ["c"], pads=[1] * 4),
        helper.make_node("Cast", ["c"], ["d"], to=FLOAT),
        *head("d"),
    ]
    return save(path, nodes, [entry("x", ["N", 3, 8, 8])], [values("fc", 10, 32)])


def test_an_fp16_file_can_be_tuned_on_a_cpu(tmp_path):
    target = find_target(str(half(tmp_path / "m.onnx")))
    found = candidates(target, device="cpu", threads=[1], batch_sizes=[1])
    assert [(one.backend, one.precision) for one in found] == [("onnxruntime", "fp16")]


def test_weights_in_constant_nodes_tell_the_precision(tmp_path):
    found = examine(half(tmp_path / "m.onnx"))
    assert (found.precision, found.macs) == ("fp16", 32 * 27 * 64 + 320)
    assert found.traffic.weights == 32 * 27 + 320


@pytest.mark.parametrize(
    ("operators", "executed"), [(None, "int8"), (["MatMul", "Gemm"], "int8 in 1 of 3 layers")]
)
def test_the_arithmetic_of_dynamically_quantised_files_is_read_back(operators, executed, tmp_path):
    from onnxruntime.quantization import QuantType, quantize_dynamic

    plain = small(tmp_path / "plain.onnx")
    path = tmp_path / "m.onnx"
    quantize_dynamic(plain, path, op_types_to_quantize=operators, weight_type=QuantType.QUInt8)
    row = bench.measure(path, results=tmp_path / "r", **QUICK).iloc[0]
    assert (row["status"], row["precision"]) == ("complete", "int8"), row["error"]
    assert row["executed_precision"] == executed
    assert row["macs"] == small_macs(32, 32)


def test_comparing_two_files_of_one_name_says_so(tmp_path):
    found = []
    for producer in ("one", "another"):
        folder = tmp_path / producer
        folder.mkdir()
        model = onnx.load(small(folder / "model.onnx"))
        model.producer_name = producer
        onnx.save(model, folder / "model.onnx")
        bench.measure(folder / "model.onnx", results=folder / "r", **QUICK)
        found.append(load_speeds(folder / "r"))
    changes, remarks = compare(*found, 0.05)
    assert len(changes) == 1
    assert any("not the same file" in remark for remark in remarks)
    _, remarks = compare(found[0], found[0], 0.05)
    assert not any("not the same file" in remark for remark in remarks)


@pytest.mark.parametrize(
    ("name", "side"),
    [("timm:test_vit", 160), ("timm:inception_v3", 299), ("timm:resnet18", 224),
     ("torchvision:inception_v3", 299), ("torchvision:vit_h_14", 224),
     ("torchvision:vit_h_14 DEFAULT", 518),
     ("torchvision:regnet_y_16gf RegNet_Y_16GF_Weights.IMAGENET1K_SWAG_E2E_V1", 384),
     ("torchvision:regnet_y_128gf", 384),
     ("torchvision:regnet_y_128gf IMAGENET1K_SWAG_LINEAR_V1", 224)],
)  # fmt: skip
def test_networks_of_libraries_are_measured_at_their_own_size(name, side):
    from bench.models import default_shape

    pytest.importorskip(name.partition(":")[0])
    name, _, weights = name.partition(" ")
    assert default_shape(name, {"weights": weights} if weights else {})[1] == side


def test_an_own_size_is_measured_and_an_option_or_the_input_size_replaces_it():
    pytest.importorskip("timm")
    assert find_target("timm:test_vit").input_shape == (3, 160, 160)
    assert find_target("timm:test_efficientnet", input_size=64).input_shape == (3, 64, 64)
    options = {"img_size": 32, "patch_size": 8}
    assert find_target("timm:test_vit", options=options).input_shape == (3, 32, 32)


def test_the_fastest_way_of_a_file_is_found_and_its_command_names_file_and_size(
    tmp_path, monkeypatch
):
    # The finalists get no verdict then, which needs six processes.
    monkeypatch.setattr(tuning, "Request", partial(Request, processes=2))
    monkeypatch.setattr(tuning, "_FINAL_SECONDS", 1.0)
    (tmp_path / "some where").mkdir()
    static = small(tmp_path / "some where/m.onnx", (4, 3, "h", "w"), outputs=[entry("y", [4, 10])])
    target = find_target(str(static), input_size=(32, 64))
    context = make_context(tmp_path / "r", "cpu", 1)
    tuned = tune(target, context, Bounds())
    assert tuned.best.batch_size == 4
    assert tuned.command.startswith(f"bench throughput '{static}' --input-size 32x64 --backend ")
    own = [row for row in tuned.record.rows if row["backend"] == tuned.best.backend]
    assert "complete" in {row["status"] for row in own}


def test_a_file_with_its_preprocessing_inside_costs_what_torch_counts(tmp_path):
    target = find_target("resnet8", input_size=32)
    preprocessing = Preprocessing(input_size=32, mean=(0.5,) * 3, std=(0.2,) * 3)
    made = with_preprocessing(trace(target.load()).proto, preprocessing, 3, None)
    onnx.save(made, tmp_path / "m.onnx")
    found = examine(tmp_path / "m.onnx", (28, 40))
    assert (found.input_shape, found.input_type) == ((28, 40, 3), "uint8")
    assert found.macs == target.macs  # by torch.utils.flop_counter
