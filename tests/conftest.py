"""What many tests share: a results folder trained once, and two ways to call the command."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
import torch

from bench.cli import main
from bench.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

TINY_STUDY = """
question = "Does the shortcut matter here?"
source = "He et al. 2016a, Table 2"
reference = "residual"

[base]
model = "resnet8"
dataset = "fashion-mnist-mini"
train_images = 200
epochs = 1
batch_size = 50
seeds = [0, 1]

[[variant]]
name = "residual"
options = { width = 4 }

[[variant]]
name = "plain"
options = { width = 4, shortcut = "none" }
"""


def pytest_configure() -> None:
    """Let the processes of tests receive Ctrl-C, which jobs in the background of a shell ignore."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@dataclass(frozen=True)
class Outcome:
    """What a command left: its exit code, and what it said."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> dict[str, Any]:
        """The one JSON document on stdout."""
        document: dict[str, Any] = json.loads(self.out)
        assert set(document) >= {"schema", "rows", "errors"}
        assert document["schema"] == 1
        return document

    @property
    def refusal(self) -> str:
        """The one line that refuses the request; fails if there is anything else."""
        assert self.code == 2, self
        assert "Traceback" not in self.out + self.err
        assert self.err.startswith("bench: error: "), self
        assert self.err.count("\n") == 1, self
        return self.err.removeprefix("bench: error: ").strip()


@pytest.fixture(autouse=True, scope="session")
def _own_machine_lock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the tests from waiting for what else is trained or measured on this machine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", str(tmp_path_factory.mktemp("runtime")))
        yield


@pytest.fixture(autouse=True, scope="session")
def _nothing_of_the_users(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the tests from the user's cached images, tracking server and proxies."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BENCH_DATA", str(tmp_path_factory.mktemp("data")))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        for name in ("NO_PROXY", "no_proxy"):  # their servers are on this machine
            patch.setenv(name, "localhost,127.0.0.1,::1")
        yield


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Iterator[None]:
    """Tiny networks gain nothing from threads, and lose much where others share the cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Outcome]:
    """Run `bench WORDS…` in this process, in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(*words: object, stdin: str = "") -> Outcome:
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        out, err = io.StringIO(), io.StringIO()
        monkeypatch.setattr(sys, "argv", ["bench", *map(str, words)])
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                main()
            except SystemExit as leave:
                code = leave.code if isinstance(leave.code, int) else 0
        return Outcome(code, out.getvalue(), err.getvalue())

    return run


@pytest.fixture
def program() -> Callable[..., list[str]]:
    """Make the command line of `bench WORDS…` as a process of its own."""

    def words_of(*words: object) -> list[str]:
        return [sys.executable, "-c", "from bench.cli import main; main()", *map(str, words)]

    return words_of


@pytest.fixture
def bench_process(program: Callable[..., list[str]], tmp_path: Path) -> Callable[..., Outcome]:
    """Run `bench WORDS…` in a process of its own, in an empty folder unless told where."""

    def run(*words: object, cwd: Path = tmp_path, stdin: str = "") -> Outcome:
        done = subprocess.run(
            program(*words), capture_output=True, text=True, cwd=cwd, input=stdin, check=False,
            timeout=300,
        )  # fmt: skip
        return Outcome(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture(scope="session")
def tiny_study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study file whose four runs train in a second each."""
    path = tmp_path_factory.mktemp("study") / "tiny.toml"
    path.write_text(TINY_STUDY)
    return path


@pytest.fixture(scope="session")
def trained(tiny_study: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results folder with the tiny study trained; only to be read."""
    from bench import run_study

    results = tmp_path_factory.mktemp("trained") / "bench-runs"
    run_study(tiny_study, results=results, device="cpu", threads=1, workers=1)
    return results


@pytest.fixture
def results(trained: Path, tmp_path: Path) -> Path:
    """A copy of the trained results folder, to be changed at will."""
    return shutil.copytree(trained, tmp_path / "bench-runs")


@pytest.fixture
def train_here(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Train a tiny network into `bench-runs` without a worker process; returns its row."""

    def train(model: str, *, settings: dict[str, Any] | None = None, **given: Any) -> Any:
        from bench import train
        from bench.store.tables.frames import rows_of

        how = {"options": {"width": 4}, "epochs": 1, "device": "cpu", "threads": 1} | given
        small = {"train_images": 300, "batch_size": 50} | (settings or {})
        (row,) = rows_of(train(model, settings=small, results=tmp_path / "bench-runs", **how))
        return row

    return train


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An empty results folder."""
    return Store(tmp_path / "bench-runs")


@pytest.fixture
def entries() -> Callable[[Path], set[str]]:
    """List everything below a folder, as relative paths; nothing if there is no folder."""
    return lambda folder: {str(path.relative_to(folder)) for path in folder.rglob("*")}
