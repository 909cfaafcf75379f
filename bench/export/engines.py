"""Engines and their sidecars, which record what an engine was built from."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from bench.errors import BenchError
from bench.store.files import sha256_of, write_atomically

if TYPE_CHECKING:
    from pathlib import Path

SUFFIX = ".engine"
NO_TF32 = "NO_TF32"


@dataclass(frozen=True)
class Sidecar:
    """What `NAME.engine.json` holds; an engine is reused only if all of it matches.

    Attributes:
        onnx_sha256: of the ONNX file and its external data (`onnx_sha256`).
        tensorrt: version of the library.
        flavor: rtx or standard.
        compute_capability: of the GPU it was built for, such as 86; `none` if the library was given
            none and torch finds no GPU.
        min_batch: smallest batch it takes.
        opt_batch: the batch it is tuned for.
        max_batch: largest batch it takes.
        precision: of the ONNX file.
        builder_flags: flags that the builder was given.
        image: sizes of an image, if the ONNX file leaves some open.
    """

    onnx_sha256: str
    tensorrt: str
    flavor: str
    compute_capability: str
    min_batch: int
    opt_batch: int
    max_batch: int
    precision: str
    builder_flags: tuple[str, ...] = ("STRONGLY_TYPED", NO_TF32)
    image: tuple[int, ...] | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        plain: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return plain

    def changed_from(self, other: dict[str, Any]) -> list[str]:
        """Name the fields that differ from another sidecar's."""
        ours = self.as_dict()
        return [
            f"{key.replace('_', ' ')} {_short(other.get(key))} then, {_short(value)} now"
            for key, value in ours.items()
            if other.get(key) != value
        ]


def write_engine(path: Path, engine: bytes, sidecar: Sidecar) -> None:
    """Write an engine, and then the sidecar that makes it usable.

    Raises:
        StorageError: it cannot be written; no part of it remains.
    """
    path.with_name(path.name + ".json").unlink(missing_ok=True)  # never beside another engine
    write_atomically(path, engine)
    values = sidecar.as_dict() | {"engine_sha256": sha256_of(path)}
    write_atomically(
        path.with_name(path.name + ".json"), (json.dumps(values, indent=1) + "\n").encode()
    )


def read_sidecar(path: Path) -> dict[str, Any]:
    """Read and verify an engine's sidecar.

    Raises:
        BenchError: engine or sidecar is missing, unreadable or damaged, or they do not
            belong together.
    """
    beside = path.with_name(path.name + ".json")
    again = "build it again with 'bench export-tensorrt'"
    try:
        values: dict[str, Any] = json.loads(beside.read_bytes())
        expected = values["engine_sha256"]
        actual = sha256_of(path)
    except FileNotFoundError as error:
        raise BenchError(f"no {error.filename}: an engine needs its sidecar; {again}") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BenchError(f"{beside} cannot be read ({error}); {again}") from None
    if expected != actual:
        raise BenchError(f"{path} is damaged, or not the engine of its sidecar; {again}")
    return values


def why_rebuild(path: Path, sidecar: Sidecar) -> str | None:
    """Return why an engine cannot be reused: None if it can, "" if there is none yet."""
    if not path.exists():
        return ""
    try:
        changed = sidecar.changed_from(read_sidecar(path))
    except BenchError as error:
        return str(error).partition(";")[0]
    return "; ".join(changed) or None


def _short(value: object) -> str:
    text = "+".join(map(str, value)) if isinstance(value, list) else str(value)
    return text[:12]
