"""Several batches in flight at once: that they are, what their figures mean, who refuses."""

from __future__ import annotations

import threading
from dataclasses import replace
from types import SimpleNamespace

import pytest

import bench
from bench.errors import BenchError
from bench.measurement.backends import backend_names, load_backend
from bench.measurement.configurations import Request, expand
from bench.measurement.measured_network import find_target
from bench.measurement.preparation import make_file
from bench.measurement.timing import streams as timed_streams
from bench.measurement.timing.runner import LocalRunner
from bench.measurement.timing.streams import Queries, Streams
from bench.measurement.tuning import Bounds, candidates, command_for, halve
from bench.report.tables.throughput import footnotes, throughput_text
from bench.store.measurements import Measurements, read_samples
from bench.store.tables.frames import rows_of, throughput_frame
from bench.system.devices import physical_cores

from .conftest import TINY, FakeRunner

QUICK = {"max_seconds": 0.3, "processes": 1, "input_size": 16, "device": "cpu"}
two_cores = pytest.mark.skipif(physical_cores() < 2, reason="two streams need two cores")


@pytest.fixture
def answered():
    """Two steps that return only when both are called at the same time, and what they saw."""
    gate, seen = threading.Barrier(2), []

    def step():
        gate.wait(60)
        seen.append(threading.current_thread().name)

    return [step, step], seen


def test_every_stream_has_a_batch_in_flight(answered):
    steps, seen = answered
    entered = []
    streams = Streams(steps, lambda: entered.append(threading.current_thread().name))
    seconds, latencies = streams.run(6)
    assert len(latencies) == len(seen) == 6
    assert set(seen) == set(entered)
    assert len(set(seen)) == 2
    assert max(latencies) <= seconds
    streams.close()


def test_queries_are_answered_by_every_stream_in_the_order_of_arrival(answered):
    steps, seen = answered
    streams = Streams(steps, lambda: None)
    queries = Queries([0.0] * 8)
    streams.serve(queries)
    assert len(queries.latencies) == len(seen) == 8
    streams.close()


def test_a_late_p99_ends_the_queries_early():
    calls = []
    streams = Streams([lambda: calls.append(1)] * 2, lambda: None)
    queries = Queries([0.0] * 1000, bound=0.0)
    streams.serve(queries)
    assert len(queries.latencies) == len(calls) <= 13
    streams.close()


def test_an_error_of_one_stream_is_raised():
    def fails():
        raise MemoryError("no room")

    streams = Streams([fails, fails], lambda: None)
    with pytest.raises(MemoryError, match="no room"):
        streams.run(4)
    streams.close()


@two_cores
@pytest.mark.usefixtures("third_party")
def test_a_row_has_the_images_of_all_streams_and_the_latency_of_one(tmp_path, clock, monkeypatch):
    def tick():
        clock.now += 2**-10  # added up without rounding

    monkeypatch.setattr(type(load_backend("together")), "tick", tick)
    monkeypatch.setattr(timed_streams, "time", SimpleNamespace(perf_counter=clock))
    frame = bench.measure(
        TINY, backends=("together",), streams=(2,), batch_sizes=(3,), threads=2, results=tmp_path,
        **QUICK,
    )  # fmt: skip
    (row,) = (row for _, row in frame.iterrows())
    assert row["status"] == "complete", row["error"]
    assert row["streams"] == 2
    assert row["latency_p50_ms"] == pytest.approx(1e3 * 2**-10)
    in_flight = row["images_per_second"] * row["latency_p50_ms"] / 1e3 / 3
    assert in_flight == pytest.approx(2)  # Little's law
    record = Measurements(tmp_path).find(row["measurement"])
    name = record.rows[0]["configuration"]
    assert name.endswith("/ 2 streams")
    folder = Measurements(tmp_path).folder(record.measurement)
    assert sum(map(len, read_samples(folder)[name].values())) == row["samples"]
    latencies = [line for line in (folder / "samples.csv").open() if f"{name},0,latency" in line]
    assert len(latencies) > row["samples"]


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return make_file(
        find_target("resnet8", input_size=16), "fp32", tmp_path_factory.mktemp("onnx"), threads=1
    ).path


