"""Measuring in fresh processes: what is stored, what is claimed, what a crash costs."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

import bench
from bench.errors import BenchError
from bench.measurement.configurations import Request
from bench.measurement.machine.noise import scheduler_tick
from bench.measurement.rows import make_rows
from bench.measurement.timing.replicates import Replicate, replicate, share_of
from bench.measurement.timing.sampling import Goal
from bench.models import build_model
from bench.store.measurements import Measurements, read_samples
from bench.system.intervals import LOOK_CONFIDENCE, process_interval, two_modes

from .conftest import a_trial

WORDS = {"max_seconds": 3, "input_size": 16, "threads": 1, "device": "cpu", "batch_sizes": (1,)}


def test_an_interval_over_processes_is_the_t_interval_of_the_logarithms():
    times = [0.9, 1.1, 1.0, 1.3, 0.8, 1.05, 0.95]
    logs = np.log(times)
    expected = stats.t.interval(0.95, len(logs) - 1, logs.mean(), stats.sem(logs))
    found = process_interval(times)
    assert (math.log(found.low), math.log(found.high)) == pytest.approx(expected)
    assert found.median == pytest.approx(stats.gmean(times))
    assert found.confident
    assert not process_interval(times[:5]).confident


def test_two_speeds_of_processes_are_found_and_one_is_not():
    fast, slow = [1.0, 1.01, 0.99, 1.005], [1.2, 1.21, 1.19]
    assert two_modes([*slow, *fast]) == (sorted(fast), sorted(slow))
    assert two_modes(fast) is None
    assert two_modes([*fast, 1.4]) is None  # one slow process is no mode
    assert two_modes(np.random.default_rng(0).normal(1, 0.05, 24)) is None


@pytest.mark.usefixtures("third_party")
def test_each_process_measures_everything_and_its_samples_are_kept(tmp_path):
    frame = bench.measure(
        "resnet8", backends=("fine", "small"), processes=2, results=tmp_path, **WORDS
    )
    store = Measurements(tmp_path)
    record = store.find(frame["measurement"][0])
    assert frame["processes"].tolist() == [2, 2]
    assert frame["difference"].isna().tolist() == [False, True]  # two processes claim nothing
    assert frame["ratio"][1] > 0
    assert len({one["pid"] for one in record.processes}) == 2
    assert all("others" in one["noise"] for one in record.processes)
    blocks = read_samples(store.folder(record.measurement))[record.rows[0]["configuration"]]
    assert {process for process, _ in blocks} == {0, 1}
    medians = [
        np.median([s for (p, _), block in blocks.items() if p == process for s in block])
        for process in (0, 1)
    ]
    assert frame["images_per_second"][0] == pytest.approx(1 / stats.gmean(medians))


@pytest.mark.usefixtures("third_party")
def test_a_crash_costs_its_process_and_a_second_one_its_row(tmp_path):
    frame = bench.measure(
        "resnet8", backends=("crash", "fine"), processes=3, results=tmp_path, **WORDS
    )
    crash, fine = (row for _, row in frame.iterrows())
    assert (crash["status"], fine["status"], fine["processes"]) == ("failed", "complete", 1)
    assert "SIGABRT" in crash["error"]


@pytest.mark.usefixtures("third_party")
def test_a_crash_while_sampling_is_that_of_the_one_that_was_at_work(tmp_path):
    frame = bench.measure(
        "resnet8", backends=("late", "fine"), processes=3, results=tmp_path, **WORDS
    )
    late, fine = (row for _, row in frame.iterrows())
    assert (late["status"], fine["status"], fine["processes"]) == ("failed", "complete", 1)
    assert "1 of 3 processes complete" in fine["warnings"]


@pytest.mark.usefixtures("third_party")
def test_a_row_without_a_complete_process_has_failed(tmp_path):
    frame = bench.measure(
        "resnet8", backends=("late", "fine"), processes=2, results=tmp_path, **WORDS
    )
    assert frame["status"].tolist() == ["failed", "failed"]
    assert frame["error"][1] == "none of 2 processes was complete"


@pytest.mark.slow
@pytest.mark.usefixtures("third_party")
def test_a_process_that_hangs_costs_its_row_only(tmp_path):
    frame = bench.measure(
        "resnet8", backends=("hang", "fine"), processes=3, timeout=20, results=tmp_path, **WORDS
    )
    assert frame["status"].tolist() == ["failed", "complete"]
    assert frame["error"][0] == "no sign of progress for 20 s (--timeout)"


@pytest.mark.parametrize("number", [0, -1, 101, 2.5, "many"])
def test_a_number_of_processes_out_of_range_is_refused(number):
    with pytest.raises(BenchError, match=f"--processes {number}: it must be 1 to 100, or auto"):
        Request(processes=number)


class Samples:
    """Stands for processes: gives each trial the blocks that a function draws."""

    def __init__(self, draw, interrupted_after=None):
        self.draw, self.interrupted_after = draw, interrupted_after

    def __call__(self, trials, number):
        if number == self.interrupted_after:
            raise KeyboardInterrupt
        for trial in trials:
            measured = trial.fresh()
            measured.blocks = {0: list(self.draw())}
            measured.seconds_spent = sum(measured.blocks[0])
            measured.update_interval(always=True)
            trial.add_replicate(number, measured)
        return Replicate(number, number, "", 1.0)


def pair():
    reference, other = a_trial("eager", None, "g", True), a_trial("other", None, "g")
    return reference, other


def test_auto_stops_at_the_first_look_whose_ratios_are_narrow_enough():
    source = np.random.default_rng(0)
    for spread, expected in ((0.001, 6), (0.04, 24)):
        trials = pair()
        run = Samples(lambda s=spread: 0.01 * np.exp(source.normal(0, s, 3)))
        found = replicate(trials, Request(), Goal(max_seconds=60), run)
        assert (len(found.processes), found.warnings) == (expected, [])
        assert {trial.confidence for trial in trials} == {LOOK_CONFIDENCE}
        for trial in trials:
            logs = np.log([one.interval.median for one in trial.replicates.values()])
            ends = stats.t.interval(1 - 0.0182, len(logs) - 1, logs.mean(), stats.sem(logs))
            found_ends = math.log(trial.interval.low), math.log(trial.interval.high)
            assert found_ends == pytest.approx(ends)
        reference, other = trials
        each = [one.speedup_over(reference.replicates[n]) for n, one in other.replicates.items()]
        pairs = process_interval([ratio.median for ratio in each], 1 - 0.0182)
        speedup = other.speedup_over(reference)
        width, expected_width = (x.high / x.low for x in (speedup, pairs))
        assert math.log(width) == pytest.approx(math.log(expected_width), rel=0.1)


def test_no_more_processes_than_the_time_allows():
    source = np.random.default_rng(0)
    run = Samples(lambda: 0.1 * np.exp(source.normal(0, 0.2, 3)))
    assert len(replicate(pair(), Request(), Goal(max_seconds=3.5), run)[0]) == 10


def test_without_its_reference_a_row_is_judged_by_its_own_interval():
    reference, other = pair()
    source = np.random.default_rng(0)
    reference.give_up = lambda: None
    reference.status, reference.error = "failed", "no memory"
    run = Samples(lambda: 0.01 * np.exp(source.normal(0, 0.001, 3)))
    found = replicate((reference, other), Request(), Goal(max_seconds=60), run_only(run, other))
    assert len(found.processes) == 6


def run_only(run, trial):
    return lambda trials, number: run([t for t in trials if t is trial], number)


@pytest.mark.parametrize(("processes", "seconds"), [("auto", 2.0), (12, 1.0), (3, 4.0)])
def test_the_time_for_a_configuration_is_that_of_all_processes_together(processes, seconds):
    share = share_of(Goal(max_seconds=12, min_samples=662), Request(processes=processes))
    assert share.max_seconds == seconds
    assert share.min_samples == math.ceil(662 * seconds / 12)


def test_of_a_single_complete_process_the_interval_is_the_one_within_it():
    trials = a_trial("eager", None, "g", True), a_trial("onnxruntime", None, "g")
    blocks = {n: [0.01 * (1 + n / 100), 0.0102] for n in range(8)}

    def run(usable, number):
        if number == 1:
            raise KeyboardInterrupt
        for trial in usable:
            measured = trial.fresh()
            measured.blocks = {
                n: [s / (1 + trial.is_reference) for s in b] for n, b in blocks.items()
            }
            measured.update_interval(always=True)
            trial.add_replicate(number, measured)
        return Replicate(number, number, "", 1.0)

    replicate(trials, Request(), Goal(max_seconds=60), run)
    reference, other = trials
    assert other.interval.low < other.interval.median < other.interval.high
    assert other.speedup_over(reference).median == pytest.approx(0.5)
    rows = make_rows(trials, measurement="m", cpu="A", goal=Goal(), ceiling=None)
    assert [row["difference"] for row in rows] == ["reference", None]  # one process claims nothing


def test_too_short_a_time_is_named_with_what_it_takes():
    trials = pair()
    run = Samples(lambda: [2.0])
    done, (warning,), interrupted = replicate(trials, Request(), Goal(max_seconds=3), run)
    assert (len(done), interrupted) == (1, False)
    assert "--max-seconds 3 is too short for a sample in each of 6 processes" in warning
    assert "(give at least 12" in warning
    assert ";" not in warning  # rows join their warnings by it


def test_one_slow_sample_of_the_first_process_does_not_end_the_measurement():
    slow = iter([[0.01, 3.0, 0.01]])
    run = Samples(lambda: next(slow, [0.01] * 3))
    done, warnings, _ = replicate(pair(), Request(processes=6), Goal(max_seconds=12), run)
    assert (len(done), warnings) == (6, [])


@pytest.mark.parametrize(("after", "claim"), [(3, ", too few for any claim"), (7, "")])
def test_ctrl_c_keeps_what_is_complete_and_says_what_it_allows(after, claim):
    source = np.random.default_rng(0)
    run = Samples(lambda: 0.01 * np.exp(source.normal(0, 0.2, 3)), interrupted_after=after)
    trials = pair()
    done, (warning,), interrupted = replicate(trials, Request(), Goal(max_seconds=60), run)
    assert interrupted
    assert len(done) == len(trials[0].replicates) == after
    assert warning == f"interrupted after {after} complete processes{claim}"
    with pytest.raises(KeyboardInterrupt):
        replicate(pair(), Request(), Goal(), Samples(None, interrupted_after=0))


@pytest.mark.usefixtures("third_party")
def test_a_network_can_be_the_reference(tmp_path):
    words = {**WORDS, "processes": 1, "max_seconds": 0.3, "backends": ("eager",)}
    frame = bench.measure(["resnet8", "resnet14"], reference="resnet14", results=tmp_path, **words)
    assert frame["model"].tolist() == ["resnet8", "resnet14"]
    assert frame["reference"].tolist() == ["resnet14 eager fp32 contiguous"] * 2
    assert frame["difference"][1] == "reference"
    assert frame["ratio"][0] > 1
    with pytest.raises(BenchError, match=r"--reference resnet15 is unknown.*one of the measured"):
        bench.measure(["resnet8"], reference="resnet15", results=tmp_path, **words)


@pytest.mark.usefixtures("third_party")
def test_a_file_can_be_the_reference(tmp_path):
    files = []
    for name, width in (("main", 4), ("branch", 16)):
        network = build_model("resnet8", width=width, in_channels=3).eval()
        files.append(tmp_path / f"{name}.onnx")
        torch.onnx.export(network, (torch.randn(1, 3, 16, 16),), files[-1], dynamo=True)
    words = {**WORDS, "processes": 1, "max_seconds": 0.3, "backends": ("onnxruntime",)}
    frame = bench.measure(list(map(str, files)), reference=str(files[0]), results=tmp_path, **words)
    assert frame["difference"][0] == "reference"
    assert frame["ratio"][1] < 1


def test_times_that_are_time_slices_are_recognised():
    source = np.random.default_rng(0)
    slices = 0.024 * source.integers(1, 4, 60) + source.normal(0, 1e-4, 60)
    assert scheduler_tick(slices) == 0.024
    assert scheduler_tick(source.normal(0.05, 0.002, 60)) is None
    assert scheduler_tick(source.normal(0.024, 1e-4, 60)) is None  # one peak: chance
    assert scheduler_tick(source.uniform(0.02, 0.4, 200)) is None
