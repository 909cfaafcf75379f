"""Runs as a Slurm job array, submitted through submitit."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.errors import BenchError
from bench.launch.lost_workers import record_loss
from bench.store import Store
from bench.system.signals import Stop, StopRequestedError
from bench.training.run import execute

if TYPE_CHECKING:
    from bench.launch.launchers import Assignment, SlurmLauncher
    from bench.studies.request import RunRequest
    from bench.training.resources import Resources

_LOOK_SECONDS = {"slurm": 10.0, "local": 0.5}
_STOP_SECONDS = 60.0
# Warned so long before the time is up: enough for one step and a checkpoint.
SIGNAL_SECONDS = 90


class RunJob:
    """One run as submitit's callable; when its time is up it is queued again."""

    def __init__(
        self, request: RunRequest, root: Path, resources: Resources, weights: Path | None
    ) -> None:
        self.request = request
        self.root = root
        self.resources = resources
        self.weights = weights

    def __call__(self) -> str:
        """Do the run, or take it up; returns its status."""
        stop = Stop()
        time_is_up: Any = signal.getsignal(signal.SIGUSR2)  # submitit's: queue again and leave

        def note(number: int, _frame: object) -> None:
            if stop.signal is None:
                stop.request(number)

        signal.signal(signal.SIGUSR2, note)
        signal.signal(signal.SIGTERM, note)
        try:
            record = execute(
                self.request, Store(self.root), self.resources, stop=stop, weights=self.weights
            )
        except StopRequestedError:
            if stop.signal == signal.SIGUSR2 and callable(time_is_up):
                time_is_up(signal.SIGUSR2, None)  # now that the checkpoint is written
            return "interrupted"
        return record.status

    def checkpoint(self) -> Any:
        """What submitit queues again: the same run, which finds its own checkpoint."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def run_on_slurm(launcher: SlurmLauncher, work: Assignment) -> None:
    """Do every run as a job of one array; see `bench.launch.launch`.

    If this process is lost, the jobs go on; the same command then waits for the runs under
    way and takes what is finished.
    """
    executor = _executor(launcher, work.resources, work.workers)
    root = work.store.root.resolve()
    start = work.weights.resolve() if work.weights is not None else None
    try:
        # What sbatch says on its way is told once, in our own line.
        with contextlib.redirect_stderr(io.StringIO()), executor.batch():
            jobs = [executor.submit(RunJob(r, root, work.resources, start)) for r in work.requests]
    except Exception as error:
        if type(error).__module__.startswith("submitit"):
            raise BenchError(f"--launcher slurm: sbatch refused the jobs: {_line(error)}") from None
        raise
    _Watch(launcher.cluster, work).wait(dict(zip(jobs, work.requests, strict=True)))
    work.stop.check()


def script(launcher: SlurmLauncher, runs: int, resources: Resources, workers: int) -> str:
    """The batch script that submitit would write for so many runs."""
    _require_submitit()
    from submitit.slurm.slurm import SlurmExecutor

    class Script(SlurmExecutor):
        """Writes the script also where there is no Slurm."""

        @classmethod
        def affinity(cls) -> int:
            return 1

    executor = Script(launcher.folder)
    _set_parameters(executor, launcher, resources, workers)
    if runs > 1:
        executor.parameters["map_count"] = runs
    return executor._make_submission_file_text(executor._submitit_command_str, "")


def _executor(launcher: SlurmLauncher, resources: Resources, workers: int) -> Any:
    _require_submitit()
    folder = Path(launcher.folder).resolve()
    if launcher.cluster == "local":
        from submitit.local.local import LocalExecutor

        local = LocalExecutor(folder, max_num_timeout=launcher.requeues)
        local.update_parameters(
            **{"timeout_min": launcher.minutes, "signal_delay_s": 30, **launcher.parameters}
        )
        return local
    missing = [word for word in ("sbatch", "srun", "squeue") if shutil.which(word) is None]
    if missing:
        raise BenchError(
            f"--launcher slurm: no '{missing[0]}' on this machine; run the command on a login "
            "node of the cluster, or see the script with --dry-run"
        )
    from submitit.slurm.slurm import SlurmExecutor

    executor = SlurmExecutor(folder, max_num_timeout=launcher.requeues)
    _set_parameters(executor, launcher, resources, workers)
    return executor


def _set_parameters(
    executor: Any, launcher: SlurmLauncher, resources: Resources, workers: int
) -> None:
    values: dict[str, Any] = {
        "job_name": "bench",
        "time": launcher.minutes,
        "cpus_per_task": resources.threads,
        "signal_delay_s": SIGNAL_SECONDS,
        "array_parallelism": workers,
        "additional_parameters": {"requeue": True},
        "stderr_to_stdout": True,
    }
    if resources.device.startswith("cuda"):
        values["gpus_per_node"] = 1
    known = set(type(executor)._valid_parameters())
    for key, value in launcher.parameters.items():
        if key in known:
            values[key] = value
        else:
            values["additional_parameters"][key.replace("_", "-")] = value
    executor.update_parameters(**values)


def _require_submitit() -> None:
    if importlib.util.find_spec("submitit") is None:
        raise BenchError("--launcher slurm needs submitit: pip install 'resnet-bench[slurm]'")


class _Watch:
    """Waits for jobs; the store says how each ended, Slurm only whether it is still there."""

    def __init__(self, cluster: str, work: Assignment) -> None:
        self.cluster = cluster
        self.work = work

    def wait(self, jobs: dict[Any, RunRequest]) -> None:
        """Wait until every job has left the queue; on a stop, cancel them first."""
        deadline = None
        looked = 0.0
        while jobs:
            if self.work.stop.signal is not None and deadline is None:
                for job in jobs:
                    job.cancel(check=False)
                deadline = time.monotonic() + _STOP_SECONDS
            if deadline is not None and time.monotonic() > deadline:
                return
            if time.monotonic() - looked > _LOOK_SECONDS[self.cluster]:
                looked = time.monotonic()
                present = self._present(jobs)
                for job in [job for job in jobs if job not in present]:
                    self._settle(jobs.pop(job))
            time.sleep(0.2)

    def _present(self, jobs: dict[Any, RunRequest]) -> set[Any]:
        """Jobs that are still queued or running."""
        if self.cluster == "local":
            return {job for job in jobs if not job.done()}
        arrays = ",".join(sorted({job.job_id.split("_")[0] for job in jobs}))
        command = ["squeue", "--noheader", "--array", "--format=%i", f"--jobs={arrays}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)  # noqa: S603 - fixed words
        if done.returncode and "Invalid job id" not in done.stderr:
            return set(jobs)  # the controller does not answer: look again later
        queued = set(done.stdout.split())
        return {job for job in jobs if job.job_id in queued}

    def _settle(self, request: RunRequest) -> None:
        run = request.run_id
        record = self.work.store.read_run(run) or self.work.store.read_unfinished(run)
        if record is not None and record.status != "interrupted":
            told = {"run": run, "status": record.status, "error": record.error}
            self.work.on_event({"event": "end", **told})
        elif self.work.stop.signal is None:
            error = "the Slurm job left the queue before the run was done; its log says why"
            record_loss(self.work, request, error)


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]
