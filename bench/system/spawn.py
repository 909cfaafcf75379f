"""New processes that start from a fresh interpreter."""

from __future__ import annotations

import contextlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def without_main() -> Iterator[None]:
    """Keep a new process from importing the script that called bench, which would run it again.

    `multiprocessing` imports the caller's script in each process that it spawns, so that a
    script without `if __name__ == "__main__":` would start itself once more.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
