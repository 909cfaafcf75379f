"""The one error of this room, and how its messages suggest a spelling."""

from __future__ import annotations

import difflib
from pathlib import PurePath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class ModelError(ValueError):
    """A network that cannot be built: one line that says why and what would work."""


class UnknownModelError(ModelError):
    """No family of networks knows the name."""


class LazyError(ModelError):
    """A network's lazy layers get no shape from the input."""


def nearest(word: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the known word most like *word*, or ``""``."""
    match = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"; did you mean '{match[0]}'?" if match else ""


def function_suggestion(name: str) -> str:
    """Return ``"; did you mean 'module:FUNCTION'?"`` for `FILE.py` or `FILE.py:function`."""
    file, colon, function = name.rpartition(":")
    path = PurePath(file if colon else name)
    if path.suffix != ".py":
        return ""
    parts = path.with_suffix("").parts
    module = ".".join(parts) if all(part.isidentifier() for part in parts) else path.stem
    return f"; did you mean '{module}:{function if colon else 'FUNCTION'}'?"


def reraise_ours(error: BaseException) -> None:
    """Raise *error* again if it is a `SystemExit` of more than `sys.exit`: a signal's."""
    if isinstance(error, SystemExit) and type(error) is not SystemExit:
        raise error


def first_line(error: BaseException) -> str:
    """Return the first line of the exception's text, or its type if it has none."""
    return str(error).strip().partition("\n")[0] or type(error).__name__


def one_line(error: BaseException) -> str:
    """Return the exception's type and the first line of its text, for a one-line message."""
    text, kind = first_line(error), type(error).__name__
    return kind if text == kind else f"{kind}: {text}"
