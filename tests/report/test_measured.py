"""The page of measured speeds: what it claims, and what it shows of how it was measured."""

from __future__ import annotations

import io
import math

import pandas as pd
import pytest

import bench
from bench.errors import BenchError
from bench.report.charts.throughput import by_network_or_backend, latency_and_throughput
from bench.report.findings.fastest import closing_lines, fastest, int8_pays, rounded
from bench.report.pages.commands import measuring_command as command
from bench.report.pages.measurements import publish_measurements
from bench.report.tables.throughput import footnotes
from bench.store.measurements import MeasurementRecord, Measurements
from bench.store.tables.frames import rows_of, throughput_frame
from builders import make_row

REQUEST = {
    "backends": ("null", "onnxruntime"), "precisions": ("fp32", "bf16"), "batch_sizes": (1, 2),
    "max_seconds": 0.2, "processes": 1, "target_width": 0.5, "reference": "null", "pin": True,
}  # fmt: skip


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    bench.measure("resnet20", results=root, options={"width": 4}, threads=1, **REQUEST)
    return Measurements(root)


@pytest.fixture(scope="module")
def page(measured, tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    files = publish_measurements(measured, folder, ["markdown", "csv", "parquet", "html"])
    assert [f.name for f in files] == [
        "README.md", "latency-throughput.svg", "latency-throughput.png", "roofline.svg",
        "roofline.png", "throughput.csv", "throughput.parquet", "report.html",
    ]  # fmt: skip
    return folder


def test_the_page_says_how_it_was_measured(measured, page):
    (record,) = measured.records()
    text = (page / "README.md").read_text()
    for part in (
        record.measurement, record.environment["cpu"], record.created_at, "its ceiling: ",
        "## resnet20", "Not supported here (2 rows): onnxruntime has no bf16",
        record.environment["torch"], "![Roofline](roofline.svg)",
    ):  # fmt: skip
        assert part in text
    rows = [line for line in text.splitlines() if line.startswith("| resnet20")]
    assert len(rows) == sum(row["status"] == "complete" for row in record.rows)


def test_the_command_asks_for_the_same(measured):
    (record,) = measured.records()
    assert record.request["names"] == ["resnet20"]
    assert record.request["options"] == {"width": 4}
    assert command(record) == (
        "bench throughput resnet20 --backend null --backend onnxruntime --precision fp32 "
        "--precision bf16 --batch-size 1 --batch-size 2 --reference null --target-width 0.5 "
        "--max-seconds 0.2 --processes 1 --pin --option width=4 --threads 1"
    )


def test_data_load_back(measured, page):
    (record,) = measured.records()
    csv = pd.read_csv(io.StringIO((page / "throughput.csv").read_text()))
    assert list(csv["images_per_second"].dropna()) == pytest.approx(
        [r["images_per_second"] for r in record.rows if r.get("images_per_second")]
    )
    pd.testing.assert_frame_equal(
        pd.read_parquet(page / "throughput.parquet"),
        bench.load_results(measured.root.parent, table="throughput"),
    )


def test_the_page_as_html_has_the_table_and_both_charts(measured, page):
    (record,) = measured.records()
    text = (page / "report.html").read_text()
    assert record.measurement in text
    assert 'data-chart="latency-throughput"' in text
    assert 'data-chart="roofline"' in text
    complete = [row for row in record.rows if row["status"] == "complete"]
    assert text.count('<th scope="row">resnet20') == len(complete)


def test_latency_and_throughput_have_intervals_and_the_limit():
    rows = [
        row(images_per_second=100.0 * n, ci_low=90.0 * n, ci_high=110.0 * n, batch_size=8)
        for n in (1, 2)
    ]
    rows.append(rows[-1] | {"scenario": "server", "batch_size": 1})  # its time is what was allowed
    rows[1] |= {"streams": 2}
    frame = throughput_frame(rows)
    chart = latency_and_throughput(frame, {25.0}, *by_network_or_backend(frame))
    limit, *points = chart.series
    assert (limit.name, list(limit.x)) == ("limit 25 ms", [25.0, 25.0])
    drawn = [point for one in points for point in zip(one.x, one.low, one.high, strict=True)]
    # Milliseconds of 8 images, and of 16 in two streams.
    assert drawn == [(80.0, 90.0, 110.0), (80.0, 180.0, 220.0)]
    assert chart.x.title.startswith("median")


def test_what_a_p99_does_not_exceed_is_drawn_not_that_of_the_sample():
    found = row(images_per_second=100.0, latency_p99_ms=20.0, latency_p99_high_ms=30.0)
    frame = throughput_frame([found])
    chart = latency_and_throughput(frame, (), *by_network_or_backend(frame))
    assert list(chart.series[0].x) == [30.0]
    assert chart.x.title == "upper 95 % bound of a batch's p99 (ms)"


def test_a_roofline_that_cannot_be_drawn_says_why(tmp_path):
    store = Measurements(tmp_path)
    known = row(flops_per_second=1e9, images_per_second=1.0, cpu="a", device="cpu", threads=1)
    store.publish(MeasurementRecord("m", {"targets": ["resnet18"]}, [known]), [])
    publish_measurements(store, tmp_path / "page")
    assert "Measure the network again" in (tmp_path / "page" / "README.md").read_text()
    assert not (tmp_path / "page" / "roofline.svg").exists()


def row(**changes):
    ratio = {"ratio": 1.5, "ratio_low": 1.4, "ratio_high": 1.6, "difference": "faster"}
    return make_row(**ratio | changes)


def test_the_fastest_is_named_with_its_interval():
    slower, faster = row(), row(backend="openvino", ratio=1.7, ratio_low=1.6, ratio_high=1.8)
    sentence, uncorrected = fastest([slower, faster])
    assert uncorrected.startswith("No interval is corrected for the choice")
    reference = row(ratio=1.0, ratio_low=1.0, ratio_high=1.0, difference="reference")
    assert fastest([reference, faster]) == [sentence]  # the only one
    assert sentence == (
        "resnet18, batch 1: openvino fp32 gives 1.70 [1.60, 1.80] times the images/s of "
        "eager fp32 contiguous."
    )


def test_the_fastest_is_told_apart_from_its_reference_and_from_other_cases():
    sentences = fastest(
        row(backend="eager", memory_format="channels_last", boundary=boundary)
        for boundary in ("compute", "copies")
    )
    assert [sentence.partition(" gives ")[0] for sentence in sentences] == [
        "resnet18, batch 1: eager fp32 channels_last",
        "resnet18, batch 1, copies: eager fp32 channels_last",
    ]


def test_of_repeated_measurements_of_a_machine_the_last_is_told():
    rows = [
        row(measurement="1"), row(measurement="2", ratio=1.45),
        row(measurement="3", ratio=1.55, cpu="another"),
    ]  # fmt: skip
    told = [sentence.partition(" times")[0].rpartition("gives ")[2] for sentence in fastest(rows)]
    assert told == ["1.45 [1.40, 1.60]", "1.55 [1.40, 1.60]"]


@pytest.mark.parametrize(
    "changes", [{"ratio_low": 0.98}, {"difference": "none"}, {"difference": None}]
)
def test_nothing_is_called_faster_that_is_not_known_to_be(changes):
    assert fastest([row(**changes)]) == [
        "No configuration is significantly faster than its reference."
    ]
    # Its reference failed, or it has itself as reference.
    for alone in ({"ratio": None}, {"difference": "reference"}):
        assert fastest([row(**alone)]) == ["No verdict: nothing was measured beside its reference."]


def test_an_interval_over_processes_holds_however_wide_it_is():
    wide = row(noisy=True, ratio=2.0, ratio_low=1.5, ratio_high=2.6)
    sentence = fastest([row(), wide])[0]
    assert "2.00 [1.50, 2.60] times" in sentence
    (sentence,) = fastest([row(), {**wide, "processes": 1}])
    assert "1.50 [1.40, 1.60] times" in sentence


@pytest.mark.parametrize("processes", [None, 1, 5])
def test_of_fewer_than_six_processes_the_page_claims_nothing(tmp_path, processes):
    few = {"processes": processes, "precision": "int8", "input_shape": "3x28x28"}
    rows = [row(**few), row(**{**few, "precision": "fp32"})]
    store = Measurements(tmp_path)
    store.publish(MeasurementRecord("m", {"targets": ["resnet18"]}, rows), [])
    publish_measurements(store, tmp_path / "page", ("markdown", "html"))
    for file in ("README.md", "report.html"):
        text = (tmp_path / "page" / file).read_text()
        assert "times the images/s of" not in text
        assert "No verdict: fewer than six processes" in text
    assert int8_pays(rows) == []


def test_nothing_is_concluded_on_a_machine_that_others_used():
    reference = row(ratio=1.0, difference="reference", other_processes=0.4)
    assert closing_lines([reference, timed("int8", 180.0, other_processes=0.4)]) == [
        "No verdict: other processes used 40 % of the processor. Measure while nothing else runs."
    ]


def timed(precision, speed, accuracy=None, **changes):
    ends = {"ci_low": speed * 0.98, "ci_high": speed * 1.02}
    names = {"options": "", "run": None, "scenario": "offline", "executed_precision": precision}
    return row(precision=precision, images_per_second=speed, test_accuracy=accuracy,
               **ends | names | changes)  # fmt: skip


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        (
            [timed("fp32", 100.0, 0.93), timed("int8", 180.0, 0.928)],
            (
                "int8 pays here for resnet18, batch 1: "
                "onnxruntime int8 gives 1.80 times the images/s "
                "of onnxruntime fp32, accuracy -0.20 points."
            ),
        ),
        (  # against the fastest other precision, not the slowest
            [timed("fp32", 100.0), timed("fp32", 190.0, backend="openvino"), timed("int8", 180.0)],
            (
                "int8 does not pay here for resnet18, batch 1: "
                "onnxruntime int8 gives 0.95 times the "
                "images/s of openvino fp32, accuracy unknown."
            ),
        ),
        (  # the intervals overlap
            [timed("fp32", 100.0), timed("int8", 103.0)],
            (
                "the times do not show whether int8 pays here for resnet18, batch 1: "
                "onnxruntime int8 gives 1.03 times the "
                "images/s of onnxruntime fp32, accuracy unknown."
            ),
        ),
        (  # the accuracy of such a file would say nothing
            [timed("fp32", 100.0), timed("int8", 180.0, calibration="random")],
            (
                "int8 pays here for resnet18, batch 1: "
                "onnxruntime int8 gives 1.80 times the images/s "
                "of onnxruntime fp32, accuracy unknown, ranges from random images."
            ),
        ),
        (  # a file in int8, and the one it was made from
            [timed("fp32", 100.0, model="net.onnx"), timed("int8", 200.0, model="net-int8.onnx")],
            (
                "int8 pays here for net-int8.onnx, batch 1: "
                "onnxruntime int8 gives 2.00 times the "
                "images/s of onnxruntime fp32, accuracy unknown."
            ),
        ),
    ],
)
def test_it_is_said_whether_int8_pays(rows, sentence):
    assert int8_pays(rows) == [sentence]
    assert closing_lines(rows)[-1] == sentence


