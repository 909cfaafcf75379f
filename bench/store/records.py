"""What is recorded of a run and of a study, and how it is read back and checked."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bench.errors import BenchError
from bench.request import FORMAT_VERSION

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
        return dump({**values, "checksum": _checksum(values)})


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


def read_record(path: Path, run: str) -> RunRecord:
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


def read_study_record(path: Path) -> StudyRecord:
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


def dump(values: Any) -> bytes:
    """Serialise JSON values as a person can read them."""
    return (json.dumps(values, indent=1, ensure_ascii=False) + "\n").encode()


def _checksum(values: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
