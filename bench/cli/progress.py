"""Progress of training: a live view on a terminal, plain lines elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from bench.cli.output import stderr
from bench.report.tables.durations import duration

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from bench.training.run import OnEvent

LONG_SECONDS = 30 * 60


@contextmanager
def progress_view(*, quiet: bool) -> Iterator[OnEvent]:
    """Show the events of a study's runs on stderr while the block runs."""
    console = stderr()
    if quiet:
        yield lambda _event: None
    elif console.is_terminal:
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %"),
            TextColumn("{task.fields[note]}", markup=False),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=console, transient=True) as progress:
            yield _Live(progress)
    else:
        yield _Lines()


def _notice(event: dict[str, Any]) -> str | None:
    """Return what to print of a `held` or `estimate` event, if anything."""
    if event["event"] == "held":
        return f"waiting for {event['runs']} run(s) in progress in another process"
    if event["seconds"] < LONG_SECONDS:
        return None
    return (
        f"about {duration(event['seconds'])} here, as {event['basis']} suggest; Ctrl-C stops, and "
        "the same command resumes. To shorten: fewer epochs, another recipe or dataset, a smaller "
        "network"
    )


class _Live:
    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.labels: dict[str, str] = {}
        self.tasks: dict[str, TaskID] = {}
        self.whole: TaskID | None = None

    def __call__(self, event: dict[str, Any]) -> None:
        match event["event"]:
            case "plan":
                self.labels = event["runs"]
                if self.labels:
                    self.whole = self.progress.add_task(
                        event["what"], total=len(self.labels), note=f"{len(self.labels)} runs"
                    )
            case "start":
                self.tasks[event["run"]] = self.progress.add_task(
                    "  " + self.labels.get(event["run"], event["run"]), total=1.0, note=""
                )
            case "progress":
                self.progress.update(self.tasks[event["run"]], completed=event["done"])
                self._advance_whole()
            case "epoch":
                self.progress.update(self.tasks[event["run"]], note=_figures(event))
            case "held" | "estimate":
                if text := _notice(event):
                    self.progress.console.print(text, markup=False)
            case "end":
                task = self.tasks.pop(event["run"], None)
                self.labels.pop(event["run"], None)
                if task is not None:
                    self.progress.remove_task(task)
                self._advance_whole()

    def _advance_whole(self) -> None:
        if self.whole is None:
            return
        running = {t.id: t for t in self.progress.tasks}
        shares = sum(running[task].completed for task in self.tasks.values())
        total = running[self.whole].total or 0
        self.progress.update(self.whole, completed=total - len(self.labels) + shares)


class _Lines:
    def __init__(self) -> None:
        self.console = stderr()
        self.labels: dict[str, str] = {}
        self.epochs: dict[str, int] = {}
        self.total = self.ended = 0

    def __call__(self, event: dict[str, Any]) -> None:
        match event["event"]:
            case "plan":
                self.labels, self.total, self.ended = event["runs"], len(event["runs"]), 0
            case "start":
                self.epochs[event["run"]] = event["epochs"]
            case "epoch":
                epochs = self.epochs.get(event["run"])
                self._print(event, f"epoch {event['epoch']}/{epochs}  {_figures(event)}")
            case "held" | "estimate":
                if text := _notice(event):
                    self.console.print(text, markup=False, soft_wrap=True)
            case "end":
                self.ended += 1
                error = f": {event['error']}" if event["error"] else ""
                self._print(event, f"{event['status']}{error}  ({self.ended} of {self.total} runs)")

    def _print(self, event: dict[str, Any], text: str) -> None:
        label = self.labels.get(event["run"], event["run"])
        self.console.print(f"{label}: {text}", markup=False, soft_wrap=True)


def _figures(event: dict[str, Any]) -> str:
    parts = [f"train {event['train_accuracy'] * 100:.1f} %"]
    for key, name in (("validation_accuracy", "validation"), ("test_accuracy", "test")):
        if event.get(key) is not None:
            parts.append(f"{name} {event[key] * 100:.1f} %")
    parts.append(f"{event['images_per_second']:,.0f} images/s")
    return ", ".join(parts)
