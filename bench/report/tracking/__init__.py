"""Log runs to TensorBoard and MLflow, in addition to the results folder.

`tracked` wraps the function that receives a study's events: after each run, and at the end, it
reads the runs from the results folder (`records`) and hands them to each tracker (`tensorboard`,
`mlflow`). So a run is logged in the same way wherever it executed (in this process, a worker, a
Ray task, a Slurm job), a tracker cannot disturb training, and what was not logged, because a
tracker failed or was not requested, is logged by the next call. `names` checks the trackers'
names.
"""

from __future__ import annotations

from bench.report.tracking.names import TRACKERS, check_trackers
from bench.report.tracking.session import tracked

__all__ = ["TRACKERS", "check_trackers", "tracked"]
