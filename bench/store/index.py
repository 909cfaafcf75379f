"""Rows of many runs, kept beside them so that only what changed is read again.

The index is only a cache. A run's rows are taken from it while the signs of its files (times of
change in nanoseconds, size, inode) are what they were when they were read; whatever else is
found, also an index that is absent, damaged or of another version of the code, is read anew.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from bench.store.files import StorageError, write_atomically

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

INDEXED_FROM = 50  # fewer runs are read as fast as an index
REWRITTEN_FROM = 0.01  # of the runs; fewer changed ones are read anew each time
_CHUNK = 2_000  # runs whose rows are made at a time: bounds the memory
# A file changed again within its clock's tick would look unchanged: the young are not kept.
SETTLED_SECONDS = 2.0
_DIGEST = 32
_SIGNS = 4


@dataclass(frozen=True)
class _Rows:
    """Rows of several keys, one key's after another's."""

    keys: list[str]
    signs: np.ndarray  # keys × signs of their files
    counts: np.ndarray  # rows a key
    table: pa.Table


def rows_of(
    keys: list[str],
    signs: np.ndarray,
    make: Callable[[Sequence[str]], tuple[pa.Table, list[int]]],
    *,
    path: Path,
    version: str,
    write: bool,
    started: int,
) -> tuple[pa.Table, np.ndarray]:
    """Return the rows of *keys* in their order, and how many each has.

    Args:
        keys: what to have rows of.
        signs: of all files that the rows depend on (`signs_of`).
        make: reads the rows of some keys, and says how many each has.
        path: of the index.
        version: of everything that decides how rows are made.
        write: whether the index may be written; it is where enough has changed.
        started: when the signs were read, nanoseconds of the system's clock.

    A key without rows is read anew each time, so that what is broken is said each time.
    """
    if not keys:
        return make([])[0], np.zeros(0, dtype=np.int64)
    known = _load(path, version) if len(keys) >= INDEXED_FROM else None
    found = _places(keys, known.keys if known else [])
    if known is not None and known.signs.shape[1] == signs.shape[1] and len(known.keys):
        found[(found >= 0) & (known.signs[found] != signs).any(axis=1)] = -1
    else:
        known, found = None, np.full(len(keys), -1)
    new = np.flatnonzero(found < 0)
    parts, counts = _read([keys[int(i)] for i in new], make)
    table, ordered = _joined(known, found, parts, new, counts)
    gone = len(known.keys) - int((found >= 0).sum()) if known else 0
    changed = int((ordered[new] > 0).sum()) + gone
    if write and len(keys) >= INDEXED_FROM and changed > REWRITTEN_FROM * len(keys):
        kept = are_settled(signs, started) & (ordered > 0)
        _save(path, version, _Rows(keys, signs, ordered, table), kept)
    return table, ordered


def signs_of(folder: Path, files: Sequence[str], keys: int) -> np.ndarray:
    """Return what tells whether files have changed: keys × signs; zeros for no file.

    Args:
        folder: that *files* are relative to.
        files: paths, one key's after another's, as many for each.
        keys: number of keys.
    """
    signs: list[int] = []
    with _asker(folder) as stat:
        for file in files:
            try:
                s = stat(file)
                signs += (s.st_mtime_ns, s.st_ctime_ns, s.st_size, s.st_ino)
            except OSError:
                signs += [0] * _SIGNS
    return np.array(signs, dtype=np.int64).reshape(keys, -1 if keys else _SIGNS)


@contextlib.contextmanager
def _asker(folder: Path) -> Iterator[Callable[[str], os.stat_result]]:
    """Give the fastest `stat` of files below a folder: 100,000 of them are asked for."""
    base = f"{folder}{os.sep}"
    try:
        opened = os.open(folder, os.O_RDONLY) if os.stat in os.supports_dir_fd else None
    except OSError:
        opened = None
    if opened is None:
        yield lambda file: os.stat(base + file)  # noqa: PTH116 - a Path for each takes longer
        return
    try:  # from an open folder the system does not walk the whole path each time
        yield functools.partial(os.stat, dir_fd=opened)
    finally:
        os.close(opened)


def are_settled(signs: np.ndarray, started: int) -> np.ndarray:
    """Whether each key's files are so old that a change since would show in their signs."""
    settled = np.ones(len(signs), dtype=bool)
    for column in range(0, signs.shape[1], _SIGNS):
        youngest = signs[:, column : column + 2].max(axis=1, initial=0)
        settled &= youngest < started - SETTLED_SECONDS * 1e9
    return settled


