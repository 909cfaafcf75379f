"""Two virtual environments compared: is the network slower since the upgrade?"""

from __future__ import annotations

import json
import random
import subprocess
import tempfile
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from bench.errors import BenchError
from bench.measurement.compared_speeds import ComparedSpeeds, speeds_of
from bench.measurement.speed_changes import (
    TOO_FEW_PAIRS,
    Change,
    Pair,
    change_over_pairs,
    check_threshold,
)
from bench.system.intervals import FEWEST_PROCESSES, LOOKS, mostly_failed
from bench.system.machine_lock import measuring_lock
from bench.system.memory import describe_exit, out_of_memory_kills

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.training.run import OnEvent

_SECONDS = "2"  # for each configuration in one process
_WIDTH = 0.02  # half-width of the intervals at which to stop
_FIRST_SECONDS = 3600.0  # a process of the first pair may take; how long is not yet known
_LONGER = 10  # times as long as the longest before, a later process may take
_PROGRAM = "from bench.cli import main; main()"


class EnvironmentComparison(NamedTuple):
    """The changes between two environments, what to know of them, and whether Ctrl-C came."""

    changes: list[Change]
    remarks: list[str]
    interrupted: bool = False


def compare_environments(
    pythons: Sequence[str],
    words: Sequence[str],
    threshold: float,
    *,
    timeout: float = 60.0,
    on_event: OnEvent = lambda _event: None,
) -> EnvironmentComparison:
    """Measure the same in two environments in turn, and compare them process by process.

    In each pair, one process of either environment runs `bench throughput`. Of each two pairs, one
    begins with the baseline and one with the candidate; which comes first is random. There are 6,
    10, 16 or 24 pairs, until all intervals are narrow enough. A process that crashes or hangs costs
    its pair. Ctrl-C ends the measurement, and the pairs that are complete are judged.

    Args:
        pythons: interpreters of the baseline and of the candidate, with bench installed in each.
        words: targets and options of `bench throughput`.
        threshold: 0.05 lets changes within ±5 % pass as the same.
        timeout: seconds that a process may take at least. After the first pair it may take ten
            times as long as the longest one before, and in the first pair an hour, if that is more.
        on_event: called with `process` before each pair, and with `lost` if a pair fails.

    Raises:
        BenchError: an environment fails in the first pair, or in two and most pairs (it has no
            bench, or cannot measure this); or the two have no configuration in common.
        KeyboardInterrupt: before the first pair was complete.
    """
    check_threshold(threshold)
    if len(pythons) != 2:  # noqa: PLR2004 - a baseline and a candidate
        raise BenchError(f"--python: give two interpreters, not {len(pythons)}")
    processes = _PairedProcesses(pythons, words, timeout, on_event)
    interrupted = False
    try:
        # After the first pair, environments with nothing in common are refused.
        for look in (1, *LOOKS):
            while processes.attempts < look:
                processes.run_pair(max(look, LOOKS[0]))
            changes, _ = change_over_pairs(processes.pairs, threshold)
            if look in LOOKS and all(map(_is_narrow, changes)):
                break
    except KeyboardInterrupt:
        if not processes.pairs:
            raise
        interrupted = True
    changes, remarks = change_over_pairs(processes.pairs, threshold)
    remarks = [*processes.remarks(interrupted=interrupted), *remarks]
    return EnvironmentComparison(changes, remarks, interrupted)


def _is_narrow(change: Change) -> bool:
    wide = change.high - change.low > 2 * _WIDTH * change.ratio  # never without a figure
    return not wide and change.reason != TOO_FEW_PAIRS


