from __future__ import annotations

import json
import os
from dataclasses import replace
from types import SimpleNamespace

import onnx
import pytest
import torch

import bench
from bench.data import Preprocessing
from bench.errors import BenchError
from bench.measurement import measure, measured_network
from bench.measurement.autobatch import find_batch_size
from bench.measurement.backends import backend_names, backend_rows, load_backend
from bench.measurement.backends.eager import torch_support
from bench.measurement.configurations import Request, expand
from bench.measurement.machine.ceiling import Ceiling, measure_ceiling
from bench.measurement.measured_network import find_target, find_targets
from bench.measurement.preparation import Context, pinned
from bench.measurement.timing import replicates
from bench.measurement.timing.process_runner import ProcessRunner, call_in_subprocess
from bench.measurement.tuning import candidates
from bench.store import Store
from bench.store.measurements import Measurements, read_samples
from bench.targets.network import LoadedNetwork, NamedNetwork

from .conftest import TINY, FakeRunner, a_trial

QUICK = {"max_seconds": 0.3, "processes": 1, "input_size": 16, "threads": 1, "device": "cpu"}


@pytest.fixture
def measured(third_party, tmp_path):
    """Measure the tiny network into a results folder of the test's own."""
    del third_party

    def run(targets=TINY, **request):
        return bench.measure(targets, results=tmp_path / "r", **{**QUICK, **request})

    return run


def test_the_reference_is_named_as_the_target_was(trained, tmp_path, monkeypatch):
    """A study or a short hash stands for a run, whose label is its id."""
    run = next(iter(Store(trained).runs())).run
    seen = []
    monkeypatch.setattr(measure, "measure_targets", lambda *given: seen.append(given))
    context = Context(trained, "cpu", 1)
    for name in (run.rsplit("-", 1)[-1], str(trained / "runs" / run)):
        wanted = Request(reference=name, options={"width": 4})  # of the model
        measure.measure_names([name, "resnet8"], wanted, context)
        found, request, _ = seen.pop()
        assert [target.is_called(request.reference) for target in found] == [True, False]
    with pytest.raises(BenchError, match="--reference tiny: it stands for 2 runs; name one of"):
        measure.measure_names(["tiny"], Request(reference="tiny"), context)
    files = [tmp_path / folder / "net.onnx" for folder in "ab"]
    image, logits = (
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 3, 4, 4])
        for name in "xy"
    )
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Relu", ["x"], ["y"])], "g", [image], [logits]
    )
    for file in files:
        file.parent.mkdir()
        onnx.save(onnx.helper.make_model(graph), file)
    names = [f"{file.parent}/../{file.parent.name}/net.onnx" for file in files]
    measure.measure_names(names, Request(reference=names[1]), context)
    found, request, _ = seen.pop()
    assert [target.is_called(request.reference) for target in found] == [False, True]


def test_int8_of_an_untrained_network_says_that_its_ranges_are_of_random_images(measured):
    frame = measured(backends=("onnxruntime",), precisions=("fp32", "int8"), batch_sizes=(2,))
    assert frame["calibration"].fillna("").tolist() == ["", "random"]


def test_a_depth_that_an_option_makes_one_can_be_measured():
    target = find_target("resnet29", options={"block": "bottleneck"})
    assert target.input_shape == (3, 32, 32)
    assert target.model == "resnet29"


def test_a_row_has_a_figure_with_its_interval_and_what_ran(measured, tmp_path):
    frame = measured(backends=("eager", "null"), batch_sizes=(2,))
    eager, null = (row for _, row in frame.iterrows())
    assert eager["provider"].startswith("torch ")
    assert eager["executed_precision"] == "fp32"
    assert eager["ci_low"] <= eager["images_per_second"] <= eager["ci_high"]
    assert eager["flops_per_second"] == pytest.approx(
        2 * eager["macs"] * eager["images_per_second"]
    )
    assert 0 < eager["peak_fraction"] < 1
    assert eager["peak_fraction"] == pytest.approx(
        eager["flops_per_second"] / eager["ceiling_flops_per_second"]
    )
    assert eager["ceiling_bytes_per_second"] > 0
    assert eager[["best_eager", "best_eager_ratio"]].isna().all()  # there is but one
    assert eager["difference"] == "reference"
    assert eager["noise_floor"] >= 0
    assert null["provider"] == "nothing"
    assert null[["ratio", "flops_per_second", "energy_joules_per_image"]].isna().all()
    assert bench.load_results(tmp_path / "r", "throughput").equals(frame)


