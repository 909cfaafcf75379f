"""Progress of a measurement: one live line on a terminal, a few plain lines elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.markup import escape

from bench.cli.output import remarks, stderr
from bench.report.tables.durations import duration

_FREQUENT = {"prepare", "warm_up", "block", "round", "score", "server"}  # repeated in each process
_TEXTS = {
    "export": "exporting {what} to ONNX",
    "prepare": "preparing {what} ({number} of {of})",
    "ceiling": "measuring this machine's matrix-multiply ceiling",
    "warm_up": "warming up {what} ({number} of {of})",
    "failed": "{what}: {error}",
    "batch": "trying batch sizes of {what}",
    "server": "serving {what}: {rate:.3g} queries/s",
    "score": "testing the accuracy of {what}: {share:.0%}",
    "cold_start": "cold start: process {number} of {of}",
}


@contextmanager
def measuring_view(*, quiet: bool) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Show the events of a measurement on stderr while the block runs."""
    console, lines = stderr(), _Lines()
    if quiet:
        yield lambda _event: None
    elif console.is_terminal:
        with console.status("starting") as status:
            yield lambda event: status.update(escape(lines.of(event)))
    else:
        say = remarks(quiet=False)
        yield lambda event: None if event["event"] in _FREQUENT else say(lines.of(event))


class _Lines:
    """Turns events into lines: how much is done and the time left, then what is happening."""

    def __init__(self) -> None:
        self._done = ""

    def of(self, event: dict[str, Any]) -> str:
        """Return the line of an event."""
        if event["event"] == "process":
            self._done = f"process {event['number']} of {event['of']}"
            if event["seconds_left"] is not None:
                self._done += f", about {duration(event['seconds_left'])} left"
            return self._done
        if event["event"] == "round":
            text = f"round {event['round']}: {event['done']} of {event['of']} configurations done"
            if not self._done:  # measured in this process
                text += f", at most {duration(event['seconds_left'])} left"
        elif event["event"] == "block":
            last = "" if event["of"] is None else f" of {event['of']}"
            text = f"round {event['round'] + 1}{last}: {event['what']}"
        else:
            if event["event"] in {"ceiling", "cold_start"}:  # the processes are done
                self._done = ""
            text = _TEXTS[event["event"]].format(**event)
        return "; ".join(filter(None, (self._done, text)))
