"""A study in MLflow: an experiment with the study's name, and one MLflow run per run."""

from __future__ import annotations

import logging
import os
from itertools import islice
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import TypeVar

    from mlflow import MlflowClient

    from bench.report.tracking.records import TrackedReport, TrackedRun
    from bench.store import Store

    Item = TypeVar("Item")

RUN, DIGEST, REPORT = "bench.run", "bench.digest", "report"
_STATUS = {"complete": "FINISHED", "interrupted": "KILLED"}  # others: FAILED
_LONGEST = 5000  # characters of a value; the server's limits are 6000 (parameter), 8000 (tag)
_METRICS, _TEXTS = 1000, 100  # the server's limits for one call


class MlflowTracker:
    """Logs to `MLFLOW_TRACKING_URI` (default: an SQLite file in the results folder).

    Args:
        store: the results folder.
        study: the study's name.
    """

    def __init__(self, store: Store, study: str) -> None:
        # No telemetry, and no minutes of retries if the server is down.
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
        from mlflow import MlflowClient

        for name in ("mlflow", "alembic"):  # they log every table that they create
            logging.getLogger(name).setLevel(logging.WARNING)
        folder = (store.root / "mlflow").absolute()
        own = f"sqlite:///{folder / 'mlflow.db'}"
        self.where = os.environ.get("MLFLOW_TRACKING_URI") or own
        files = None
        if self.where == own:
            folder.mkdir(parents=True, exist_ok=True)
            files = (folder / "files").as_uri()
        self.client = MlflowClient(tracking_uri=self.where)
        found = self.client.get_experiment_by_name(study)
        self.experiment = (
            found.experiment_id if found else self.client.create_experiment(study, files)
        )
        self.known = dict(_known(self.client, self.experiment))

    def log_run(self, run: TrackedRun) -> None:
        """Log a run; an older version of it is removed."""
        if self._is_there(run.run, run.digest):
            return
        started = int(run.started_at.timestamp() * 1000)
        tags = {f"environment.{key}": value for key, value in run.environment.items()}
        tags |= {RUN: run.run, "bench.status": run.status, "bench.error": run.error or ""}
        begun = self.client.create_run(self.experiment, started, {RUN: run.run}, run.name)
        mine = begun.info.run_id
        self._log_texts(mine, {k: str(v) for k, v in run.parameters.items()}, tags)
        self._log_values(mine, _values(run, started))
        for export in run.exports:
            for file in export.files:
                self.client.log_artifact(mine, str(file), f"exports/{export.sha256[:12]}")
        self._finish(
            run.run,
            mine,
            run.digest,
            _STATUS.get(run.status, "FAILED"),
            started + int(run.seconds * 1000),
        )

    def log_report(self, report: TrackedReport) -> None:
        """Log the report's files as a separate run, with the answer as a tag."""
        if self._is_there(REPORT, report.digest):
            return
        begun = self.client.create_run(self.experiment, None, {RUN: REPORT}, REPORT)
        mine = begun.info.run_id
        self._log_texts(
            mine, {}, {"bench.answer": report.answer, "mlflow.note.content": report.text}
        )
        self.client.log_artifacts(mine, str(report.folder))
        self._finish(REPORT, mine, report.digest, "FINISHED", None)

    def _is_there(self, key: str, digest: str) -> bool:
        return self.known.get(key, ("", ""))[1] == digest

    def _log_texts(self, run: str, parameters: dict[str, str], tags: dict[str, str]) -> None:
        from mlflow.entities import Param, RunTag

        for some in _chunks(parameters.items(), _TEXTS):
            self.client.log_batch(run, params=[Param(k, v[:_LONGEST]) for k, v in some])
        for some in _chunks(tags.items(), _TEXTS):
            self.client.log_batch(run, tags=[RunTag(k, v[:_LONGEST]) for k, v in some])

    def _log_values(self, run: str, values: Iterable[tuple[str, float, int, int]]) -> None:
        from mlflow.entities import Metric

        for some in _chunks(values, _METRICS):
            metrics = [Metric(name, value, at, step) for name, value, at, step in some]
            self.client.log_batch(run, metrics=metrics)

    def _finish(self, key: str, run: str, digest: str, status: str, end: int | None) -> None:
        self.client.set_terminated(run, status, end)
        self.client.set_tag(run, DIGEST, digest)  # last: a run without it is incomplete
        older = self.known.get(key)
        if older is not None:
            self.client.delete_run(older[0])
        self.known[key] = (run, digest)


def _known(client: MlflowClient, experiment: str) -> Iterator[tuple[str, tuple[str, str]]]:
    """Yield each run's id with its MLflow run and digest; the digest of a partial one is empty."""
    token = None
    while True:
        found = client.search_runs([experiment], page_token=token)
        for run in found:
            if key := run.data.tags.get(RUN):
                yield key, (run.info.run_id, run.data.tags.get(DIGEST, ""))
        token = found.token
        if not token:
            return


def _values(run: TrackedRun, started: int) -> Iterator[tuple[str, float, int, int]]:
    """Yield name, value, time in milliseconds and step of every metric."""
    at = started
    for epoch, values in run.epochs.items():
        at += int(values.get("seconds", 0.0) * 1000)
        for name, value in values.items():
            yield f"epoch/{name}", value, at, epoch
    last = max(run.epochs, default=0)
    for name, value in run.final.items():
        yield f"final/{name}", value, at, last
    for export in run.exports:
        for name, value in export.values.items():
            yield f"export {export.title}/{name}", value, at, last


def _chunks(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Split items into lists of *size*, as `itertools.batched` of Python 3.12 does."""
    rest = iter(items)
    while some := list(islice(rest, size)):
        yield some
