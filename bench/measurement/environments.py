"""Two virtual environments compared: is the network slower since the upgrade?"""

from __future__ import annotations

import json
import random
import subprocess
import tempfile
from typing import TYPE_CHECKING, Any

from bench.errors import BenchError
from bench.measurement.compared_speeds import ComparedSpeeds, speeds_of
from bench.measurement.speed_changes import Change, change_over_pairs, check_threshold
from bench.system.intervals import LOOKS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    OnEvent = Callable[[dict[str, Any]], None]

_SECONDS = "2"  # for each configuration in one process
_WIDTH = 0.02  # half-width of the intervals at which to stop
_PROGRAM = "from bench.cli import main; main()"


def compare_environments(
    pythons: Sequence[str],
    words: Sequence[str],
    threshold: float,
    *,
    on_event: OnEvent = lambda _event: None,
) -> tuple[list[Change], list[str]]:
    """Measure the same in two environments in turn, and compare them process by process.

    In each pair, one process of either environment runs `bench throughput`, in random order. There
    are 6, 10, 16 or 24 pairs, until all intervals are narrow enough.

    Args:
        pythons: interpreters of the baseline and of the candidate, with bench installed in each.
        words: targets and options of `bench throughput`.
        threshold: 0.05 lets changes within ±5 % pass as the same.
        on_event: called with the progress.

    Returns:
        The changes, and remarks.

    Raises:
        BenchError: an interpreter does not run, has no bench, or cannot measure this; or the two
            have no configuration in common.
    """
    check_threshold(threshold)
    if len(pythons) != 2:  # noqa: PLR2004 - a baseline and a candidate
        raise BenchError(f"--python: give two interpreters, not {len(pythons)}")
    order = random.Random(0)  # noqa: S311 - nothing secret
    pairs: list[tuple[ComparedSpeeds, ComparedSpeeds]] = []
    changes: list[Change] = []
    for look in LOOKS:
        while len(pairs) < look:
            on_event({"event": "process", "number": len(pairs) + 1, "of": look})
            found: dict[int, ComparedSpeeds] = {}
            for index in order.sample((0, 1), 2):
                found[index] = _measure(pythons[index], words)
            pairs.append((found[0], found[1]))
        changes = change_over_pairs(pairs, threshold)
        if all(one.high - one.low <= 2 * _WIDTH * one.ratio for one in changes):
            break
    return changes, [f"{len(pairs)} processes of each environment, in turn and in random order."]


def _measure(python: str, words: Sequence[str]) -> ComparedSpeeds:
    """Run `bench throughput` in one fresh process of an environment."""
    given = [*words] if "--max-seconds" in words else [*words, "--max-seconds", _SECONDS]
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        command = [python, "-c", _PROGRAM, "throughput", *given, "--results", folder, "--json"]
        done = _run([*command, "--processes", "1"])
        if "--processes" in done.stderr and done.returncode:  # an older bench has only one
            done = _run(command)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        why = lines[-1].removeprefix("bench: error: ")
        if "No module named 'bench'" in why:
            why = "bench is not installed there"
        raise BenchError(f"--python {python}: {why}")
    try:
        rows = json.loads(done.stdout)["rows"]
    except (ValueError, KeyError, TypeError):
        raise BenchError(f"--python {python}: its bench printed no rows") from None
    return speeds_of(python, rows)


def _run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    except OSError as error:
        what = error.strerror or error
        raise BenchError(
            f"--python {command[0]}: cannot be run ({what}); give the interpreter of a virtual "
            "environment, such as env/bin/python"
        ) from None
