"""The page from a server: whom it answers, what it serves, and that it follows the study."""

from __future__ import annotations

import http.client
import shutil
import signal
import subprocess
import threading
from typing import TYPE_CHECKING, Any

import pytest

from bench.errors import BenchError
from bench.report.pages.server import PageServer
from bench.store import Store
from builders import make_unfinished

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.fixture
def server(results: Path) -> Iterator[PageServer]:
    with PageServer(Store(results), "tiny") as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def get(server: PageServer, path: str, host: str | None = None) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=30)
    connection.request("GET", path, headers={} if host is None else {"Host": host})
    answer = connection.getresponse()
    content = answer.read().decode()
    connection.close()
    return answer.status, content


def test_the_page_follows_the_study(server: PageServer, results: Path) -> None:
    before = get(server, "/state")
    status, page = get(server, "/")
    assert status == 200
    assert before == (200, before[1])
    assert f'"live":"{before[1]}"' in page
    assert "the loss left us" not in page
    assert get(server, "/state") == before
    make_unfinished(Store(results), status="diverged", error="the loss left us")
    now = get(server, "/state")
    assert now != before
    status, page = get(server, "/")
    assert "the loss left us" in page
    assert f'"live":"{now[1]}"' in page


def test_nothing_else_is_served(server: PageServer) -> None:
    for path in (
        "/../studies/tiny.json", "/studies/tiny.json", "//runs", "/state/..", "/%2e%2e/", "/x", "x",
    ):  # fmt: skip
        assert get(server, path) == (404, "Only the page is here: /"), path


def test_only_this_machine_is_answered(server: PageServer) -> None:
    assert server.server_address[0] == "127.0.0.1"
    port = server.server_port
    assert get(server, "/state", f"localhost:{port}")[0] == 200
    for host in ("evil.example", f"evil.example:{port}", "127.0.0.1", f"127.0.0.1:{port + 1}", ""):
        assert get(server, "/", host)[0] == 421


def test_a_study_that_is_removed_is_told(server: PageServer, results: Path) -> None:
    (results / "studies" / "tiny.json").unlink()
    for _ in range(2):  # the page of before is not served later either
        status, text = get(server, "/")
        assert status == 503
        assert "no study 'tiny'" in text


def test_a_port_that_is_taken_is_told(server: PageServer, results: Path) -> None:
    with pytest.raises(BenchError, match=rf"--port {server.server_port}: cannot listen"):
        PageServer(Store(results), "tiny", server.server_port)
    with pytest.raises(BenchError, match="--port 70000: cannot listen"):
        PageServer(Store(results), "tiny", 70000)


def test_the_command_serves_until_it_is_interrupted(
    program: Callable[..., list[str]], trained: Path, tmp_path: Path
) -> None:
    words = program("report", "tiny", "--serve", "--results", trained)
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path
    ) as done:
        try:
            assert done.stdout is not None
            url = done.stdout.readline().strip()
            port = int(url.removesuffix("/").rpartition(":")[2])
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
            connection.request("GET", "/")
            assert "Does the shortcut matter here?" in connection.getresponse().read().decode()
            connection.close()
            done.send_signal(signal.SIGINT)
            assert done.communicate(timeout=30) == ("", "")
            assert done.returncode == 0
        finally:
            done.kill()  # what fails above would wait for it forever


def test_serving_writes_no_file(bench: Callable[..., Any], trained: Path) -> None:
    refusal = bench("report", "tiny", "--serve", "--output", "x", "--results", trained).refusal
    assert refusal == "--serve writes no files: remove --output, --figures and --publish"


@pytest.mark.slow
def test_an_open_page_reloads_when_there_is_something_new(
    server: PageServer, results: Path
) -> None:
    playwright = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed")
    with playwright.sync_playwright() as driver:
        page = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"]).new_page()
        page.goto(server.url)
        page.wait_for_selector(".main-svg")
        assert page.get_by_text("the loss left us").count() == 0
        make_unfinished(Store(results), status="diverged", error="the loss left us")
        page.get_by_text("the loss left us").wait_for(timeout=20_000)
