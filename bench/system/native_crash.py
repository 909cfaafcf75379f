"""A command that a fault in native code ends cannot report it; another process does."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import re
import signal
import sys
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from bench.system.memory import describe_exit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# How `faulthandler` begins its text.
_FAULTS = {
    "Segmentation fault": "SIGSEGV",
    "Aborted": "SIGABRT",
    "Bus error": "SIGBUS",
    "Floating": "SIGFPE",
    "Illegal instruction": "SIGILL",
}
_FAULT = re.compile(rf"Fatal Python error: ({'|'.join(_FAULTS)})")
_FRAME = re.compile(r'^  File "(.+)", line (\d+) in (.+)$', re.MULTILINE)
_INSTALLED = {"site-packages", "dist-packages"}
_OURS = Path(__file__).resolve().parents[1]


@contextlib.contextmanager
def report_native_crash(report: Callable[[str], object]) -> Iterator[None]:
    """Report a fault in native code (SIGSEGV, SIGABRT, …) that ends this process in the block.

    No Python code runs in a process after such a fault. `faulthandler` writes the Python stack into
    a pipe, and a forked process, which waits at its other end, reports it; the exit code remains
    the signal's. Without fork (Windows), `faulthandler` writes the stack to stderr. Where it is
    enabled already (`PYTHONFAULTHANDLER`), nothing changes.

    Args:
        report: called with one line, in the process that waits.
    """
    if faulthandler.is_enabled():
        yield
        return
    if not hasattr(os, "fork"):
        with contextlib.suppress(RuntimeError, OSError):  # there is no stderr
            faulthandler.enable()
        yield
        return
    here, there = os.pipe()
    watcher = os.fork()
    if watcher == 0:
        os.close(there)
        _watch(here, report)
    os.close(here)
    faulthandler.enable(there, all_threads=False)
    try:
        yield
    finally:
        faulthandler.disable()
        os.close(there)
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(watcher, signal.SIGKILL)
            os.waitpid(watcher, 0)


def _watch(pipe: int, report: Callable[[str], object]) -> NoReturn:
    """Wait until the other process ends, report its fault if there was one, and exit."""
    try:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)  # of the whole group; they are the other's
        with os.fdopen(pipe, encoding="utf-8", errors="replace") as stream:
            text = stream.read()
        found = _FAULT.search(text)
        if found:
            fault = signal.Signals[_FAULTS[found[1]]]
            report(describe_exit(-fault, 0, "the command")[1] + _place(text))
            sys.stdout.flush()
    finally:
        os._exit(0)


def _place(stack: str) -> str:
    """Return where the fault happened: in the user's own code if that is part of the stack."""
    frames = [(Path(file), line, name) for file, line, name in _FRAME.findall(stack)]
    if not frames:
        return ""
    file, line, name = next((frame for frame in frames if _is_users(frame[0])), frames[0])
    return f", in line {line} of {file} ({name})"


def _is_users(file: Path) -> bool:
    standard = Path(sysconfig.get_path("stdlib"))
    libraries = _INSTALLED & set(file.parts) or file.is_relative_to(standard)
    return file.is_absolute() and not libraries and not file.is_relative_to(_OURS)
