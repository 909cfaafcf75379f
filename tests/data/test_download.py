"""Downloads, against a server on this machine."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import ssl
import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import trustme

from bench.data.download import RemoteFile, download, verify
from bench.data.published import PUBLISHED
from bench.errors import BenchError

CONTENT = bytes(range(256)) * 4000
FILE = RemoteFile("set.bin", hashlib.sha256(CONTENT).hexdigest())


class Server(ThreadingHTTPServer):
    """Serves `body`, understands ranges, and can cut the connection."""

    def __init__(self, tls=None):
        super().__init__(("127.0.0.1", 0), Handler)
        self.scheme = "https" if tls else "http"
        if tls:
            self.socket = tls.wrap_socket(self.socket, server_side=True)
        self.body = CONTENT
        self.location = None  # where requests are sent on to
        self.status = None
        self.cut_after = []  # bytes after which the next connections are cut
        self.ranges = True
        self.requests = []  # the Range header of each request

    @property
    def url(self):
        return f"{self.scheme}://127.0.0.1:{self.server_port}/"

    def handle_error(self, *_):
        """Say nothing of connections that are refused on purpose."""


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        server, wanted = self.server, self.headers.get("Range")
        server.requests.append(wanted)
        if server.location:
            self.send_response(302)
            self.send_header("Location", server.location)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        start = int(wanted[6:-1]) if wanted and server.ranges else 0
        if server.status or start >= len(server.body):
            self.send_response(server.status or 416)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(server.body) - start))
        self.send_header("Content-Encoding", "gzip")  # a lie that some servers tell of .gz files
        self.end_headers()
        end = start + server.cut_after.pop(0) if server.cut_after else len(server.body)
        self.wfile.write(server.body[start:end])

    def log_message(self, *_):
        """Say nothing."""


@contextlib.contextmanager
def serving(server):
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


@pytest.fixture
def tls(authority, tmp_path_factory, monkeypatch):
    """A certificate for this machine, trusted by this test alone."""
    trusted = tmp_path_factory.mktemp("authority") / "ca.pem"
    authority.cert_pem.write_to_path(trusted)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(trusted))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context


@pytest.fixture
def server(tls):
    with serving(Server(tls)) as server:
        yield server


def fetch(server, folder, file=FILE):
    return download(file, folder, [server.url], quiet=True)


def test_a_file_is_fetched_verified_and_renamed(server, tmp_path):
    path = fetch(server, tmp_path / "new" / "folder")
    assert path.read_bytes() == CONTENT
    assert not list(path.parent.glob("*.part"))


def test_a_file_that_is_there_is_not_fetched_again(server, tmp_path):
    fetch(server, tmp_path)
    fetch(server, tmp_path)
    assert len(server.requests) == 1


def test_a_cut_connection_is_resumed_where_it_ended(server, tmp_path):
    server.cut_after = [300_000, 200_000]
    assert fetch(server, tmp_path).read_bytes() == CONTENT
    assert server.requests == [None, "bytes=300000-", "bytes=500000-"]


def test_a_later_call_resumes(server, tmp_path):
    server.cut_after = [100_000] * 3
    with pytest.raises(BenchError, match="could not be downloaded"):
        fetch(server, tmp_path)
    assert (tmp_path / "set.bin.part").stat().st_size == 300_000
    assert fetch(server, tmp_path).read_bytes() == CONTENT
    assert server.requests[-1] == "bytes=300000-"


def test_a_server_without_ranges_starts_again(server, tmp_path):
    server.ranges = False
    server.cut_after = [300_000]
    assert fetch(server, tmp_path).read_bytes() == CONTENT


def test_a_part_from_elsewhere_is_thrown_away(server, tmp_path):
    (tmp_path / "set.bin.part").write_bytes(b"something else")
    assert fetch(server, tmp_path).read_bytes() == CONTENT
    assert server.requests == ["bytes=14-", None]


def test_a_part_longer_than_the_file_is_thrown_away(server, tmp_path):
    (tmp_path / "set.bin.part").write_bytes(CONTENT + b"more")
    assert fetch(server, tmp_path).read_bytes() == CONTENT


def test_a_wrong_checksum_leaves_nothing_and_is_not_fetched_twice(server, tmp_path):
    server.body = b"not what was published"
    with pytest.raises(BenchError, match=r"set.bin could not be downloaded \(127.0.0.1: wrong"):
        fetch(server, tmp_path)
    assert not list(tmp_path.glob("set.bin"))
    assert not list(tmp_path.glob("*.part"))
    assert len(server.requests) == 1


def test_the_next_mirror_is_tried(server, tls, tmp_path):
    with serving(Server(tls)) as broken:
        broken.status = 404
        path = download(FILE, tmp_path, [broken.url, server.url], quiet=True)
    assert path.read_bytes() == CONTENT


def test_all_mirrors_failing_names_each_ones_reason_in_one_line(server, tmp_path):
    server.status = 503
    nowhere = "https://127.0.0.1:9/"  # the discard port: nothing listens
    with pytest.raises(BenchError) as caught:
        download(FILE, tmp_path, [server.url, nowhere], quiet=True)
    message = str(caught.value)
    assert "\n" not in message
    for part in ("set.bin", "HTTP status 503", "ConnectionError", f"put it into {tmp_path}"):
        assert part in message


def test_two_at_once_fetch_it_once(server, tmp_path):
    with ThreadPoolExecutor(4) as pool:
        fetched = set(pool.map(lambda _: fetch(server, tmp_path), range(4)))
    assert fetched == {tmp_path / "set.bin"}
    assert len(server.requests) == 1
    assert (tmp_path / "set.bin").read_bytes() == CONTENT


def test_a_folder_that_cannot_be_written_is_named(server, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(BenchError, match=r"file/set\.bin cannot be written .*BENCH_DATA"):
        fetch(server, blocked)


@pytest.mark.parametrize("level", [1, 9])
def test_the_content_of_a_gzip_file_counts_not_how_it_was_compressed(tmp_path, level):
    path = tmp_path / "set.gz"
    path.write_bytes(gzip.compress(CONTENT, level))
    verify(path, RemoteFile("set.gz", FILE.sha256, "content"))


def test_a_truncated_gzip_file_is_named(tmp_path):
    path = tmp_path / "set.gz"
    path.write_bytes(gzip.compress(CONTENT)[:-20])
    with pytest.raises(BenchError, match=r"set\.gz: truncated .*delete it and run again"):
        verify(path, RemoteFile("set.gz", FILE.sha256, "content"))


def test_built_in_mirrors_are_https_folders():
    for source in PUBLISHED.values():
        assert source.mirrors
        for mirror in source.mirrors:
            assert mirror.startswith("https://")
            assert mirror.endswith("/")


def test_a_mirror_without_https_is_not_asked(tmp_path):
    with serving(Server()) as plain, pytest.raises(BenchError, match="not an https address"):
        fetch(plain, tmp_path)
    assert plain.requests == []
    assert not (tmp_path / "set.bin").exists()


def test_a_redirect_away_from_https_is_not_followed(server, tmp_path):
    with serving(Server()) as plain:
        server.location = f"{plain.url}set.bin"
        with pytest.raises(BenchError, match="redirects to an address that is not https"):
            fetch(server, tmp_path)
    assert (len(server.requests), plain.requests) == (1, [])
    assert not list(tmp_path.glob("set.bin*[!k]"))  # nothing but the lock


def test_a_detour_over_http_is_refused_although_it_ends_at_https(server, tls, tmp_path):
    with serving(Server()) as plain, serving(Server(tls)) as end:
        server.location, plain.location = f"{plain.url}set.bin", f"{end.url}set.bin"
        with pytest.raises(BenchError, match="redirects to an address that is not https"):
            fetch(server, tmp_path)
    assert (plain.requests, end.requests) == ([], [])


def test_a_redirect_within_https_is_followed(server, tls, tmp_path):
    with serving(Server(tls)) as end:
        server.location = f"{end.url}set.bin"
        assert fetch(server, tmp_path).read_bytes() == CONTENT


def test_a_certificate_that_nobody_vouches_for_is_refused(server, tmp_path, monkeypatch):
    monkeypatch.delenv("REQUESTS_CA_BUNDLE")
    with pytest.raises(BenchError, match="SSLError"):
        fetch(server, tmp_path)
    assert server.requests == []


def test_a_mirror_that_never_stops_sending_is_cut(server, tmp_path, monkeypatch):
    monkeypatch.setattr("bench.data.download._MOST_BYTES", 600_000)
    with pytest.raises(BenchError, match="sends more than 600,000 bytes"):
        fetch(server, tmp_path)
