"""Runs and studies in a results folder."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import shutil
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.errors import BenchError, nearest
from bench.request import FORMAT_VERSION, RunRequest
from bench.store.files import (
    publish_folder,
    remove_folder,
    sha256_of,
    telling,
    write_atomically,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch

CHECKPOINT = "checkpoint.safetensors"
PARTIAL = ".partial"

UNFINISHED = "unfinished.json"


@dataclass(frozen=True)
class RunRecord:
    """What `run.json` holds of one run.

    Attributes:
        run: the run's id, also its folder's name.
        request: what was asked for (`RunRequest.as_dict`).
        status: complete or diverged (both final: the same again would come out the same),
            out_of_memory, failed or interrupted (taken up by the next try).
        error: one line that says why the run is not complete, or None.
        result: figures of the finished network (accuracies in 0…1, losses, counts).
        environment: what it was made with (`bench.environment`).
        started_at: UTC, ISO 8601.
        seconds: training time, evaluation included, summed over resumptions.
        parent: the run whose weights it started from, or None.
        files: SHA-256 of every other file of the folder.
    """

    run: str
    request: dict[str, Any]
    status: str
    environment: dict[str, Any]
    started_at: str
    seconds: float
    error: str | None = None
    result: dict[str, Any] = field(default_factory=dict)
    parent: str | None = None
    files: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> bytes:
        """Serialise with a checksum of the content, so that a flipped bit is noticed."""
        values = {"format_version": FORMAT_VERSION, **dataclasses.asdict(self)}
        return _dump({**values, "checksum": _checksum(values)})


@dataclass(frozen=True)
class StudyRecord:
    """What `studies/NAME.json` holds: which run stands for which variant and seed.

    Attributes:
        name: the study's name.
        question: the question it asks.
        source: the paper's table it corresponds to, or None.
        variants: name → {"reference": name or None, "runs": {seed: run id}}.
        tuning: what was tried and taken, variant → {"values": …, "chosen": …}.
        shared_tensors: variant → counts of initial tensors equal to the reference's.
        updated_at: UTC, ISO 8601.
    """

    name: str
    question: str
    variants: dict[str, dict[str, Any]]
    source: str | None = None
    tuning: dict[str, Any] = field(default_factory=dict)
    shared_tensors: dict[str, Any] = field(default_factory=dict)
    updated_at: str = ""

    @property
    def runs(self) -> set[str]:
        """Ids of all runs that the study refers to, those of its tuning included."""
        chosen = {run for v in self.variants.values() for run in v["runs"].values()}
        tried = {run for t in self.tuning.values() for run in t["runs"].values()}
        return chosen | tried


class Store:
    """A results folder.

    Args:
        root: the folder; it need not exist for reading.

    Raises:
        BenchError: *root* is a file.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        with telling(self.root):  # even asking may be refused, or the name be too long
            is_file = self.root.exists() and not self.root.is_dir()
        if is_file:
            raise BenchError(f"--results {self.root} is a file; give a folder")

    def prepare(self) -> None:
        """Make the folder, and prove that it can be written before work begins.

        Raises:
            StorageError: it cannot be written, with the reason.
        """
        probe = self.root / "runs" / ".writable"
        write_atomically(probe, b"can a file be written here?\n")
        probe.unlink(missing_ok=True)

    # Runs

    def folder(self, run: str) -> Path:
        """Folder of a finished run."""
        return self.root / "runs" / run

    def partial(self, run: str) -> Path:
        """Folder in which a run is worked on; readers pass it over."""
        return self.root / "runs" / (run + PARTIAL)

    def read_run(self, run: str) -> RunRecord | None:
        """Read a finished run's record; None if there is none or it is broken (with a warning)."""
        path = self.folder(run) / "run.json"
        if not path.parent.is_dir():
            return None
        try:
            return _read_record(path, run)
        except BenchError as error:
            warnings.warn(f"passing over {path.parent}: {error}", stacklevel=2)
            return None

    def runs(self) -> Iterator[RunRecord]:
        """Read every finished run's record, in order of name; broken ones warn."""
        for folder in _folders(self.root / "runs"):
            record = None if folder.name.endswith(PARTIAL) else self.read_run(folder.name)
            if record is not None:
                yield record

    def unfinished(self) -> Iterator[RunRecord]:
        """Describe every run that was begun and is not finished, with the reason."""
        for folder in _folders(self.root / "runs"):
            run = folder.name.removesuffix(PARTIAL)
            if run == folder.name or self.folder(run).exists():
                continue
            with contextlib.suppress(OSError, ValueError, TypeError):
                record = RunRecord(**json.loads((folder / UNFINISHED).read_text()))
                if record.run == run:
                    yield record

    @contextlib.contextmanager
    def lock(self, run: str, *, wait: bool = True) -> Iterator[bool]:
        """Hold the run for this process; yields False if another holds it and *wait* is False.

        The operating system gives the lock back when its owner dies.
        """
        import filelock

        path = self.root / "locks" / f"{run}.lock"
        with telling(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(path)
        try:
            lock.acquire(timeout=-1 if wait else 0)
        except filelock.Timeout:
            yield False
            return
        try:
            yield True
        finally:
            lock.release()

    def save_checkpoint(
        self, run: str, tensors: dict[str, torch.Tensor], state: dict[str, Any]
    ) -> None:
        """Save what a run needs to go on."""
        from safetensors.torch import save

        content = save(tensors, metadata={"state": json.dumps(state)})
        write_atomically(self.partial(run) / CHECKPOINT, content)

    def mark_unfinished(self, record: RunRecord) -> None:
        """Record why a run is not finished; a checkpoint stays, and the run can be taken up."""
        write_atomically(self.partial(record.run) / UNFINISHED, _dump(dataclasses.asdict(record)))

    def load_checkpoint(self, run: str) -> tuple[dict[str, torch.Tensor], dict[str, Any]] | None:
        """Read a run's checkpoint; None if there is none or it cannot be read (with a warning)."""
        from safetensors import SafetensorError, safe_open

        path = self.partial(run) / CHECKPOINT
        if not path.is_file():
            return None
        try:
            with safe_open(path, framework="pt") as file:
                state = json.loads(file.metadata()["state"])
                return {name: file.get_tensor(name) for name in file.keys()}, state  # noqa: SIM118 - not a mapping
        except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
            warnings.warn(f"starting {run} anew: its checkpoint is broken ({error})", stacklevel=2)
            return None

    def finish_run(
        self,
        record: RunRecord,
        *,
        history: str = "",
        tensors: dict[str, dict[str, torch.Tensor]] | None = None,
        documents: dict[str, Any] | None = None,
    ) -> RunRecord:
        """Publish a finished run as one folder; returns the record with its files' checksums.

        Args:
            record: the run's record; `files` is filled in here.
            history: CSV text with one line an epoch.
            tensors: file name → tensors, written as safetensors.
            documents: file name → JSON values.
        """
        from safetensors.torch import save

        partial = self.partial(record.run)
        contents = {name: save(values) for name, values in (tensors or {}).items()}
        contents |= {name: _dump(values) for name, values in (documents or {}).items()}
        contents["history.csv"] = history.encode()
        with telling(partial):
            partial.mkdir(parents=True, exist_ok=True)
            for leftover in partial.iterdir():
                if leftover.name not in {CHECKPOINT, UNFINISHED}:
                    leftover.unlink()
        for name, content in contents.items():
            write_atomically(partial / name, content)
        record = dataclasses.replace(
            record, files={n: hashlib.sha256(c).hexdigest() for n, c in sorted(contents.items())}
        )
        write_atomically(partial / "run.json", record.to_json())
        for name in (CHECKPOINT, UNFINISHED):
            (partial / name).unlink(missing_ok=True)
        publish_folder(partial, self.folder(record.run))
        return record

    def read_tensors(self, run: str, name: str) -> dict[str, torch.Tensor]:
        """Read a safetensors file of a finished run, after checking its checksum.

        Raises:
            BenchError: the run or the file is missing or damaged.
        """
        from safetensors.torch import load_file

        return load_file(self.checked_file(run, name))

    def read_document(self, run: str, name: str) -> Any:
        """Read a JSON file of a finished run, after checking its checksum."""
        return json.loads(self.checked_file(run, name).read_text())

    def checked_file(self, run: str, name: str) -> Path:
        """Path of a finished run's file whose content is what was written.

        Raises:
            BenchError: the run or the file is missing or damaged.
        """
        record = self.read_run(run)
        if record is None:
            raise BenchError(f"no readable run '{run}' in {self.root}")
        path = self.folder(run) / name
        if name not in record.files:
            raise BenchError(f"run {run} is {record.status} and has no {name}")
        if not path.is_file() or sha256_of(path) != record.files[name]:
            raise BenchError(
                f"{path} is missing or damaged (its checksum differs); "
                f"remove the run with 'bench results rm {run}' and train it again"
            )
        return path

    def find_run(self, name: str) -> str:
        """Resolve a run id, an unambiguous beginning or hash of one, or a folder's path.

        Unfinished runs are found too.

        Raises:
            BenchError: nothing or more than one run matches.
        """
        folders = _folders(self.root / "runs")
        known = list(dict.fromkeys(folder.name.removesuffix(PARTIAL) for folder in folders))
        wanted = Path(name).name.removesuffix(PARTIAL)
        if wanted in known:
            return wanted
        found = [k for k in known if wanted and wanted in (k[: len(wanted)], k.rsplit("-", 1)[-1])]
        if len(found) == 1:
            return found[0]
        if found:
            raise BenchError(
                f"'{name}' fits {len(found)} runs: {', '.join(found[:4])} …; give more"
            )
        raise BenchError(f"no run '{name}' in {self.root}{nearest(wanted, known)}")

    def remove_run(self, run: str) -> None:
        """Remove a run, finished or not."""
        for folder in (self.folder(run), self.partial(run)):
            if folder.exists():
                remove_folder(folder)

    def size(self, run: str) -> int:
        """Bytes that a run takes, its checkpoint included."""
        folders = [f for f in (self.folder(run), self.partial(run)) if f.is_dir()]
        return sum(file.stat().st_size for folder in folders for file in folder.iterdir())

    # Studies

    def save_study(self, record: StudyRecord) -> None:
        """Write a study's record in the place of an older one."""
        values = {"format_version": FORMAT_VERSION, **dataclasses.asdict(record)}
        write_atomically(self.root / "studies" / f"{record.name}.json", _dump(values))

    def read_study(self, name: str) -> StudyRecord | None:
        """Read a study's record; None if there is none or it is broken (with a warning)."""
        path = self.root / "studies" / f"{name}.json"
        if not path.is_file():
            return None
        try:
            return _read_study(path)
        except BenchError as error:
            warnings.warn(f"passing over {path}: {error}", stacklevel=2)
            return None

    def studies(self) -> list[StudyRecord]:
        """Read every study's record, in order of name."""
        paths = sorted((self.root / "studies").glob("*.json"))
        records = [self.read_study(path.stem) for path in paths]
        return [record for record in records if record is not None]

    def remove_study(self, name: str) -> None:
        """Forget a study; its runs stay."""
        (self.root / "studies" / f"{name}.json").unlink(missing_ok=True)

    def clear_partial(self, run: str) -> None:
        """Forget an unfinished run's checkpoint."""
        shutil.rmtree(self.partial(run), ignore_errors=True)


def request_of(record: RunRecord) -> RunRequest:
    """Return the request that a run answers."""
    return RunRequest.from_dict(record.request)


def _read_record(path: Path, run: str) -> RunRecord:
    """Read and check one `run.json`.

    Raises:
        BenchError: it is unreadable, damaged, of a newer version or another run's.
    """
    with _reading(path):
        values = json.loads(path.read_text())
        checksum = values.pop("checksum")
        _refuse_newer(path, values)
        if checksum != _checksum(values):
            raise BenchError("run.json is damaged (its checksum differs)")
        if values["run"] != run:
            raise BenchError(f"it holds the record of another run, {values['run']}")
        return RunRecord(**_versioned(path, values))


def _read_study(path: Path) -> StudyRecord:
    """Read and check one study's record.

    Raises:
        BenchError: it is unreadable, of a newer version or another study's.
    """
    with _reading(path):
        record = StudyRecord(**_versioned(path, json.loads(path.read_text())))
        if record.name != path.stem:
            raise BenchError(f"it holds the record of another study, {record.name}")
        if not all(record.runs) or not all("reference" in v for v in record.variants.values()):
            raise BenchError("a variant's runs or reference are not named")
    return record


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn whatever reading JSON of another form than ours raises into one line."""
    try:
        yield
    except BenchError:
        raise
    except FileNotFoundError:
        raise BenchError(f"it has no {path.name}") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BenchError(f"{path.name} cannot be read ({error})") from None


def _versioned(path: Path, values: dict[str, Any]) -> dict[str, Any]:
    _refuse_newer(path, values)
    return {key: value for key, value in values.items() if key != "format_version"}


def _refuse_newer(path: Path, values: dict[str, Any]) -> None:
    version = values.get("format_version")
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise BenchError(
            f"{path.name} has format version {version}, this bench reads up to {FORMAT_VERSION}; "
            "upgrade bench"
        )


def _folders(parent: Path) -> list[Path]:
    if not parent.is_dir():
        return []
    return sorted(p for p in parent.iterdir() if p.is_dir() and not p.name.startswith("."))


def _dump(values: Any) -> bytes:
    return (json.dumps(values, indent=1, ensure_ascii=False) + "\n").encode()


def _checksum(values: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
