"""The properties that OpenVINO is given; the library need not be installed."""

from __future__ import annotations

from bench.measurement.backends.openvino import settings
from bench.measurement.backends.protocol import Workload


def test_files_run_in_their_own_precision_with_as_many_threads_as_divide_by_the_streams():
    workload = Workload(None, None, (3, 8, 8), 1, threads=7)
    assert settings(workload, streams=1) == {
        "INFERENCE_NUM_THREADS": 7,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
    }
    several = settings(workload, streams=3)
    assert (several["INFERENCE_NUM_THREADS"], several["NUM_STREAMS"]) == (6, 3)
    assert several["PERFORMANCE_HINT"] == "THROUGHPUT"
