"""A tiny training done in forked children that are killed, starved and lied to.

Nothing of torch runs in the test process itself: a fork of one whose threads have started
may hang. What each test injected and found is printed as a table at the end.
"""

from __future__ import annotations

import importlib
import io
import os
import shutil
import signal
import sys
import time
import traceback
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest
import torch

import builders
from bench.measurement.machine import ceiling
from bench.store import Store
from bench.store.files import Disk
from bench.system.environment import describe_environment
from bench.training import run as training

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from bench.studies.run_request import RunRequest

Ledger = pytest.StashKey[list[tuple[str, int, str, str]]]()
BYSTANDER, SUBJECT = 1, 0  # random seeds


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "faults" in item.path.parts:
            item.add_marker(pytest.mark.slow)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    rows = config.stash.get(Ledger, [])
    if rows:
        terminalreporter.write_line("\n| fault | times injected | what happened | what was lost |")
        terminalreporter.write_line("|---|---:|---|---|")
    for fault, times, happened, lost in rows:
        terminalreporter.write_line(f"| {fault} | {times} | {happened} | {lost} |")


LATE = (  # what training, exports and measurements import when they begin
    "filelock", "onnxruntime", "platformdirs", "psutil", "safetensors.torch", "scipy.stats",
    "statsmodels.stats.contingency_tables", "torch._dynamo", "torch.utils.flop_counter",
    "torch.onnx._internal.exporter._core", "bench.export.output", "bench.export.pipeline",
    "bench.api", "bench.targets.find", "bench.measurement.backends.eager",
    "bench.measurement.measure", "bench.store.tables.frames",
)  # fmt: skip


@pytest.fixture(autouse=True, scope="session")
def _known_machine() -> None:
    """Ask for the processor, and import what is imported late, once and not in every child."""
    describe_environment("cpu", threads=1)
    for module in LATE:
        importlib.import_module(module)
    for size in (ceiling._SIDE, ceiling._COPY_MIB):  # what is damaged is no figure to rely on
        size["cpu"] = 64


@pytest.fixture
def ledger(request: pytest.FixtureRequest) -> Callable[[str, int, str, str], None]:
    """Note a row of the table: fault, times injected, what happened, what was lost."""
    rows = request.config.stash.setdefault(Ledger, [])
    return lambda *row: rows.append(row)


@dataclass(frozen=True)
class Child:
    """A forked process at work."""

    pid: int

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)

    def wait(self, seconds: float = 120.0) -> int:
        """Return its exit code, negative for a signal."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.002)
        self.kill()
        os.waitpid(self.pid, 0)
        pytest.fail(f"the child hung for {seconds:g} s")


@pytest.fixture
def fork(tmp_path: Path) -> Callable[[Callable[[], object]], Child]:
    """Do something in a child: exit code 0, or 2 after a `BenchError` and 1 after anything else."""

    def begin(action: Callable[[], object]) -> Child:
        sys.stdout.flush()
        pid = os.fork()
        if pid:
            return Child(pid)
        code = 1
        try:
            torch.set_num_threads(1)
            warnings.simplefilter("ignore")
            action()
            code = 0
        except ValueError as error:  # BenchError
            (tmp_path / "refusal").write_text(str(error))
            code = 2 if type(error).__name__ != "ValueError" else 1
        except BaseException:
            (tmp_path / "traceback").write_text(traceback.format_exc())
        finally:
            os._exit(code)

    return begin


def make_request(seed: int = SUBJECT) -> RunRequest:
    return builders.make_request(
        "resnet8", dataset="fashion-mnist-mini", seed=seed, options={"width": 4}, train_images=100,
        input_size=8, deterministic=True, batch_size=32, epochs=1, ema_decay=0.8, cutout=2,
    )  # fmt: skip


def train(root: Path, seed: int = SUBJECT, on_event: Any = lambda _: None, **more: Any) -> None:
    """Train the tiny run with a checkpoint after every step."""
    training.CHECKPOINT_SECONDS = 0.0
    resources = training.Resources(device="cpu", threads=1, **more)
    training.execute(make_request(seed), Store(root), resources, on_event=on_event)


def outcome(root: Path, seed: int = SUBJECT) -> Any:
    """Everything that training decides, each file checked against its checksum, without times."""
    store, run = Store(root), make_request(seed).run_id
    record = store.read_run(run)
    if record is None:
        return None
    for name in record.files:
        store.checked_file(run, name)
    history = pd.read_csv(io.BytesIO(store.checked_file(run, "history.csv").read_bytes()))
    timeless = history.drop(columns=["seconds", "images_per_second"])
    digests = {name: d for name, d in record.files.items() if name != "history.csv"}
    figures = {k: v for k, v in record.result.items() if k != "images_per_second"}
    return record.status, digests, timeless.to_csv(), figures


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture
def root(tmp_path: Path, fork: Callable[..., Child]) -> Path:
    """A results folder with a bystander's finished run in it."""
    folder = tmp_path / "disk" / "results"
    folder.parent.mkdir()
    assert fork(lambda: train(folder, BYSTANDER)).wait() == 0, read(tmp_path / "traceback")
    return folder


