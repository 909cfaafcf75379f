"""Start from existing weights; no pickle that could run code is loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from bench.errors import BenchError
from bench.store.files import sha256_of

if TYPE_CHECKING:
    from pathlib import Path


def weights_digest(path: Path) -> str:
    """Return the SHA-256 of a weights file, which becomes part of the run's identity.

    Raises:
        BenchError: it cannot be read.
    """
    try:
        return sha256_of(path)
    except OSError as error:
        raise BenchError(f"--weights {path}: {error.strerror}") from None


def load_weights(model: nn.Module, path: Path) -> None:
    """Load a safetensors file or a plain state dict (`torch.save`) into *model*.

    Raises:
        BenchError: it cannot be read, or its names or shapes are not the network's; the
            first that differs is named.
    """
    tensors = _read(path)
    expected = model.state_dict()
    missing = [name for name in expected if name not in tensors]
    unexpected = [name for name in tensors if name not in expected]
    if missing or unexpected:
        what = f"lacks '{missing[0]}'" if missing else f"has '{unexpected[0]}', unknown here"
        raise BenchError(
            f"--weights {path} {what}: {len(missing)} missing, {len(unexpected)} unknown tensors; "
            "give weights of the same network"
        )
    for name, tensor in tensors.items():
        if tensor.shape != expected[name].shape:
            raise BenchError(
                f"--weights {path}: '{name}' is {tuple(tensor.shape)}, the network has "
                f"{tuple(expected[name].shape)} (other classes, channels or width?)"
            )
    model.load_state_dict(tensors)


def _read(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises anything for other files
        reason = (str(error).strip().splitlines() or ["it is broken"])[0]
        raise BenchError(f"--weights {path} cannot be read: {reason}") from None
    tensors = loaded.get("state_dict", loaded) if isinstance(loaded, dict) else None
    if not isinstance(tensors, dict) or not all(isinstance(t, Tensor) for t in tensors.values()):
        raise BenchError(f"--weights {path} holds no state dict (names and tensors)")
    return tensors
