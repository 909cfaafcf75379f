"""A results folder and its studies: which run belongs to which variant and seed."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shlex
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.errors import BenchError, nearest
from bench.store import files
from bench.store.files import (
    StorageError,
    make_folder,
    prove_writable,
    require_results,
    storage_errors,
    write_atomically,
)
from bench.store.locks import hold
from bench.store.records import (
    NewerFormatError,
    StudyRecord,
    read_or_warn,
    read_study_record,
    reading,
    refuse_overwriting_newer,
    refuse_unknown,
    seal,
    unseal,
)

if TYPE_CHECKING:
    from collections.abc import Collection
    from contextlib import AbstractContextManager

# Fields of the first version's records. Those added since are left out at their defaults: older
# versions refuse fields that they do not know.
_FIRST = {
    "name",
    "question",
    "variants",
    "source",
    "tuning",
    "shared_tensors",
    "updated_at",
    "published",
}


class Studies:
    """A results folder and its studies. The folder is made when it is first written.

    Args:
        root: the folder; it need not exist for reading.

    Raises:
        BenchError: *root* is a file.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        self._identity: tuple[int, int] | None = None
        with storage_errors(self.root):  # even a look may be refused, or the name be too long
            is_file = self.root.exists() and not self.root.is_dir()
        if is_file:
            raise BenchError(f"--results {self.root} is a file; give a folder")

    def command(self, *words: str) -> str:
        """Return a `bench` command that reads this folder, to be pasted into a shell."""
        where = () if self.root == Path("bench-runs") else ("--results", str(self.root))
        return shlex.join(["bench", *words, *where])

    def prepare(self) -> None:
        """Make the folder and check that it can be written, before work begins."""
        self.ready()
        prove_writable(self.root / "runs")

    def ready(self) -> None:
        """Make the folder; refuse to continue if it was moved or removed since the first call."""
        if self._identity is None:
            make_folder(self.root)
        with storage_errors(self.root):
            found = self.root.stat() if self.root.is_dir() else None
        identity = None if found is None else (found.st_dev, found.st_ino)
        if self._identity not in {None, identity}:
            raise StorageError(
                f"the results folder {self.root} was moved or removed while it was written; "
                "move it back, or give its new place with --results"
            )
        self._identity = identity

    def save_study(self, record: StudyRecord) -> None:
        """Write a study's record, replacing an older one."""
        self.ready()
        path = self.refuse_newer_study(record.name)
        default = dataclasses.asdict(StudyRecord(name="", question="", variants={}))
        values = dataclasses.asdict(record).items()
        write_atomically(path, seal({k: v for k, v in values if k in _FIRST or v != default[k]}))

    def lock_studies(self) -> AbstractContextManager[bool]:
        """Hold the studies' records for this process, from reading one until it is saved."""
        self.ready()
        return hold(self.root / "locks" / "studies.lock")

    def refuse_newer_study(self, name: str) -> Path:
        """Return the path of a study's record, unless a newer version wrote it.

        Raises:
            NewerFormatError: it did.
        """
        path = self.root / "studies" / f"{name}.json"
        refuse_overwriting_newer(path)
        values = None
        with contextlib.suppress(OSError, ValueError):  # nothing there, or nothing to be lost
            values = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(values, dict):
            try:
                refuse_unknown(values, StudyRecord)
            except NewerFormatError as error:
                raise NewerFormatError(
                    f"{path}: {error}, or choose another --results folder"
                ) from None
        return path

    def forget_runs(self, study: str, runs: Collection[str]) -> None:
        """Take runs out of a study; it is removed if none is left."""
        with self.lock_studies():
            record = self.read_study(study)
            if record is None:
                return
            kept = {
                name: {s: run for s, run in entry["runs"].items() if run not in runs}
                for name, entry in record.variants.items()
            }
            variants = {n: record.variants[n] | {"runs": left} for n, left in kept.items() if left}
            if variants:
                self.save_study(dataclasses.replace(record, variants=variants))
            else:
                path = self.refuse_newer_study(study)
                with storage_errors(path):
                    files.disk.remove_file(path)

    def read_study(self, name: str) -> StudyRecord | None:
        """Read a study's record; None if there is none or it is broken (with a warning)."""
        path = self.root / "studies" / f"{name}.json"
        return read_or_warn(path, read_study_record) if path.is_file() else None

    def refuse_unreadable_studies(self) -> None:
        """Read every study's record.

        Raises:
            BenchError: one of them cannot be read.
        """
        for path in sorted((self.root / "studies").glob("*.json")):
            self.find_study(path.stem)

    def studies(self) -> list[StudyRecord]:
        """Read every study's record, in order of name."""
        paths = sorted((self.root / "studies").glob("*.json"))
        records = [self.read_study(path.stem) for path in paths]
        return [record for record in records if record is not None]

    def variants_of_runs(self) -> dict[str, str]:
        """Map each run to the variant that it belongs to: of several studies, the latest one's."""
        studies = sorted(self.studies(), key=lambda record: record.updated_at)
        return {
            run: variant
            for record in studies
            for variant, entry in record.variants.items()
            for run in entry["runs"].values()
        }

    def find_study(self, name: str | None = None) -> StudyRecord:
        """Return the study of that name (default: the study run most recently).

        Raises:
            BenchError: there is no such study, or its record cannot be read, with the reason.
        """
        require_results(self.root)
        paths = {path.stem: path for path in sorted((self.root / "studies").glob("*.json"))}
        if name is None:
            readable = self.studies()
            if readable:
                return max(readable, key=lambda record: record.updated_at)
            name = next(iter(paths), None)
        if name is None:
            raise BenchError(f"no study in {self.root}; 'bench run-ablation' runs one")
        if name not in paths:
            hint = nearest(name, paths)
            there = f" (there: {', '.join(paths)})" if paths else ""
            run = "" if hint else "; 'bench run-ablation' runs one"
            raise BenchError(f"no study '{name}' in {self.root}{hint}{there}{run}")
        try:
            return read_study_record(paths[name])
        except BenchError as error:
            raise BenchError(f"study '{name}' in {self.root} cannot be read: {error}") from None

    def save_tracking(self, name: str, outcomes: dict[str, dict[str, Any]]) -> None:
        """Record the outcome of a study's trackers; the records of other trackers are kept.

        Args:
            name: the study's name.
            outcomes: tracker → `where` it logs to, the `error` that ended it or None, and `at`.
        """
        self.ready()
        known = {**self.read_tracking(name), **outcomes}
        write_atomically(
            self.root / "tracking" / f"{name}.json", seal({"study": name, "trackers": known})
        )

    def folder_id(self) -> str:
        """Return the random text by which a tracker's server tells this folder from others."""
        path = self.root / "tracking" / "folder"
        with self.lock_studies():
            if not path.is_file():
                write_atomically(path, uuid.uuid4().hex.encode())
            return path.read_text(encoding="utf-8")

    def read_tracking(self, name: str) -> dict[str, dict[str, Any]]:
        """Read the outcome of a study's trackers; empty if it cannot be read."""
        path = self.root / "tracking" / f"{name}.json"
        with contextlib.suppress(BenchError), reading(path):
            found: dict[str, dict[str, Any]] = unseal(path)["trackers"]
            return found
        return {}
