"""Where the time goes, by the profilers of PyTorch and ONNX Runtime, and the words for it."""

from __future__ import annotations

import re

import onnxruntime
import pytest

from bench import load_results
from bench.errors import BenchError
from bench.measurement import measure
from bench.measurement.backends import load_backend
from bench.measurement.configurations import Request, expand
from bench.measurement.measure import profile_layers
from bench.measurement.measured_network import find_target
from bench.measurement.preparation import make_file
from bench.measurement.profile.layer_time import PARTS
from bench.models import build_model
from bench.report.charts.layers import coverage_line, layer_charts, shortcut_line
from bench.store.measurements import Measurements

from .conftest import a_trial

NETWORK = {"model": "resnet14", "options": {"width": 8, "shortcut": "projection"}}
PROJECTIONS = {"layer2.0.downsample.0", "layer3.0.downsample.0"}


def profiled(backend, tmp_path, name="resnet14", options=None, size=16, threads=1, streams=1):
    """Profile a network; returns its shares."""
    target = find_target(name, options=options, input_size=size)
    request = Request(backends=(backend,), batch_sizes=(2,), streams=(streams,))
    (made,) = expand(request, [target], device="cpu", threads=threads)
    if load_backend(backend).needs == "onnx":
        from dataclasses import replace

        made = replace(made, file=make_file(target, "fp32", tmp_path, threads=1).path)
    return profile_layers(made)


@pytest.fixture(scope="module")
def eager(tmp_path_factory):
    return profiled("eager", tmp_path_factory.mktemp("eager"), options=NETWORK["options"])


@pytest.fixture(scope="module")
def runtime(tmp_path_factory):
    return profiled("onnxruntime", tmp_path_factory.mktemp("ort"), options=NETWORK["options"])


def test_the_profiled_session_has_the_options_of_the_measured_one(tmp_path, monkeypatch):
    names = (
        "intra_op_num_threads", "inter_op_num_threads", "graph_optimization_level",
        "execution_mode", "enable_mem_pattern", "enable_cpu_mem_arena",
    )  # fmt: skip
    original, opened = onnxruntime.InferenceSession, []

    def session(path, options, providers):
        made = {name: getattr(options, name) for name in names}
        names_only = [entry if isinstance(entry, str) else entry[0] for entry in providers]
        opened.append((options.enable_profiling, names_only, made))
        return original(path, options, providers=providers)

    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    profiled("onnxruntime", tmp_path, options=NETWORK["options"], threads=2)
    measured, (profiling, *others) = opened[-2:]
    assert [measured[0], profiling] == [False, True]
    assert list(measured[1:]) == others
    assert measured[2]["intra_op_num_threads"] == 2


def layers(shares, part):
    return {s["name"] for s in shares if s["by"] == "layer" and s["part"] == part}


def test_eager_has_every_layer_in_its_block_and_part(eager):
    model = build_model("resnet14", **NETWORK["options"])
    convolutions = {n for n, m in model.named_modules() if type(m).__name__ == "Conv2d"}
    assert layers(eager, "projection") == PROJECTIONS
    assert layers(eager, "convolution") == convolutions - PROJECTIONS
    assert layers(eager, "addition") == {f"layer{s}.{b}.join" for s in (1, 2, 3) for b in (0, 1)}
    assert layers(eager, "linear") == {"fc"}
    blocks = {s["block"] for s in eager if s["by"] == "layer"}
    assert {"conv1", "layer1.0", "layer3.1", "avgpool", "fc"} <= blocks
    assert sum(s["share"] for s in eager if s["by"] == "operator") == pytest.approx(1)
    assert all(s["milliseconds"] > 0 for s in eager)


def test_onnxruntime_leads_its_nodes_back_to_the_layers(runtime):
    assert layers(runtime, "projection") == PROJECTIONS
    found = layers(runtime, "convolution")
    assert {"conv1", "layer1.0.conv1", "layer1.0.conv2", "layer3.1.conv2"} <= found
    additions = len(layers(runtime, "addition"))
    fused = sum(s["with_addition"] for s in runtime)
    assert additions + fused == 6  # every block's, wherever it is computed
    assert sum(s["share"] for s in runtime if s["by"] == "layer") == pytest.approx(1)


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("resnet14", {"width": 8}, set()),  # option A pads
        ("resnet14", {"width": 8, "shortcut": "none"}, set()),
        ("d2l_resnet18", {}, {f"module{n}.0.conv3" for n in (2, 3, 4)}),
        ("preact_resnet14", {"width": 8, "shortcut": "projection"}, PROJECTIONS),
    ],
)
@pytest.mark.parametrize("backend", ["eager", "onnxruntime"])
def test_only_shortcuts_have_projections(backend, name, options, expected, tmp_path):
    shares = profiled(backend, tmp_path, name, options, size=32)
    assert layers(shares, "projection") == expected
    line = shortcut_line(shares)
    assert ("no 1×1 projections" in line) is (not expected)
    assert ("no additions" in line) is (options.get("shortcut") == "none")


