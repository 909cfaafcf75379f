"""A study in MLflow: an experiment named after the study, with one MLflow run for each run.

mlflow is imported inside functions: it reads its settings, made here, when it is imported.
"""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlflow import MlflowClient

    from bench.report.tracking.records import TrackedReport, TrackedRun
    from bench.store import Store

RUN, DIGEST, FOLDER, REPORT = "bench.run", "bench.digest", "bench.folder", "report"
_STATUS = {"complete": "FINISHED", "interrupted": "KILLED"}  # everything else is FAILED
_LONGEST = 5000  # characters of a value; the server takes 6000 for parameters, 8000 for tags
_MOST = 1000  # metrics in one call, by the server's rules


class MlflowTracker:
    """Logs to `MLFLOW_TRACKING_URI`; without it to an SQLite file in the results folder.

    Args:
        store: the results folder.
        study: the study's name.
    """

    def __init__(self, store: Store, study: str) -> None:
        # Send MLflow's makers nothing, and do not retry for minutes if a server is down.
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
        from mlflow import MlflowClient

        for name in ("mlflow", "alembic"):  # they log every table that they make
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
        # On a server that several people log to, only what is of this folder may be replaced.
        self.folder = store.folder_id()
        self.known = dict(_known(self.client, self.experiment, self.folder))

    def log_run(self, run: TrackedRun) -> None:
        """Log a run, and remove what was logged of it before if that differs."""
        from mlflow.entities import Metric

        if self._is_there(run.run, run.digest):
            return
        started = int(run.started_at.timestamp() * 1000)
        tags = {f"environment.{key}": value for key, value in run.environment.items()}
        tags |= {RUN: run.run, "bench.status": run.status, "bench.error": run.error or ""}
        mine = self._create(run.run, run.name, started)
        self._log_words(mine, {k: str(v) for k, v in run.parameters.items()}, tags)
        final = ((f"final/{k}", v, run.seconds, run.last_epoch) for k, v in run.final.items())
        metrics = [
            Metric(name, value, started + int(seconds * 1000), step)
            for name, value, seconds, step in (*run.points(), *final)
        ]
        for first in range(0, len(metrics), _MOST):
            self.client.log_batch(mine, metrics[first : first + _MOST])
        for export in run.exports:
            for file in export.files:
                self.client.log_artifact(mine, str(file), f"exports/{export.sha256[:12]}")
        status, end = _STATUS.get(run.status, "FAILED"), started + int(run.seconds * 1000)
        self._finish(run.run, mine, run.digest, status, end)

    def log_report(self, report: TrackedReport) -> None:
        """Log the report's files as a run of their own, with the answer as a tag."""
        if self._is_there(REPORT, report.digest):
            return
        mine = self._create(REPORT, REPORT, None)
        tags = {"bench.answer": report.answer, "mlflow.note.content": report.text}
        self._log_words(mine, {}, tags)
        self.client.log_artifacts(mine, str(report.folder))
        self._finish(REPORT, mine, report.digest, "FINISHED", None)

    def _create(self, key: str, name: str, started: int | None) -> str:
        tags = {RUN: key, FOLDER: self.folder}
        return str(self.client.create_run(self.experiment, started, tags, name).info.run_id)

    def _is_there(self, key: str, digest: str) -> bool:
        return self.known.get(key, ("", ""))[1] == digest

    def _log_words(self, run: str, parameters: dict[str, str], tags: dict[str, str]) -> None:
        from mlflow.entities import Param, RunTag

        words = [Param(key, value[:_LONGEST]) for key, value in parameters.items()]
        self.client.log_batch(
            run, params=words, tags=[RunTag(key, value[:_LONGEST]) for key, value in tags.items()]
        )

    def _finish(self, key: str, run: str, digest: str, status: str, end: int | None) -> None:
        self.client.set_terminated(run, status, end)
        self.client.set_tag(run, DIGEST, digest)  # last: without it the run counts as incomplete
        older = self.known.get(key)
        if older is not None:
            self.client.delete_run(older[0])
        self.known[key] = (run, digest)


def _known(
    client: MlflowClient, experiment: str, folder: str
) -> Iterator[tuple[str, tuple[str, str]]]:
    """Yield each run of a folder with MLflow's id and its digest, empty if it was not finished."""
    token = None
    while True:
        found = client.search_runs([experiment], page_token=token)
        for run in found:
            key = run.data.tags.get(RUN)
            if key and run.data.tags.get(FOLDER) == folder:
                yield key, (run.info.run_id, run.data.tags.get(DIGEST, ""))
        token = found.token
        if not token:
            return