class _PairedProcesses:
    """The processes of two environments, in pairs; `attempts` counts the lost pairs, too."""

    def __init__(
        self, pythons: Sequence[str], words: Sequence[str], timeout: float, on_event: OnEvent
    ) -> None:
        self.pythons = pythons
        self.words = words
        self.timeout = timeout
        self.on_event = on_event
        self.pairs: list[Pair] = []
        self.attempts = 0
        self._baseline_first = True
        self._failures: tuple[list[str], list[str]] = [], []  # of each environment
        self._longest = 0.0

    def run_pair(self, planned: int) -> None:
        """Run one process of each environment; *planned* pairs are to be run.

        Raises:
            BenchError: an environment failed in the first pair, or in two and most pairs so far.
        """
        self.on_event({"event": "process", "number": self.attempts + 1, "of": planned})
        if self.attempts % 2:
            self._baseline_first = not self._baseline_first
        else:
            self._baseline_first = random.random() < 0.5  # noqa: PLR2004, S311 - nothing secret
        self.attempts += 1
        found: dict[int, ComparedSpeeds] = {}
        for index in (0, 1) if self._baseline_first else (1, 0):
            try:
                found[index] = self._measure(index)
            except BenchError as error:
                self._failures[index].append(str(error))
                failures = len(self._failures[index])
                if not self.pairs or mostly_failed(failures, len(self.pairs)):
                    raise
                self.on_event({"event": "lost", "number": self.attempts, "error": str(error)})
                return
        self.pairs.append(Pair(found[0], found[1], self._baseline_first))

    def remarks(self, *, interrupted: bool) -> list[str]:
        """Return how many pairs there are, and why not more."""
        complete = len(self.pairs)
        remarks = [
            f"{complete} pairs of processes, one of each environment, in balanced random order."
        ]
        if interrupted:
            claim = "" if complete >= FEWEST_PROCESSES else ", too few for any claim"
            remarks.append(f"Interrupted after {complete} complete pairs{claim}.")
        failures = [error for errors in self._failures for error in errors]
        if failures:
            ended = complete + len(failures)
            whys = "; ".join(dict.fromkeys(failures))
            remarks.append(f"{complete} of {ended} pairs are complete: {whys}")
        return remarks

    def _measure(self, index: int) -> ComparedSpeeds:
        with measuring_lock():  # a process that waited for other work would seem to hang
            pass
        seconds = _LONGER * self._longest if self.pairs else _FIRST_SECONDS
        begun = time.monotonic()
        speeds = _measure(self.pythons[index], self.words, max(self.timeout, seconds))
        self._longest = max(self._longest, time.monotonic() - begun)
        return speeds


def _measure(python: str, words: Sequence[str], timeout: float) -> ComparedSpeeds:
    """Run `bench throughput` in one fresh process of an environment."""
    has_seconds = any(word.split("=")[0] == "--max-seconds" for word in words)
    given = [*words] if has_seconds else [*words, "--max-seconds", _SECONDS]
    kills = out_of_memory_kills()
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        words = ["throughput", *given, "--results", folder, "--json"]
        command = [python, "-P", "-c", _PROGRAM, *words]
        done = _run([*command, "--processes", "1"], timeout)
        if "--processes" in done.stderr and done.returncode:  # an older bench has only one
            done = _run(command, timeout)
    document = _document(done.stdout)
    try:
        # What is printed counts: other configurations may have failed, or the runtime at its end.
        return speeds_of(python, document["rows"])
    except (BenchError, KeyError, TypeError, ValueError, ArithmeticError, AttributeError):
        raise BenchError(f"--python {python}: {_reason(done, document, kills)}") from None


def _document(text: str) -> dict[str, Any]:
    try:
        document = json.loads(text)
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


def _reason(done: subprocess.CompletedProcess[str], document: dict[str, Any], kills: int) -> str:
    """Return why a process printed no speeds."""
    if done.returncode < 0:
        return describe_exit(done.returncode, kills, "its process")[1]
    for one in [*document.get("errors", []), *document.get("rows", [])]:
        if isinstance(one, dict) and one.get("error"):
            return str(one["error"])
    if not done.returncode:
        return "its bench printed no complete row with an interval"
    lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
    if "No module named 'bench'" in lines[-1]:
        return "bench is not installed there"
    return lines[-1].removeprefix("bench: error: ")


def _run(command: Sequence[str], timeout: float) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(  # noqa: S603
            command, capture_output=True, text=True, timeout=timeout, check=False
        )
    except subprocess.TimeoutExpired:
        raise BenchError(f"--python {command[0]}: it did not end within {timeout:.0f} s") from None
    except OSError as error:
        what = error.strerror or error
        raise BenchError(
            f"--python {command[0]}: cannot be run ({what}); give the interpreter of a virtual "
            "environment, such as env/bin/python"
        ) from None
