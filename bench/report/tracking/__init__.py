"""Runs shown in TensorBoard and MLflow, beside the results folder, which remains the only record.

What is logged is read back from the results folder by the process that was started, after each
run and at the end. So a run is logged in the same way wherever it executed (in this process, a
worker, a Ray task, a Slurm job), a tracker cannot disturb training, and whatever was not logged,
because a tracker failed or was not requested, is logged by the next call.
"""

from __future__ import annotations

from bench.report.tracking.session import check_trackers, tracked

__all__ = ["check_trackers", "tracked"]
