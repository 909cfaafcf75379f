"""Log a study while it is carried out; a failing tracker does not affect the runs."""

from __future__ import annotations

import contextlib
import hashlib
import tempfile
import warnings
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from bench.errors import BenchError
from bench.report.pages.markdown import markdown
from bench.report.pages.publish import publish
from bench.report.pages.study_report import read_study_report
from bench.report.tracking.mlflow import MlflowTracker
from bench.report.tracking.names import check_trackers
from bench.report.tracking.records import TrackedReport, tracked_runs
from bench.report.tracking.tensorboard import TensorboardTracker
from bench.training.distributed import follows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from bench.report.tracking.records import TrackedRun
    from bench.store import Store
    from bench.training.run import Event, OnEvent

REPORT_FORMATS = ("markdown", "csv", "html")


class Tracker(Protocol):
    """A service that runs are logged to. A tracker that raises is not used any more."""

    where: str

    def log_run(self, run: TrackedRun) -> None:
        """Log a run, replacing what was logged of it; do nothing if that is unchanged."""

    def log_report(self, report: TrackedReport) -> None:
        """Log a study's report, replacing an older one; do nothing if that is unchanged."""


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
    def __init__(self, names: tuple[str, ...], store: Store, study: str) -> None:
        self.store = store
        self.study = study
        self.unopened = list(names)  # opened when there is something to log
        self.trackers: dict[str, Tracker] = {}
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
            reports: list[TrackedReport] = []

            def log(tracker: Tracker) -> None:
                if not reports:  # made once, for the first tracker
                    reports.extend(_report(self.store, self.study, Path(folder)))
                for report in reports:
                    tracker.log_report(report)

            self._each(log)

    def record(self) -> None:
        """Record the outcome of every tracker."""
        for name, tracker in self.trackers.items():
            self.outcomes[name] = _outcome(tracker.where, None)
        self._save()

    def _each(self, work: Callable[[Tracker], None]) -> None:
        for name in [*self.trackers, *self.unopened]:
            self._try(name, work)

    def _try(self, name: str, work: Callable[[Tracker], None]) -> None:
        try:
            if name in self.unopened:
                self.unopened.remove(name)
                self.trackers[name] = _open(name, self.store, self.study)
            work(self.trackers[name])
        except Exception as error:  # of any kind: the runs are recorded and continue
            tracker = self.trackers.pop(name, None)
            reason = f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:300]}"
            self.outcomes[name] = _outcome(tracker.where if tracker else None, reason)
            self._save()
            warnings.warn(
                f"--track {name} is given up ({reason}); the runs are unharmed, and the same "
                "command logs what is missing",
                stacklevel=2,
            )

    def _save(self) -> None:
        with contextlib.suppress(BenchError):  # the runs themselves report a full disk
            self.store.save_tracking(self.study, self.outcomes)


def _outcome(where: str | None, error: str | None) -> dict[str, Any]:
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return {"where": where, "error": error, "at": now}


def _open(name: str, store: Store, study: str) -> Tracker:
    if name == "mlflow":
        return MlflowTracker(store, study)
    return TensorboardTracker(store, study)


def _report(store: Store, study: str, folder: Path) -> Iterator[TrackedReport]:
    digests = [run.digest for run in tracked_runs(store, study)]
    report = read_study_report(store, study)
    if not report.progress[0]:  # no run is complete: there is nothing to report
        return
    publish(report, folder, REPORT_FORMATS)
    question = report.study.question
    yield TrackedReport(
        digest=hashlib.sha256("".join([question, *digests]).encode()).hexdigest(),
        answer=report.answer,
        text=markdown(report),
        folder=folder,
    )