def test_a_row_names_the_processor_with_its_instructions_and_the_gpu(measured, monkeypatch):
    describe = measure.describe_environment
    monkeypatch.setattr(measure, "processor", lambda: ("EPYC", ("avx2", "avx512f")))
    monkeypatch.setattr(
        measure, "describe_environment", lambda *a, **k: describe(*a, **k) | {"gpu": "L4"}
    )
    row = measured(backends=("null",), batch_sizes=(1,), max_seconds=0.05).iloc[0]
    assert (row["cpu"], row["gpu"]) == ("EPYC (avx2 avx512f)", "L4")


def test_every_raw_sample_is_kept_and_gives_the_figure_again(measured, tmp_path):
    import numpy as np

    row = measured(backends=("eager",), batch_sizes=(4,)).iloc[0]
    folder = Measurements(tmp_path / "r").folder(row["measurement"])
    blocks = read_samples(folder)
    assert len(blocks) == 2  # the reference and its twin
    (name,) = (n for n in blocks if not n.endswith("(twin)"))
    seconds = np.concatenate(list(blocks[name].values()))
    assert 4 / np.median(seconds) == pytest.approx(row["images_per_second"])
    assert len(seconds) == row["samples"]


def test_damaged_samples_are_noticed(measured, tmp_path):
    row = measured(backends=("fine",), batch_sizes=(1,)).iloc[0]
    folder = Measurements(tmp_path / "r").folder(row["measurement"])
    (folder / "samples.csv").write_text("configuration,phase,round,position,seconds\n")
    with pytest.raises(BenchError, match="checksum"):
        read_samples(folder)


def test_a_third_partys_backend_is_listed_and_measured(measured):
    assert "fine" in backend_names()
    row = measured(backends=("fine",), batch_sizes=(8,)).iloc[0]
    assert row["provider"] == "a third party"
    assert row["nodes_elsewhere"] == 1


def test_a_third_partys_backend_may_offer_layer_times(measured, tmp_path):
    frame = measured(backends=("profiled", "fine"), batch_sizes=(8,), layers=True)
    assert set(frame["status"]) == {"complete"}
    record = Measurements(tmp_path / "r").find(frame["measurement"][0])
    found = {row["backend"]: record.lanes[row["configuration"]]["layers"] for row in record.rows}
    reason = "--layers: the backend 'fine' has no profile by layer"
    assert found["fine"] == [{"status": "unsupported", "error": reason}]
    figures = ("by", "name", "part", "block", "milliseconds", "share")
    assert [tuple(share[key] for key in figures) for share in found["profiled"]] == [
        ("layer", "layer1.0.conv1", "convolution", "layer1.0", 1.0, 0.25),
        ("layer", "fc", "linear", "fc", 3.0, 0.75),
        ("operator", "gemm", "linear", "", 3.0, 0.75),
        ("operator", "conv2d", "convolution", "", 1.0, 0.25),
    ]


@pytest.mark.parametrize(
    ("backend", "expected"),
    [
        ("crash", "ended by SIGABRT"),
        pytest.param("hang", "did not answer within", marks=pytest.mark.slow),
    ],
)
def test_a_backend_that_crashes_or_hangs_is_a_row_and_the_others_finish(
    measured, backend, expected, monkeypatch
):
    def opened(made, *, timeout):  # the others may take longer
        return ProcessRunner(made, timeout=timeout if made.backend == "hang" else 600)

    monkeypatch.setattr(replicates, "ProcessRunner", opened)
    frame = measured(backends=(backend, "fine"), batch_sizes=(1,), isolate=True, timeout=20)
    assert list(frame["status"]) == ["failed", "complete"]
    assert expected in frame["error"][0]
    assert frame["images_per_second"].isna().tolist() == [True, False]
    assert 1 < frame["peak_memory_mib"][1] < 10_000


