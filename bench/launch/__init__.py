"""Where runs execute: in this process, in worker processes, on a Ray cluster, on Slurm."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.launch.launchers import (
    LOCAL,
    Assignment,
    Launcher,
    LocalLauncher,
    RayLauncher,
    SlurmLauncher,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from bench.store import Store
    from bench.studies.request import RunRequest
    from bench.system.signals import Stop
    from bench.training.resources import Resources
    from bench.training.run import OnEvent

__all__ = ["Launcher", "LocalLauncher", "RayLauncher", "SlurmLauncher", "launch"]


def launch(
    requests: Sequence[RunRequest],
    store: Store,
    resources: Resources,
    *,
    workers: int,
    stop: Stop,
    on_event: OnEvent,
    weights: Path | None = None,
    launcher: Launcher = LOCAL,
) -> None:
    """Do every run of *requests*, *workers* at a time.

    Each run's outcome, a failure included, stands in *store* afterwards.

    Raises:
        BenchError: the launcher cannot be used, with the reason.
        StopRequestedError: a signal asked to stop; every run begun has a checkpoint.
        StorageError: the results folder cannot be written.
    """
    if requests:
        launcher.run(Assignment(requests, store, resources, workers, stop, on_event, weights))
