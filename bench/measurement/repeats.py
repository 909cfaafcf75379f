"""How far a configuration's speed lies from that of other measurements here.

A machine's speed changes more slowly than a measurement takes: with its clock, its temperature, and
what else the host of a virtual machine does. No interval of one measurement contains that, however
many processes it is over. Earlier measurements of the same configuration do.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from bench.system.intervals import FEWEST_PROCESSES, repeat_interval
from bench.system.processor_use import too_busy

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from bench.store.measurements import MeasurementRecord

# Columns that are equal in two measurements of one configuration.
CONFIGURATION = (
    *("model", "options", "run", "device", "cpu", "gpu", "batch_size", "input_shape", "threads"),
    *("boundary", "scenario", "latency_bound_ms", "streams", "backend", "precision"),
    *("memory_format", "timing"),
)
FEWEST_MEASUREMENTS = 3  # an interval of two would be eighteen times as wide as they differ
RUNTIMES = (
    *("onnxruntime-gpu", "onnxruntime", "openvino", "tensorrt", "tensorrt-cu12", "tensorrt-cu13"),
    "tensorrt-rtx",
)
_VERSIONS = ("bench", "torch", *RUNTIMES, "numpy", "python", "cuda", "cudnn", "driver")


def circumstances(environment: Mapping[str, Any], row: Mapping[str, Any]) -> dict[str, Any]:
    """Return what may change the speed of a configuration: commit, versions, network, threads."""
    commit = str(environment.get("git_commit") or "")[:8]
    changed = " with changes" if commit and environment.get("git_dirty") else ""
    versions = {name: environment.get(name) for name in _VERSIONS if environment.get(name)}
    file = str(row.get("file_sha256") or "")[:8]
    return {
        "commit": commit + changed, **versions, "file": file,
        "multiply-adds": row.get("macs"), "threads": environment.get("threads"),
    }  # fmt: skip


def add_repeats(
    rows: Sequence[dict[str, Any]],
    environment: Mapping[str, Any],
    earlier: Iterable[MeasurementRecord],
) -> None:
    """Add `repeat_count`, `repeat_low` and `repeat_high` to the rows of a measurement.

    Only measurements under the same circumstances count, over enough processes, and while other
    programs left the machine alone. With changes that are not committed none counts.

    Args:
        rows: of the `throughput` table.
        environment: in which they were measured.
        earlier: the measurements of the same results folder.
    """
    if environment.get("git_commit") and environment.get("git_dirty"):
        return
    speeds: dict[str, list[float]] = defaultdict(list)
    for record in earlier:
        for row in filter(counts, record.rows):
            speeds[_key(record.environment, row)].append(row["images_per_second"])
    for row in filter(counts, rows):
        known = speeds[_key(environment, row)]
        if len(known) + 1 >= FEWEST_MEASUREMENTS:
            value, low, high = (row[name] for name in ("images_per_second", "ci_low", "ci_high"))
            row["repeat_low"], row["repeat_high"] = repeat_interval((value, low, high), known)
            row["repeat_count"] = len(known) + 1


def counts(row: Mapping[str, Any]) -> bool:
    """Return whether a row can stand beside other measurements: complete, undisturbed, enough."""
    complete = row["status"] == "complete" and row.get("images_per_second")
    enough = (row.get("processes") or 1) >= FEWEST_PROCESSES
    return bool(complete and enough and too_busy(row.get("other_processes")) is None)


def _key(environment: Mapping[str, Any], row: Mapping[str, Any]) -> str:
    return repr((circumstances(environment, row), [row.get(name) for name in CONFIGURATION]))