def test_a_batch_that_does_not_fit_is_recorded_and_the_others_go_on(measured):
    frame = measured(backends=("small",), batch_sizes=(4, 32))
    assert list(frame["status"]) == ["complete", "out_of_memory"]


@pytest.mark.usefixtures("third_party")
@pytest.mark.parametrize(("room", "knee", "expected"), [(20, 999, 20), (999, 16, 16)])
def test_auto_doubles_to_the_knee_or_to_where_it_no_longer_fits(
    clock, normal, room, knee, expected
):
    (made,) = expand(
        Request(backends=("fine",), batch_sizes=("auto",)),
        [find_target(TINY, input_size=16)], device="cpu", threads=1,
    )  # fmt: skip

    def opened(one):
        if one.batch_size > room:
            raise MemoryError("no room")
        return FakeRunner(clock, normal(0.1 * max(1.0, one.batch_size / knee), 0.0))

    assert find_batch_size(made, timeout=60, open_runner=opened)[0] == expected


@pytest.mark.slow
def test_auto_tries_each_size_in_a_process_that_may_die(measured):
    row = measured(backends=("small",), batch_sizes=("auto",)).iloc[0]
    assert 16 <= row["batch_size"] <= 20


def test_a_pair_that_a_backend_has_not_is_a_row_beside_those_that_ran(measured):
    frame = measured(backends=("fine",), precisions=("fp32", "int8"), batch_sizes=(1,))
    assert list(frame["status"]) == ["complete", "unsupported"]
    assert frame["error"][1] == "fine has no int8 on cpu (here it has fp32 on cpu)"


def test_what_runs_on_the_cpu_only_says_so_on_an_apple_gpu():
    target = find_target("resnet8", input_size=16)
    request = Request(backends=("onnxruntime",), precisions=("int8",), batch_sizes=(1,))
    (made,) = expand(request, [target], device="mps", threads=1)
    assert made.unsupported.startswith("onnxruntime has no int8 on mps: --device cpu (here it has")


def test_without_onednn_the_cpu_has_fp32(monkeypatch):
    """As the wheels for macOS are built."""
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    monkeypatch.delattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", raising=False)
    found = {s.precision: s.missing for s in torch_support() if s.device == "cpu"}
    assert [precision for precision, missing in found.items() if missing is None] == ["fp32"]


def test_boundaries_are_rows_of_their_own_and_never_compared(measured):
    frame = measured(
        backends=("eager", "fine"), batch_sizes=(1,), boundaries=("compute", "copies", "end-to-end")
    )
    assert set(frame["boundary"]) == {"compute", "copies", "end-to-end"}
    assert (frame["difference"] == "reference").sum() == 3


def test_raw_images_of_a_run_have_its_datasets_size(monkeypatch):
    prepared = Preprocessing(16, (0.5,), (0.5,), image_size=28)
    trained = SimpleNamespace(
        preprocessing=prepared, record=SimpleNamespace(result={"timing_only": True})
    )
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(256, 10))
    loaded = LoadedNetwork("r", model, "resnet8", {}, (1, 16, 16), trained)
    monkeypatch.setattr(NamedNetwork, "load", lambda _self: loaded)
    found = measured_network._measured(NamedNetwork("r", "run", (1, 16, 16), run="r"), None)
    assert (found.input_shape, found.raw_shape) == ((1, 16, 16), (1, 28, 28))


def test_ratios_stand_beside_the_best_eager_too(measured):
    from bench.report.tables.throughput import throughput_text
    from bench.store.tables.frames import rows_of

    frame = measured(
        backends=("eager", "fine"), batch_sizes=(2,),
        memory_formats=("contiguous", "channels_last"),
    )  # fmt: skip
    eager = frame[frame["backend"] == "eager"]
    best = eager.loc[eager["images_per_second"].idxmax()]
    ran = frame[frame["status"] == "complete"]
    assert set(ran["best_eager"]) == {f"eager fp32 {best['memory_format']}"}
    assert best["best_eager_ratio"] == 1.0
    (fine,) = (row for _, row in ran[ran["backend"] == "fine"].iterrows())
    low, high = fine["best_eager_ratio_low"], fine["best_eager_ratio_high"]
    assert low <= fine["best_eager_ratio"] <= high
    assert "to best eager" in throughput_text(rows_of(frame)).columns


