"""Runs as a Slurm job array, submitted through submitit."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from bench.errors import BenchError
from bench.launch.assignment import Assignment, record_lost_worker
from bench.store import Store
from bench.system.signals import Stop, StopRequestedError
from bench.training.run import execute

if TYPE_CHECKING:
    from bench.store import RunRecord
    from bench.studies.run_request import RunRequest
    from bench.training.resources import Resources

_LOOK_SECONDS = {"slurm": 10.0, "local": 0.5}
_STOP_SECONDS = 60.0
# Slurm's warning comes this long before the time is up: enough for a step and a checkpoint.
SIGNAL_SECONDS = 90


@dataclass
class RunJob:
    """One run as a callable for submitit; when its time is up it is queued again."""

    request: RunRequest
    root: Path
    resources: Resources
    weights: Path | None

    def __call__(self) -> str:
        """Do the run, or resume it; return its status."""
        stop = Stop()
        time_is_up: Any = signal.getsignal(signal.SIGUSR2)  # submitit's: requeue, exit
        signal.signal(signal.SIGUSR2, stop.note)
        signal.signal(signal.SIGTERM, stop.note)
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
        """Return what submitit queues again: the same run, which finds its own checkpoint."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


@dataclass(frozen=True)
class SlurmLauncher:
    """The runs are one Slurm job array, submitted through submitit, requeued when time is up.

    Attributes:
        folder: where submitit keeps scripts and logs; compute nodes must reach it.
        minutes: time limit of one job.
        requeues: times that a run whose time was up is queued again.
        parameters: further options of `sbatch`, such as ``{"partition": "gpu"}``.
        cluster: `slurm`, or `local` for submitit's executor of processes on this machine.
    """

    folder: str = "bench-slurm"
    minutes: int = 60
    requeues: int = 20
    parameters: dict[str, Any] = field(default_factory=dict)
    cluster: Literal["slurm", "local"] = "slurm"

    def run(self, work: Assignment) -> None:
        """Do every run as a job of one array; see `Assignment`.

        If this process is lost, the jobs continue; the same command then waits for the runs
        under way and takes what is finished.
        """
        executor = _executor(self, work.resources, work.workers)
        root = work.store.root.resolve()
        start = work.weights.resolve() if work.weights is not None else None
        before = {r.run_id: work.store.read(r.run_id) for r in work.requests}
        resources = work.resources
        if resources.device.startswith("cuda"):  # a job sees the one GPU that it was given
            resources = replace(resources, device="cuda:0")
        try:
            # An error of sbatch is reported once, in our own line.
            with contextlib.redirect_stderr(io.StringIO()), executor.batch():
                jobs = [
                    executor.submit(RunJob(request, root, resources, start))
                    for request in work.requests
                ]
        except Exception as error:
            if not type(error).__module__.startswith("submitit"):
                raise
            reason = " ".join(str(error).split())[:300]
            raise BenchError(f"--launcher slurm: sbatch refused the jobs: {reason}") from None
        _wait(self.cluster, work, dict(zip(jobs, work.requests, strict=True)), before)
        work.stop.check()

    def script(self, runs: int, resources: Resources, workers: int) -> str:
        """Return the batch script that would be submitted for *runs* runs."""
        _require_submitit()
        from submitit.slurm.slurm import SlurmExecutor

        class Script(SlurmExecutor):
            """Writes the script also where there is no Slurm."""

            @classmethod
            def affinity(cls) -> int:
                return 1

        executor = Script(self.folder)
        _set_parameters(executor, self, resources, workers)
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
    missing = [tool for tool in ("sbatch", "srun", "squeue") if shutil.which(tool) is None]
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
        name = key.replace("-", "_")  # as submitit spells what sbatch spells with dashes
        if name in known:
            values[name] = value
        else:
            values["additional_parameters"][name.replace("_", "-")] = value
    executor.update_parameters(**values)


def _require_submitit() -> None:
    if importlib.util.find_spec("submitit") is None:
        raise BenchError("--launcher slurm needs submitit: pip install 'resnet-bench[slurm]'")


def _wait(
    cluster: str,
    work: Assignment,
    jobs: dict[Any, RunRequest],
    before: dict[str, RunRecord | None],
) -> None:
    """Wait until every job has left the queue; on a stop, cancel them first.

    The store records how each run ended, Slurm only whether its job is queued. *before* has the
    records as they were: one that is still the same is of an earlier attempt.
    """
    deadline = None
    looked = 0.0
    while jobs:
        if work.stop.signal is not None and deadline is None:
            for job in jobs:
                job.cancel(check=False)
            deadline = time.monotonic() + _STOP_SECONDS
        if deadline is not None and time.monotonic() > deadline:
            return
        if time.monotonic() - looked > _LOOK_SECONDS[cluster]:
            looked = time.monotonic()
            present = _present(cluster, jobs)
            for job in [job for job in jobs if job not in present]:
                request = jobs.pop(job)
                _settle(work, request, before[request.run_id], job.paths.stdout)
        time.sleep(0.2)


def _present(cluster: str, jobs: dict[Any, RunRequest]) -> set[Any]:
    """Return the jobs that are still queued or running."""
    if cluster == "local":
        return {job for job in jobs if not job.done()}
    arrays = ",".join(sorted({job.job_id.split("_")[0] for job in jobs}))
    command = ["squeue", "--noheader", "--array", "--format=%i", f"--jobs={arrays}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)  # noqa: S603 - fixed arguments
    except subprocess.TimeoutExpired:
        return set(jobs)  # the controller does not answer; try again later
    if done.returncode and "Invalid job id" not in done.stderr:
        return set(jobs)
    queued = set(done.stdout.split())
    return {job for job in jobs if job.job_id in queued}


def _settle(work: Assignment, request: RunRequest, before: RunRecord | None, log: Path) -> None:
    """Report how the run of a job that left the queue ended."""
    run = request.run_id
    record = work.store.read(run)
    # With --force, or of a run that failed, an older record may still be there.
    retried = work.resources.force or work.store.read_run(run) is None
    earlier = retried and record == before
    if record is not None and not earlier and record.status != "interrupted":
        work.on_event({"event": "end", "run": run, "status": record.status, "error": record.error})
    elif work.stop.signal is None:
        error = (
            f"the Slurm job left the queue before the run was done ({log} may say why); the same "
            "command resumes it"
        )
        record_lost_worker(work, request, error)