@pytest.mark.parametrize(
    "rows",
    [
        [timed("fp32", 100.0)],
        [timed("int8", 100.0)],
        [timed("fp32", 100.0), timed("int8", 200.0, noisy=True, processes=1)],
        [timed("fp32", 100.0), timed("int8", 200.0, batch_size=8)],
    ],
)
def test_nothing_is_said_of_int8_that_was_not_measured(rows):
    assert int8_pays(rows) == []


def test_rows_calibrated_on_noise_are_marked():
    more = {"noise_floor": None, "warnings": None, "latency_p99_high_ms": None, "samples": 9}
    more |= {"width": 0.01, "latency_p50_ms": None}
    rows = [timed("fp32", 100.0, **more), timed("int8", 180.0, calibration="random", **more)]
    (line,) = (line for line in footnotes(rows) if "random images" in line)
    assert "--dataset" in line


def test_the_footnote_names_every_number_of_threads():
    more = {"noise_floor": None, "warnings": None, "latency_p99_high_ms": None, "calibration": None}
    lines = footnotes([timed("fp32", 100.0, threads=count, **more) for count in (1, 2)])
    assert any(line.startswith("cpu, 1 or 2 threads, A") for line in lines)


def test_it_is_said_which_processes_the_bound_of_p99_is_of():
    more = {"noise_floor": None, "warnings": None, "samples": 900, "width": 0.01}
    more |= {"latency_p50_ms": 1.0, "latency_p99_high_ms": 2.0, "calibration": None}
    new = timed("fp32", 100.0, **more, latency_p99_scope="new process")
    few = timed("int8", 100.0, **more, latency_p99_scope="these processes")
    older = timed("int8", 100.0, **more)

    def said(*rows) -> list[str]:
        return [line for line in footnotes(rows) if line.startswith("p99 ms")]

    of_new = "p99 ms: what p99 in a new process does not exceed, at 95 % confidence."
    assert said(new) == [of_new]
    assert said(older) == said(few)
    (line,) = said(few)
    assert line.startswith("p99 ms: what p99 of these processes does not exceed")
    assert "if batches are independent" in line
    first, second = said(few, new)
    assert first == of_new
    assert second.startswith("p99 ms of fewer than six processes: ")
    assert said({**few, "latency_p99_high_ms": None}) == []


