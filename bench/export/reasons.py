"""Why a network could not be exported: the exporter's own message, in one line."""

from __future__ import annotations

import linecache
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from bench.errors import BenchError

if TYPE_CHECKING:
    from bench.targets.network import LoadedNetwork

_TORCH = Path(torch.__file__).parent
_LENGTH = 160


def capture_failure(source: LoadedNetwork, error: BaseException, *, dynamic: bool) -> BenchError:
    """Shorten what `torch.export` or the ONNX exporter raised, with the network's line.

    Args:
        source: the network that could not be exported.
        error: what was raised.
        dynamic: whether any batch size was asked for.
    """
    message = _first_line(error)
    where = _own_line(error)
    advice = "remove what depends on the values of the data, or use torch.where"
    if "specialized" in str(error) and dynamic:
        message = "it takes one batch size only"
        advice = "make its forward independent of the batch size, or give --static-batch N"
    elif where is None:
        advice = "rewrite that part, or export it with --opset 18 … 22"
    line = f" at {where}" if where else ""
    return BenchError(f"{source.name} cannot be exported{line}: {message}; {advice}")


def _first_line(error: BaseException) -> str:
    deepest = error
    while deepest.__cause__ is not None:
        deepest = deepest.__cause__
    lines = [line for line in str(deepest).strip().splitlines() if line.strip()]
    text = f"{type(deepest).__name__}: {lines[0].strip()}" if lines else type(deepest).__name__
    return text if len(text) <= _LENGTH else text[:_LENGTH] + " …"


def _own_line(error: BaseException) -> str | None:
    """Find the innermost line of the network's own code, as `file.py:12 (code)`."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = Path(frame.filename)
        ours = frame.name == "trace" and path.parent.name == "export"
        if path.is_relative_to(_TORCH) or ours or not path.is_file():
            continue
        code = linecache.getline(frame.filename, frame.lineno or 0).strip()
        return f"{path.name}:{frame.lineno} ({code})"
    return None
