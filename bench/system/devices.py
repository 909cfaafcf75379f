"""The requested device, and the number of usable CPU cores."""

from __future__ import annotations

import os
import re
import sys
from collections import Counter
from typing import TYPE_CHECKING

import psutil

from bench.errors import BenchError
from bench.system.control_groups import group_folders, read_line

if TYPE_CHECKING:
    from collections.abc import Iterable

    import torch

# With more processes or threads per core they only take turns and fill the memory.
MOST_PER_CORE = 4


def resolve_device(name: str) -> torch.device:
    """Return the device called *name*: auto, cpu, cuda, cuda:N or mps.

    Raises:
        BenchError: the name is unknown or the device cannot be used, with the reason;
            another device is never used in its place.
    """
    import torch

    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    if not re.fullmatch(r"cpu|cuda(:[0-9]{1,9})?|mps", name):
        raise BenchError(f"unknown device '{name}': use auto, cpu, cuda, cuda:N or mps")
    kind, _, index = name.partition(":")
    if kind == "cuda":
        _require_cuda(name, int(index or 0))
    if kind == "mps" and not torch.backends.mps.is_available():
        raise BenchError("--device mps: this torch finds no Apple GPU; use --device cpu")
    return torch.device(name)


def _require_cuda(name: str, index: int) -> None:
    import torch

    if torch.version.cuda is None:
        raise BenchError(
            f"--device {name}: this torch {torch.__version__} is built without CUDA; "
            "install a CUDA build of torch, or use --device cpu"
        )
    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]
    except (RuntimeError, AssertionError) as error:
        reason = str(error).split("\n")[0].split(". ")[0].rstrip(".")
        raise BenchError(
            f"--device {name}: CUDA cannot run here: {reason}; use --device cpu"
        ) from None
    if index >= torch.cuda.device_count():
        raise BenchError(
            f"--device {name}: this machine has {torch.cuda.device_count()} CUDA device(s), "
            "numbered from 0"
        )


def usable_processors() -> set[int] | None:
    """Return the logical processors that this process may use; None where that is not known."""
    usable: set[int] | None = None
    if sys.platform == "linux":
        usable = os.sched_getaffinity(0)
    return usable


def physical_cores() -> int:
    """Return the number of physical cores that this process may use.

    CPU affinity, the cgroup quota and simultaneous multithreading are taken into account.
    """
    usable = usable_processors()
    if usable is None:
        cores = psutil.cpu_count(logical=False) or os.cpu_count() or 1
    else:
        known = {core for core in map(_core, usable) if core}
        cores = len(known) or max(1, len(usable) // _threads_per_core())
    quota = _cgroup_cores()
    return cores if quota is None else max(1, min(cores, int(quota)))


def _threads_per_core() -> int:
    """Return the hardware threads of a core, where Linux does not list them; 1 if not known."""
    threads = os.cpu_count() or 1
    return max(1, threads // (psutil.cpu_count(logical=False) or threads))


def by_core(processors: Iterable[int]) -> list[int]:
    """Order logical processors: one of each core first, then the second ones of all cores.

    Linux numbers those of one core next to each other, or half of all numbers apart.
    """
    counted: Counter[str] = Counter()
    ranks = []
    for number in sorted(processors):
        core = _core(number) or str(number)
        ranks.append((counted[core], number))
        counted[core] += 1
    return [number for _, number in sorted(ranks)]


def _core(processor: int) -> str:
    """Return the list of a core's hardware threads, one of which is given; empty if not known."""
    folder = f"/sys/devices/system/cpu/cpu{processor}/topology"
    of_core = read_line(f"{folder}/core_cpus_list")
    return of_core or read_line(f"{folder}/thread_siblings_list") or ""  # its older name


def default_threads() -> int:
    """Return the threads of a process that computes alone: its cores, at most `OMP_NUM_THREADS`."""
    outermost = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    wanted = int(outermost) if outermost.isdecimal() else 0
    return min(physical_cores(), wanted or physical_cores())


def check_count(option: str, count: int | None, places: int, kind: str) -> None:
    """Check a number of workers or threads against what this machine can use.

    Raises:
        BenchError: the number is out of range; the message names the option and the range.
    """
    most = MOST_PER_CORE * places
    if count is not None and not 1 <= count <= most:
        raise BenchError(
            f"{option} {count}: this machine has {places} {kind}{'s' * (places > 1)} for it; "
            f"use 1 to {most}, or leave {option} out for what suits the machine"
        )


def _cgroup_cores() -> float | None:
    """Return the cores that the CPU quota of the process's control groups grants; None without one.

    The smallest of its group and those above it counts.
    """
    granted = []
    for unified, folder in group_folders("cpu"):
        if unified:
            limits = (read_line(f"{folder}/cpu.max") or "max").split()
        else:
            limits = [read_line(f"{folder}/cpu.cfs_{n}_us") or "max" for n in ("quota", "period")]
        granted.append(_cores(*limits))
    return min((cores for cores in granted if cores is not None), default=None)


def _cores(quota: str, period: str = "100000") -> float | None:
    return int(quota) / int(period) if quota.isdigit() and period.isdigit() else None