@two_cores
@pytest.mark.parametrize("backend", ["eager", "onnxruntime", "openvino"])
def test_each_stream_has_its_part_of_the_threads(backend, file):
    if backend == "openvino":
        pytest.importorskip("openvino")
    request = Request(backends=(backend,), batch_sizes=(2,), streams=(2,))
    (made,) = expand(request, [find_target("resnet8", input_size=16)], device="cpu", threads=2)
    runner = LocalRunner(replace(made, file=file))
    runner.warm_up(0.1)
    (seconds,) = runner.block(5)
    report = runner.describe()
    assert seconds > 0
    assert len(report.latencies) == 10
    assert report.images == 20
    details = report.executed.details
    assert details["threads"] // details.get("streams", 1) == 1
    runner.close()


@pytest.mark.parametrize(
    ("backend", "device", "threads", "streams", "expected"),
    [
        ("compile", "cpu", 2, 2, "--streams 2: compile runs one batch at a time"),
        ("eager", "cuda", 2, 2, "--streams 2: several batches in flight are measured on a CPU"),
        ("eager", "cpu", 2, 3, "--streams 3: each needs a thread, and there are 2 (--threads)"),
    ],
)
def test_what_cannot_run_streams_says_why(backend, device, threads, streams, expected):
    request = Request(backends=(backend,), batch_sizes=(1,), streams=(streams,))
    target = find_target("resnet8", input_size=16)
    (made,) = expand(request, [target], device=device, threads=threads)
    assert made.unsupported.startswith(expected)


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        ({"streams": (0,)}, "--streams 0: it must be at least 1"),
        ({"streams": (-2,)}, "--streams -2: it must be at least 1"),
        ({"streams": (1, 2), "scenario": "single-stream"}, "has one image in flight: --streams 1"),
        ({"streams": (2, 4), "layers": True}, "--layers: only --streams 1 is profiled"),
    ],
)
def test_numbers_of_streams_that_make_no_sense_are_refused(request_, expected):
    with pytest.raises(BenchError, match=expected):
        Request(**request_)


def test_only_cpu_runtimes_that_can_offer_streams():
    able = {name for name in backend_names() if hasattr(load_backend(name), "prepare_streams")}
    assert able == {"eager", "onnxruntime", "openvino", "null"}


def test_the_reference_has_one_stream_and_older_rows_had_one():
    request = Request(backends=("null", "eager"), batch_sizes=(1,), streams=(2, 1))
    from bench.measurement.configurations import references

    found = expand(request, [find_target("resnet8", input_size=16)], device="cpu", threads=2)
    (chosen,) = references(found, "eager").values()
    assert (chosen.backend, chosen.streams) == ("eager", 1)
    assert throughput_frame([{"measurement": "m"}])["streams"].tolist() == [1]


def test_networks_are_compared_at_one_number_of_streams():
    request = Request(backends=("eager",), batch_sizes=(1,), streams=(2, 1), reference="resnet8")
    from bench.measurement.configurations import references

    targets = [find_target(name, input_size=16) for name in ("plain8", "resnet8")]
    found = expand(request, targets, device="cpu", threads=2)
    chosen = references(found, "resnet8")
    for one in found:
        reference = chosen[one.group]
        assert (reference.target.label, reference.streams) == ("resnet8", one.streams)


@two_cores
@pytest.mark.usefixtures("third_party")
def test_the_server_scenario_may_have_several(tmp_path):
    frame = bench.measure(
        TINY, backends=("null",), streams=(1, 2), scenario="server", latency_bound_ms=1000.0,
        threads=2, results=tmp_path, **QUICK,
    )  # fmt: skip
    rows = rows_of(frame)
    assert [row["status"] for row in rows] == ["complete", "complete"]
    lines = footnotes(rows)
    assert any(line.startswith("One process") and "nothing is claimed" in line for line in lines)
    assert any("whose p99 stayed within 1000 ms" in line for line in lines)
    assert "streams" in throughput_text(rows).columns


def test_tune_weighs_latency_against_streams(clock, normal):
    target = find_target("resnet8", input_size=16)
    found = [
        one
        for one in candidates(target, device="cpu", threads=[2], batch_sizes=[1], streams=[1, 2])
        if (one.backend, one.precision, one.memory_format) == ("eager", "fp32", "contiguous")
    ]
    assert [one.streams for one in found] == [1, 2]

    def opened(one):  # two streams: 1.5 times the images/s, each batch 4/3 as late
        return FakeRunner(clock, normal(0.010 / (1.5 if one.streams == 2 else 1), 0.001))

    best = halve(found, Bounds(), opened)[0]
    assert best.streams == 2
    assert "--threads 2 --streams 2" in command_for(best)
    assert halve(found, Bounds(latency_ms=12.0), opened)[0].streams == 1
