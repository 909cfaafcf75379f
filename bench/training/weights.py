"""Start from existing weights; no pickle that could run code is loaded."""

from __future__ import annotations

import argparse
import errno
import pathlib
import re
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from bench.data.images import AS_COLOURS
from bench.errors import BenchError, nearest_file, warn
from bench.store.files import sha256_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

# What trainers store beside the tensors, and whose loading runs no code of the file.
_SCALAR = np.float64(0).__reduce__()[0]
_HARMLESS: list[Any] = [
    argparse.Namespace,
    defaultdict,
    int,
    pathlib.PosixPath,
    pathlib.WindowsPath,
    np.dtype,
    *(type(np.dtype(kind)) for kind in "?bhilqBHILQefd"),
    (_SCALAR, "numpy.core.multiarray.scalar"),  # NumPy 1
    (_SCALAR, "numpy._core.multiarray.scalar"),
]
# What torch.compile, FSDP and activation checkpointing insert into the names of tensors.
_WRAPPERS = re.compile(r"\b(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
_USUAL = {"model", "model_state", "model_state_dict", "module", "net", "network", "state_dict"}
_AVERAGED = {"averaged", "ema", "swa", "teacher"}
_UNTRUSTED = re.compile(r"GLOBAL ([\w.]+)")
_COLOURS = re.compile(r"\x1b\[[\d;]*m")
_DEPTH = 3  # dictionaries in dictionaries
_DIVERGED = ", as after a training that diverged; give weights from before that"


class _Found(NamedTuple):
    """Tensors of a file that may be the network's.

    Attributes:
        place: the keys that lead to them, and the prefix of their names.
        tensors: name without that prefix → tensor.
        matching: number of names that the network has, too.
    """

    place: tuple[str, ...]
    tensors: dict[str, Tensor]
    matching: int

    @property
    def averaged(self) -> bool:
        """Whether they are a moving average of the weights."""
        return any(_AVERAGED & set(re.split(r"[_.]", part.lower())) for part in self.place)

    @property
    def usual(self) -> bool:
        """Whether the keys are those under which trainers store a network's weights."""
        return {part for key in self.place for part in key.rstrip(".").split(".")} <= _USUAL

    def __str__(self) -> str:
        return repr(".".join(part.removesuffix(".") for part in self.place))


def weights_digest(path: Path) -> str:
    """Return the SHA-256 of a weights file, which becomes part of the run's identity.

    Raises:
        BenchError: it cannot be read.
    """
    try:
        return sha256_of(path)
    except OSError as error:
        hint = ""
        if isinstance(error, FileNotFoundError):
            hint = nearest_file(path) or "; give the path of a safetensors file or a state dict"
        raise BenchError(f"--weights {path}: {error.strerror}{hint}") from None


def stored(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return copies on the CPU that share no memory, as safetensors requires (tied weights do)."""
    options: Any = {"memory_format": torch.contiguous_format, "copy": True}
    return {name: tensor.detach().to("cpu", **options) for name, tensor in state.items()}


def load_weights(model: nn.Module, path: Path) -> None:
    """Load a safetensors file or a checkpoint of PyTorch into *model*.

    The state dict may be in a dictionary, as trainers write it, and all its names may have a
    prefix, as in DistributedDataParallel, compiled networks, or Lightning. Where there is a moving
    average beside the weights, the weights are loaded, with a warning.

    Raises:
        BenchError: it cannot be read, it holds several state dicts that fit, or none whose names
            and shapes are the network's (the first that differs is named), or weights that are not
            finite, dense and floating-point, or buffers with NaN.
    """
    expected = model.state_dict(keep_vars=True)  # tied tensors are one object
    found = [
        fit
        for place, tensors in _state_dicts(_read(path))
        for fit in _fit(place, tensors, expected)
    ]
    if not found:
        raise BenchError(f"--weights {path} holds no state dict (names and tensors)")
    tensors = _choose(found, expected, path).tensors
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
                + AS_COLOURS
                * (tensor.shape[1:2] == (3,) and expected[name].shape[1:2] == (1,))
            )
    _check_values(model, tensors, path)
    model.load_state_dict(tensors)


def _check_values(model: nn.Module, tensors: Mapping[str, torch.Tensor], path: Path) -> None:
    """Refuse weights that are no finite numbers, and buffers with NaN."""
    for name, _ in model.named_parameters():  # a buffer may hold infinities, such as a mask
        tensor = tensors[name]
        dense = tensor.layout is torch.strided and not tensor.is_meta
        if not (tensor.is_floating_point() and dense):
            raise BenchError(
                f"--weights {path}: '{name}' is a tensor of {str(tensor.dtype)[6:]}, "
                f"{str(tensor.layout)[6:]}, on {tensor.device}; give dense floating-point weights, "
                "such as those before quantisation"
            )
        if not tensor.isfinite().all():
            raise BenchError(f"--weights {path}: '{name}' is not finite{_DIVERGED}")
    for name, _ in model.named_buffers():
        buffer = tensors.get(name)  # None for what is not stored
        if buffer is None or buffer.layout is not torch.strided or buffer.is_meta:
            continue
        if buffer.is_floating_point() and buffer.float().isnan().any():
            raise BenchError(f"--weights {path}: '{name}' holds NaN{_DIVERGED}")


def _read(path: Path) -> Any:
    from safetensors.torch import load_file

    try:
        if path.suffix.lower() == ".safetensors":
            return load_file(path)
        with torch.serialization.safe_globals(_HARMLESS):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises anything for other files
        text = _COLOURS.sub("", str(error)).strip()
        untrusted = _UNTRUSTED.search(text)
        if untrusted:
            raise BenchError(
                f"--weights {path} cannot be read: it holds an object of {untrusted[1]}, whose "
                "loading could run code; save only the tensors: "
                "torch.save(model.state_dict(), FILE)"
            ) from None
        if _is_damage(error):
            raise BenchError(
                f"--weights {path} cannot be read: it was cut off or is no checkpoint "
                f"({path.stat().st_size:,} bytes); copy it again"
            ) from None
        reason = (text.splitlines() or ["it is broken"])[0]
        if "weights_only" in reason:  # torch's advice is to read it unsafely
            reason = "torch.save did not write it, or not as a state dict"
        raise BenchError(f"--weights {path} cannot be read: {reason}") from None


def _is_damage(error: Exception) -> bool:
    """Return whether an error of torch or safetensors is of a file whose end is missing."""
    if isinstance(error, OSError):
        return error.errno == errno.EINVAL  # an offset that is not in the file
    return isinstance(error, EOFError | SafetensorError) or "PytorchStreamReader" in str(error)


def _state_dicts(
    loaded: Any, place: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], dict[str, Tensor]]]:
    """Yield every dictionary that holds tensors, with the keys that lead to it."""
    if not isinstance(loaded, dict) or len(place) > _DEPTH:
        return
    named = {key: value for key, value in loaded.items() if isinstance(key, str)}
    tensors = {_WRAPPERS.sub("", k): v for k, v in named.items() if isinstance(v, Tensor)}
    if tensors:
        yield place, tensors
    for key, value in named.items():
        yield from _state_dicts(value, (*place, key))


def _fit(
    place: tuple[str, ...], tensors: dict[str, Tensor], expected: dict[str, Tensor]
) -> Iterator[_Found]:
    """Yield the tensors below each prefix that makes some of their names the network's."""
    prefixes = Counter({"": 0})
    for name in tensors:
        starts = [0, *(dot.end() for dot in re.finditer(r"\.", name))]
        prefixes.update(name[:start] for start in starts if name[start:] in expected)
    for prefix, matching in prefixes.items():
        below = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
        if matching:
            below = _omitted(below, expected) | below
        yield _Found((*place, prefix) if prefix else place, below, matching)


def _omitted(tensors: dict[str, Tensor], expected: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return what a file need not hold: counters of batch norm, and tied tensors again.

    PyTorch before 0.4.1 had no counters; safetensors' `save_model` writes a tied tensor once.
    """
    by_tensor = {id(expected[name]): t for name, t in tensors.items() if name in expected}
    counters = {n: t for n, t in expected.items() if n.endswith("num_batches_tracked")}
    return counters | {n: by_tensor[id(t)] for n, t in expected.items() if id(t) in by_tensor}


def _choose(found: list[_Found], expected: dict[str, Tensor], path: Path) -> _Found:
    """Return the tensors that are the network's, or else those most like them.

    Raises:
        BenchError: several are, and none of them is known to be the trained weights.
    """
    fitting = [one for one in found if one.tensors.keys() == expected.keys()]
    if not fitting:
        return max(found, key=lambda one: one.matching)
    plain = [one for one in fitting if not one.averaged] or fitting
    if len(plain) > 1:
        plain = [one for one in plain if one.usual] or plain
    if len(plain) > 1:
        raise BenchError(
            f"--weights {path} holds several state dicts of the network: "
            f"{', '.join(map(str, plain))}; save the one to start from in its own file"
        )
    if plain != fitting:
        others = ", ".join(str(one) for one in fitting if one is not plain[0])
        warn(f"--weights {path}: {plain[0]} is loaded; the file also holds {others}")
    return plain[0]
