"""Many workers on one results folder: the real store and run bookkeeping, training simulated.

    python tools/simulation.py --runs 10000 --workers 1000 --results FOLDER

Every worker is a thread that takes runs as a real one does (`bench.training.run.execute`:
lock, look, work, publish); training sleeps for a while instead of computing. Some runs fail
and are taken up again, a part of the runs is asked for by two workers at once, and now and
then a process with all its workers is killed with SIGKILL and another started.
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import json
import multiprocessing
import os
import random
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

from bench.store import Store
from bench.studies.recipe import get_recipe
from bench.studies.run_request import RunRequest
from bench.training import run as training
from bench.training.outcome import begin_record
from bench.training.resources import Resources

THREADS = 50  # workers of one process
FAILING = 0.02
TWICE = 0.05  # share of the runs that two workers ask for
HISTORY = "epoch,train_loss\n" + "".join(f"{n},0.5\n" for n in range(1, 31))


class SimulatedAttempt:
    """Stands where training stands in `execute`."""

    def __init__(self, request: RunRequest, store: Store, resources: Any, *_: Any) -> None:
        self.request, self.store = request, store
        self.record = begin_record(request, resources)

    def perform(self) -> Any:
        note("begun", self.request.run_id)
        time.sleep(random.uniform(0.5, 1.5) * SECONDS)
        if random.random() < FAILING:
            record = dataclasses.replace(self.record, status="failed", error="simulated")
            self.store.mark_unfinished(record)
            return record
        started = time.monotonic()
        record = self.store.finish_run(
            dataclasses.replace(self.record, status="complete", error=None, seconds=SECONDS),
            history=HISTORY,
            documents={"initial_weights.json": {f"layer{n}": "0" * 64 for n in range(60)}},
        )
        note("done", self.request.run_id, time.monotonic() - started)
        return record


def note(what: str, run: str, seconds: float = 0.0) -> None:
    """One line, appended as a whole by the system."""
    os.write(LOG, f"{what} {run} {seconds:.4f}\n".encode())


def requests_of(count: int) -> list[RunRequest]:
    recipe = get_recipe("fast")
    return [RunRequest("resnet20", "synthetic", recipe, seed=seed) for seed in range(count)]


def work(root: Path, asked: list[int], requests: list[RunRequest]) -> None:
    """One process: its workers share the runs it was asked for, until each is finished."""
    store, resources = Store(root), training.Resources()
    waiting = collections.deque(asked)

    def worker() -> None:
        while True:
            try:
                number = waiting.popleft()
            except IndexError:
                return
            if training.execute(requests[number], store, resources).status != "complete":
                waiting.append(number)

    threads = [threading.Thread(target=worker) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def simulate(root: Path, runs: int, workers: int, kills: int) -> dict[str, Any]:
    """Do it, and count; returns the figures."""
    global LOG  # noqa: PLW0603 - inherited by the forked workers
    store = Store(root)
    store.prepare()
    LOG = os.open(root / "simulation.log", os.O_CREAT | os.O_APPEND | os.O_WRONLY)
    training._Attempt = SimulatedAttempt
    begin_record(requests_of(1)[0], Resources())  # fills the caches once
    requests = requests_of(runs)
    processes = max(1, workers // THREADS)
    shares: list[list[int]] = [list(range(n, runs, processes)) for n in range(processes)]
    doubled = random.sample(range(runs), int(TWICE * runs))
    for number in doubled:
        shares[(number + 1) % processes].append(number)
    for share in shares:
        random.shuffle(share)
    context = multiprocessing.get_context("fork")

    def start(share: list[int]) -> Any:
        process = context.Process(target=work, args=(root, share, requests))
        process.start()
        return process

    begun = time.monotonic()
    alive = {n: start(share) for n, share in enumerate(shares)}
    killed = 0
    while alive:
        time.sleep(0.5)
        for number, process in list(alive.items()):
            if not process.is_alive():
                del alive[number]
                if process.exitcode:
                    alive[number] = start(shares[number])
        if killed < kills and alive:
            victim = random.choice(list(alive.values()))
            if victim.pid and victim.is_alive():
                os.kill(victim.pid, signal.SIGKILL)
                killed += 1
    seconds = time.monotonic() - begun
    return count(root, requests, seconds) | {"killed_workers": killed * THREADS}


def count(root: Path, requests: list[RunRequest], seconds: float) -> dict[str, Any]:
    lines = [line.split() for line in (root / "simulation.log").read_text().splitlines()]
    done = collections.Counter(run for what, run, _ in lines if what == "done")
    recorded = collections.Counter(record.run for record in Store(root).runs())
    publishing = sorted(float(took) for what, _, took in lines if what == "done")
    return {
        "runs": len(requests),
        "seconds": round(seconds, 1),
        "runs_per_second": round(len(requests) / seconds, 1),
        "attempts": sum(what == "begun" for what, _, _ in lines),
        "lost": sum(request.run_id not in recorded for request in requests),
        "done_twice": sum(times > 1 for times in done.values()),
        "half_recorded": len(list((root / "runs").glob("*.partial/run.json"))),
        "publish_median_ms": round(1000 * publishing[len(publishing) // 2], 1),
        "publish_p99_ms": round(1000 * publishing[int(0.99 * len(publishing))], 1),
    }


def main(*words: str) -> dict[str, Any]:
    global SECONDS  # noqa: PLW0603 - inherited by the forked workers
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--workers", type=int, default=1_000)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--training-seconds", type=float, default=10.0)
    parser.add_argument("--results", type=Path, required=True)
    options = parser.parse_args(words)
    random.seed(0)
    SECONDS = options.training_seconds
    return simulate(options.results, options.runs, options.workers, options.kills)


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:]), indent=1))
