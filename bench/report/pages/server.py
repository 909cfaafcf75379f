"""A study's HTML page from a server on this machine, remade while the study runs."""

from __future__ import annotations

import hashlib
import threading
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

from bench.errors import BenchError
from bench.report.pages.html import html
from bench.report.pages.study_report import read_study_report
from bench.store.runs import PARTIAL

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from bench.store import Store

ADDRESS = "127.0.0.1"


class PageServer(ThreadingHTTPServer):
    """Serves `/`, the page, and `/state`, which changes when the page would.

    Requests that name another host are refused: a web site whose name is made to point to
    this machine could read the page otherwise (DNS rebinding).

    Args:
        store: the results folder.
        study: name of a study there.
        port: to listen at; 0 takes a free one.

    Raises:
        BenchError: there is no such study, or the port cannot be listened at.
    """

    daemon_threads = True

    def __init__(self, store: Store, study: str, port: int = 0) -> None:
        self.store, self.study = store, study
        self._lock = threading.Lock()
        self._state = state(store, study)
        self._page = self._render(self._state)  # refuses before anything listens
        try:
            super().__init__((ADDRESS, port), _Handler)
        except (OSError, OverflowError) as error:
            raise BenchError(
                f"--port {port}: cannot listen at {ADDRESS}:{port} ({error}); take another, or 0 "
                "for any free one"
            ) from None

    @property
    def url(self) -> str:
        """Where the page is."""
        return f"http://{ADDRESS}:{self.server_port}/"

    @property
    def hosts(self) -> tuple[str, ...]:
        """Hosts that a request may name."""
        return f"{ADDRESS}:{self.server_port}", f"localhost:{self.server_port}"

    def page(self) -> str:
        """Return the page, remade if a file behind it has changed."""
        with self._lock:
            now = state(self.store, self.study)
            if now != self._state:
                self._page = self._render(now)
                self._state = now  # not before the page is made: that may fail
            return self._page

    def _render(self, live: str) -> str:
        return html(read_study_report(self.store, self.study), live=live)


class _Handler(BaseHTTPRequestHandler):
    server: PageServer
    server_version = "bench"
    sys_version = ""

    def do_GET(self) -> None:
        if self.headers.get("Host") not in self.server.hosts:
            self._answer(HTTPStatus.MISDIRECTED_REQUEST, "This server answers to its address.")
            return
        with suppress(ConnectionError):  # the page was closed before it had its answer
            self._respond()

    def _respond(self) -> None:
        try:
            if self.path == "/":
                self._answer(HTTPStatus.OK, self.server.page(), "text/html")
            elif self.path == "/state":
                self._answer(HTTPStatus.OK, state(self.server.store, self.server.study))
            else:
                self._answer(HTTPStatus.NOT_FOUND, "Only the page is here: /")
        except BenchError as error:  # the study was removed in between
            self._answer(HTTPStatus.SERVICE_UNAVAILABLE, str(error))

    def _answer(self, status: HTTPStatus, text: str, kind: str = "text/plain") -> None:
        content = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("X-Frame-Options", "DENY")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Say nothing: a page asks every two seconds."""


def state(store: Store, study: str) -> str:
    """Return a hash that changes whenever a file behind the study's page does."""
    found = hashlib.sha256()
    for path in sorted(_files(store, study)):
        try:
            now = path.stat()
        except OSError:
            continue  # not there yet, or just being renamed
        found.update(f"{path} {now.st_mtime_ns} {now.st_size}\n".encode())
    return found.hexdigest()


def _files(store: Store, study: str) -> Iterator[Path]:
    yield store.root / "studies" / f"{study}.json"
    yield from (store.root / "analyses").glob("*.json")
    for kind in ("exports", "measurements"):  # published by renaming, which changes the folder
        yield store.root / kind
    record = store.read_study(study)
    for entry in record.variants.values() if record else ():
        for run in entry["runs"].values():
            for folder in (run, run + PARTIAL):
                yield from (store.root / "runs" / folder).glob("*.json")
