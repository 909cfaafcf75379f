"""The properties written into a file, and the environment written into its record."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from bench.system.environment import describe_environment, version_of

if TYPE_CHECKING:
    from bench.data import Preprocessing
    from bench.export.settings import Settings
    from bench.targets.network import LoadedNetwork


def properties(source: LoadedNetwork, settings: Settings) -> dict[str, str]:
    """Return the metadata of a file: what it is, how it is fed, and what made it."""
    values: dict[str, Any] = {
        "model": source.model_name,
        "options": source.options,
        "run": source.run,
        "precision": settings.precision,
        "with_preprocessing": settings.with_preprocessing,
        "input_shape": source.input_shape,
        "bench_version": version_of("resnet-bench"),
    }
    if source.trained is not None and source.preprocessing is not None:
        values |= {
            "run_hash": source.trained.request.hash,
            "dataset": source.trained.request.dataset,
            "classes": source.classes,
            **preparation(source.preprocessing),
            # Of the training: that of the current folder would make files differ by folder.
            "git_commit": source.trained.record.environment.get("git_commit"),
        }
    return as_text(values)


def preparation(made: Preprocessing) -> dict[str, Any]:
    """Return the properties that say how images are prepared for a file."""
    return {
        "mean": made.mean,
        "std": made.std,
        "antialias": made.antialias,
        "normalize": made.normalize,
        "image_size": made.image_size,
        "resize": made.resize,
    }


def as_text(values: dict[str, Any]) -> dict[str, str]:
    """Return properties as a file stores them: text as it is, else JSON; None is left out."""
    return {
        key: value if isinstance(value, str) else json.dumps(value, sort_keys=True)
        for key, value in values.items()
        if value is not None
    }


def environment(threads: int) -> dict[str, Any]:
    """Describe this machine and what exports with."""
    versions = {name: version_of(name) for name in ("onnx", "onnxscript")}
    runtime = version_of("onnxruntime-gpu") or version_of("onnxruntime")
    return describe_environment("cpu", threads=threads) | versions | {"onnxruntime": runtime}
