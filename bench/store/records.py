"""Records of runs and studies, and how they are written, read and checked."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from bench.errors import BenchError, warn
from bench.studies.run_request import FORMAT_VERSION, IMPORT_SETTINGS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from _typeshed import DataclassInstance

T = TypeVar("T")
Record = TypeVar("Record", bound="DataclassInstance")


@dataclass(frozen=True)
class RunRecord:
    """The content of `run.json`, the record of one run.

    Attributes:
        run: id, also the name of the folder.
        request: the run's request (`RunRequest.as_dict`).
        status: complete or diverged (both final: a repetition would give the same),
            out_of_memory, failed or interrupted (resumed by the next try).
        error: why the run is not complete, in one line; None if it is.
        result: results of the trained network (accuracies in 0…1, losses, counts).
        environment: versions and hardware (`bench.system.environment`).
        started_at: UTC, ISO 8601.
        seconds: training time, evaluation included, summed over resumptions.
        parent: the run whose weights this one started from, or None.
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

    @property
    def imported(self) -> bool:
        """Whether the network was trained elsewhere, and is only evaluated here."""
        return self.request["recipe"]["epochs"] == 0 and not self.request.get("grown_from")

    @property
    def settings(self) -> dict[str, Any]:
        """The request; of an imported network without the recipe values of training."""
        if not self.imported:
            return self.request
        used = {"epochs", *IMPORT_SETTINGS}
        recipe = {key: value for key, value in self.request["recipe"].items() if key in used}
        return {**self.request, "recipe": recipe}

    def to_json(self) -> bytes:
        """Serialise with a checksum, so that a flipped bit is detected."""
        return seal(dataclasses.asdict(self))


@dataclass(frozen=True)
class StudyRecord:
    """The content of `studies/NAME.json`: the run of each variant and seed.

    Attributes:
        name: the study's name.
        question: the question it asks.
        source: the table of a paper that it corresponds to, or None.
        variants: name → {"reference": name or None, "runs": {seed: run id}}.
        tuning: variant → {"values": …, "chosen": …}: the values tried, and the one chosen.
        shared_tensors: variant → number of initial tensors equal to the reference's.
        updated_at: UTC, ISO 8601.
        target_accuracy: validation accuracy for the time-to-accuracy comparison, or None.
        published: the paper's results, as given in the study file, or None.
        compare_training: whether training accuracies are compared, too.
        discussion: the author's discussion of the outcome, or None.
        declared_seeds: the only seeds that are tested, together; empty if seeds may be added.
        looks: the seeds of each look at a study to which seeds may be added, oldest first.
        look_rules: the place in `rules` of what each look compared; shorter in older records.
        earlier_looks: looks at results before the present seeds or settings were decided.
        rules: digests of what is compared and how it is tested: the first declared one, and each
            that replaced it after results could be seen; empty in records made before they were
            kept. After runs of other code or images were replaced, one ends with their digest.
        existing_runs: number of its runs that had ended before the study was first recorded.
        primary: {"name": variant or contrast, "accuracy": `test` or `train`}, which is tested
            alone, or None.
        margin: largest difference that counts as equivalent, percentage points, or None.
        contrasts: name → variant → weight.
        test: `paired` or `welch`.
        file: name of the study's file, if that is not NAME.toml; empty for a study that was made
            in Python.
        overrides: values that replaced those of the file: epochs, dataset, deterministic.
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
    declared_seeds: list[int] = field(default_factory=list)
    looks: list[list[int]] = field(default_factory=list)
    look_rules: list[int] = field(default_factory=list)
    earlier_looks: int = 0
    rules: list[str] = field(default_factory=list)
    existing_runs: int = 0
    primary: dict[str, str] | None = None
    margin: float | None = None
    contrasts: dict[str, dict[str, float]] = field(default_factory=dict)
    test: Literal["paired", "welch"] = "paired"
    file: str | None = None
    overrides: dict[str, Any] = field(default_factory=dict)

    @property
    def paragraphs(self) -> list[str]:
        """The discussion's paragraphs, each as one line."""
        parts = (self.discussion or "").split("\n\n")
        return [" ".join(part.split()) for part in parts if part.strip()]

    @property
    def runs(self) -> set[str]:
        """Ids of all runs that the study refers to, including those of its tuning."""
        chosen = {run for v in self.variants.values() for run in v["runs"].values()}
        tried = {run for t in self.tuning.values() for run in t["runs"].values()}
        return chosen | tried


