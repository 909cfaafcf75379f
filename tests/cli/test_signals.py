"""What a scheduler's SIGTERM and a person's Ctrl-C leave of exports and measurements: nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import time

import psutil
import pytest

from bench.store.measurements import Measurements

MODEL = ("resnet8", "--option", "width=4")
LONG = ("throughput", *MODEL, "--input-size", 8, "--max-seconds", 60)
COMMANDS = {
    "export": ("export-onnx", *MODEL),
    "int8 export": ("export-onnx", "RUN", "--precision", "int8"),
    "throughput": (*LONG, "--processes", 1),
    "isolated": (*LONG, "--processes", 1, "--isolate"),
    "processes": LONG,
    "tune": ("tune", *MODEL, "--input-size", 8, "--batch-size", 1),
}
ENDS = {"SIGTERM": (signal.SIGTERM, 75), "Ctrl-C": (signal.SIGINT, 130)}


@pytest.fixture
def begin(program, tmp_path, monkeypatch):
    """Start a command with a folder for temporary files of its own."""
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    started = []

    def start(*words):
        # A runner in a shell's background ignores Ctrl-C, and what it starts would, too.
        process = subprocess.Popen(
            ["env", "--default-signal=INT", *program(*words)], cwd=tmp_path, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
            process.communicate()


def end(process, number):
    """Signal a process; returns its code, and what it said."""
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert "Traceback" not in errors
    _, alive = psutil.wait_procs(children, timeout=10)
    assert not alive
    return process.returncode, errors


@pytest.mark.parametrize("how", ENDS)
def test_a_command_that_waits_for_its_input_ends(begin, tmp_path, how):
    number, code = ENDS[how]
    os.mkfifo(tmp_path / "never.json")
    process = begin("compare", "never.json", "never.json")
    opened = open_once_it_is_read(tmp_path / "never.json", process)
    found, errors = end(process, number)
    os.close(opened)
    assert found == code
    assert ("stopped by SIGTERM; the same command starts again" in errors) == (how == "SIGTERM")


@pytest.mark.slow
@pytest.mark.parametrize("how", ENDS)
@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_in_the_middle_ends_and_leaves_nothing(
    begin, results, entries, tmp_path, name, how
):
    number, code = ENDS[how]
    run = next(path.name for path in sorted((results / "runs").iterdir()))
    words = [(word == "RUN" and run) or word for word in COMMANDS[name]]
    before = entries(results)
    process = begin(*words, "--results", results)
    wait_until_it_works(process, results, tmp_path / "temporary")
    time.sleep({"SIGTERM": 0.3, "Ctrl-C": 1.0}[how])
    found, errors = end(process, number)
    assert found == code, errors
    left = {path for path in entries(results) - before if "/" in path}
    assert left <= {"locks/exports.lock"}
    # A library leaves a file `.ses` there after any measurement, finished or not.
    assert {path.name for path in (tmp_path / "temporary").iterdir()} <= {".ses"}


@pytest.mark.slow
def test_ctrl_c_in_a_terminal_keeps_and_prints_what_is_complete(begin, results):
    """A terminal interrupts the whole process group; here one process has just been started."""
    process = begin(
        "throughput", *MODEL, "--input-size", 8, "--batch-size", 1, "--backend", "eager",
        "--layers", "--results", results,
    )  # fmt: skip
    while "process 3 of" not in (line := process.stderr.readline()):
        assert line, "it ended early"
    children = psutil.Process(process.pid).children(recursive=True)
    os.killpg(process.pid, signal.SIGINT)
    out, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert "interrupted after 2 complete processes, too few for any claim" in out
    assert "Intervals are over 2 fresh processes" in out
    assert "by layer" not in out  # nothing new is begun
    assert not psutil.wait_procs(children, timeout=10)[1]
    record = list(Measurements(results).records())[-1]
    assert [row["processes"] for row in record.rows] == [2]
    assert record.noise["interrupted"]


def open_once_it_is_read(fifo, process):
    """Wait until a command reads a named pipe; returns its other end, which says nothing."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert process.poll() is None, process.stderr.read()
        try:
            return os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:  # nobody reads it yet
            time.sleep(0.05)
    pytest.fail("it never read")


def wait_until_it_works(process, results, temporary):
    """Wait until a command has a folder to work in."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert process.poll() is None, process.stderr.read()
        if list(results.glob("*/.working.*")) or list(temporary.glob("bench-*")):
            return
        time.sleep(0.05)
    pytest.fail("it never began")
