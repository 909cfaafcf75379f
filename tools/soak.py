"""Many tiny runs: does memory, a descriptor or shared memory leak, and do runs get slower?

`python tools/soak.py --runs 1000` trains a thousand seeds of one small network in
this process; `--processes 10 --runs 100` asks ten that start together for the same hundred. It
prints one JSON document; exit code 1 says that memory grew by 5 %, that something leaked, or
that a run is missing or was done twice. The first hundred runs of a process (or a tenth, where
there are fewer) after its first are the baseline.

Shared memory is what a process has mapped of `/dev/shm`, and what is there afterwards that was
not before and that no process has open any more.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

STUDY = """question = "Does it last?"
[base]
model = "resnet8"
options = { width = 1 }
dataset = "fashion-mnist-mini"
train_images = 20
epochs = 1
batch_size = 20
validation_fraction = 0
[[variant]]
name = "tiny"
"""
MOST_GROWTH = 0.05


def soak(study: Path, results: Path, seeds: list[int]) -> dict[str, Any]:
    """Train every seed in this process, and say what came of it."""
    from bench import run_study

    process = psutil.Process()
    samples: list[tuple[float, int, int, int]] = []
    started: list[str] = []

    def note() -> None:
        samples.append(
            (time.perf_counter(), process.memory_info().rss, process.num_fds(), mapped())
        )

    def listen(event: dict[str, Any]) -> None:
        if event["event"] == "start":
            started.append(event["run"])
        if event["event"] == "end":
            note()

    note()
    run_study(
        study, results=results, seeds=seeds, device="cpu", threads=1, workers=1, on_event=listen
    )
    done = len(samples) - 1
    part = min(100, max(1, done // 10))
    # The first run loads libraries and data: counted from its end.
    begun = samples[min(1, done)]
    first, before, last = samples[min(1 + part, done)], samples[max(0, done - part)], samples[-1]
    taken = (first[0] - begun[0], last[0] - before[0])
    return {
        "runs": done,
        "rss_mib_after_first": round(first[1] / 2**20, 1),
        "rss_mib_at_end": round(last[1] / 2**20, 1),
        "memory_growth": round(last[1] / first[1] - 1, 4),
        "descriptors_after_first": first[2],
        "descriptors_at_end": last[2],
        "shared_segments_after_first": first[3],
        "shared_segments_at_end": last[3],
        "started": started,
        "part": part,
        "throughput_last_to_first": round(taken[0] / taken[1], 3) if done > 2 * part else None,
    }


def mapped() -> int:
    """Segments of shared memory that this process has mapped."""
    return sum("/dev/shm/" in line for line in Path("/proc/self/maps").read_text().splitlines())


def in_use() -> set[str]:
    """Names in `/dev/shm` that some process has mapped or open."""
    names: set[str] = set()
    for place in (*Path("/proc").glob("[0-9]*/map_files/*"), *Path("/proc").glob("[0-9]*/fd/*")):
        with contextlib.suppress(OSError):
            names.add(str(place.readlink()).removeprefix("/dev/shm/"))
    return names


def main() -> None:
    """Soak in this process, or in several at once."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--results", type=Path, help="for the processes that this one starts")
    chosen = parser.parse_args()
    shared = {path.name for path in Path("/dev/shm").iterdir()}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        study = folder / "soak.toml"
        study.write_text(STUDY)
        results = chosen.results or folder / "results"
        if chosen.processes == 1:
            rows = [soak(study, results, list(range(chosen.runs)))]
        else:
            words = [sys.executable, __file__, "--runs", str(chosen.runs)]
            started = [
                subprocess.Popen([*words, "--results", str(results)], stdout=subprocess.PIPE)
                for _ in range(chosen.processes)
            ]
            rows = [json.loads(process.communicate()[0])["processes"][0] for process in started]
        recorded = sum(1 for _ in (results / "runs").glob("*/run.json"))
    runs = [run for row in rows for run in row["started"]]
    left = {path.name for path in Path("/dev/shm").iterdir()} - shared - in_use()
    verdict = {
        "recorded": recorded,
        "done_twice": len(runs) - len(set(runs)),
        "shared_memory_left": sorted(left),
    }
    for row in rows:
        if chosen.results is None:  # a child's are counted by its parent
            del row["started"]
    print(json.dumps(verdict | {"processes": rows}, indent=1))
    grown = max(row["memory_growth"] for row in rows)
    leaked = any(
        row[f"{what}_at_end"] > row[f"{what}_after_first"]
        for row in rows
        for what in ("descriptors", "shared_segments")
    )
    sys.exit(
        grown >= MOST_GROWTH or leaked or bool(left) or verdict["done_twice"] > 0
        or recorded < chosen.runs
    )  # fmt: skip


if __name__ == "__main__":
    main()
