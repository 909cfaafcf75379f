"""Where runs execute: in this process, or in worker processes of this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.training.run import OnEvent, Resources, execute

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from bench.request import RunRequest
    from bench.stopping import Stop
    from bench.store import Store


def launch(
    requests: Sequence[RunRequest],
    store: Store,
    resources: Resources,
    *,
    workers: int,
    stop: Stop,
    on_event: OnEvent,
    weights: Path | None = None,
) -> None:
    """Do every run of *requests*, *workers* at a time.

    Each run's outcome, a failure included, stands in *store* afterwards.

    Raises:
        StopRequestedError: a signal asked to stop; every run begun has a checkpoint.
        StorageError: the results folder cannot be written.
    """
    if workers > 1 and len(requests) > 1:
        from bench.launch.processes import run_in_processes

        run_in_processes(
            requests, store, resources,
            workers=workers, stop=stop, on_event=on_event, weights=weights,
        )  # fmt: skip
        return
    for request in requests:
        stop.check()
        execute(request, store, resources, stop=stop, on_event=on_event, weights=weights)
