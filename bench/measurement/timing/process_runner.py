"""A lane in a process of its own: what kills or hangs it costs its row, not the measurement."""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from bench.measurement.backends import OutOfMemoryError, UnsupportedError
from bench.measurement.machine.energy import peak_process_memory
from bench.measurement.timing.sampling import status_of
from bench.system.memory import be_killed_first, out_of_memory_kills

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from bench.measurement.configurations import Configuration
    from bench.measurement.timing.runner import LaneReport
    from bench.measurement.timing.warmup import WarmUp

_ERRORS: dict[str, type[Exception]] = {
    "unsupported": UnsupportedError,
    "out_of_memory": OutOfMemoryError,
}


class LaneDiedError(RuntimeError):
    """The process of an isolated configuration crashed or hung."""


class ProcessLane:
    """A configuration in a process of its own, which sleeps while others are measured.

    Args:
        configuration: opened there.
        timeout: seconds after which an answer is given up, and the process ended.

    Raises:
        UnsupportedError: the backend cannot run it.
        OutOfMemoryError: it does not fit.
        LaneDiedError: it crashed or hung on preparing.
    """

    def __init__(self, configuration: Configuration, *, timeout: float) -> None:
        context = multiprocessing.get_context("spawn")  # a forked torch may hang
        self.connection, there = context.Pipe()
        self.timeout = timeout
        self.kills = out_of_memory_kills()
        self.process = context.Process(target=_serve, args=(there, configuration), daemon=True)
        self.process.start()
        there.close()
        self._answer()

    def warm_up(self, cap_seconds: float) -> WarmUp:
        """Run until steady, there."""
        result: WarmUp = self._ask("warm_up", cap_seconds)
        return result

    def block(self, count: int) -> list[float]:
        """Take samples, there; the pipe is outside of what is timed."""
        result: list[float] = self._ask("block", count)
        return result

    def serve(self, offsets: list[float], bound: float) -> list[float]:
        """Answer queries, there."""
        result: list[float] = self._ask("serve", offsets, bound)
        return result

    def describe(self) -> LaneReport:
        """Say what ran; peak memory is the process's own."""
        result: LaneReport = self._ask("describe")
        return result

    def close(self) -> None:
        """End the process."""
        with contextlib.suppress(OSError, ValueError):
            self.connection.send(None)
        self.process.join(timeout=5)
        self._end()

    def _ask(self, method: str, *arguments: Any) -> Any:
        try:
            self.connection.send((method, arguments))
        except (OSError, ValueError):
            raise LaneDiedError("its process has ended") from None
        return self._answer()

    def _answer(self) -> Any:
        if not self.connection.poll(self.timeout):
            self._end()
            raise LaneDiedError(f"it did not answer within {self.timeout:g} s (--timeout)")
        try:
            status, value = self.connection.recv()
        except (EOFError, OSError):
            self.process.join()
            raise self._death() from None
        if status == "complete":
            return value
        raise _ERRORS.get(status, RuntimeError)(value)

    def _death(self) -> Exception:
        code = self.process.exitcode
        if code == -signal.SIGKILL and out_of_memory_kills() > self.kills:
            return OutOfMemoryError("the kernel ended its process: memory ran out")
        if code is not None and code < 0:
            return LaneDiedError(f"its process was ended by {signal.Signals(-code).name}")
        return LaneDiedError(f"its process exited with code {code}")

    def _end(self) -> None:
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        self.connection.close()


def _serve(connection: Connection, configuration: Configuration) -> None:
    """Open a configuration and answer for it until None comes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends this process
    be_killed_first()
    try:
        lane = configuration.open()
    except Exception as error:  # sent to the parent, whatever it is
        connection.send(status_of(error))
        return
    connection.send(("complete", None))
    with contextlib.suppress(EOFError, OSError):
        while (asked := connection.recv()) is not None:
            method, arguments = asked
            try:
                answer = getattr(lane, method)(*arguments)
                if method == "describe" and configuration.device == "cpu":
                    answer = replace(answer, peak_memory_mib=peak_process_memory())
                connection.send(("complete", answer))
            except Exception as error:  # sent to the parent, whatever it is
                connection.send(status_of(error))
