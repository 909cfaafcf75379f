"""Read a .tar.gz from an untrusted source: plain files only, up to a size limit.

Links, devices and sparse files are refused before their content is read, and decompression
stops at the limit, whatever the headers claim. Nothing is written here.
"""

from __future__ import annotations

import gzip
import tarfile
import zlib
from typing import IO, TYPE_CHECKING

from bench.errors import BenchError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_KINDS = {
    tarfile.SYMTYPE: "a symbolic link",
    tarfile.LNKTYPE: "a hard link",
    tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device",
    tarfile.FIFOTYPE: "a pipe",
}


class TarballError(BenchError):
    """The archive is damaged, too large, or holds something other than plain files."""


def read_files(archive: Path, take: Callable[[str, IO[bytes]], None], *, most_bytes: int) -> None:
    """Call *take* for each file of an archive, in order; folders are skipped.

    Args:
        archive: a .tar.gz file.
        take: called with the file's name, which is not checked in any way, and its content,
            which must be read within the call.
        most_bytes: limit of the decompressed size, headers included.

    Raises:
        TarballError: the archive is unreadable, damaged, larger than allowed, or holds a link,
            a device or a sparse file. An `OSError` of *take* is turned into this, too.
    """
    try:
        with (
            gzip.open(archive, "rb") as stream,
            tarfile.open(fileobj=_Bounded(stream, most_bytes), mode="r|") as tar,  # type: ignore[call-overload] # all it calls is read
        ):
            while (member := tar.next()) is not None:
                content = None if member.isdir() else _content(tar, member)
                if content is not None:
                    take(member.name, content)
                tar.members.clear()  # a million empty files must not fill the memory
    except BenchError:
        raise
    # On malformed archives, tarfile raises much more than it documents.
    except (tarfile.TarError, EOFError, OSError, zlib.error, ValueError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error) or "it is damaged"
        raise TarballError(reason) from None


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes] | None:
    if member.type not in {tarfile.REGTYPE, tarfile.AREGTYPE} or member.issparse():
        kind = _KINDS.get(member.type, "a special file")
        raise TarballError(f"it holds {kind}, {member.name!r}; plain files only are read")
    return tar.extractfile(member)


class _Bounded:
    """A stream that raises after *left* bytes."""

    def __init__(self, stream: gzip.GzipFile, left: int) -> None:
        self._stream = stream
        self._left = left
        self._most = left

    def read(self, size: int) -> bytes:
        content = self._stream.read(min(size, self._left + 1))
        self._left -= len(content)
        if self._left < 0:
            raise TarballError(f"it holds more than {self._most:,} bytes decompressed")
        return content