def read_record(path: Path, kind: type[Record], name: str, *, required: bool = False) -> Record:
    """Read and check one record.

    Args:
        path: its file.
        kind: its class, whose first field is the name.
        name: the expected name.
        required: refuse a file without a checksum; runs and analyses have always had one.

    Raises:
        BenchError: it is unreadable, damaged, of a newer version, or of another name.
    """
    with reading(path):
        values = unseal(path, required=required)
        found = values[dataclasses.fields(kind)[0].name]
        if found != name:
            noun = kind.__name__.removesuffix("Record").lower()
            raise BenchError(f"it holds the record of another {noun}, {found}")
        refuse_unknown(values, kind)
        return kind(**values)


def refuse_unknown(values: Mapping[str, Any], kind: type[Any]) -> None:
    """Refuse a record with fields that this version does not know: it would lose them.

    Raises:
        NewerFormatError: it has one.
    """
    known = {field.name for field in dataclasses.fields(kind)}
    if unknown := sorted(values.keys() - known - {"format_version", "checksum"}):
        raise NewerFormatError(
            f"a newer bench wrote it (it has {unknown[0]!r}, unknown here); upgrade bench"
        )


def read_study_record(path: Path) -> StudyRecord:
    """Read and check one study's record.

    Raises:
        BenchError: it is unreadable, damaged, of a newer version, or of another study.
    """
    record = read_record(path, StudyRecord, path.stem)
    with reading(path):
        if not all(record.runs) or not all("reference" in v for v in record.variants.values()):
            raise BenchError("a variant's runs or reference are not named")
    return record


def is_of_weights(request: Mapping[str, Any], run: RunRecord | None) -> bool:
    """Return whether what was made of a run is of the weights that it has, as far as is known."""
    now = run and run.files.get("model.safetensors")
    return now is None or request.get("weights") in (None, now)


def read_or_warn(path: Path, read: Callable[[Path], T]) -> T | None:
    """Return what *read* reads from a file or folder; None, with a warning, if it is broken."""
    try:
        return read(path)
    except BenchError as error:
        warn(f"passing over {path}: {error}")
        return None


def seal(values: dict[str, Any]) -> bytes:
    """Serialise a record's values with the format version and a checksum of both."""
    # As they will be read back: keys, and values that JSON does not have, become text.
    plain = json.loads(json.dumps({"format_version": FORMAT_VERSION, **values}, default=str))
    return dump({**plain, "checksum": _checksum(plain)})


def unseal(path: Path, *, required: bool = False) -> dict[str, Any]:
    """Read and check what `seal` wrote.

    Args:
        path: the file.
        required: refuse a file without a checksum.

    Raises:
        BenchError: it is damaged, or of a newer version.
        OSError, ValueError, KeyError, TypeError, AttributeError: it is not a record at all.
    """
    values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    checksum = values.pop("checksum") if required else values.pop("checksum", None)
    if _is_newer(values):
        raise BenchError(
            f"{path.name} has format version {values['format_version']}, this bench reads up to "
            f"{FORMAT_VERSION}; upgrade bench"
        )
    if checksum != _checksum(values) and (required or checksum is not None):
        raise BenchError(f"{path.name} is damaged (its checksum differs)")
    del values["format_version"]
    return values


def refuse_overwriting_newer(path: Path) -> None:
    """Refuse to overwrite a record that a newer version wrote.

    Raises:
        NewerFormatError: *path* is of a newer version.
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
    """A record was written by a newer version."""


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn any error of reading a malformed JSON or CSV file into a `BenchError`."""
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


def dump(values: Any) -> bytes:
    """Serialise JSON values, indented."""
    text = json.dumps(values, indent=1, ensure_ascii=False) + "\n"
    return text.encode(errors="backslashreplace")  # a byte of a file's name: JSON's own escape


def _is_newer(values: dict[str, Any]) -> bool:
    version = values.get("format_version")
    return isinstance(version, int) and version > FORMAT_VERSION


def _checksum(values: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