def _places(keys: list[str], known: list[str]) -> np.ndarray:
    """Return where each key stands among the known ones; -1 for one that is new."""
    if known == keys:  # the commonest by far
        return np.arange(len(known))
    places = {key: i for i, key in enumerate(known)}
    return np.array([places.get(key, -1) for key in keys], dtype=np.int64)


def _read(
    keys: list[str], make: Callable[[Sequence[str]], tuple[pa.Table, list[int]]]
) -> tuple[list[pa.Table], list[int]]:
    parts, counts = [], []
    for start in range(0, max(1, len(keys)), _CHUNK):
        table, rows = make(keys[start : start + _CHUNK])
        parts.append(table)
        counts += rows
    return parts, counts


def _joined(
    known: _Rows | None,
    found: np.ndarray,
    parts: list[pa.Table],
    new: np.ndarray,
    counts: list[int],
) -> tuple[pa.Table, np.ndarray]:
    """Put rows of the index and new ones into the order of the keys."""
    ordered = np.zeros(len(found), dtype=np.int64)
    starts = np.zeros(len(found), dtype=np.int64)
    offset = 0
    if known is not None:
        offset = known.table.num_rows
        ends = np.cumsum(known.counts)
        old = found >= 0
        ordered[old] = known.counts[found[old]]
        starts[old] = (ends - known.counts)[found[old]]
        parts = [known.table, *parts]
    fresh = np.array(counts, dtype=np.int64)
    ordered[new] = fresh
    starts[new] = offset + np.cumsum(fresh) - fresh
    table = pa.concat_tables(parts)
    within = np.arange(ordered.sum()) - np.repeat(np.cumsum(ordered) - ordered, ordered)
    rows = np.repeat(starts, ordered) + within
    if table.num_rows == len(rows) and (rows == np.arange(len(rows))).all():
        return table, ordered
    return table.take(rows), ordered


def _load(path: Path, version: str) -> _Rows | None:
    """Read an index; None if it is not there, damaged or of another version."""
    try:
        content = memoryview(path.read_bytes())
        if hashlib.sha256(content[_DIGEST:]).digest() != content[:_DIGEST]:
            return None
        table = pa.ipc.open_file(pa.BufferReader(content[_DIGEST:])).read_all()
        about = table.schema.metadata or {}
        if about.get(b"version") != version.encode():
            return None
        keys = pa.ipc.open_file(pa.BufferReader(about[b"keys"])).read_all()
        signs = [keys[name].to_numpy() for name in keys.column_names[2:]]
        return _Rows(
            keys["key"].to_pylist(), np.column_stack(signs), keys["count"].to_numpy(),
            table.replace_schema_metadata(None),
        )  # fmt: skip
    except (OSError, KeyError, ValueError, pa.ArrowException):
        return None


def _save(path: Path, version: str, rows: _Rows, kept: np.ndarray) -> None:
    keys = pa.table(
        {
            "key": [key for key, keep in zip(rows.keys, kept, strict=True) if keep],
            "count": rows.counts[kept],
            **{str(i): rows.signs[kept, i] for i in range(rows.signs.shape[1])},
        }
    )
    about = {b"version": version.encode(), b"keys": _ipc(keys)}
    chosen = rows.table.filter(pa.array(np.repeat(kept, rows.counts)))
    content = _ipc(chosen.replace_schema_metadata(about))
    with contextlib.suppress(StorageError):  # a folder that cannot be written is read all the same
        write_atomically(path, hashlib.sha256(content).digest() + content)


def _ipc(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(
        sink, table.schema, options=pa.ipc.IpcWriteOptions(compression="lz4")
    ) as writer:
        writer.write_table(table.combine_chunks())
    return bytes(sink.getvalue())
