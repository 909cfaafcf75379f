"""Runs on this machine, in worker processes or in this process.

A worker process that dies fails its run only; the study continues.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import time
import warnings
from collections import deque
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING, Any

import torch

from bench.errors import warning_line
from bench.launch.assignment import LOOK_AGAIN_SECONDS, Assignment, record_lost_worker
from bench.store import Store
from bench.store.files import StorageError
from bench.store.locks import knows_flock
from bench.system.memory import (
    be_killed_first,
    describe_exit,
    enable_huge_pages,
    out_of_memory_kills,
)
from bench.system.signals import Stop, StopRequestedError, stop_on_signals
from bench.system.spawn import without_main
from bench.training.distributed import launched_by_torchrun
from bench.training.run import RunHeldError, execute
from bench.training.step_time import run_seconds, side_by_side, timed_steps

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess
    from pathlib import Path

    from bench.studies.run_request import RunRequest
    from bench.training.resources import Resources


# After a request to stop, workers have this long to end a step and write a checkpoint.
STOP_SECONDS = 10.0

# How long a run may go without a sign of progress by default: until its first step, which waits for
# data and compilation; later; and as multiples of what it took to start and of its longest step.
STARTING_SECONDS = 3600.0
STEP_SECONDS = 600.0
OF_START, OF_STEP = 2, 20
TIMED_SHARE = 0.01  # of the steps of a network's runs, to announce how long they take
_LOOK_SECONDS = 0.2  # between two looks at the workers
_ASLEEP_SECONDS = 5.0  # between them: this process was stopped, or the machine was suspended


@dataclass(frozen=True)
class LocalLauncher:
    """Runs in worker processes of this machine, or one after the other in this process.

    Attributes:
        isolate: start a worker process even for a single worker, so that a crash fails only
            the run it trains. Used by the command line.
        timeout: seconds that a worker process may go without a sign of progress (a training
            step, a batch of an evaluation) before it is ended. By default an hour until the first
            one; then ten minutes, but at least twice as long as the first one took and 20 times the
            longest time between two. Time in which this process is stopped or the machine is
            suspended does not count.
        announce: report first about how long the planned runs take (the event `estimate`), from
            some steps of each network that a worker process times. It takes at most a hundredth of
            the training, and a step of each network.
    """

    isolate: bool = False
    timeout: float | None = None
    announce: bool = False

    def run(self, work: Assignment) -> None:
        """Do the runs; see `Assignment`."""
        together = launched_by_torchrun()  # this process is one of several that share a run
        workers = 1 if together else min(work.workers, len(work.requests))
        work = replace(work, resources=replace(work.resources, workers=workers))
        if (workers > 1 or self.isolate) and not together:
            pool = _Pool(work, self.timeout)
            try:
                pool.start(workers)
                if self.announce and work.planned:
                    pool.announce()
                pool.run()
            finally:
                pool.close()
            work.stop.check()
        else:
            _run_here(work, wait=together)


def _run_here(work: Assignment, *, wait: bool) -> None:
    """Do the runs in this process; without *wait*, those that others are doing come last."""
    do = partial(execute, stop=work.stop, on_event=work.on_event, weights=work.weights, wait=wait)
    left = deque(work.requests)
    held = 0  # tries in a row that found a run held by another process
    while left:
        work.stop.check()
        request = left.popleft()
        try:
            do(request, work.store, work.resources)
        except RunHeldError:
            left.append(request)
            held += 1
            if held == len(left):
                work.on_event({"event": "held", "runs": len(left)})
            if held >= len(left):
                time.sleep(LOOK_AGAIN_SECONDS)
        else:
            held = 0


@dataclass
class _Worker:
    index: int  # in the pool; selects the GPU
    process: BaseProcess
    connection: Connection
    request: RunRequest | None = None
    heard: float = 0.0  # time of its last message, by the pool's clock
    allowed: float | None = None  # seconds without progress; None before the first step
    kills: int = 0  # processes that the kernel had ended for lack of memory when the run started


class _Pool:
    def __init__(self, work: Assignment, timeout: float | None) -> None:
        self.work = work
        self.timeout = timeout
        self.awake = 0.0  # seconds that this process has been running, suspensions left out
        self.looked = time.monotonic()
        self.waiting = deque(work.requests)
        self.held: deque[RunRequest] = deque()  # other programs are doing them
        self.restarted: set[str] = set()  # runs whose worker alone was asked to stop
        self.look_again = 0.0
        self.reported_held = False
        self.workers: list[_Worker] = []
        self.stop_by: float | None = None  # when workers are killed after a request to stop
        work.stop.abandon = self._kill_all

    def start(self, count: int) -> None:
        for index in range(count):
            self._start(index)

    def run(self) -> None:
        for worker in self.workers:
            self._give(worker)
        while self.held or any(worker.request for worker in self.workers):
            if self.work.stop.signal is not None and self.stop_by is None:
                self.stop_by = time.monotonic() + STOP_SECONDS
                self.waiting.clear()
                self.held.clear()
                for worker in self.workers:
                    worker.process.terminate()  # SIGTERM: finish the step, write a checkpoint
            if self.stop_by is not None and time.monotonic() > self.stop_by:
                self._kill_all()  # the last checkpoint stays
                return
            self._retry_held()
            busy = [w for w in self.workers if w.request]
            # A short wait, so that a signal to this process is passed on at once.
            ready = wait([w.connection for w in busy], timeout=_LOOK_SECONDS)
            self._count_seconds()
            for worker in busy:
                if worker.connection in ready:
                    self._receive(worker)
                elif self.awake - worker.heard > (
                    allowed := self.timeout or worker.allowed or STARTING_SECONDS
                ):  # it hangs
                    worker.process.kill()
                    reason = f"no sign of progress for {allowed:g} s (--timeout)"
                    self._replace(worker, f"{reason}; its process was ended")

    def announce(self) -> None:
        """Report how long the planned runs take, if a worker can train their networks in time."""
        worker = self.workers[0]
        with contextlib.suppress(OSError):  # it has just died
            worker.connection.send(self.work.planned)
        begun = self.awake
        while not worker.connection.poll(_LOOK_SECONDS):
            self._count_seconds()
            if self.work.stop.signal is not None:
                self._kill_all()  # nothing has begun
                self.waiting.clear()
                return
            if self.awake - begun > (self.timeout or STEP_SECONDS):
                worker.process.kill()
        self._count_seconds()
        try:
            seconds: dict[str, float] = worker.connection.recv()
        except (EOFError, OSError):  # the run that ends its process tells why
            self._discard(worker)
            self._start(worker.index)
            return
        if seconds:
            left = (max(0.0, whole - self._spent(run)) for run, whole in seconds.items())
            together = side_by_side(left, self.work.workers)
            how = self.work.resources
            basis = timed_steps(compiled=how.compiled, cuda_graph=how.cuda_graph)
            self.work.on_event({"event": "estimate", "seconds": together, "basis": basis})

    def _spent(self, run: str) -> float:
        """Return the seconds that an interrupted run, which will be resumed, has taken."""
        record = None if self.work.resources.force else self.work.store.read_unfinished(run)
        return record.seconds if record and record.status == "interrupted" else 0.0

    def _count_seconds(self) -> None:
        """Advance the clock by the time since the last look, unless this process was asleep."""
        now = time.monotonic()  # counts a suspension of the machine on some systems
        self.awake += min(now - self.looked, _ASLEEP_SECONDS)
        self.looked = now

    def _retry_held(self) -> None:
        """Check now and then whether runs held by other programs are finished, or free."""
        idle = [worker for worker in self.workers if worker.request is None]
        if not (self.held and idle) or self.waiting or time.monotonic() < self.look_again:
            return
        self.look_again = time.monotonic() + LOOK_AGAIN_SECONDS
        if len(idle) == len(self.workers) and not self.reported_held:
            self.reported_held = True
            self.work.on_event({"event": "held", "runs": len(self.held)})
        for worker in idle[: len(self.held)]:
            self.waiting.append(self.held.popleft())
            self._give(worker)

    def close(self) -> None:
        for worker in self.workers:
            with contextlib.suppress(OSError):
                worker.connection.send(None)
            worker.process.join(timeout=10)
            if worker.process.is_alive():
                worker.process.kill()
            worker.connection.close()

    def _start(self, index: int) -> _Worker:
        context = multiprocessing.get_context("spawn")  # a forked torch may hang
        here, there = context.Pipe()
        resources = self.work.resources
        if resources.device == "cuda":
            resources = replace(resources, device=f"cuda:{index % torch.cuda.device_count()}")
        enable_huge_pages()
        process = context.Process(
            target=_work,
            args=(there, self.work.store.root, resources, self.work.weights),
            daemon=True,
        )
        named = {name for r in self.work.requests for name in (r.model, r.dataset)}
        script = any(name.startswith("__main__:") for name in named)
        with contextlib.nullcontext() if script else without_main():
            process.start()
        there.close()
        worker = _Worker(index, process, here)
        self.workers.append(worker)
        return worker

    def _give(self, worker: _Worker) -> None:
        worker.request = self.waiting.popleft() if self.waiting else None
        worker.heard, worker.allowed = self.awake, None
        worker.kills = out_of_memory_kills()
        if worker.request is not None:
            with contextlib.suppress(OSError):  # it has just died, which the next wait reports
                worker.connection.send(worker.request)

    def _receive(self, worker: _Worker) -> None:
        try:
            event: dict[str, Any] = worker.connection.recv()
        except (EOFError, OSError):
            self._replace(worker)
            return
        silence, worker.heard = self.awake - worker.heard, self.awake
        if event["event"] in {"progress", "epoch"}:
            multiple = OF_START if worker.allowed is None else OF_STEP
            worker.allowed = max(worker.allowed or STEP_SECONDS, multiple * silence)
        match event["event"]:
            case "held" if worker.request is not None:
                self.held.append(worker.request)
                self._give(worker)
            case "idle":
                self._give(worker)
            case "stopped" if self.work.stop.signal is None and worker.request is not None:
                self._restart(worker, worker.request)
            case "stopped":
                worker.request = None
            case "start" if event["run"] in self.restarted:
                pass  # reported before
            case "storage":
                self.waiting.clear()
                raise StorageError(event["error"])
            case _:
                self.work.on_event(event)

    def _kill_all(self) -> None:
        for worker in self.workers:
            worker.process.kill()

    def _discard(self, worker: _Worker) -> None:
        worker.process.join()
        self.workers.remove(worker)
        worker.connection.close()

    def _replace(self, worker: _Worker, reason: str | None = None) -> None:
        """Record how a dead worker's run ended, and start another worker if one is needed."""
        self._discard(worker)
        request = worker.request
        if request is not None and self.work.stop.signal is None:
            exit_ = describe_exit(worker.process.exitcode, worker.kills, "the worker process")
            self._record(request, *(("failed", reason) if reason else exit_))
        needed = self.waiting or (self.held and not self.workers)
        if needed and self.work.stop.signal is None:
            self._give(self._start(worker.index))

    def _restart(self, worker: _Worker, request: RunRequest) -> None:
        """Let another worker resume the run of one that alone was asked to stop, once per run."""
        worker.process.kill()  # its checkpoint is written
        if request.run_id in self.restarted:
            self._replace(worker, "its worker process was stopped by SIGTERM twice")
            return
        self.restarted.add(request.run_id)
        self.waiting.appendleft(request)
        worker.request = None
        self._replace(worker)

    def _record(self, request: RunRequest, status: str, error: str) -> None:
        """Record how a run ended, unless another program is doing it now."""
        store = self.work.store
        with store.lock(request.run_id, wait=False) as ours:
            if ours or not knows_flock(store.root):  # there, the lock of a dead process stays
                record_lost_worker(self.work, request, error, status=status)
            else:
                self.held.append(request)


