"""Many tiny runs: does memory, a descriptor or shared memory leak, and do runs get slower?

`python tests/soak/tiny_runs.py --runs 1000` trains a thousand seeds of one small network in
this process; `--processes 10 --runs 100` shares a hundred among ten that start together. It
prints one JSON document; exit code 1 says that memory grew by 5 % or that something leaked.
The first hundred runs (or a tenth, where there are fewer) after the first are the baseline.
"""

from __future__ import annotations

import argparse
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
    samples: list[tuple[float, int, int]] = []

    def note() -> None:
        samples.append((time.perf_counter(), process.memory_info().rss, process.num_fds()))

    def listen(event: dict[str, Any]) -> None:
        if event["event"] == "end":
            note()

    note()
    run_study(
        study, results=results, seeds=seeds, device="cpu", threads=1, workers=1, on_event=listen
    )
    part = min(100, max(1, len(seeds) // 10))
    # The first run loads libraries and data: counted from its end.
    begun, first, before, last = samples[1], samples[1 + part], samples[-1 - part], samples[-1]
    return {
        "runs": len(samples) - 1,
        "rss_mib_after_first": round(first[1] / 2**20, 1),
        "rss_mib_at_end": round(last[1] / 2**20, 1),
        "memory_growth": round(last[1] / first[1] - 1, 4),
        "descriptors_after_first": first[2],
        "descriptors_at_end": last[2],
        "part": part,
        "throughput_last_to_first": round((first[0] - begun[0]) / (last[0] - before[0]), 3),
    }


def main() -> None:
    """Soak in this process, or in several at once."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--results", type=Path, help="for the processes that this one starts")
    parser.add_argument("--first", type=int, default=0)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        study = folder / "soak.toml"
        study.write_text(STUDY)
        results = chosen.results or folder / "results"
        if chosen.processes == 1:
            seeds = list(range(chosen.first, chosen.first + chosen.runs))
            rows = [soak(study, results, seeds)]
        else:
            each = chosen.runs // chosen.processes
            words = [sys.executable, __file__, "--runs", str(each), "--results", str(results)]
            started = [
                subprocess.Popen([*words, "--first", str(n * each)], stdout=subprocess.PIPE)
                for n in range(chosen.processes)
            ]
            rows = [json.loads(process.communicate()[0])["processes"][0] for process in started]
        recorded = sum(1 for _ in (results / "runs").glob("*/run.json"))
    grown = max(row["memory_growth"] for row in rows)
    leaked = any(row["descriptors_at_end"] > row["descriptors_after_first"] for row in rows)
    print(json.dumps({"recorded": recorded, "processes": rows}, indent=1))  # noqa: T201
    sys.exit(grown >= MOST_GROWTH or leaked or recorded < chosen.runs)


if __name__ == "__main__":
    main()
