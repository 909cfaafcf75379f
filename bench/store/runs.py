"""Runs in a results folder: `runs/ID/`."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.errors import AmbiguousNameError, BenchError, nearest
from bench.store import files
from bench.store.checkpoints import (
    CHECKPOINT,
    checkpoint_state,
    load_checkpoint,
    save_checkpoint,
)
from bench.store.files import (
    damaged_file,
    make_folder,
    publish_folder,
    remove_folder,
    storage_errors,
    write_atomically,
)
from bench.store.locks import LEASE_SECONDS, hold, knows_flock
from bench.store.records import RunRecord, dump, read_or_warn, read_record, refuse_overwriting_newer
from bench.store.studies import Studies

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import torch

    from bench.store.records import StudyRecord

PARTIAL = ".partial"
UNFINISHED = "unfinished.json"
_ID = re.compile(r"(?P<slug>.+)-s(?P<seed>-?\d+)-(?P<hash>[0-9a-f]{12})")
_SHORT = 8  # characters of a hash that people are shown
_SHORTEST = 4  # characters of a hash that name a run
_MOST_SHOWN = 4  # runs that a message names


def short_name(run: str, variant: str | None = None) -> str:
    """Return a run's name for people: variant, seed and the beginning of its hash.

    Args:
        run: the run's id.
        variant: name of its variant; None: model and dataset, as the id has them.
    """
    found = _ID.fullmatch(run)
    if found is None:
        return run
    return f"{variant or found['slug']} s{found['seed']} {found['hash'][:_SHORT]}"


def short_hash(run: str) -> str:
    """Return the beginning of a run's hash, which every command takes for the run."""
    found = _ID.fullmatch(run)
    return run if found is None else found["hash"][:_SHORT]


