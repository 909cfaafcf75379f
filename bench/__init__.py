"""bench: what a design choice in a residual network buys, and what it costs once deployed.

Attributes are imported when they are first used, so that `import bench` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bench.ablation import run_study, train
    from bench.derivatives.profile import gradients
    from bench.errors import BenchError
    from bench.export.pipeline import export_onnx
    from bench.growth.grow import grow
    from bench.landscapes.landscape import landscape
    from bench.lesions.lesion import lesion
    from bench.measure.measurement import measure
    from bench.report.frames import load_results
    from bench.report.notebook import Report
    from bench.trained import load_model

_room = Path(__file__).parent
if not (_room / "models").is_dir() and (_room.parent / "models" / "config.py").is_file():
    # A clone, and Python was started in it: it finds this folder before the installed
    # package, and bench.models and bench.ablations beside it.
    __path__.append(str(_room.parent))

_HOMES = {
    "BenchError": "bench.errors",
    "Report": "bench.report.notebook",
    "export_onnx": "bench.export.pipeline",
    "gradients": "bench.derivatives.profile",
    "grow": "bench.growth.grow",
    "landscape": "bench.landscapes.landscape",
    "lesion": "bench.lesions.lesion",
    "load_model": "bench.trained",
    "load_results": "bench.report.frames",
    "measure": "bench.measure.measurement",
    "run_study": "bench.ablation",
    "train": "bench.ablation",
}

__all__ = [
    "BenchError",
    "Report",
    "export_onnx",
    "gradients",
    "grow",
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
