"""The names of trackers that `--track` accepts."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

from bench.errors import BenchError, nearest

if TYPE_CHECKING:
    from collections.abc import Sequence

TRACKERS = ("tensorboard", "mlflow")


def check_trackers(names: Sequence[str]) -> tuple[str, ...]:
    """Return the trackers' names without duplicates, after checking that they can be used.

    Args:
        names: names from `TRACKERS`; surrounding blanks are ignored.

    Raises:
        BenchError: a name is unknown, or its library is not installed.
    """
    known = ", ".join(TRACKERS)
    wanted = tuple(dict.fromkeys(name.strip() for name in names))
    for name in wanted:
        if name not in TRACKERS:
            raise BenchError(
                f"--track {name or '(empty)'}: unknown tracker{nearest(name, TRACKERS)} "
                f"(known: {known})"
            )
        if importlib.util.find_spec(name) is None:
            raise BenchError(
                f"--track {name}: {name} is not installed; pip install 'resnet-bench[tracking]'"
            )
    return wanted
