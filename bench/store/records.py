"""What is recorded of a run and of a study, and how it is read back and checked."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bench.errors import BenchError
from bench.studies.request import FORMAT_VERSION

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


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
        environment: what it was made with (`bench.system.environment`).
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
        return seal(dataclasses.asdict(self))


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
        target_accuracy: the validation accuracy to which time is told, or None.
        published: the paper's own figures, as the study file has them, or None.
        compare_training: whether training accuracies are compared, too.
        discussion: what the study's author makes of the outcome, or None.
    """

    name: str
    question: str
    variants: dict[str, dict[str, Any]]
    source: str | None = None
    tuning: dict[str, Any] = field(default_factory=dict)
    shared_tensors: dict[str, Any] = field(default_factory=dict)
    updated_at: str = ""
    target_accuracy: float | None = None
    published: dict[str, Any] | None = None
    compare_training: bool = False
    discussion: str | None = None

    @property
    def paragraphs(self) -> list[str]:
        """The discussion, a paragraph a text of one line."""
        parts = (self.discussion or "").split("\n\n")
        return [" ".join(part.split()) for part in parts if part.strip()]

    @property
    def runs(self) -> set[str]:
        """Ids of all runs that the study refers to, those of its tuning included."""
        chosen = {run for v in self.variants.values() for run in v["runs"].values()}
        tried = {run for t in self.tuning.values() for run in t["runs"].values()}
        return chosen | tried


def read_record(path: Path, run: str) -> RunRecord:
    """Read and check one `run.json`, or the record of an unfinished run.

    Raises:
        BenchError: it is unreadable, damaged, of a newer version or another run's.
    """
    with reading(path):
        values = unseal(path, required=True)
        if values["run"] != run:
            raise BenchError(f"it holds the record of another run, {values['run']}")
        return RunRecord(**values)


def read_study_record(path: Path) -> StudyRecord:
    """Read and check one study's record.

    Raises:
        BenchError: it is unreadable, damaged, of a newer version or another study's.
    """
    with reading(path):
        record = StudyRecord(**unseal(path))
        if record.name != path.stem:
            raise BenchError(f"it holds the record of another study, {record.name}")
        if not all(record.runs) or not all("reference" in v for v in record.variants.values()):
            raise BenchError("a variant's runs or reference are not named")
    return record


def seal(values: dict[str, Any]) -> bytes:
    """Serialise a record's values with the format's version and a checksum of both."""
    # As they will be read back: keys become text there, and what JSON lacks does too.
    plain = json.loads(json.dumps({"format_version": FORMAT_VERSION, **values}, default=str))
    return dump({**plain, "checksum": _checksum(plain)})


def unseal(path: Path, *, required: bool = False) -> dict[str, Any]:
    """Read what `seal` wrote, and check it.

    Args:
        path: the file.
        required: refuse a file without a checksum; only run records always had one.

    Raises:
        BenchError: it is damaged, or of a newer version.
        OSError, ValueError, KeyError, TypeError, AttributeError: it is not of that form at all.
    """
    values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    checksum = values.pop("checksum") if required else values.pop("checksum", None)
    refuse_newer(path, values)
    if checksum != _checksum(values) and (required or checksum is not None):
        raise BenchError(f"{path.name} is damaged (its checksum differs)")
    del values["format_version"]
    return values


def refuse_overwriting_newer(path: Path) -> None:
    """Refuse to write over a record that a newer bench wrote, whose meaning is not known here.

    Raises:
        BenchError: *path* is of a newer version.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return  # nothing there, or nothing that could be read
    if isinstance(values, dict) and _is_newer(values):
        raise NewerFormatError(
            f"{path} was written by a newer bench (format {values['format_version']}, this one "
            f"writes {FORMAT_VERSION}); upgrade bench, or choose another --results folder"
        )


class NewerFormatError(BenchError):
    """A record of a newer version stands where this version would write its own."""


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn whatever reading JSON or CSV of another form than ours raises into one line."""
    try:
        yield
    except BenchError:
        raise
    except FileNotFoundError:
        raise BenchError(f"it has no {path.name}") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, csv.Error) as error:
        raise BenchError(f"{path.name} cannot be read ({error})") from None
    except RecursionError:
        raise BenchError(f"{path.name} cannot be read (it is nested too deeply)") from None


def refuse_newer(path: Path, values: dict[str, Any]) -> None:
    """Refuse to read a record of a newer version.

    Raises:
        BenchError: naming both versions.
    """
    if _is_newer(values):
        raise BenchError(
            f"{path.name} has format version {values['format_version']}, this bench reads up to "
            f"{FORMAT_VERSION}; upgrade bench"
        )


def dump(values: Any) -> bytes:
    """Serialise JSON values as a person can read them."""
    return (json.dumps(values, indent=1, ensure_ascii=False) + "\n").encode()


def _is_newer(values: dict[str, Any]) -> bool:
    version = values.get("format_version")
    return isinstance(version, int) and version > FORMAT_VERSION


def _checksum(values: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
