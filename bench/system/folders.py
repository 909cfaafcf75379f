"""The user's cache folder, also where nobody knows the user's home."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import platformdirs


def cache_folder(name: str) -> Path:
    """Return the user's cache folder called *name*.

    A process whose user id has no name, and no `HOME` (`docker run --user`), has no home folder;
    it gets a folder of its own below the one for temporary files.
    """
    try:
        return Path(platformdirs.user_cache_dir(name))
    except RuntimeError:  # of pathlib
        return Path(tempfile.gettempdir()) / f"{name}-{os.getuid()}"