def test_server_reports_a_rate_or_the_best_that_was_reached(measured):
    server = {"scenario": "server", "backends": ("fine",)}
    row = measured(**server, latency_bound_ms=1000.0).iloc[0]
    assert row["status"] == "complete"
    assert row["noisy"]  # in so short a time no p99 is honest
    assert row[["latency_p99_ms"]].isna().all()
    assert 0 < row["images_per_second"] < 1100  # searched up to 1.1 times the capacity
    assert row[["ci_low", "ci_high", "width", "ratio", "peak_fraction"]].isna().all()
    assert row["latency_bound_ms"] == 1000.0
    row = measured(**server, latency_bound_ms=0.01).iloc[0]
    assert "at the lowest rate tried, it was" in row["error"]


def test_a_ceiling_that_a_row_exceeds_is_measured_again_and_for_longer(measured, monkeypatch):
    asked = []

    def measure_ceiling(_device, _threads, _precisions, *, seconds):
        asked.append(seconds)
        return Ceiling({"fp32": 1.0}, 1e9, 8)  # one operation a second

    monkeypatch.setattr("bench.measurement.measure.measure_ceiling", measure_ceiling)
    row = measured(backends=("eager",)).iloc[0]
    assert asked == pytest.approx([asked[0], asked[0], 3 * asked[0]])
    assert row[["peak_fraction"]].isna().all()
    assert "faster than this machine's measured peak" in row["warnings"]


def test_a_gpus_ceiling_is_measured_in_a_subprocess_which_gives_its_memory_back(
    tmp_path, monkeypatch
):
    called = []

    def call(function, *arguments, timeout):
        called.append((function.func, arguments, timeout))
        return Ceiling({"fp32": 1.0}, 1e9, 8)

    monkeypatch.setattr(measure, "call_in_subprocess", call)
    found = measure._measure_ceiling([], Request(), Context(tmp_path, "cuda:0", 2))
    assert found.matrix_side == 8
    assert called == [(measure_ceiling, ("cuda:0", 2, set()), Request().timeout)]
    monkeypatch.undo()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(BenchError, match=r"ceiling of cuda was not measured: .*(CUDA|NVIDIA)"):
        measure._measure_ceiling([a_trial("eager", None)], Request(), Context(tmp_path, "cuda", 2))


def test_pinned_threads_have_a_core_each(monkeypatch):
    siblings = {0: "0-1", 1: "0-1", 2: "2-3", 3: "2-3"}
    folder = "/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"
    files = {folder.format(number): text for number, text in siblings.items()}
    monkeypatch.setattr("bench.system.devices.read_line", files.get)
    bound = []
    monkeypatch.setattr(os, "sched_getaffinity", lambda _process: set(siblings))
    monkeypatch.setattr(os, "sched_setaffinity", lambda _thread, cores: bound.append(cores))
    with pinned(2):
        assert bound[-1] == {0, 2}
    assert bound[-1] == set(siblings)


def test_pinning_is_refused_where_it_is_not_possible(measured, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _process: {0}, raising=False)
    monkeypatch.setattr(os, "sched_setaffinity", lambda *_: pytest.fail("bound"), raising=False)
    request = {"backends": ("null",), "pin": True, "threads": 2}
    with pytest.raises(BenchError, match="--pin: 2 threads, but only 1 cores are allowed"):
        measured(**request)
    monkeypatch.setattr("bench.measurement.preparation.usable_processors", lambda: None)  # macOS
    with pytest.raises(BenchError, match="--pin: this system has no processor affinity; leave it"):
        measured(**request)


def test_a_function_that_ends_its_subprocess_is_an_error():
    with pytest.raises(RuntimeError, match="its process was ended by SIGABRT"):
        call_in_subprocess(os.abort, timeout=60)


