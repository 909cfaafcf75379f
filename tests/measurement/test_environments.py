"""Two environments compared, each represented by a program that prints rows."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from types import SimpleNamespace

import pytest

from bench.errors import BenchError
from bench.measurement import environments
from bench.measurement.compared_speeds import speeds_of
from bench.measurement.environments import compare_environments
from bench.measurement.machine.noise import tick_warning
from bench.measurement.speed_changes import Pair, change_over_pairs
from builders import make_row

HUNG = 77  # exit code of what stands for a process that hangs
# What an environment's interpreter does in its process number N, whatever it is to run.
PROGRAM = """
import json, os, signal, sys, time
from pathlib import Path

words, rows, events = sys.argv[3:], {rows!r}, {events!r}
if {old} and "--processes" in words:
    sys.exit("bench: error: No such option: --processes")
if "crash" in words:
    sys.exit("bench: error: unknown model 'crash'")
me, log = Path(__file__).name, Path(__file__).with_name("log")
with log.open("a") as file:
    file.write(me + "\\n")
event = events.get(log.read_text().split().count(me))
if event == "abort":
    os.abort()
if event == "hang":
    sys.exit({hung})
if event == "interrupt":
    os.kill(os.getppid(), signal.SIGINT)
    time.sleep(60)
if event == "failed row":
    rows[-1].update(status="failed", error="the backend broke")
