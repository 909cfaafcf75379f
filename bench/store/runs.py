"""Runs and studies in a results folder."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import shutil
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.errors import BenchError, nearest
from bench.request import FORMAT_VERSION
from bench.store.files import (
    publish_folder,
    remove_folder,
    sha256_of,
    telling,
    write_atomically,
)
from bench.store.records import RunRecord, StudyRecord, dump, read_record, read_study_record

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch

CHECKPOINT = "checkpoint.safetensors"
PARTIAL = ".partial"

UNFINISHED = "unfinished.json"


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
            return read_record(path, run)
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
            record = self.read_unfinished(run)
            if record is not None:
                yield record

    def read_unfinished(self, run: str) -> RunRecord | None:
        """Read why a run that was begun is not finished; None if that was not written."""
        with contextlib.suppress(OSError, ValueError, TypeError):
            values = json.loads((self.partial(run) / UNFINISHED).read_text())
            record = RunRecord(**values)
            return record if record.run == run else None
        return None

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
        write_atomically(self.partial(record.run) / UNFINISHED, dump(dataclasses.asdict(record)))

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
        contents |= {name: dump(values) for name, values in (documents or {}).items()}
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
        write_atomically(self.root / "studies" / f"{record.name}.json", dump(values))

    def read_study(self, name: str) -> StudyRecord | None:
        """Read a study's record; None if there is none or it is broken (with a warning)."""
        path = self.root / "studies" / f"{name}.json"
        if not path.is_file():
            return None
        try:
            return read_study_record(path)
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


def _folders(parent: Path) -> list[Path]:
    if not parent.is_dir():
        return []
    return sorted(p for p in parent.iterdir() if p.is_dir() and not p.name.startswith("."))
