"""Runs as tasks of a Ray cluster, which schedules and retries them."""

from __future__ import annotations

import contextlib
import signal
import sys
import tempfile
import time
from collections import deque
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.errors import BenchError
from bench.launch.address import require_answer, require_ray
from bench.launch.assignment import Assignment, record_lost_worker
from bench.models.errors import one_line
from bench.store import Store
from bench.store.archive import pack, unpack
from bench.store.files import StorageError
from bench.system.devices import physical_cores
from bench.system.signals import Stop, StopRequestedError
from bench.training.run import execute

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.studies.run_request import RunRequest
    from bench.training.resources import Resources

_POLL_SECONDS = 0.5


@dataclass(frozen=True)
class RayLauncher:
    """Every run is a Ray task with its CPUs and GPUs, restarted elsewhere if its node is lost.

    Attributes:
        address: `HOST:PORT`, `ray://HOST:PORT` or `auto` of a cluster; None starts one here.
        shared: every node reaches the results folder by the same path. If not, results come
            back as bytes and this process stores them; a run whose node is lost then starts
            again from its first epoch, because its checkpoint was on that node.
        retries: times that a run is restarted after its node or process was lost.
    """

    address: str | None = None
    shared: bool = True
    retries: int = 3

    def run(self, work: Assignment) -> None:
        """Do the runs; see `Assignment`."""
        with connected(self.address):
            _require_room(work.resources)
            _Driver(self, work).run()
        work.stop.check()


@contextlib.contextmanager
def connected(address: str | None) -> Iterator[None]:
    """Connect to the cluster at *address*, or to one started on this machine.

    Raises:
        BenchError: Ray is not installed, or nothing answers there within 15 seconds.
    """
    require_ray()
    ray = _ray()
    if ray.is_initialized():  # the caller's own connection
        yield
        return
    quietly = {"log_to_driver": False, "logging_level": "ERROR"}
    if address is None:
        ray.init("local", num_cpus=physical_cores(), include_dashboard=False, **quietly)
    else:
        require_answer(address)
        ray.init(address, **quietly)
    try:
        yield
    finally:
        ray.shutdown()


def _ray() -> Any:
    """Return the library, untyped: its annotations reject much of what it documents."""
    import ray

    return ray


def _require_room(resources: Resources) -> None:
    """Refuse resources that no node has, for which Ray would wait silently."""
    ray = _ray()
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    most = {kind: max((n.get(kind, 0) for n in nodes), default=0) for kind in ("CPU", "GPU")}
    if resources.device.startswith("cuda") and most["GPU"] < 1:
        raise BenchError(
            f"--device {resources.device}: no node of the Ray cluster has a GPU; use --device cpu"
        )
    if resources.threads > most["CPU"]:
        raise BenchError(
            f"--threads {resources.threads}: the largest node of the Ray cluster has "
            f"{most['CPU']:.0f} CPUs; use at most that"
        )


