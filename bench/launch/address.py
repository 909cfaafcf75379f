"""Check that a Ray cluster answers at an address, before anything heavy is imported."""

from __future__ import annotations

import functools
import importlib.util
import os
import socket
import subprocess
import sys

from bench.errors import BenchError

# Together with the program's own start these stay below 15 seconds, the longest that a dead
# address may take to be reported.
_CONNECT_SECONDS = 3
_ANSWER_SECONDS = 10
_PROBE = "import sys, ray; ray.init(sys.argv[1], log_to_driver=False, logging_level='ERROR')"


def require_ray() -> None:
    """Check that Ray is installed, and switch its usage statistics off."""
    if importlib.util.find_spec("ray") is None:
        raise BenchError("--launcher ray needs Ray: pip install 'resnet-bench[ray]'")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")


@functools.cache
def require_answer(address: str) -> None:
    """Check that a Ray cluster answers at an address; `ray.init` itself may wait for minutes.

    One that answered is not checked again.

    Raises:
        BenchError: it is no address, or nothing answers there within 13 seconds.
    """
    require_ray()
    option = f"--ray-address {address}"
    if address != "auto":
        host, _, port = address.removeprefix("ray://").rpartition(":")
        if not host or not port.isdecimal():
            raise BenchError(f"{option}: write it as HOST:PORT, such as 10.0.0.1:6379, or auto")
        try:
            socket.create_connection((host, int(port)), timeout=_CONNECT_SECONDS).close()
        except (OSError, OverflowError, ValueError) as error:
            raise BenchError(
                f"{option}: nothing answers there ({error}); start a cluster with "
                "'ray start --head', or leave --ray-address out for one on this machine"
            ) from None
    command = [sys.executable, "-P", "-c", _PROBE, address]
    try:
        subprocess.run(command, check=True, capture_output=True, timeout=_ANSWER_SECONDS)  # noqa: S603 - fixed arguments
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
        raise BenchError(
            f"{option}: no Ray cluster of this Ray and Python version answers there; "
            "look with 'ray status', and compare 'ray --version' on both sides"
        ) from None