print(json.dumps({{"schema": 1, "rows": rows, "errors": []}}))
sys.exit(1 if event == "failed row" else 0)
"""


def speed_row(speed: float, **changes):
    values = {"images_per_second": speed, "ci_low": speed * 0.99, "ci_high": speed * 1.01}
    return make_row(**{**values, "processes": 1, **changes})


@pytest.fixture
def environment(tmp_path):
    """Make what stands for an environment's interpreter: it prints rows, whatever it is to run.

    *events* says what happens instead in its process number N.
    """

    def make(name, *rows, old=False, events=None):
        path = tmp_path / name
        body = PROGRAM.format(rows=rows, old=old, events=events or {}, hung=HUNG)
        path.write_text(f"#!{sys.executable} -IS\n{body}")
        path.chmod(0o755)
        return str(path)

    return make


@pytest.fixture
def pairs():
    """Make pairs from ratios: of the pairs that begin with the baseline, and of the others."""

    def make(*orders, before=None, now=None):
        rows = [
            (speed_row(100, **(before or {})), speed_row(100 * ratio, **(now or {})), first)
            for first, ratios in zip((True, False), orders, strict=True)
            for ratio in ratios
        ]
        return [Pair(speeds_of("old", [b]), speeds_of("new", [n]), first) for b, n, first in rows]

    return make


@pytest.mark.parametrize(("speed", "verdict"), [(100, "same"), (90, "slower"), (111, "faster")])
def test_two_environments_are_measured_in_turn(environment, speed, verdict):
    old, new = environment("old", speed_row(100), old=True), environment("new", speed_row(speed))
    (change,), (remark,), _ = compare_environments([old, new], ["resnet8"], 0.05)
    assert change.verdict == verdict
    assert change.ratio == pytest.approx(speed / 100)
    assert remark.startswith("6 pairs of processes, one of each environment")


def test_of_each_two_pairs_one_begins_with_either_environment(environment, tmp_path):
    pythons = [environment(name, speed_row(100)) for name in ("old", "new")]
    firsts = []
    for _ in range(2):
        compare_environments(pythons, ["resnet8"], 0.05)
        log = (tmp_path / "log").read_text().split()
        (tmp_path / "log").unlink()
        assert all(set(log[i : i + 2]) == {"old", "new"} for i in range(0, len(log), 2))
        firsts += log[::2]
    assert [set(firsts[i : i + 2]) for i in range(0, len(firsts), 2)] == [{"old", "new"}] * 6


def test_what_is_slower_in_one_order_only_is_undecided(pairs):
    agreeing, disagreeing = (
        pairs([0.78, 0.79] * 6, [0.9, 0.91] * 6),
        pairs([0.78] * 12, [1.01] * 12),
    )
    (change,), _ = change_over_pairs(agreeing, 0.03)
    assert (change.verdict, change.reason) == ("slower", None)
    (change,), _ = change_over_pairs(disagreeing, 0.03)
    assert change.high < 0.97  # the whole interval is beyond the threshold
    assert (change.verdict, change.reason) == ("undecided", "the two orders disagree")
    (change,), _ = change_over_pairs(pairs([1.3] * 12, [0.99] * 12), 0.03)
    assert (change.verdict, change.reason) == ("undecided", "the two orders disagree")
    (change,), _ = change_over_pairs(pairs([0.8] * 6, []), 0.03)
    assert change.verdict == "not judged"
    assert change.reason == "every complete pair began with the same environment"


def test_times_that_a_time_slice_decided_are_not_judged(pairs):
    warnings = f"warm-up was cut short; {tick_warning(0.024)}; other processes ran"
    (change,), _ = change_over_pairs(pairs([0.5] * 3, [0.5] * 3, now={"warnings": warnings}), 0.05)
    assert change.verdict == "not judged"
    assert change.reason == "the times are multiples of 24 ms, a time slice"


def test_warnings_of_both_environments_say_in_how_many_processes_and_of_what(pairs):
    """The highest of the figures is printed; figures that are parts of names are none."""
    loads = [f"the load average was {load}; fp{half} was computed in fp32" for load, half in
             ((2, 16), (60, 8), (9.5, 16))]  # fmt: skip
    found = [pairs([1.0], [], now={"warnings": load})[0] for load in loads]
    other = [speed_row(100), speed_row(50, backend="other", warnings="hot")]
    found.append(Pair(speeds_of("old", other), speeds_of("new", other[:1]), baseline_first=True))
    (other_key,) = found[-1].sides[0].speeds.keys() - found[0].sides[0].speeds.keys()
    _, remarks = change_over_pairs([*found, *pairs([1.0], [])], 0.05)
    assert [remark for remark in remarks if " processes" in remark] == [
        f"old, 1 of 5 processes ({other_key}): hot.",
        "new, 3 of 5 processes: the load average was 60.",
        "new, 2 of 5 processes: fp16 was computed in fp32.",
        "new, 1 of 5 processes: fp8 was computed in fp32.",
    ]


def test_a_busy_machine_gets_no_verdict(pairs):
    busy = pairs([0.5] * 3, [0.5] * 3, before={"other_processes": 0.5})
    (change,), _ = change_over_pairs(busy, 0.05)
    assert change.verdict == "not judged"
    assert change.reason.startswith("other processes used 50 %")


@pytest.mark.parametrize(("count", "verdict"), [(6, "slower"), (5, "not judged")])
def test_a_configuration_is_judged_over_the_pairs_that_have_it(pairs, count, verdict):
    both = pairs([0.8] * 5, [0.8] * 5, before={"backend": "eager"}, now={"backend": "eager"})
    for number, other in enumerate(pairs([0.8] * 5, [0.8] * 5)):
        both[number].before.speeds.update(other.before.speeds)
        if number < 3 or number >= 10 - (count - 3):
            both[number].now.speeds.update(other.now.speeds)
    (whole, part), (remark,) = change_over_pairs(both, 0.05)
    assert (whole.verdict, part.verdict) == ("slower", verdict)
    assert remark == f"{part.configuration}: measured in {count} of 10 pairs."
    assert part.reason == (None if count == 6 else "fewer than 6 pairs of processes")


def test_what_only_one_environment_has_is_named(environment):
    rows = speed_row(100), speed_row(150, backend="openvino")
    old, new = environment("old", *rows), environment("new", rows[0])
    (change,), (_, remark), _ = compare_environments([old, new], ["resnet8"], 0.05)
    assert "onnxruntime" in change.configuration
    assert "openvino" in remark
    assert remark.endswith(f"not compared, measured only in {old}.")


def test_networks_of_one_name_with_other_multiply_adds_are_named(environment):
    old = environment("old", speed_row(100, macs=1_234_567))
    new = environment("new", speed_row(100, macs=2_345_678))
    _, (_, remark), _ = compare_environments([old, new], ["resnet8"], 0.05)
    assert f"multiply-adds are 1,234,567 in {old} and 2,345,678 in {new}" in remark


@pytest.fixture
def limits(monkeypatch):
    """The time limits of processes, which end only those that stand for one that hangs."""
    seconds = []

    def run(command, *, timeout, check, **how):
        seconds.append(timeout)
        done = subprocess.run(command, check=check, **how)
        if done.returncode == HUNG:
            raise subprocess.TimeoutExpired(command, timeout)
        return done

    fake = SimpleNamespace(run=run, TimeoutExpired=subprocess.TimeoutExpired)
    monkeypatch.setattr(environments, "subprocess", fake)
    return seconds


@pytest.mark.parametrize(
    ("event", "reason"),
    [("abort", "its process was ended by SIGABRT"), ("hang", "it did not end within 2000000 s")],
)
def test_a_process_that_crashes_or_hangs_costs_its_pair(environment, limits, event, reason):
    old, new = (
        environment("old", speed_row(100)),
        environment("new", speed_row(80), events={3: event}),
    )
    lost = []
    (change,), (counted, why), _ = compare_environments(
        [old, new], ["resnet8"], 0.05, timeout=2e6, on_event=lost.append
    )
    assert change.verdict == "slower"
    assert counted.startswith("9 pairs of processes")  # after 5 of 6, too few
    assert why.startswith(f"9 of 10 pairs are complete: --python {new}: {reason}")
    assert [one["number"] for one in lost if one["event"] == "lost"] == [3]
    assert set(limits) == {2e6}


def test_a_configuration_that_fails_in_one_process_costs_only_its_own_pair(environment):
    rows = speed_row(100, backend="eager"), speed_row(100)
    old, new = environment("old", *rows), environment("new", *rows, events={2: "failed row"})
    (whole, part), remarks, _ = compare_environments([old, new], ["resnet8"], 0.05)
    assert (whole.verdict, part.verdict) == ("same", "same")
    assert remarks[0].startswith("10 pairs")
    assert remarks[1:] == [f"{part.configuration}: measured in 9 of 10 pairs."]


def test_a_configuration_that_always_fails_does_not_pass(environment):
    rows = speed_row(100, backend="eager"), speed_row(100)
    always = dict.fromkeys(range(1, 25), "failed row")
    old, new = environment("old", *rows), environment("new", *rows, events=always)
    (whole, failed), _, _ = compare_environments([old, new], ["resnet8"], 0.05)
    assert whole.verdict == "same"
    assert (failed.verdict, failed.reason) == ("not judged", "failed: the backend broke")


@pytest.mark.parametrize("failing", [{1: "abort"}, {2: "abort", 3: "abort"}])
def test_an_environment_that_fails_at_once_or_mostly_ends_the_comparison(environment, failing):
    old, new = (
        environment("old", speed_row(100), events=failing),
        environment("new", speed_row(100)),
    )
    with pytest.raises(BenchError, match=f"--python {old}: its process was ended by SIGABRT"):
        compare_environments([old, new], ["resnet8"], 0.05)


def test_a_few_failures_cost_their_pairs_only(environment):
    old = environment("old", speed_row(100), events={3: "abort", 6: "abort"})
    new = environment("new", speed_row(100), events={4: "abort"})
    (change,), remarks, _ = compare_environments([old, new], ["resnet8"], 0.05)
    assert change.verdict == "same"
    assert remarks[1].startswith("7 of 10 pairs are complete")


@pytest.mark.parametrize(
    ("python", "words", "expected"),
    [
        ("missing/bin/python", ["resnet8"], "cannot be run"),
        (None, ["crash"], "unknown model 'crash'"),
    ],
)
def test_an_environment_that_cannot_measure_is_named(environment, python, words, expected):
    given = [python or environment("old", speed_row(100)), environment("new", speed_row(100))]
    with pytest.raises(BenchError, match=expected) as raised:
        compare_environments(given, words, 0.05)
    assert str(raised.value).startswith("--python ")


def test_an_environment_where_nothing_ran_is_named_with_the_reason(environment):
    broken = environment("old", speed_row(100), events={1: "failed row"})
    with pytest.raises(BenchError, match=f"--python {broken}: the backend broke"):
        compare_environments([broken, environment("new", speed_row(100))], ["resnet8"], 0.05)


def test_an_environment_without_bench_is_named(environment, tmp_path):
    bare = tmp_path / "bare"
    bare.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S "$@"\n')  # no site-packages
    bare.chmod(0o755)
    with pytest.raises(BenchError, match=f"--python {bare}: bench is not installed there"):
        compare_environments([str(bare), environment("new", speed_row(100))], ["resnet8"], 0.05)


def test_environments_that_measured_different_networks_are_refused_after_one_pair(
    environment, tmp_path
):
    old = environment("old", speed_row(100, model="mine"))
    new = environment("new", speed_row(100, model="other"))
    with pytest.raises(BenchError, match="have no configuration in common"):
        compare_environments([old, new], ["mine"], 0.05)
    assert Counter((tmp_path / "log").read_text().split()) == {"old": 1, "new": 1}


@pytest.mark.parametrize(
    ("speed", "warnings", "verdict", "code"),
    [
        (100, None, "same", 0),
        (80, None, "slower", 1),
        (80, tick_warning(0.024), "not judged", 3),
    ],
)
@pytest.mark.parametrize("form", ["table", "markdown"])
def test_the_exit_code_says_the_verdict(bench, environment, speed, warnings, verdict, code, form):
    old = environment("old", speed_row(100))
    new = environment("new", speed_row(speed, warnings=warnings))
    words = ("--python", old, "--python", new, "--format", form)
    done = bench("compare", *words, "--", "resnet8")
    assert done.code == code
    assert f"{speed / 100:.3f} [" in done.out
    assert verdict in done.out


def test_markdown_ends_with_the_number_of_pairs(bench, environment):
    old = environment("old", speed_row(100))
    new = environment("new", speed_row(100), events={2: "abort"})
    words = ("--python", old, "--python", new)
    done = bench("compare", *words, "--format", "markdown", "--", "resnet8")
    heading, _, row, _, *remarks = done.out.splitlines()
    assert heading == "| configuration | candidate / baseline | by | verdict |"
    assert row.endswith("| 1.000 [1.000, 1.000] | images/s | same |")
    assert any(line.startswith("9 of 10 pairs are complete") for line in remarks)
    assert "pair 2 is lost: --python" in done.err


def test_the_command_prints_json_with_its_remarks(bench, environment):
    old, new = environment("old", speed_row(100, macs=1)), environment("new", speed_row(80, macs=2))
    done = bench("compare", "--json", "--python", old, "--python", new, "--", "resnet8")
    assert (done.code, done.err) == (1, "")
    (row,), (error,) = done.document["rows"], done.document["errors"]
    assert (row["verdict"], row["ratio"]) == ("slower", pytest.approx(0.8))
    assert error["error"].endswith("became slower")
    assert "the networks differ" in done.document["remarks"][1]


def test_the_command_refuses_an_environment_in_one_line(bench, environment):
    old, new = environment("old", speed_row(100)), environment("new", speed_row(100))
    done = bench("compare", "--json", "--python", old, "--python", new, "--", "crash")
    assert done.refusal.startswith("--python ")
    assert done.refusal.endswith("unknown model 'crash'")
    assert done.document["rows"] == []
    assert "give two interpreters" in bench("compare", "--python", old, "--", "resnet8").refusal


@pytest.mark.skipif(sys.platform == "win32", reason="sends a signal")
@pytest.mark.parametrize(
    ("number", "verdict", "remark"),
    [
        (9, "slower", "Interrupted after 7 complete pairs."),
        (4, "not judged: fewer than 6 pairs", "Interrupted after 2 complete pairs, too few"),
        (1, "", ""),
    ],
)
def test_ctrl_c_keeps_and_judges_the_complete_pairs(
    bench_process, environment, number, verdict, remark
):
    old = environment("old", speed_row(100))
    # With the lost pair, six are not enough.
    events = {2: "abort", number: "interrupt"}
    new = environment("new", speed_row(80), events=events)
    done = bench_process("compare", "--python", old, "--python", new, "--", "resnet8")
    assert done.code == 130, done
    assert "Traceback" not in done.err
    assert verdict in done.out
    assert remark in done.out
    assert bool(done.out) == bool(verdict)  # before the first pair there is nothing to print


@pytest.mark.slow
def test_one_environment_twice_finds_nothing():
    words = ["resnet8", "--option", "width=4", "--input-size", "8", "--batch-size", "1"]
    words += ["--backend", "eager", "--max-seconds", "0.5"]
    changes, *_ = compare_environments([sys.executable, sys.executable], words, 0.05)
    assert {change.verdict for change in changes} <= {"same", "undecided", "not judged"}
