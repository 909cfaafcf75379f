"""Logging a study while it is carried out; whatever a tracker does, the runs are unharmed."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.util
import tempfile
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from bench.errors import BenchError, check_known, warn
from bench.report.pages.markdown import markdown
from bench.report.pages.publish import publish
from bench.report.pages.study_report import read_study_report
from bench.report.tracking.records import TrackedReport, TrackedRun, tracked_runs
from bench.training.distributed import follows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from bench.store import Store
    from bench.training.run import Event, OnEvent

TRACKERS = ("tensorboard", "mlflow")
REPORT_FORMATS = ("markdown", "csv", "html")


def check_trackers(names: Sequence[str]) -> tuple[str, ...]:
    """Return the names of trackers, each once and without blanks around it.

    Raises:
        BenchError: a name is not one of `TRACKERS`, or its library is not installed.
    """
    wanted = tuple(dict.fromkeys(name.strip() for name in names))
    for name in wanted:
        check_known("--track", name, TRACKERS)
        if importlib.util.find_spec(name) is None:
            raise BenchError(
                f"--track {name}: {name} is not installed; pip install 'resnet-bench[tracking]'"
            )
    return wanted


class Tracker(Protocol):
    """Where runs are logged. Any method may raise anything: the tracker is then given up."""

    where: str

    def log_run(self, run: TrackedRun) -> None:
        """Log a run, in the place of what was logged of it; nothing if that is the same."""

    def log_report(self, report: TrackedReport) -> None:
        """Log a study's report, likewise."""


@contextmanager
def tracked(
    trackers: Sequence[str], store: Store, study: str, on_event: OnEvent
) -> Iterator[OnEvent]:
    """Log a study's runs while the block runs, and its report at the end.

    Args:
        trackers: names of the trackers, of `TRACKERS`.
        store: the results folder that the runs are recorded in.
        study: the study's name.
        on_event: called with every event.

    Yields:
        The function to call with every event, which logs a run when it ends.

    Raises:
        BenchError: a tracker is unknown or not installed. What goes wrong later is a warning.
    """
    names = check_trackers(trackers)
    if not names or follows():
        yield on_event
        return
    session = _Session(names, store, study)

    def log_event(event: Event) -> None:
        on_event(event)
        if event["event"] == "end":
            session.log_runs(event["run"])

    yield log_event
    session.log_runs()
    session.log_report()
    session.record()


class _Session:
    """The trackers of one study; each is opened when there is something to log."""

    def __init__(self, names: tuple[str, ...], store: Store, study: str) -> None:
        self.store = store
        self.study = study
        self.trackers: dict[str, Tracker | None] = dict.fromkeys(names)
        self.outcomes: dict[str, dict[str, Any]] = {}

    def log_runs(self, run: str | None = None) -> None:
        """Log one run of the study, or all of them."""

        def log(tracker: Tracker) -> None:
            for found in tracked_runs(self.store, self.study, run):
                tracker.log_run(found)

        self._each(log)

    def log_report(self) -> None:
        """Log the study's report, if a run is complete."""
        with tempfile.TemporaryDirectory(prefix="bench-report-") as folder:
            made = functools.cache(lambda: self._report(Path(folder)))  # for the first tracker

            def log(tracker: Tracker) -> None:
                report = made()
                if report is not None:
                    tracker.log_report(report)

            self._each(log)

    def _report(self, folder: Path) -> TrackedReport | None:
        report = read_study_report(self.store, self.study)
        if not report.progress[0]:
            return None
        publish(report, folder, REPORT_FORMATS)
        text = markdown(report)
        digests = [run.digest for run in tracked_runs(self.store, self.study)]
        return TrackedReport(
            digest=hashlib.sha256("".join([report.answer, text, *digests]).encode()).hexdigest(),
            answer=report.answer,
            text=text,
            folder=folder,
        )

    def record(self) -> None:
        """Record what became of every tracker."""
        self.outcomes |= {name: _outcome(t.where, None) for name, t in self.trackers.items() if t}
        self._save()

    def _each(self, work: Callable[[Tracker], None]) -> None:
        """Let every tracker work; one that raises is given up, with a warning."""
        for name in list(self.trackers):
            try:
                tracker = self.trackers[name] = self.trackers[name] or self._open(name)
                work(tracker)
            except Exception as error:  # whatever it raises, the runs are recorded and go on
                given_up = self.trackers.pop(name)
                first = (str(error).strip().splitlines() or [""])[0]
                reason = f"{type(error).__name__}: {first[:300]}"
                self.outcomes[name] = _outcome(given_up.where if given_up else None, reason)
                self._save()
                warn(
                    f"--track {name} is given up ({reason}); the runs are unharmed, and the same "
                    "command logs what is missing"
                )

    def _open(self, name: str) -> Tracker:
        if name == "mlflow":
            from bench.report.tracking.mlflow import MlflowTracker

            return MlflowTracker(self.store, self.study)
        from bench.report.tracking.tensorboard import TensorboardTracker

        return TensorboardTracker(self.store, self.study)

    def _save(self) -> None:
        with contextlib.suppress(BenchError):  # the runs themselves report a full disk
            self.store.save_tracking(self.study, self.outcomes)


def _outcome(where: str | None, error: str | None) -> dict[str, Any]:
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return {"where": where, "error": error, "at": now}