class _Mailbox:
    """Carries events to the driver, and its request to stop to the tasks."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.stopping = False

    def post(self, event: dict[str, Any]) -> bool:
        self.events.append(event)
        return self.stopping

    def take(self) -> list[dict[str, Any]]:
        taken, self.events = self.events, []
        return taken

    def stop(self) -> None:
        self.stopping = True


class _Driver:
    def __init__(self, launcher: RayLauncher, work: Assignment) -> None:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        ray = self.ray = _ray()
        self.launcher = launcher
        self.work = work
        resources = work.resources
        gpus = int(resources.device.startswith("cuda"))
        # Inside a task, Ray numbers its own GPU 0.
        self.there = replace(resources, device="cuda:0") if gpus else resources
        self.task = ray.remote(
            num_cpus=resources.threads, num_gpus=gpus, max_retries=launcher.retries
        )(_perform)
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        mailbox = ray.remote(num_cpus=0, scheduling_strategy=here)(_Mailbox)
        self.mailbox = mailbox.remote()
        self.weights = work.weights.read_bytes() if work.weights is not None else None
        self.waiting = deque(work.requests)
        self.running: dict[Any, tuple[RunRequest, contextlib.ExitStack]] = {}
        self.started: set[str] = set()

    def run(self) -> None:
        stopping = False
        try:
            while self.waiting or self.running:
                if self.work.stop.signal is not None and not stopping:
                    stopping = True
                    self._stop_all()
                    continue
                for request in [self.waiting.popleft() for _ in range(len(self.waiting))]:
                    if len(self.running) >= self.work.workers or not self._submit(request):
                        self.waiting.append(request)
                if not self.running:  # another program is doing all that is left
                    time.sleep(_POLL_SECONDS)
                    continue
                ready, _ = self.ray.wait(list(self.running), timeout=_POLL_SECONDS)
                self._pass_events_on()
                for reference in ready:
                    self._collect(reference)
        finally:
            for _, holding in self.running.values():
                holding.close()

    def _submit(self, request: RunRequest) -> bool:
        """Submit one run; return False if it must wait because another program is doing it."""
        holding = contextlib.ExitStack()
        store = self.work.store
        root = str(store.root.resolve()) if self.launcher.shared else None
        if root is None:  # otherwise the task itself locks the run
            # Without waiting, since two programs could wait for locks of each other's.
            if not holding.enter_context(store.lock(request.run_id, wait=False)):
                holding.close()
                return False
            if store.read_run(request.run_id) is not None and not self.work.resources.force:
                holding.close()
                return True
        parent = self._packed(request.grown_from) if root is None else None
        reference = self.task.remote(
            request, root, self.there, self.weights, parent, str(Path.cwd()), self.mailbox
        )
        self.running[reference] = (request, holding)
        return True

    def _packed(self, run: str | None) -> bytes | None:
        """Return a finished run as bytes, for a task that does not reach the results folder."""
        store = self.work.store
        if run is None or store.read_run(run) is None:
            return None
        with tempfile.TemporaryDirectory() as name:
            archive = Path(name) / "run.tar.gz"
            pack(store, [run], archive, made=False)
            return archive.read_bytes()

    def _stop_all(self) -> None:
        self.waiting.clear()
        self.ray.get(self.mailbox.stop.remote())
        self._pass_events_on()
        for reference, (request, _) in self.running.items():
            if request.run_id not in self.started:
                self.ray.cancel(reference)

    def _pass_events_on(self) -> None:
        for event in self.ray.get(self.mailbox.take.remote()):
            if event["event"] == "start":
                if event["run"] in self.started:  # restarted after its node or process was lost
                    continue
                self.started.add(event["run"])
            self.work.on_event(event)

    def _collect(self, reference: Any) -> None:
        request, holding = self.running.pop(reference)
        with holding:
            try:
                outcome = self.ray.get(reference)
            except self.ray.exceptions.TaskCancelledError:
                return
            except self.ray.exceptions.RayError as error:
                if self.work.stop.signal is None:
                    reason = f"Ray lost it: {one_line(error)}"[:300]
                    record_lost_worker(self.work, request, reason)
                return
            if outcome["storage"] is not None:
                raise StorageError(outcome["storage"])
            self._store(request, outcome)

    def _store(self, request: RunRequest, outcome: dict[str, Any]) -> None:
        """Store a run that came back as bytes."""
        if outcome["unfinished"] is not None:
            self.work.store.mark_unfinished(outcome["unfinished"])
        if outcome["archive"] is not None:
            with tempfile.TemporaryDirectory() as name:
                archive = Path(name) / "run.tar.gz"
                archive.write_bytes(outcome["archive"])
                if self.work.resources.force:
                    self.work.store.discard(request.run_id)
                unpack(self.work.store, archive)


def _perform(
    request: RunRequest,
    root: str | None,
    resources: Resources,
    weights: bytes | None,
    parent: bytes | None,
    folder: str,
    mailbox: Any,
) -> dict[str, Any]:
    """Do one run on a node; return its results unless they are stored at *root*.

    *weights* are those to start from; *parent* is the packed run that this one grows from.
    """
    ray = _ray()
    if folder not in sys.path:  # for the user's own networks, if the nodes have the folder
        sys.path.append(folder)
    stop = Stop()

    def send(event: dict[str, Any]) -> None:
        try:
            stopping = ray.get(mailbox.post.remote(event))
        except ray.exceptions.RayError:  # the driver is gone
            stopping = True
        if stopping:
            stop.note(signal.SIGTERM)

    outcome: dict[str, Any] = {"storage": None, "unfinished": None, "archive": None}
    with tempfile.TemporaryDirectory() as name:
        start = _written(Path(name) / "weights", weights)
        store = Store(root or Path(name) / "results")
        if (packed := _written(Path(name) / "parent.tar.gz", parent)) is not None:
            unpack(store, packed)
        try:
            record = execute(request, store, resources, stop=stop, on_event=send, weights=start)
        except StopRequestedError:
            return outcome
        except StorageError as error:
            return {**outcome, "storage": str(error)}
        if root is not None:
            return outcome
        if store.read_run(request.run_id) is None:
            return {**outcome, "unfinished": record}
        archive = Path(name) / "run.tar.gz"
        pack(store, [request.run_id], archive, made=False)
        return {**outcome, "archive": archive.read_bytes()}


def _written(path: Path, content: bytes | None) -> Path | None:
    if content is None:
        return None
    path.write_bytes(content)
    return path
