"""A few GPUs by name, for estimates: peaks of their vendor's data sheets, nothing measured here."""

from __future__ import annotations

from bench.errors import BenchError, nearest
from bench.launch.planning import Machine

# Dense bf16 (fp16 for the T4) with float32 sums, and memory bandwidth.
_PEAKS = {
    "T4": (65e12, 320e9),
    "RTX4090": (165.2e12, 1008e9),
    "A100": (312e12, 2039e9),  # SXM, 80 GB
    "H100": (989.4e12, 3350e9),  # SXM
}
DEFAULT_GPU = "A100"


def gpu(name: str) -> Machine:
    """Return a GPU as a machine of one worker, for the roofline.

    Raises:
        BenchError: the name is not known here.
    """
    if name not in _PEAKS:
        raise BenchError(
            f"--gpu {name}: not known here{nearest(name, _PEAKS)} (known: {', '.join(_PEAKS)}); "
            "for another, 'bench plan --machines FILE' takes its peaks"
        )
    flops, bandwidth = _PEAKS[name]
    return Machine(name=name, flops_per_second=flops, bytes_per_second=bandwidth)