def test_a_warning_names_the_rows_that_it_is_about():
    more = {"noise_floor": None, "latency_p99_high_ms": None, "samples": 9}
    more |= {"width": 0.01, "latency_p50_ms": None, "calibration": None}
    rows = [
        timed("fp32", 100.0, warnings="busy", **more),
        timed("int8", 180.0, warnings="two speeds; busy", **more),
        timed("int8", 280.0, batch_size=32, warnings="hot; two speeds; busy", **more),
    ]
    assert [line for line in footnotes(rows) if line.startswith("Warning")] == [
        "Warning: busy",
        "Warning: onnxruntime int8, batch 32: hot",
        "Warning: onnxruntime int8, batch 1; onnxruntime int8, batch 32: two speeds",
    ]


def test_a_single_configuration_has_no_closing_line():
    assert closing_lines([timed("fp32", 100.0)]) == []


def test_what_cannot_be_reported_is_one_line(tmp_path, measured):
    with pytest.raises(BenchError, match=r"no measurement in .*'bench throughput' makes one"):
        publish_measurements(Measurements(tmp_path), tmp_path / "page")
    with pytest.raises(BenchError, match=r"--format latex .*markdown, csv, parquet"):
        publish_measurements(measured, tmp_path / "page", ["latex"])
    assert not (tmp_path / "page").exists()
    assert rows_of(bench.load_results(tmp_path, table="throughput")) == []


def test_small_numbers_keep_their_digits_in_json():
    numbers = [2.6e-12, 4.123456789e-7, 1 / 3, math.inf, math.nan, None]
    rows = rows_of(pd.DataFrame({"a": pd.array(numbers, "Float64"), "b": [*numbers]}))
    expected = [*numbers[:3], None, None, None]
    assert [row["a"] for row in rows] == [row["b"] for row in rows] == expected


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.00008, "0.00008"),
        (9.996, "10"),
        (99.94, "99.9"),
        (999.6, "1,000"),
        (1_234_567, "1,234,567"),
    ],
)
def test_a_figure_has_significant_digits_and_no_exponent(value: float, text: str) -> None:
    assert rounded(value, 3) == text