@pytest.mark.gpu
def test_a_measurement_keeps_nothing_in_the_memory_of_a_gpu(measured):
    torch.cuda.empty_cache()
    before = torch.cuda.memory_reserved()  # by tests that ran in this process
    assert measured(device="cuda", processes=2)["status"].eq("complete").all()
    assert torch.cuda.memory_reserved() == before


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        ({"batch_sizes": (0,)}, "--batch-size 0: it must be at least 1"),
        ({"backends": ("eagre",)}, "unknown backend 'eagre'; did you mean 'eager'"),
        (
            {"precisions": ("fp8",)},
            "--precision fp8 is unknown; did you mean 'fp32'? (this machine has: fp32",
        ),
        ({"boundaries": ("all of it",)}, "known: compute, copies, end-to-end"),
        ({"scenario": "server"}, "needs --max-latency-ms"),
        ({"latency_bound_ms": 5.0}, "--max-latency-ms 5 goes with --scenario server; leave it out"),
        ({"clear_l2": True}, "--clear-l2 is for a GPU, not for cpu: leave it out"),
        ({"dataset": "random"}, "--dataset random calibrates int8: add --precision int8"),
        ({"scenario": "single-stream", "batch_sizes": (4,)}, "one image at a time"),
        ({"threads": 99999}, "--threads 99999: this machine has"),
        ({"target_width": 0.0}, "--target-width 0: it must be above 0"),
        ({"max_seconds": float("inf")}, "--max-seconds inf: it must be above 0, and finite"),
        (
            {"scenario": "server", "latency_bound_ms": float("nan")},
            "--max-latency-ms nan: it must be above 0",
        ),
        ({"backends": ("cuda",)}, "nothing of this can run here: cuda has no fp32 on cpu"),
        ({"targets": "resnet19x"}, "no model, run, study or file 'resnet19x'"),
    ],
)
def test_bad_requests_are_refused_in_one_line(measured, request_, expected):
    with pytest.raises(BenchError) as refused:
        measured(**request_)
    assert expected in str(refused.value)
    assert "\n" not in str(refused.value)


def test_what_is_asked_for_twice_is_measured_once(measured):
    frame = measured(targets=[TINY, TINY], backends=("fine", "fine"), batch_sizes=(1, 1))
    assert len(frame) == 1


def test_a_backend_without_the_protocols_members_is_named(third_party):
    entry = third_party / "others-1.0.dist-info/entry_points.txt"
    entry.write_text("[bench.backends]\nlame = others_models:tiny\n")
    with pytest.raises(BenchError, match="the backend 'lame' has no name, needs"):
        load_backend("lame")
    with pytest.warns(UserWarning, match="the backend 'lame' .* cannot be loaded: .* has no name"):
        rows = list(backend_rows())  # the others are listed, and tried
    assert {"eager", "onnxruntime"} <= {row["name"] for row in rows}
    target = find_target("resnet8", input_size=16)
    tried = candidates(target, device="cpu", threads=[1], batch_sizes=[1])
    assert {"eager", "onnxruntime"} <= {one.backend for one in tried}


def test_a_measurement_of_a_newer_version_is_passed_over(measured, tmp_path):
    row = measured(backends=("fine",), batch_sizes=(1,)).iloc[0]
    path = Measurements(tmp_path / "r").folder(row["measurement"]) / "measurement.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format_version": 999}))
    with pytest.warns(UserWarning, match="upgrade bench"):
        assert bench.load_results(tmp_path / "r", "throughput").empty


def test_a_study_is_measured_by_one_finished_run_of_each_variant(results):
    store = Store(results)
    study = store.read_study("tiny")
    runs = {name: entry["runs"] for name, entry in study.variants.items()}
    found = find_targets(["tiny", runs["plain"]["0"]], results=results)
    assert [t.run for t in found] == [runs["residual"]["0"], runs["plain"]["0"]]
    store.save_study(replace(study, name="my_own.study"))
    assert find_targets(["my_own.study"], results=results) == found
    store.remove_run(runs["residual"]["0"])
    (residual, _) = find_targets(["tiny"], results=results)
    assert residual.run == runs["residual"]["1"]
    for run in study.runs:
        store.remove_run(run)
    with pytest.raises(BenchError, match="study 'tiny' has no finished run; the command"):
        find_targets(["tiny"], results=results)
    with pytest.raises(BenchError, match="no model, run, study or file 'tinny'"):
        find_targets(["tinny"], results=results)
