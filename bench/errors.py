"""Errors that a user can fix, and the wording of messages."""

from __future__ import annotations

import contextlib
import difflib
import itertools
import sys
import warnings
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from pathlib import Path

    import pandas as pd

_MOST_FILES = 1000  # of a folder, to compare a name with


class BenchError(ValueError):
    """A request that could not be understood or met: one line, exit code 2.

    The message names the thing, the allowed values and the fix. The command line
    prints it as it is, without a traceback.
    """


class RunsFailedError(BenchError):
    """No run of a request was completed; each run's reason is recorded.

    Attributes:
        rows: the runs' rows of the `runs` table, a pandas frame.
    """

    def __init__(self, message: str, rows: pd.DataFrame) -> None:
        super().__init__(message)
        self.rows = rows


class AmbiguousNameError(BenchError):
    """A name stands for several things where one is needed."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the known name most like *name*, or ``""``."""
    match = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean '{match[0]}'?" if match else ""


def nearest_file(path: Path) -> str:
    """Return `nearest` for a missing file among those beside it that are called like it.

    Names are compared without their suffixes first: every `.toml` file is a little like another.
    """
    with contextlib.suppress(OSError):
        beside = [entry.name for entry in itertools.islice(path.parent.iterdir(), _MOST_FILES)]
        by_stem: dict[str, list[str]] = {}
        for name in beside:
            if not name.startswith(".") and not name.endswith(".py"):
                by_stem.setdefault(name.partition(".")[0], []).append(name)
        for stem in difflib.get_close_matches(path.name.partition(".")[0], by_stem, 1, cutoff=0.75):
            return nearest(path.name, by_stem[stem])
    return ""


def check_known(option: str, value: str, known: Collection[str]) -> None:
    """Raise a `BenchError` that names an option's unknown value, the nearest one and all others."""
    if value not in known:
        raise BenchError(
            f"{option} {value or '(empty)'} is unknown{nearest(value, known)} "
            f"(known: {', '.join(known)})"
        )


def plain(text: str) -> str:
    """Return *text* as one line, with control characters escaped that could steer the terminal."""
    joined = " ".join(text.split())
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in joined)


def warn(message: str) -> None:
    """Issue a `UserWarning` that shows the line outside this package that called it.

    (The parameter of `warnings.warn` for this, `skip_file_prefixes`, needs Python 3.12.)
    """
    level, frame = 2, sys._getframe(1)
    while frame.f_back is not None and _is_ours(frame.f_globals.get("__name__", "")):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, stacklevel=level)


def _is_ours(module: str) -> bool:
    """Return whether a module is of this package, or of the library that its decorators are of."""
    return module.partition(".")[0] in {"bench", "contextlib"}


def warning_line(message: Warning | str, *_: object, **__: object) -> str:
    """Word a warning as `warnings.formatwarning` does, without the line of code it came from."""
    return f"bench: warning: {plain(str(message))}\n"
