"""bench: what a design choice in a residual network buys, and what it costs once deployed.

Attributes are imported when they are first used, so that `import bench` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bench.api import (
        export_onnx,
        gradients,
        grow,
        import_model,
        landscape,
        lesion,
        measure,
        run_study,
        train,
    )
    from bench.errors import BenchError, RunsFailedError
    from bench.report.pages.notebook import Report
    from bench.report.study_data import load_results
    from bench.targets.find import load_model

_room = Path(__file__).parent
if not (_room / "models").is_dir() and (_room.parent / "models" / "config.py").is_file():
    # A clone, and Python was started in it: it finds this folder before the installed
    # package, and bench.models and bench.ablations beside it.
    __path__.append(str(_room.parent))

_HOMES = {
    "BenchError": "bench.errors",
    "Report": "bench.report.pages.notebook",
    "RunsFailedError": "bench.errors",
    "export_onnx": "bench.api",
    "gradients": "bench.api",
    "grow": "bench.api",
    "import_model": "bench.api",
    "landscape": "bench.api",
    "lesion": "bench.api",
    "load_model": "bench.targets.find",
    "load_results": "bench.report.study_data",
    "measure": "bench.api",
    "run_study": "bench.api",
    "train": "bench.api",
}

__all__ = [
    "BenchError",
    "Report",
    "RunsFailedError",
    "export_onnx",
    "gradients",
    "grow",
    "import_model",
    "landscape",
    "lesion",
    "load_model",
    "load_results",
    "measure",
    "run_study",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'bench' has no attribute '{name}'")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
