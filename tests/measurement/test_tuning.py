from __future__ import annotations

import dataclasses
import shlex

import pytest
import torch

from bench.errors import BenchError
from bench.measurement import tuning
from bench.measurement.configurations import Configuration, Request, expand
from bench.measurement.machine.noise import tick_warning
from bench.measurement.measured_network import find_target
from bench.measurement.preparation import make_context
from bench.measurement.tuning import (
    Bounds,
    Budget,
    axes,
    candidates,
    command_for,
    halve,
    halve_by_preparation,
)
from bench.store.measurements import MeasurementRecord
from builders import make_row

from .conftest import TINY, FakeRunner


@pytest.fixture
def made(third_party) -> list[Configuration]:
    del third_party
    request = Request(backends=("fine",), batch_sizes=tuple(range(1, 11)))
    return expand(request, [find_target(TINY, input_size=16)], device="cpu", threads=1)


@pytest.fixture
def opened(clock, normal):
    """Batches of n images take 5 + n ms: larger ones are faster an image, and later."""

    def runner(one: Configuration) -> FakeRunner:
        return FakeRunner(clock, normal((5 + one.batch_size) / 1000, 0.001))

    return runner


def test_a_gpu_gets_large_batches_and_no_thread_counts(monkeypatch):
    assert axes("cpu", 4) == ([4, 1], (1, 8, 32))
    assert axes("cuda:0", 4) == ([4], (1, 8, 32, 256))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device=None: (9, 0))
    tried = candidates(
        find_target("resnet8", input_size=16), device="cuda", threads=[4], batch_sizes=(256,)
    )
    ways = {(one.backend, one.memory_format) for one in tried}
    assert {
        ("eager", "channels_last"), ("eager-graph", "channels_last"),
        ("compile-graph", "channels_last"),
    } <= ways  # fmt: skip


def test_halving_ends_with_the_fastest(made, opened):
    left = halve(made, Bounds(), opened)
    assert [one.batch_size for one in left] == [10, 9, 8]


def test_a_latency_bound_is_kept(made, opened):
    assert halve(made, Bounds(latency_ms=10.5), opened)[0].batch_size == 5


def test_a_bound_that_nothing_reaches_names_the_best(made, opened):
    with pytest.raises(BenchError, match=r"nothing here reaches it; the best is 6(\.0\d)? ms"):
        halve(made, Bounds(latency_ms=1.0), opened)


def test_once_the_budget_is_spent_nothing_is_begun_and_the_order_so_far_is_the_answer(
    made, opened, clock
):
    budget = Budget(0.01, now=clock)  # 0.6 s: not enough for the first rung
    left = halve(made, Bounds(), opened, budget=budget)
    assert left
    assert len(left) <= len(budget.begun) < len(made)
    assert len(budget.begun) + len(budget.skipped) == len(made)


@pytest.mark.parametrize("bounds", [Bounds(), Bounds(latency_ms=6.5)])
def test_what_is_slow_to_prepare_enters_last_where_the_others_left_something(
    made, opened, clock, bounds, monkeypatch
):
    """The slow backend takes half the others' time; so it wins, at one of their sizes."""
    from bench.measurement.backends import load_backend

    monkeypatch.setattr(type(load_backend("hang")), "slow_to_prepare", True, raising=False)
    slow = [dataclasses.replace(one, backend="hang") for one in made]
    entered = []

    def runner(one: Configuration) -> FakeRunner:
        entered.append(one)
        made = opened(one)
        if one.backend == "hang":
            draw, made.draw = made.draw, lambda: draw() / 2
        return made

    left = halve_by_preparation([*slow, *made], bounds, runner, budget=Budget(now=clock))
    assert left[0].backend == "hang"
    sizes = {one.batch_size for one in entered if one.backend == "hang"}
    assert left[0].batch_size == max(sizes)
    assert len(sizes) <= 3
    first = next(i for i, one in enumerate(entered) if one.backend == "hang")
    assert {one.backend for one in entered[:first]} == {"fine"}


def test_a_bound_that_only_a_slow_one_reaches_is_reached(made, opened, clock, monkeypatch):
    from bench.measurement.backends import load_backend

    monkeypatch.setattr(type(load_backend("hang")), "slow_to_prepare", True, raising=False)
    slow = [dataclasses.replace(one, backend="hang") for one in made]

    def runner(one: Configuration) -> FakeRunner:
        made = opened(one)
        if one.backend == "hang":
            draw, made.draw = made.draw, lambda: draw() / 2
        return made

    bounds = Bounds(latency_ms=4.5)
    left = halve_by_preparation([*made, *slow], bounds, runner, budget=Budget(now=clock))
    assert {one.backend for one in left} == {"hang"}


def test_the_command_reproduces_the_configuration(made):
    assert command_for(made[3]) == (
        f"bench throughput {TINY} --input-size 16 --backend fine --precision fp32 "
        "--memory-format contiguous --batch-size 4 --threads 1 --device cpu"
    )
    given = {"zero_init_residual": True, "shortcut": "none"}
    target = dataclasses.replace(made[3].target, options=given)
    assert "--option zero_init_residual=true --option shortcut=none " in command_for(
        dataclasses.replace(made[3], target=target)
    )


