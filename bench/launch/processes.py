"""Worker processes on one machine: a worker that dies costs its run, not the study."""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
from collections import deque
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING, Any

from bench.launch.losses import record_loss
from bench.memory import ask_for_large_pages
from bench.stopping import Stop, StopRequestedError, stop_on_signals
from bench.store import Store
from bench.store.files import StorageError
from bench.training.run import execute

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess
    from pathlib import Path

    from bench.launch.launchers import Assignment
    from bench.request import RunRequest
    from bench.training.resources import Resources


@dataclass
class _Worker:
    process: BaseProcess
    connection: Connection
    request: RunRequest | None = None


def run_in_processes(work: Assignment) -> None:
    """Do every run in one of so many processes; see `bench.launch.launch`."""
    pool = _Pool(work)
    try:
        pool.run(min(work.workers, len(work.requests)))
    finally:
        pool.close()
    work.stop.check()


class _Pool:
    def __init__(self, work: Assignment) -> None:
        self.work = work
        self.waiting = deque(work.requests)
        self.workers: list[_Worker] = []
        self.told_to_stop = False

    def run(self, count: int) -> None:
        for index in range(count):
            self._give(self._start(index))
        while any(worker.request for worker in self.workers):
            if self.work.stop.signal is not None and not self.told_to_stop:
                self.told_to_stop = True
                self.waiting.clear()
                for worker in self.workers:
                    worker.process.terminate()  # SIGTERM: finish the step, write a checkpoint
            busy = [w for w in self.workers if w.request]
            # A short wait, so that a signal to this process is passed on at once.
            ready = wait([w.connection for w in busy], timeout=0.2)
            for worker in busy:
                if worker.connection in ready:
                    self._hear(worker)

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
            import torch

            resources = replace(resources, device=f"cuda:{index % torch.cuda.device_count()}")
        ask_for_large_pages()
        process = context.Process(
            target=_work,
            args=(there, self.work.store.root, resources, self.work.weights),
            daemon=True,
        )
        process.start()
        there.close()
        worker = _Worker(process, here)
        self.workers.append(worker)
        return worker

    def _give(self, worker: _Worker) -> None:
        worker.request = self.waiting.popleft() if self.waiting else None
        if worker.request is not None:
            with contextlib.suppress(OSError):  # it has just died: its end is heard next
                worker.connection.send(worker.request)

    def _hear(self, worker: _Worker) -> None:
        try:
            event: dict[str, Any] = worker.connection.recv()
        except (EOFError, OSError):
            self._bury(worker)
            return
        match event["event"]:
            case "idle":
                self._give(worker)
            case "stopped":
                worker.request = None
            case "storage":
                self.waiting.clear()
                raise StorageError(event["error"])
            case _:
                self.work.on_event(event)

    def _bury(self, worker: _Worker) -> None:
        """Record the death of a worker with its run, and put another in its place."""
        worker.process.join()
        index = self.workers.index(worker)
        self.workers.remove(worker)
        request = worker.request
        if request is not None and self.work.stop.signal is None:
            error = f"the worker process {_death(worker.process.exitcode)}"
            record_loss(self.work, request, error)
        if self.waiting and self.work.stop.signal is None:
            self._give(self._start(index))


def _death(exitcode: int | None) -> str:
    if exitcode is not None and exitcode < 0:
        name = signal.Signals(-exitcode).name
        hint = " (the kernel does that when memory runs out)" if name == "SIGKILL" else ""
        return f"was ended by {name}{hint}"
    return f"exited with code {exitcode}"


def _work(connection: Connection, root: Path, resources: Resources, weights: Path | None) -> None:
    """Do the runs that come through *connection* until None comes."""
    store = Store(root)
    with stop_on_signals() as stop:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent turns Ctrl-C into SIGTERM
        # A scheduler signals the whole group, so that SIGTERM comes twice: the second must
        # not end the writing of the checkpoint.
        signal.signal(signal.SIGTERM, lambda *_: _stop_once(stop))

        def tell(event: dict[str, Any]) -> None:
            try:
                connection.send(event)
            except OSError:  # the parent is gone: nobody waits for this run
                _stop_once(stop)

        with contextlib.suppress(EOFError, BrokenPipeError, KeyboardInterrupt):
            while (request := connection.recv()) is not None:
                try:
                    execute(request, store, resources, stop=stop, on_event=tell, weights=weights)
                    connection.send({"event": "idle"})
                except StopRequestedError:
                    connection.send({"event": "stopped"})
                    return
                except StorageError as error:
                    connection.send({"event": "storage", "error": str(error)})
                    return


def _stop_once(stop: Stop) -> None:
    if stop.signal is None:
        stop.request(signal.SIGTERM)
