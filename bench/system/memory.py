"""Memory of the process: allocator settings, free memory, out-of-memory errors and exits.

A training step frees its activations, and the next one allocates the same sizes again. By
default glibc returns such blocks to the system, which zeroes every page when it is used again:
a tenth of a ResNet's training step on a CPU.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import platform
import re
import signal
import sys
from pathlib import Path

from bench.system.control_groups import group_folders, read_line

if sys.platform != "win32":
    import resource

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
_LARGEST_KEPT = 1 << 30
_VERSION_1 = ("memory.limit_in_bytes", "memory.usage_in_bytes")  # of control groups

_REFUSALS = (
    "allocate memory",  # PyTorch on Linux, ONNX Runtime
    "not enough memory",  # PyTorch on Windows
    "out of memory",  # CUDA, MPS
)
# oneDNN reports any failed set-up like this, not only a failed allocation.
_AMBIGUOUS = ("could not create a primitive", "could not create a memory")
_SCARCE_BYTES = 1 << 30

_NATIVE = "a fault in native code: a library, or an extension of the network"
_CAUSES = {
    "SIGKILL": "by hand, or by a memory limit of a container or scheduler",
    "SIGTERM": "by hand, or by a scheduler",
    "SIGSEGV": _NATIVE,
    "SIGABRT": _NATIVE,
    "SIGFPE": _NATIVE,
    "SIGILL": "a library was built for a newer processor than this one",
    "SIGBUS": "a file in use was cut short, or a disk or /dev/shm is full",
    "SIGXCPU": "a limit of CPU time",
}


@functools.cache
def keep_freed_memory() -> None:
    """Make the allocator keep freed blocks of up to 1 GiB.

    Only glibc has this setting (mallopt(3)); elsewhere this does nothing.
    """
    if platform.libc_ver()[0] == "glibc":
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_THRESHOLD, _LARGEST_KEPT)
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


def enable_huge_pages() -> None:
    """Let torch allocate large tensors on transparent huge pages, where Linux offers them.

    Call this before torch is imported; child processes inherit it. An existing setting of the
    environment variable is kept.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error means that memory ran out, on the device or on the host."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # torch's too
        return True
    # PyTorch raises RuntimeError, other libraries errors of their own, Python none of its others.
    if not isinstance(error, RuntimeError) and type(error).__module__ == "builtins":
        return False
    text = str(error).lower()
    if any(words in text for words in _AMBIGUOUS):
        return memory_left() < _SCARCE_BYTES
    return any(words in text for words in _REFUSALS)


def memory_left() -> int:
    """Return the bytes that this process may still allocate, by its limits and the machine's."""
    import psutil

    left = int(psutil.virtual_memory().available)
    if sys.platform == "win32":  # has no such limits
        return left
    with contextlib.suppress(OSError):
        used = psutil.Process().memory_info()._asdict()  # macOS has no `data`
        for kind, name in ((resource.RLIMIT_AS, "vms"), (resource.RLIMIT_DATA, "data")):
            limit = resource.getrlimit(kind)[0]
            if limit != resource.RLIM_INFINITY:
                left = min(left, max(0, limit - used.get(name, 0)))
    groups = (_left_in_group(*place) for place in group_folders("memory"))
    return min([left, *(free for free in groups if free is not None)])


def _left_in_group(unified: bool, folder: str) -> int | None:
    """Return the bytes that a control group may still allocate; None without a limit."""
    names = ("memory.max", "memory.current") if unified else _VERSION_1
    most, used = (read_line(f"{folder}/{name}") or "" for name in names)
    if not (most.isdigit() and used.isdigit()):
        return None
    # Pages of files count as used, and are given up when memory is needed.
    total = "" if unified else "total_"
    stat = read_line(f"{folder}/memory.stat") or ""
    cached = re.findall(rf"^{total}(?:in)?active_file (\d+)$", stat, re.MULTILINE)
    return max(0, int(most) - int(used) + sum(map(int, cached)))


def out_of_memory_kills() -> int:
    """Return how many processes the kernel has killed for memory so far (0 if not Linux).

    They are those of this process's control group where it counts them, else the machine's.
    """
    for unified, folder in group_folders("memory"):
        events = read_line(f"{folder}/memory.events") if unified else None
        if found := re.search(r"^oom_kill (\d+)", events or "", re.MULTILINE):
            return int(found.group(1))
    with contextlib.suppress(OSError):
        found = re.search(r"^oom_kill (\d+)", Path("/proc/vmstat").read_text(), re.MULTILINE)
        return int(found.group(1)) if found else 0
    return 0


def describe_exit(code: int | None, kills: int, process: str) -> tuple[str, str]:
    """Return why a process ended that was not meant to: a status and one line.

    Args:
        code: its exit code; -N if signal N ended it.
        kills: `out_of_memory_kills` before it started.
        process: what the line calls it.

    Returns:
        `out_of_memory` or `failed`, and the reason.
    """
    if code is None or code >= 0:
        return "failed", f"{process} exited with code {code}"
    name = signal.Signals(-code).name
    if name == "SIGKILL" and out_of_memory_kills() > kills:  # which Windows has not
        return "out_of_memory", f"the kernel ended {process}: memory ran out"
    cause = f" ({_CAUSES[name]})" if name in _CAUSES else ""
    return "failed", f"{process} was ended by {name}{cause}"


def be_killed_first() -> None:
    """Let the kernel kill this process rather than its parent if memory runs out (Linux)."""
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