def test_the_command_can_be_pasted_and_finds_what_was_tuned(made, tmp_path):
    def words_for(**changes):
        target = dataclasses.replace(made[3].target, results=f"{tmp_path}/the results", **changes)
        int8 = dataclasses.replace(made[3], target=target, precision="int8")
        return shlex.split(command_for(int8, "a set"))

    words = words_for(options={"text": "a b"})
    assert words[:5] == ["bench", "throughput", TINY, "--option", 'text="a b"']
    assert words[-4:] == ["--dataset", "a set", "--results", f"{tmp_path}/the results"]
    assert words_for(kind="run", run="r8-s0-12")[2:4] == ["r8-s0-12", "--backend"]
    exported = words_for(kind="onnx", run="r8-s0-12", file=tmp_path / "m.onnx")
    assert exported[2:4] == [f"{tmp_path}/m.onnx", "--input-size"]


@pytest.mark.parametrize(
    ("bounds", "expected"),
    [
        ({"latency_ms": float("nan")}, "--max-latency-ms nan: it must be above 0"),
        ({"latency_ms": 0.0}, "--max-latency-ms 0: it must be above 0"),
        ({"accuracy": 2.0}, "--min-accuracy 200: it must be"),
        ({"accuracy": float("nan")}, "--min-accuracy nan: it must be"),
    ],
)
def test_bounds_that_nothing_can_keep_are_refused_before_any_work(bounds, expected):
    with pytest.raises(BenchError, match=expected):
        Bounds(**bounds)


def row_of(one, rows):
    """A row of the second measurement: n images per batch have n thousand images/s."""
    changes = rows.get(one.batch_size, {})
    return make_row(
        backend=one.backend, batch_size=one.batch_size, threads=one.threads, samples=300,
        precision=one.precision, memory_format=one.memory_format, streams=one.streams,
        **{"images_per_second": 1000.0 * one.batch_size, **changes},
    )  # fmt: skip


@pytest.fixture
def searched(made, opened, monkeypatch, tmp_path):
    """Tune with a fake search; *rows* gives what the second measurement finds, by batch size."""

    def run(rows, bounds, dataset=None, noise=None):
        calls = []

        def measured(configurations, request, _context, _folder):
            calls.append((configurations, request))
            found = [row_of(one, rows) for one in configurations]
            return MeasurementRecord("m", {}, found, noise=noise or {})

        monkeypatch.setattr(tuning, "candidates", lambda *_, **__: made)
        monkeypatch.setattr(tuning, "with_files", lambda given, *_: iter(given))
        monkeypatch.setattr(tuning, "LocalRunner", opened)
        monkeypatch.setattr(tuning, "measure_configurations", measured)
        monkeypatch.setattr(tuning, "find_examples", lambda _target: object())
        context = make_context(tmp_path / "r", "cpu", 1)
        tuned = tuning.tune(made[0].target, context, bounds, dataset=dataset)
        return tuned, calls

    return run


def test_the_fastest_of_the_finalists_is_the_one_of_the_second_measurement(searched):
    tuned, ((configurations, request),) = searched({9: {"images_per_second": 99e3}}, Bounds())
    assert [one.batch_size for one in configurations] == [10, 9, 8]
    assert tuned.best.batch_size == 9
    assert (request.processes, request.bounded) == ("auto", False)
    assert (request.options, request.input_size) == ({}, (16, 16))  # its command needs them
    assert tuned.left_out == ()


def test_ctrl_c_among_the_finalists_ends_the_search(searched):
    with pytest.raises(KeyboardInterrupt):
        searched(narrow(10) | narrow(9) | narrow(8), Bounds(), noise={"interrupted": True})


def narrow(size, **changes):
    """What is found of a batch size, with a narrow interval of images/s."""
    speed = 1000.0 * size
    return {size: {"ci_low": speed * 0.99, "ci_high": speed * 1.01, **changes}}


def test_it_is_the_fastest_only_if_its_interval_overlaps_with_no_other(searched):
    tuned, _ = searched(narrow(10) | narrow(9) | narrow(8), Bounds())
    assert (tuned.best.batch_size, tuned.again, tuned.as_fast) == (10, 3, ())
    assert tuned.no_verdict is None
    tuned, _ = searched(narrow(10) | narrow(9, ci_high=9950.0) | narrow(8), Bounds())
    assert tuned.best.batch_size == 10
    assert [name.split(" / ")[4] for name in tuned.as_fast] == ["batch 9"]


