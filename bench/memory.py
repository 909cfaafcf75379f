"""Memory that training keeps, instead of asking the system for it anew in every step.

A training step frees its activations and the next one allocates the same sizes again. By
default glibc returns such blocks to the system, which clears every page once more when it is
touched again: a tenth of a CPU training step of a ResNet goes there.
"""

from __future__ import annotations

import ctypes
import functools
import os
import platform

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
_LARGEST_KEPT = 1 << 30


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
