"""Memory of the process: allocator settings, free memory, and out-of-memory errors.

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
import sys
from pathlib import Path

if sys.platform != "win32":
    import resource

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
_LARGEST_KEPT = 1 << 30

_REFUSALS = (
    "allocate memory",  # PyTorch on Linux, ONNX Runtime
    "not enough memory",  # PyTorch on Windows
    "out of memory",  # CUDA, MPS
)
# oneDNN reports any failed set-up like this, not only a failed allocation.
_AMBIGUOUS = ("could not create a primitive", "could not create a memory")
_SCARCE_BYTES = 1 << 30


@functools.cache
def keep_freed_memory() -> bool:
    """Make the allocator keep freed blocks of up to 1 GiB; returns whether it does.

    Only glibc has this setting (mallopt(3)); elsewhere this does nothing.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(_M_MMAP_THRESHOLD, _LARGEST_KEPT) and mallopt(_M_TRIM_THRESHOLD, 2**31 - 1))


def enable_huge_pages() -> None:
    """Let torch allocate large tensors on transparent huge pages, where Linux offers them.

    Call this before torch is imported; child processes inherit it. An existing setting of the
    environment variable is kept.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")


def says_out_of_memory(text: str) -> bool:
    """Return whether an error message reports a failed allocation."""
    text = text.lower()
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
        used = psutil.Process().memory_info()
        for kind, taken in ((resource.RLIMIT_AS, used.vms), (resource.RLIMIT_DATA, used.data)):
            limit = resource.getrlimit(kind)[0]
            if limit != resource.RLIM_INFINITY:
                left = min(left, max(0, limit - taken))
    return left


def out_of_memory_kills() -> int:
    """Return how many processes the kernel has killed for memory since boot (0 if not Linux)."""
    with contextlib.suppress(OSError):
        found = re.search(r"^oom_kill (\d+)", Path("/proc/vmstat").read_text(), re.MULTILINE)
        return int(found.group(1)) if found else 0
    return 0


def be_killed_first() -> None:
    """Let the kernel kill this process rather than its parent if memory runs out (Linux)."""
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
