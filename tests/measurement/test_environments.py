"""Two environments compared, each represented by a program that prints rows."""

from __future__ import annotations

import sys

import pytest

from bench.errors import BenchError
from bench.measurement.environments import compare_environments
from builders import make_row


OLD_OR_NEW = """
import json, sys
words = sys.argv[3:]
if {old} and "--processes" in words:
    sys.exit("bench: error: No such option: --processes")
if "crash" in words:
    sys.exit("bench: error: unknown model 'crash'")
row = {row!r}
print(json.dumps({{"rows": [row]}}))
"""


@pytest.fixture
def environment(tmp_path):
    """Make what stands for an environment's interpreter: it prints one row, whatever it runs."""

    def make(name, speed, *, old=False, **changes):
        path = tmp_path / name
        interval = {"ci_low": speed * 0.99, "ci_high": speed * 1.01}
        row = make_row(images_per_second=speed, processes=1, **{**interval, **changes})
        body = OLD_OR_NEW.format(old=old, row=row)
        path.write_text(f"#!{sys.executable}\n{body}")
        path.chmod(0o755)
        return str(path)

    return make


@pytest.mark.parametrize(("speed", "verdict"), [(100, "same"), (90, "slower"), (111, "faster")])
def test_two_environments_are_measured_in_turn(environment, speed, verdict):
    old, new = environment("old", 100, old=True), environment("new", speed)
    (change,), (remark,) = compare_environments([old, new], ["resnet8"], 0.05)
    assert change.verdict == verdict
    assert change.ratio == pytest.approx(speed / 100)
    assert remark.startswith("6 processes of each environment")


@pytest.mark.parametrize(
    ("python", "words", "expected"),
    [
        ("missing/bin/python", ["resnet8"], "cannot be run"),
        (None, ["crash"], "unknown model 'crash'"),
    ],
)
def test_an_environment_that_cannot_measure_is_named(environment, python, words, expected):
    given = [python or environment("old", 100), environment("new", 100)]
    with pytest.raises(BenchError, match=expected) as raised:
        compare_environments(given, words, 0.05)
    assert str(raised.value).startswith("--python ")


def test_an_environment_without_bench_is_named(environment, tmp_path):
    bare = tmp_path / "bare"
    bare.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S "$@"\n')  # no site-packages
    bare.chmod(0o755)
    with pytest.raises(BenchError, match=f"--python {bare}: bench is not installed there"):
        compare_environments([str(bare), environment("new", 100)], ["resnet8"], 0.05)


def test_environments_that_measured_different_networks_are_refused(environment):
    old, new = environment("old", 100, model="mine"), environment("new", 100, model="other")
    with pytest.raises(BenchError, match="have no configuration in common"):
        compare_environments([old, new], ["mine"], 0.05)


@pytest.mark.slow
def test_one_environment_twice_finds_nothing():
    words = ["resnet8", "--option", "width=4", "--input-size", "8", "--batch-size", "1"]
    words += ["--backend", "eager", "--max-seconds", "0.5"]
    changes, _ = compare_environments([sys.executable, sys.executable], words, 0.05)
    assert {change.verdict for change in changes} <= {"same", "undecided", "not judged"}
