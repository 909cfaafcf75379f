"""Checkpoints of unfinished runs; a damaged one, or that of another run, is not used."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from bench.errors import warn
from bench.store.files import write_atomically

if TYPE_CHECKING:
    from pathlib import Path

    import torch

CHECKPOINT = "checkpoint.safetensors"


def save_checkpoint(
    folder: Path, run: str, tensors: dict[str, torch.Tensor], state: dict[str, Any]
) -> None:
    """Write a run's tensors and JSON state, with a checksum of both."""
    from safetensors.torch import save

    text = json.dumps(state)
    metadata = {"run": run, "state": text, "checksum": _checksum(run, tensors, text)}
    write_atomically(folder / CHECKPOINT, save(tensors, metadata=metadata))


def checkpoint_state(folder: Path) -> dict[str, Any]:
    """Read the state of a run's checkpoint without its tensors; empty if it cannot be read."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(folder / CHECKPOINT, framework="pt") as file:
            state: dict[str, Any] = json.loads(file.metadata()["state"])
    except (SafetensorError, OSError, ValueError, KeyError, TypeError):
        return {}
    return state


def load_checkpoint(
    folder: Path, run: str
) -> tuple[dict[str, torch.Tensor], dict[str, Any]] | None:
    """Read a run's checkpoint; None if there is none, or it is broken (with a warning)."""
    from safetensors import SafetensorError, safe_open

    path = folder / CHECKPOINT
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata()
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        _check(metadata, run, tensors)
        return tensors, json.loads(metadata["state"])
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        warn(f"{run} starts from the beginning: its checkpoint is broken ({error})")
        return None


def _check(metadata: dict[str, str], run: str, tensors: dict[str, torch.Tensor]) -> None:
    if metadata["run"] != run:
        raise ValueError(f"it is of another run, {metadata['run']}")
    if metadata["checksum"] != _checksum(run, tensors, metadata["state"]):
        raise ValueError("its checksum differs")


def _checksum(run: str, tensors: dict[str, torch.Tensor], state: str) -> str:
    """Return the SHA-256 of names, dtypes, shapes and bytes; safetensors has no checksum."""
    import torch

    digest = hashlib.sha256(json.dumps([run, state]).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        plain = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(plain.view(torch.uint8).numpy().data)
    return digest.hexdigest()
