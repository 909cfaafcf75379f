"""Image folders that lie elsewhere on this machine than on the one that a run was trained on.

`moved-folders.json` in the data folder maps ``imagefolder:PATH``, as runs record it, to a folder
of this machine.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from bench.errors import BenchError

_FILE = "moved-folders.json"


def find_moved(name: str, data_dir: Path) -> Path | None:
    """Return where an image folder is now, if that was recorded."""
    found = _read(data_dir / _FILE).get(name)
    return None if found is None else Path(found)


def record_move(name: str, folder: Path, data_dir: Path) -> None:
    """Record that the image folder *name* is at *folder*.

    Raises:
        BenchError: the data folder cannot be written.
    """
    path = data_dir / _FILE
    moved = {**_read(path), name: str(folder.resolve())}
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            "w", dir=data_dir, prefix=f".{_FILE}.", delete=False, encoding="utf-8"
        ) as file:
            json.dump(moved, file, indent=1)
        Path(file.name).replace(path)
    except OSError as error:
        raise BenchError(
            f"cannot write {path} ({error.strerror}): free the disk, or name another folder in "
            "the environment variable BENCH_DATA"
        ) from None


def _read(path: Path) -> dict[str, str]:
    """Return the recorded folders; none if they cannot be read."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}
