"""The environment that a result was made in: versions, processor, GPU, commit."""

from __future__ import annotations

import contextlib
import functools
import platform
import re
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

_DRIVER_FILE = Path("/proc/driver/nvidia/version")

# Instruction sets that affect a network's speed or the last bits of its output.
INSTRUCTION_SETS = (
    "avx",
    "avx2",
    "fma",
    "avx512f",
    "avx512_vnni",
    "avx_vnni",
    "avx512_bf16",
    "amx_bf16",
    "amx_int8",
    "neon",
    "asimd",
    "sve",
    "bf16",
    "i8mm",
)


@functools.cache
def processor() -> tuple[str, tuple[str, ...]]:
    """Return the processor's model name and those of `INSTRUCTION_SETS` that it has."""
    import cpuinfo

    info = cpuinfo.get_cpu_info()
    flags = set(info.get("flags", ()))
    name = info.get("brand_raw") or platform.processor() or platform.machine()
    return str(name), tuple(
        s for s in INSTRUCTION_SETS if s in flags or s.replace("_", "") in flags
    )


def version_of(package: str) -> str | None:
    """Return the version of an installed distribution; None if it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


@functools.cache
def git_state() -> tuple[str | None, bool | None]:
    """Return the commit of the current folder's repository, and whether it has local changes.

    Both are None outside a repository.
    """
    try:
        commit = _output_of("git", "rev-parse", "HEAD")
        return commit, bool(_output_of("git", "status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.SubprocessError):
        return None, None


def _output_of(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)  # noqa: S603 - fixed words
    return done.stdout.strip()


def describe_environment(device: Any, *, threads: int) -> dict[str, Any]:
    """Return the environment of a run on *device* with *threads* CPU threads, for its record."""
    import torch

    cpu, instruction_sets = processor()
    commit, dirty = git_state()
    described: dict[str, Any] = {
        "bench": version_of("resnet-bench"),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": version_of("numpy"),
        "platform": platform.platform(),
        "cpu": cpu,
        "instruction_sets": list(instruction_sets),
        "torch_cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "device": str(device),
        "threads": threads,
        "git_commit": commit,
        "git_dirty": dirty,
    }
    if torch.device(device).type == "cuda":
        described |= {
            "gpu": torch.cuda.get_device_name(device),
            "compute_capability": ".".join(map(str, torch.cuda.get_device_capability(device))),
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
            "driver": _nvidia_driver(),
        }
    return described


@functools.cache
def _nvidia_driver() -> str | None:
    """Return the driver's version, from Linux' file: starting `nvidia-smi` can take a second."""
    with contextlib.suppress(OSError):
        found = re.search(r"Kernel Module.*?\s(\d+(?:\.\d+)+)\s", _DRIVER_FILE.read_text())
        if found is not None:
            return found[1]
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        query = _output_of("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
        return query.splitlines()[0].strip()
    return None


# What two environments must share for their results to be comparable without a warning.
COMPARED = ("torch", "instruction_sets", "device_kind", "gpu")


def differences(recorded: dict[str, Any], here: dict[str, Any]) -> list[str]:
    """Return the differences between two environments that may change results, one per line."""

    def comparable(environment: dict[str, Any]) -> dict[str, Any]:
        kind = str(environment.get("device", "cpu")).partition(":")[0]
        return {**environment, "device_kind": kind}

    a, b = comparable(recorded), comparable(here)
    return [
        f"{key.replace('_', ' ')} {_text(a.get(key))} then, {_text(b.get(key))} now"
        for key in COMPARED
        if a.get(key) != b.get(key)
    ]


def _text(value: Any) -> str:
    return "+".join(value) if isinstance(value, list | tuple) else str(value)
