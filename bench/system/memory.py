"""Memory: what training keeps of it, and how it is told that it ran out.

A training step frees its activations and the next one allocates the same sizes again. By
default glibc returns such blocks to the system, which clears every page once more when it is
touched again: a tenth of a CPU training step of a ResNet goes there.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import platform
import re
from pathlib import Path

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
_LARGEST_KEPT = 1 << 30

_REFUSALS = (
    "allocate memory",  # PyTorch on Linux, ONNX Runtime
    "not enough memory",  # PyTorch on Windows
    "out of memory",  # CUDA, MPS
)
# oneDNN says this of whatever it could not set up, scratch memory among it.
_AMBIGUOUS = ("could not create a primitive", "could not create a memory")
_SCARCE_BYTES = 1 << 30


@functools.cache
def keep_freed_memory() -> bool:
    """Let this process keep freed blocks of up to 1 GiB; returns whether it does.

    Only glibc can be asked (mallopt(3)); elsewhere nothing happens.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(_M_MMAP_THRESHOLD, _LARGEST_KEPT) and mallopt(_M_TRIM_THRESHOLD, 2**31 - 1))


def ask_for_large_pages() -> None:
    """Let torch put large tensors on transparent huge pages, where Linux offers them.

    To be called before torch is imported; processes started afterwards have it too.
    A person's own setting of the variable stands.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")


def refused(text: str) -> bool:
    """Whether an error's text says that memory was asked for and not given."""
    text = text.lower()
    if any(words in text for words in _AMBIGUOUS):
        return memory_left() < _SCARCE_BYTES
    return any(words in text for words in _REFUSALS)


def memory_left() -> int:
    """Bytes that this process may still take, of its own limits and of the machine."""
    import psutil

    left = int(psutil.virtual_memory().available)
    with contextlib.suppress(ImportError, OSError):  # Windows has neither
        import resource

        used = psutil.Process().memory_info()
        for kind, taken in ((resource.RLIMIT_AS, used.vms), (resource.RLIMIT_DATA, used.data)):
            limit = resource.getrlimit(kind)[0]
            if limit != resource.RLIM_INFINITY:
                left = min(left, max(0, limit - taken))
    return left


def out_of_memory_kills() -> int:
    """How often the kernel ended a process for memory since start-up (Linux; 0 elsewhere)."""
    with contextlib.suppress(OSError):
        found = re.search(r"^oom_kill (\d+)", Path("/proc/vmstat").read_text(), re.MULTILINE)
        return int(found.group(1)) if found else 0
    return 0


def go_first() -> None:
    """Let the kernel end this process, and not its parent, when memory runs out (Linux)."""
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