class Store(Studies):
    """A results folder with its runs and, inherited, its studies."""

    def folder(self, run: str) -> Path:
        """Return the folder of a finished run, whose id is `RunRequest.run_id`."""
        return self.root / "runs" / run

    def partial(self, run: str) -> Path:
        """Return the folder of an unfinished run."""
        return self.root / "runs" / (run + PARTIAL)

    def read_run(self, run: str) -> RunRecord | None:
        """Read a finished run's record; None if there is none or it is broken (with a warning)."""
        folder = self.folder(run)
        return read_or_warn(folder, _read_run) if folder.is_dir() else None

    def refuse_newer(self, run: str) -> None:
        """Refuse to repeat a run whose record a newer version wrote: it would be overwritten.

        Raises:
            NewerFormatError: it did.
        """
        refuse_overwriting_newer(self.folder(run) / "run.json")

    def why_absent(self, run: str) -> str:
        """Return the reason why a run has no row in any table."""
        path = self.folder(run)
        if not path.is_dir():
            unfinished = self.read_unfinished(run)
            if unfinished is not None:
                return f"{unfinished.status}: {unfinished.error}"
            begun = self.partial(run).is_dir()
            return "begun, and nothing recorded yet" if begun else "no readable record: not begun"
        try:
            _read_run(path)
        except BenchError as error:
            return f"no readable record: {error}"
        return "no readable record"

    def runs(self) -> Iterator[RunRecord]:
        """Read every finished run's record, in order of name; broken ones warn."""
        for name in _folder_names(self.root / "runs"):
            record = None if name.endswith(PARTIAL) else self.read_run(name)
            if record is not None:
                yield record

    def unfinished(self) -> Iterator[RunRecord]:
        """Read the record of every run that was started and is not finished."""
        for run in self.run_ids():
            record = None if self.folder(run).exists() else self.read_unfinished(run)
            if record is not None:
                yield record

    def run_ids(self) -> list[str]:
        """Return the ids of all runs in order of name, first those finished, broken ones too."""
        names = sorted(_folder_names(self.root / "runs"), key=lambda name: name.endswith(PARTIAL))
        return list(dict.fromkeys(name.removesuffix(PARTIAL) for name in names))

    def read(self, run: str) -> RunRecord | None:
        """Read a run's record, finished or not; None if there is none or it is broken."""
        return self.read_run(run) if self.folder(run).is_dir() else self.read_unfinished(run)

    def read_unfinished(self, run: str) -> RunRecord | None:
        """Read the record of an unfinished run, with the reason; None if there is none."""
        with contextlib.suppress(BenchError):
            return read_record(self.partial(run) / UNFINISHED, RunRecord, run, required=True)
        return None

    @contextlib.contextmanager
    def lock(
        self, run: str, *, wait: bool = True, waiting: Callable[[], None] = lambda: None
    ) -> Iterator[bool]:
        """Hold the run for this process; yields False if another holds it and *wait* is False.

        Args:
            run: the run's id.
            wait: wait while another process holds it.
            waiting: called repeatedly during the wait; may raise to give up.
        """
        self.ready()
        with hold(self.root / "locks" / f"{run}.lock", wait=wait, waiting=waiting) as ours:
            if ours:
                self._tidy(run)
            yield ours

    def _tidy(self, run: str) -> None:
        """Repair what a process left that died while publishing or removing a run.

        Only the holder of the run's lock may do that.
        """
        final = self.folder(run)
        for older in files.leftovers(final, files.REPLACED):
            if not final.exists() and not self._is_whole(run):
                with storage_errors(final):
                    files.disk.rename(older, final)
        if not final.exists() and self._is_whole(run):
            self._publish(run)
        for kind in (files.REPLACED, files.REMOVED):
            for doomed in files.leftovers(final, kind):
                with storage_errors(doomed):
                    files.disk.remove_tree(doomed)

    def _is_whole(self, run: str) -> bool:
        """Return whether a run is completely written, and only not yet published."""
        folder = self.partial(run)
        with contextlib.suppress(BenchError):
            record = read_record(folder / "run.json", RunRecord, run, required=True)
            return damaged_file(folder, record.files) is None
        return False

    def save_checkpoint(
        self, run: str, tensors: dict[str, torch.Tensor], state: dict[str, Any]
    ) -> None:
        """Save the state from which a run can be resumed."""
        self.ready()
        save_checkpoint(self.partial(run), run, tensors, state)

    def mark_unfinished(self, record: RunRecord) -> None:
        """Record why a run is not finished; its checkpoint stays, so that it can be resumed."""
        self.ready()
        write_atomically(self.partial(record.run) / UNFINISHED, record.to_json())

    def checkpoint_state(self, run: str) -> dict[str, Any]:
        """Read the state of a run's checkpoint; empty if there is none, or it is broken."""
        return checkpoint_state(self.partial(run))

    def load_checkpoint(self, run: str) -> tuple[dict[str, torch.Tensor], dict[str, Any]] | None:
        """Read a run's checkpoint; None if there is none or it cannot be read (with a warning)."""
        return load_checkpoint(self.partial(run), run)

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
            history: CSV text with one line per epoch.
            tensors: file name → tensors, written as safetensors.
            documents: file name → JSON values.
        """
        from safetensors.torch import save

        self.ready()
        self.refuse_newer(record.run)
        partial = self.partial(record.run)
        contents = {name: save(values) for name, values in (tensors or {}).items()}
        contents |= {name: dump(values) for name, values in (documents or {}).items()}
        contents["history.csv"] = history.encode()
        make_folder(partial)
        with storage_errors(partial):
            for leftover in partial.iterdir():
                if leftover.name not in {CHECKPOINT, UNFINISHED}:
                    files.disk.remove_file(leftover)
        for name, content in contents.items():
            write_atomically(partial / name, content)
        record = dataclasses.replace(
            record, files={n: hashlib.sha256(c).hexdigest() for n, c in sorted(contents.items())}
        )
        write_atomically(partial / "run.json", record.to_json())
        self._publish(record.run)
        return record

    def _publish(self, run: str) -> None:
        partial = self.partial(run)
        with storage_errors(partial):
            for name in (CHECKPOINT, UNFINISHED):
                files.disk.remove_file(partial / name)
        publish_folder(partial, self.folder(run))

    def read_tensors(self, run: str, name: str) -> dict[str, torch.Tensor]:
        """Read a safetensors file of a finished run, after checking its checksum.

        Raises:
            BenchError: the run or the file is missing or damaged.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        path = self.checked_file(run, name)
        try:
            return load_file(path)
        except SafetensorError as error:  # it was written so: the checksum is right
            raise BenchError(f"{path} is no safetensors file: {error}") from None

    def read_document(self, run: str, name: str) -> Any:
        """Read a JSON file of a finished run, after checking its checksum.

        Raises:
            BenchError: the run or the file is missing or damaged.
        """
        path = self.checked_file(run, name)
        try:
            return json.loads(path.read_bytes())
        except ValueError as error:  # it was written so: the checksum is right
            raise BenchError(f"{path} is no JSON: {error}") from None

    def checked_file(self, run: str, name: str) -> Path:
        """Return the path of a finished run's file, after checking its checksum.

        Raises:
            BenchError: the run or the file is missing or damaged.
        """
        record = self.read_run(run)
        if record is None:
            raise BenchError(f"no readable run '{run}' in {self.root}")
        path = self.folder(run) / name
        if name not in record.files:
            raise BenchError(f"run {run} is {record.status} and has no {name}")
        if damaged_file(self.folder(run), {name: record.files[name]}):
            raise BenchError(
                f"{path} is missing or damaged (its checksum differs); "
                f"remove the run with '{self.command('results', 'rm', run)}' and train it again"
            )
        return path

    def find_run(self, name: str) -> str:
        """Return the id of the run given by id, unambiguous prefix of id or hash, or folder path.

        The name of a study of one run, such as an imported one, names that run, whatever other runs
        begin with it. Unfinished runs are found too.

        Raises:
            AmbiguousNameError: more than one run matches, or it is a study of several.
            BenchError: none matches, or it is a folder of another results folder.
        """
        folder = Path(name)
        if folder.parent.name == "runs" and folder.is_dir():
            other = folder.absolute().parents[1].resolve()
            if other != self.root.resolve():  # where the same id may be another result
                raise BenchError(f"{name} is in another results folder: give --results {other}")
        known = self.run_ids()
        wanted = Path(name).name.removesuffix(PARTIAL)
        if wanted in known:
            return wanted
        study = self.read_study(name) if wanted == name else None
        if study is not None:
            return self._only_run(study, known)
        found = [k for k in known if wanted and (k.startswith(wanted) or _has_hash(k, wanted))]
        if len(found) == 1:
            return found[0]
        if found:
            raise AmbiguousNameError(
                f"'{name}' fits {len(found)} runs: {_listed(found)}; give more of the name, or the "
                "hash"
            )
        names = [*known, *(record.name for record in self.studies())]
        raise BenchError(f"no run '{name}' in {self.root}{nearest(wanted, names)}")

    def _only_run(self, study: StudyRecord, known: list[str]) -> str:
        found = sorted(study.runs & set(known))
        if not found:
            raise BenchError(f"study '{study.name}' has no run in {self.root}; name a run")
        if len(study.runs) > 1:
            raise AmbiguousNameError(
                f"'{study.name}' is a study of {len(study.runs)} runs, and one is needed: name "
                f"one of them ({_listed(found)})"
            )
        return found[0]

    def remove_run(self, run: str) -> None:
        """Remove a run, finished or not.

        Raises:
            BenchError: a process is training it.
        """
        with self._idle(run):
            self.discard(run)

    def discard(self, run: str) -> None:
        """Remove a run, finished or not, whose lock the caller holds."""
        for folder in (self.folder(run), self.partial(run)):
            if folder.exists():
                remove_folder(folder)

    def refuse_busy(self, run: str) -> None:
        """Raise a `BenchError` if a process is training a run."""
        with self._idle(run):
            pass

    @contextlib.contextmanager
    def _idle(self, run: str) -> Iterator[None]:
        """Hold a run that no process is training."""
        # Without flock, the lock of a process that died is free only when its lease has run out.
        until = time.monotonic() + (0 if knows_flock(self.root) else LEASE_SECONDS + 5)

        def refuse() -> None:
            if time.monotonic() >= until:
                raise BenchError(
                    f"run {run} is being trained now: wait until it has ended, or stop the command "
                    "that trains it"
                )

        with self.lock(run, waiting=refuse):
            yield

    def size(self, run: str) -> int:
        """Return the size of a run in bytes, including its checkpoint."""
        folders = [f for f in (self.folder(run), self.partial(run)) if f.is_dir()]
        return sum(file.stat().st_size for folder in folders for file in folder.iterdir())

    def clear_partial(self, run: str) -> None:
        """Remove an unfinished run with its checkpoint."""
        if self.partial(run).exists():
            remove_folder(self.partial(run))


def _listed(runs: list[str]) -> str:
    return ", ".join(runs[:_MOST_SHOWN]) + (" …" if len(runs) > _MOST_SHOWN else "")


def _has_hash(run: str, beginning: str) -> bool:
    return len(beginning) >= _SHORTEST and run.rsplit("-", 1)[-1].startswith(beginning)


def _read_run(folder: Path) -> RunRecord:
    return read_record(folder / "run.json", RunRecord, folder.name, required=True)


def _folder_names(parent: Path) -> list[str]:
    if not parent.is_dir():
        return []
    with os.scandir(parent) as entries:  # does not stat each of ten thousand
        return sorted(e.name for e in entries if e.is_dir() and not e.name.startswith("."))
