"""Download one file of a published dataset: verified, resumable, atomic, one process at a time."""

from __future__ import annotations

import gzip
import hashlib
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Literal
from urllib.parse import urlsplit

from bench.data.progress import progress_bar
from bench.errors import BenchError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import requests

_CHUNK = 1 << 18  # bytes read at a time
_ATTEMPTS = 3  # connections to one mirror; each resumes where the one before it was cut
_MOST_BYTES = 1 << 30  # of any file here; CIFAR's are 170 MB
_TIMEOUT = (10, 60)  # seconds to connect, and between two chunks


@dataclass(frozen=True)
class RemoteFile:
    """A published file and how it is recognised.

    Attributes:
        name: Its file name, the same on every mirror.
        sha256: Of what *hashed* says, in hexadecimal.
        hashed: ``file`` for the bytes as they are; ``content`` for what a .gz file holds, so
            that a file which somebody compressed again (Debian does) is still recognised.
    """

    name: str
    sha256: str
    hashed: Literal["file", "content"] = "file"


def verify(path: Path, file: RemoteFile) -> None:
    """Check that *path* holds the published file.

    Raises:
        BenchError: It is truncated, or its checksum differs.
    """
    try:
        with path.open("rb") as raw:
            stream = gzip.GzipFile(fileobj=raw) if file.hashed == "content" else raw
            found = _sha256(stream)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise BenchError(
            f"{path}: truncated or not a gzip file ({error}): delete it and run again"
        ) from error
    if found != file.sha256:
        raise BenchError(
            f"{path}: wrong checksum (SHA-256 {found[:12]}…, published {file.sha256[:12]}…): "
            "delete it and run again"
        )


def _sha256(stream: gzip.GzipFile | BinaryIO) -> str:
    digest = hashlib.sha256()
    left = _MOST_BYTES
    while left > 0 and (chunk := stream.read(_CHUNK)):  # a bomb is not the published file
        digest.update(chunk)
        left -= len(chunk)
    return digest.hexdigest()


def download(
    file: RemoteFile, directory: Path, mirrors: Sequence[str], *, quiet: bool = False
) -> Path:
    """Return *directory*/NAME, fetching it from the first mirror that delivers it whole.

    What has arrived lies in ``NAME.part``, which a later call continues, and is renamed
    only once its checksum is right. A lock file keeps two processes from fetching at once;
    the second one finds the first one's file.

    Args:
        file: What to fetch.
        directory: Where to put it; made if missing.
        mirrors: HTTPS addresses of folders, each ending in ``/``, tried in order.
        quiet: Show no progress bar.

    Raises:
        BenchError: No mirror delivered it (the message has each one's reason), or the
            folder cannot be written.
    """
    from filelock import FileLock

    target = directory / file.name
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with FileLock(directory / f"{file.name}.lock"):
            if not target.exists():
                part = directory / f"{file.name}.part"
                _from_any_mirror(file, part, mirrors, quiet=quiet)
                part.replace(target)
    except OSError as error:  # network errors are dealt with a mirror at a time, below
        raise BenchError(
            f"{target} cannot be written ({error.strerror or error}): free the disk, or name "
            "another folder in the environment variable BENCH_DATA"
        ) from error
    return target


def _from_any_mirror(file: RemoteFile, part: Path, mirrors: Sequence[str], *, quiet: bool) -> None:
    reasons = []
    for mirror in mirrors:
        try:
            _from_mirror(file, part, mirror + file.name, quiet=quiet)
        except _MirrorError as error:
            reasons.append(f"{urlsplit(mirror).hostname}: {error}")
        else:
            return
    raise BenchError(
        f"{file.name} could not be downloaded ({'; '.join(reasons)}): "
        f"put it into {part.parent} by hand"
    )


class _MirrorError(Exception):
    """One mirror could not deliver; the message is the short reason."""


def _from_mirror(file: RemoteFile, part: Path, url: str, *, quiet: bool) -> None:
    reason = ""
    for _ in range(_ATTEMPTS):
        resuming = part.exists()
        try:
            _append(part, url, quiet=quiet)
            verify(part, file)
        except BenchError:
            reason = "wrong checksum"
            part.unlink()
            if not resuming:  # otherwise the beginning may be from elsewhere: start again
                break
        except _ConnectionCutError as error:
            reason = str(error)
        else:
            return
    raise _MirrorError(reason)


class _ConnectionCutError(Exception):
    """A connection ended early; the next one resumes."""


def _append(part: Path, url: str, *, quiet: bool) -> None:
    """Fetch what *part* still lacks, over HTTPS and nothing else."""
    import requests
    from urllib3.exceptions import HTTPError

    have = part.stat().st_size if part.exists() else 0
    if not url.startswith("https://"):
        raise _MirrorError("not an https address")
    # `identity`: a server that compresses on the way would give other bytes and lengths.
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    try:
        with (
            _https_only() as session,
            session.get(url, headers=headers, stream=True, timeout=_TIMEOUT) as response,
        ):
            if response.status_code not in {200, 206, 416}:
                raise _MirrorError(f"HTTP status {response.status_code}")
            if response.status_code == requests.codes.requested_range_not_satisfiable:
                return  # there is no more: whole, or wrong, which the checksum will tell
            resumed = response.status_code == requests.codes.partial_content
            _save(response, part, have if resumed else 0, quiet=quiet)
    except requests.exceptions.InvalidSchema:
        raise _MirrorError("redirects to an address that is not https") from None
    except (requests.RequestException, HTTPError) as error:
        raise _ConnectionCutError(type(error).__name__) from error


def _https_only() -> requests.Session:
    """Return a session that knows no other protocol: a redirect to one is not even tried."""
    import requests

    session = requests.Session()
    del session.adapters["http://"]
    return session


def _save(response: requests.Response, part: Path, start: int, *, quiet: bool) -> None:
    """Write the body to *part* from byte *start* on."""
    length = response.headers.get("Content-Length")
    total = start + int(length) if length else None
    name = part.name.removesuffix(".part")
    with (
        part.open("ab" if start else "wb") as stream,
        progress_bar(name, total, quiet=quiet, in_bytes=True) as advance,
    ):
        advance(start)
        # Not decoded: a server may call a .gz file's own compression "Content-Encoding".
        for chunk in response.raw.stream(_CHUNK, decode_content=False):
            stream.write(chunk)
            advance(len(chunk))
            if stream.tell() > _MOST_BYTES:
                raise _MirrorError(f"sends more than {_MOST_BYTES:,} bytes")