def test_what_is_as_fast_with_another_number_of_threads_has_another_name(made, searched):
    made[8] = dataclasses.replace(made[9], threads=2)
    tuned, _ = searched(narrow(10) | narrow(8), Bounds())
    names = sorted([tuned.best.name, *tuned.as_fast], key=lambda name: name[-9:])
    assert [name.rpartition(" / ")[2] for name in names] == ["1 threads", "2 threads"]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"other_processes": 0.5}, "other processes used 50 % of the processor; tune while"),
        ({"processes": 5}, "only 5 of the 6 processes that a verdict needs are complete; "),
        ({"processes": None}, "only 1 of the 6 processes"),
        ({"warnings": f"hot; {tick_warning(0.01)}"}, "the times are multiples of 10 ms, a time"),
    ],
)
def test_times_that_support_no_verdict_give_none(changes, reason, searched):
    tuned, _ = searched(narrow(10) | narrow(9, **changes) | narrow(8), Bounds())
    assert tuned.best.batch_size == 10
    assert tuned.no_verdict.startswith(reason)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "The fastest of the 3 that were measured again, of 10 configurations:"),
        ({"ci_high": 20e3}, "As fast, within their intervals: others_models:tiny / fine / fp32"),
        ({"processes": 2}, "No verdict: only 2 of the 6 processes"),
    ],
)
def test_the_closing_sentence_claims_no_more_than_the_intervals(
    changes, words, searched, monkeypatch, bench, tmp_path
):
    tuned, _ = searched(narrow(10) | narrow(9, **changes) | narrow(8), Bounds())
    monkeypatch.setattr(tuning, "tune", lambda *_, **__: tuned)
    out = bench("tune", TINY, "--input-size", 16, "--results", tmp_path / "r").out
    *_, said, command = out.splitlines()
    assert said.startswith(words)
    assert ("fastest" in said) == (not changes)
    assert command == f"  {tuned.command}"


def test_the_json_holds_the_answer(searched, monkeypatch, bench, tmp_path):
    rows = narrow(10, latency_p99_high_ms=30.0) | narrow(9, latency_p99_high_ms=14.0)
    rows |= narrow(8, latency_p99_high_ms=14.0, processes=2)
    tuned, _ = searched(rows, Bounds(latency_ms=15.5))
    monkeypatch.setattr(tuning, "tune", lambda *_, **__: tuned)
    document = bench("tune", TINY, "--input-size", 16, "--json", "--results", tmp_path).document
    found = {row["batch_size"]: (row["fits"], row["chosen"]) for row in document["rows"]}
    assert found == {10: (False, False), 9: (True, True), 8: (True, False)}
    out, verdict = document["remarks"]
    assert out.endswith("p99 is only known to be at most 30 ms (95 %)")
    assert verdict.startswith("No verdict: only 2 of the 6 processes")
    assert verdict.endswith(tuned.best.name)


def test_latency_is_checked_again_on_fresh_samples(searched):
    rows = {size: {"latency_p99_high_ms": 30.0} for size in (10, 9)}
    rows |= {8: {"latency_p99_high_ms": 14.9}}
    tuned, ((configurations, request),) = searched(rows, Bounds(latency_ms=15.5))
    assert tuned.best.batch_size == 8
    assert request.bounded
    assert all(one.bounded and one.alone for one in configurations)
    assert request.max_seconds > 299 * 0.0155
    assert [line.rpartition(": ")[2] for line in tuned.left_out] == [
        "p99 is only known to be at most 30 ms (95 %)"
    ] * 2


def test_if_no_finalist_keeps_the_bound_the_search_goes_on_among_the_rest(searched):
    rows = {size: {"latency_p99_high_ms": 30.0} for size in (10, 9, 8, 6)}
    rows |= {7: {"latency_p99_high_ms": 12.5}}
    tuned, calls = searched(rows, Bounds(latency_ms=15.5))
    assert [[one.batch_size for one in given] for given, _ in calls] == [[10, 9, 8], [7, 6, 5]]
    assert tuned.best.batch_size == 7


def test_accuracy_is_that_of_the_second_measurement_and_of_validation_if_there_is_one(searched):
    rows = {
        10: {"validation_accuracy": 0.89, "test_accuracy": 0.95},
        9: {"validation_accuracy": 0.91, "test_accuracy": 0.88},
        8: {"test_accuracy": 0.93},
    }
    tuned, _ = searched(rows, Bounds(accuracy=0.9))
    assert tuned.best.batch_size == 9
    assert tuned.left_out[0].endswith("its validation accuracy is 89.00 %")


def test_what_answers_alike_is_left_out_together(searched):
    low = {size: {"test_accuracy": 0.5} for size in range(1, 11)}
    with pytest.raises(BenchError, match=r"--min-accuracy 90: nothing .* test accuracy is 50.00 %"):
        searched(low, Bounds(accuracy=0.9))


def test_the_images_to_calibrate_with_are_passed_on_if_something_is_in_int8(made, searched):
    tuned, ((_, request),) = searched({}, Bounds(), dataset="random")
    assert (request.dataset, "--dataset" in tuned.command) == (None, False)
    made[9] = dataclasses.replace(made[9], precision="int8")
    tuned, ((_, request),) = searched({}, Bounds(), dataset="random")
    assert request.dataset == "random"
    assert tuned.command.endswith("--dataset random")


def test_a_model_with_random_weights_has_no_accuracy(made, tmp_path):
    context = make_context(tmp_path, "cpu", 1)
    with pytest.raises(BenchError, match="--min-accuracy needs a trained run"):
        tuning.tune(made[0].target, context, Bounds(accuracy=0.5))
