"""Runs one configuration, or one function, in a subprocess.

A crash or hang fails only that, and what it took of a GPU is free again when it ends.
"""

from __future__ import annotations

import contextlib
import multiprocessing
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from bench.measurement.backends import OutOfMemoryError, UnsupportedError, status_of
from bench.measurement.machine.energy import peak_process_memory
from bench.measurement.timing.runner import LocalRunner, RunnerReport
from bench.system.memory import be_killed_first, describe_exit, out_of_memory_kills
from bench.system.spawn import ignoring_interrupts, without_main

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection

    import numpy as np
    import numpy.typing as npt
    from torch import Tensor

    from bench.measurement.configurations import Configuration
    from bench.measurement.timing.warmup import WarmUp

_ERRORS: dict[str, type[Exception]] = {
    "unsupported": UnsupportedError,
    "out_of_memory": OutOfMemoryError,
}


class RunnerDiedError(RuntimeError):
    """The subprocess crashed or hung."""


class _Subprocess:
    """A subprocess whose answers are pairs of status and value, received through a pipe."""

    def __init__(self, work: Callable[..., None], *arguments: Any, timeout: float) -> None:
        context = multiprocessing.get_context("spawn")  # a forked torch may hang
        self.connection, there = context.Pipe()
        self.timeout = timeout
        self.kills = out_of_memory_kills()
        self.process = context.Process(target=work, args=(there, *arguments), daemon=True)
        with without_main(), ignoring_interrupts():  # the parent ends it
            self.process.start()
        there.close()

    def receive(self) -> Any:
        """Return the next answer, or raise the error that it is."""
        if not self.connection.poll(self.timeout):
            self.end()
            raise RunnerDiedError(f"it did not answer within {self.timeout:g} s (--timeout)")
        try:
            status, value = self.connection.recv()
        except (EOFError, OSError):
            self.process.join()
            status, reason = describe_exit(self.process.exitcode, self.kills, "its process")
            raise _ERRORS.get(status, RunnerDiedError)(reason) from None
        if status == "complete":
            return value
        raise _ERRORS.get(status, RuntimeError)(value)

    def end(self) -> None:
        """Kill it if it has not ended by itself."""
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        self.connection.close()


class ProcessRunner(_Subprocess):
    """A configuration in a subprocess, which sleeps while others are measured.

    Args:
        configuration: opened in the subprocess.
        timeout: seconds to wait for one answer before the subprocess is killed.

    Raises:
        UnsupportedError: the backend cannot run it.
        OutOfMemoryError: it does not fit.
        RunnerDiedError: it crashed or hung while preparing.
    """

    def __init__(self, configuration: Configuration, *, timeout: float) -> None:
        super().__init__(_serve, configuration, timeout=timeout)
        self.receive()

    def warm_up(self, cap_seconds: float) -> WarmUp:
        """Run until the times are steady."""
        result: WarmUp = self._ask("warm_up", cap_seconds)
        return result

    def block(self, count: int) -> list[float]:
        """Take samples; the pipe is outside the timed section."""
        result: list[float] = self._ask("block", count)
        return result

    def serve(self, offsets: list[float], bound: float, unmeasured: int) -> list[float]:
        """Answer queries."""
        result: list[float] = self._ask("serve", offsets, bound, unmeasured)
        return result

    def measure_energy(self) -> None:
        """Measure the energy of a GPU."""
        self._ask("measure_energy")

    def answer(self, images: Tensor) -> npt.NDArray[np.float32]:
        """Return the logits of prepared images."""
        result: npt.NDArray[np.float32] = self._ask("answer", images)
        return result

    def describe(self) -> RunnerReport:
        """Return what ran; peak memory is the subprocess's."""
        result: RunnerReport = self._ask("describe")
        return result

    def close(self) -> None:
        """End the subprocess."""
        with contextlib.suppress(OSError, ValueError):
            self.connection.send(None)
        self.process.join(timeout=5)
        self.end()

    def _ask(self, method: str, *arguments: Any) -> Any:
        try:
            self.connection.send((method, arguments))
        except (OSError, ValueError):
            raise RunnerDiedError("its process has ended") from None
        return self.receive()


def call_in_subprocess(function: Callable[..., Any], *arguments: Any, timeout: float) -> Any:
    """Return what a function returns in a subprocess, which ends with it.

    Raises:
        UnsupportedError: the function raised it.
        OutOfMemoryError: its memory did not suffice.
        RuntimeError: it raised something else, crashed or hung.
    """
    child = _Subprocess(_call, function, arguments, timeout=timeout)
    try:
        return child.receive()
    finally:
        child.end()


def _call(connection: Connection, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    be_killed_first()
    try:
        connection.send(("complete", function(*arguments)))
    except Exception as error:  # sent to the parent, whatever it is
        connection.send(status_of(error))


def _serve(connection: Connection, configuration: Configuration) -> None:
    """Open a configuration and call its runner until None arrives."""
    be_killed_first()
    try:
        runner = LocalRunner(configuration)
    except Exception as error:  # sent to the parent, whatever it is
        connection.send(status_of(error))
        return
    connection.send(("complete", None))
    with contextlib.suppress(EOFError, OSError):
        while (call := connection.recv()) is not None:
            method, arguments = call
            try:
                answer = getattr(runner, method)(*arguments)
                if method == "describe" and configuration.device == "cpu":
                    answer = replace(answer, peak_memory_mib=peak_process_memory())
                connection.send(("complete", answer))
            except Exception as error:  # sent to the parent, whatever it is
                connection.send(status_of(error))