@pytest.fixture
def undisturbed(tmp_path: Path, fork: Callable[..., Child]) -> Any:
    """What the tiny run gives when nothing happens to it."""
    folder = tmp_path / "undisturbed"
    assert fork(lambda: train(folder)).wait() == 0, read(tmp_path / "traceback")
    return outcome(folder)


@pytest.fixture
def invariants(
    root: Path, undisturbed: Any, fork: Callable[..., Child], tmp_path: Path
) -> Callable[..., bool]:
    """Check a folder after a fault, then take the run up; returns whether it was complete."""
    run = make_request().run_id
    before = contents(Store(root).folder(make_request(BYSTANDER).run_id))

    def check(folder: Path = root) -> bool:
        store = Store(folder)
        found = outcome(folder)
        assert found in (None, undisturbed)
        assert {record.run for record in store.runs()} - {run} == {make_request(BYSTANDER).run_id}
        assert contents(store.folder(make_request(BYSTANDER).run_id)) == before
        assert all(record.status != "complete" for record in store.unfinished())
        code = fork(lambda: train(folder)).wait()
        assert code == 0, read(tmp_path / "traceback") + read(tmp_path / "refusal")
        assert outcome(folder) == undisturbed
        names = {path.name for path in (folder / "runs").iterdir()}
        assert not {n for n in names if n.startswith(f".{run}.")} - {f".{run}.lock"}
        return found is not None

    return check


@pytest.fixture
def forget(root: Path) -> Callable[[], None]:
    """Remove the run that was disturbed."""
    return lambda: Store(root).remove_run(make_request().run_id)


def read(path: Path) -> str:
    return path.read_text() if path.exists() else ""


@pytest.fixture
def tiny() -> Any:
    """The tiny training's parts, for the test modules."""

    class Parts:
        request = staticmethod(make_request)
        train = staticmethod(train)
        outcome = staticmethod(outcome)
        contents = staticmethod(contents)
        bystander, subject = BYSTANDER, SUBJECT

    return Parts


OPERATIONS = (
    "make_folder", "write", "sync_file", "sync_folder", "rename", "remove_file", "remove_tree",
)  # fmt: skip


class Faulty(Disk):
    """Does what the real disk does, but calls *fault* before its operation number *at*."""

    def __init__(self, at: int, fault: Callable[..., None], met: Path | None = None) -> None:
        self.at, self.fault, self.count = at, fault, 0
        self.met = met  # a file that says that the operation came

    def _meet(self, name: str, arguments: tuple[Any, ...]) -> None:
        self.count += 1
        if self.count == self.at:
            if self.met is not None:
                self.met.touch()
            self.fault(name, arguments)
        getattr(super(), name)(*arguments)


for _name in OPERATIONS:
    setattr(Faulty, _name, lambda self, *a, _name=_name: self._meet(_name, a))


def die(name: str, arguments: tuple[Any, ...]) -> None:
    if name == "write":  # in its middle
        path, content = arguments
        path.write_bytes(content[: len(content) // 2])
    os.kill(os.getpid(), signal.SIGKILL)


def refuse(number: int) -> Callable[..., None]:
    def fault(name: str, arguments: tuple[Any, ...]) -> None:
        if name == "write":
            path, content = arguments
            path.write_bytes(content[: len(content) // 2])
        raise OSError(number, os.strerror(number))

    return fault


DAMAGES: dict[str, Callable[[Path, Path], object]] = {
    "truncated": lambda path, _: path.write_bytes(path.read_bytes()[:-7]),
    "a flipped bit": lambda path, _: path.write_bytes(flipped(path.read_bytes())),
    "emptied": lambda path, _: path.write_bytes(b""),
    "swapped with another run's": lambda path, other: shutil.copy(other, path),
    "removed": lambda path, _: path.unlink(),
}


def flipped(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 4]) + content[middle + 1 :]


@pytest.fixture
def faults() -> Any:
    """What can be done to a disk and to a file, for the test modules."""

    class Parts:
        disk = Faulty
        die = staticmethod(die)
        refuse = staticmethod(refuse)
        damages = DAMAGES

    return Parts