def test_a_gate_is_one_addition_not_its_parts(tmp_path):
    shares = profiled("eager", tmp_path, options={"width": 8, "shortcut": "gated"})
    assert len(layers(shares, "addition")) == 6
    assert not [s for s in shares if s["name"].endswith("join.gate")]


def test_the_line_adds_shares_up():
    def share(name, part, kind="x", milliseconds=1.0, portion=0.1, fused=False, by="layer"):
        return {
            "by": by, "name": name, "kind": kind, "milliseconds": milliseconds,
            "share": portion, "part": part, "block": "b", "with_addition": fused,
        }  # fmt: skip

    line = shortcut_line([
        share("p", "projection"), share("q", "projection"),
        share("n", "normalisation", "BatchNorm2d on the shortcut"),
        share("m", "normalisation", "BatchNorm2d"),
        share("j", "addition", milliseconds=0.5, portion=0.05),
        share("c", "convolution", fused=True), share("d", "convolution", fused=True),
    ])  # fmt: skip
    assert "1×1 projections 2 ms, 20.0 % of the time" in line
    assert "normalisation after them 1 ms, 10.0 %" in line
    assert "additions 0.5 ms, 5.0 %" in line
    assert "2 more additions fused into convolutions" in line
    operators = [share("aten::add_", "addition", by="operator")]
    assert "aten" not in shortcut_line(operators)
    assert "10.0 %" in shortcut_line(operators)


def test_the_pictures_hold_every_millisecond(eager):
    by_block, by_operator = layer_charts("resnet14 / eager", eager)
    layered = [s for s in eager if s["by"] == "layer"]
    assert sum(sum(series.x) for series in by_block.series) == pytest.approx(
        sum(s["milliseconds"] for s in layered)
    )
    names = [series.name for series in by_block.series]
    assert names == [part for part in PARTS if part in set(names)]
    assert by_block.y.categories[-1] == "conv1"  # the input is on top
    assert re.fullmatch(r"[a-z0-9-]+", by_block.key)
    assert len(by_operator.y.categories) <= 20
    assert by_operator.missing is by_block.missing is None


def test_a_backend_without_a_profiler_says_so(tmp_path):
    with pytest.raises(BenchError, match="--layers: the backend 'compile' has no profile"):
        profiled("compile", tmp_path)


def test_a_profile_that_fails_is_told_from_one_that_there_is_not(monkeypatch):
    broken, without = a_trial("eager", None), a_trial("compile", None)

    def profile(made):
        return profile_layers(made) if made.backend == "compile" else 1 / 0

    monkeypatch.setattr(measure, "profile_layers", profile)
    measure._profile([broken, without])
    assert broken.layers == [{"status": "failed", "error": "division by zero"}]
    assert without.layers[0]["status"] == "unsupported"


def test_nothing_is_measured_where_no_backend_has_a_profiler():
    with pytest.raises(BenchError, match=r"compile cannot be profiled by layer \(backends .*eager"):
        Request(backends=("compile",), layers=True)
    assert Request(backends=("compile", "eager"), layers=True).layers  # of which one can


def test_several_streams_are_not_profiled(tmp_path):
    with pytest.raises(BenchError, match="--layers: only --streams 1 is profiled"):
        profiled("eager", tmp_path, streams=2)


@pytest.mark.slow
def test_the_command_prints_and_draws(tmp_path, bench_process):
    done = bench_process(
        "throughput", "resnet8", "--option", "width=4", "--option", "shortcut=projection",
        "--input-size", 16, "--batch-size", 2, "--max-seconds", 0.3, "--processes", 1,
        "--threads", 1, "--layers", "--figures", "pictures", "--quiet",
    )  # fmt: skip
    assert done.code == 0, done.err
    assert done.out.count("The shortcuts: 1×1 projections") == 2
    files = {path.name for path in (tmp_path / "pictures").iterdir()}
    assert {"roofline.svg", "roofline.png"} <= files
    assert sum(name.startswith("layers-resnet8") for name in files) == 4
    (record,) = Measurements(tmp_path / "bench-runs").records()
    assert {row["configuration"] for row in record.rows} <= set(record.lanes)
    text = (tmp_path / "pictures/roofline.svg").read_text()
    assert "GFLOP/s" in text
    frame = load_results(tmp_path / "bench-runs", "throughput")
    assert (frame["arithmetic_intensity"] > 0).all()


def test_figures_that_cannot_be_written_are_refused_before_the_work(tmp_path, bench):
    (tmp_path / "taken").write_text("a file")
    done = bench("throughput", "resnet8", "--figures", "taken")
    assert done.refusal.startswith("cannot write taken: a file stands where")
    assert "choose another --figures folder" in done.refusal
    assert not (tmp_path / "bench-runs").exists()


def test_a_profile_that_does_not_add_up_to_the_measured_time_says_why():
    shares = [{"by": "operator", "milliseconds": 6.0}, {"by": "operator", "milliseconds": 4.0}]
    assert coverage_line(shares, 10.5) is None
    assert "125 % of the 8 ms measured" in coverage_line(shares, 8.0)
    assert "the profiler takes time of its own" in coverage_line(shares, 8.0)
    assert "in no operator" in coverage_line(shares, 20.0)