def _end_with_parent(parent: int, stop: Stop) -> None:
    """Stop this process, a worker, once its parent is gone, even if its run hangs."""
    while os.getppid() == parent:
        time.sleep(1)
    stop.note(signal.SIGTERM)
    time.sleep(STOP_SECONDS)
    os._exit(1)


def _work(connection: Connection, root: Path, resources: Resources, weights: Path | None) -> None:
    """Do the runs that arrive through *connection*, until None arrives; time those of a tuple."""
    store = Store(root)
    warnings.formatwarning = warning_line
    be_killed_first()
    with stop_on_signals() as stop:
        threading.Thread(target=_end_with_parent, args=(os.getppid(), stop), daemon=True).start()
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent turns Ctrl-C into SIGTERM
        # A scheduler signals the whole process group, so that SIGTERM arrives twice: the second
        # must not interrupt the writing of the checkpoint.
        signal.signal(signal.SIGTERM, stop.note)

        def send(event: dict[str, Any]) -> None:
            try:
                connection.send(event)
            except OSError:  # the parent process is gone
                stop.note(signal.SIGTERM)

        do = partial(execute, stop=stop, on_event=send, weights=weights, wait=False)
        with contextlib.suppress(EOFError, BrokenPipeError, KeyboardInterrupt):
            while (request := connection.recv()) is not None:
                if isinstance(request, tuple):
                    connection.send(_time(request, resources))
                    continue
                try:
                    do(request, store, resources)
                    connection.send({"event": "idle"})
                except RunHeldError:
                    connection.send({"event": "held"})
                except StopRequestedError:
                    connection.send({"event": "stopped"})
                    return
                except StorageError as error:
                    connection.send({"event": "storage", "error": str(error)})
                    return


def _time(requests: tuple[RunRequest, ...], resources: Resources) -> dict[str, float]:
    """Return about how long each run takes, nothing if one of them fails."""
    trained = [request for request in requests if request.recipe.epochs]
    with contextlib.suppress(Exception):  # the run that fails tells why
        return run_seconds(trained, resources, share=TIMED_SHARE)
    return {}
