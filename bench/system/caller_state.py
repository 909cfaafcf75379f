"""Leave the calling process as it was: PyTorch's settings and all global random numbers."""

from __future__ import annotations

import contextlib
import random
import warnings
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def caller_state() -> Iterator[None]:
    """Restore threads, random states, arithmetic settings and the GPU of the caller.

    It is also a decorator.
    """
    import numpy as np
    import torch

    threads, dtype = torch.get_num_threads(), torch.get_default_dtype()
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    cudnn: Any = torch.backends.cudnn  # mypy does not find its parts
    flags = cudnn.benchmark, cudnn.deterministic
    # Reading `allow_tf32` raises after a program has used `fp32_precision`.
    parts = (cudnn.conv, cudnn.rnn, torch.backends.cuda.matmul)
    float32 = [part.fp32_precision for part in parts]
    grad, wording = torch.is_grad_enabled(), warnings.formatwarning
    plain, numbers = random.getstate(), np.random.get_state()  # noqa: NPY002 - the caller's
    used = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    gpus = range(torch.cuda.device_count()) if used else ()
    current = torch.cuda.current_device() if used else None
    try:
        with torch.random.fork_rng(list(gpus)):
            yield
    finally:
        if current is not None:
            torch.cuda.set_device(current)
        random.setstate(plain)
        np.random.set_state(numbers)  # noqa: NPY002
        warnings.formatwarning = wording
        torch.set_grad_enabled(grad)
        cudnn.benchmark, cudnn.deterministic = flags
        for part, precision in zip(parts, float32, strict=True):
            part.fp32_precision = precision
        torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
        torch.set_default_dtype(dtype)
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
