"""The launchers: where runs execute, and the names that `--launcher` takes for them."""

from __future__ import annotations

from typing import Any

from bench.errors import BenchError, nearest
from bench.launch.processes import LocalLauncher
from bench.launch.raytasks import RayLauncher
from bench.launch.slurm import SlurmLauncher

LAUNCHERS = ("local", "ray", "slurm")

Launcher = LocalLauncher | RayLauncher | SlurmLauncher


def make_launcher(
    name: str,
    *,
    ray_address: str | None = None,
    shared: bool = True,
    slurm_minutes: int | None = None,
    slurm: dict[str, Any] | None = None,
    timeout: float | None = None,
    announce: bool = False,
) -> Launcher:
    """Return the launcher called *name*, configured for the command line.

    Raises:
        BenchError: the name is unknown, or an option belongs to another launcher.
    """
    if name not in LAUNCHERS:
        raise BenchError(
            f"unknown launcher '{name}'{nearest(name, LAUNCHERS)} (known: {', '.join(LAUNCHERS)})"
        )
    if name != "ray" and (ray_address is not None or not shared):
        option = "--return-bytes" if ray_address is None else f"--ray-address {ray_address}"
        raise BenchError(f"{option}: it belongs to --launcher ray, but --launcher is {name}")
    if name != "slurm" and (slurm_minutes is not None or slurm):
        raise BenchError(f"--slurm-…: it belongs to --launcher slurm, but --launcher is {name}")
    if name != "local" and timeout is not None:
        raise BenchError(
            f"--timeout {timeout:g}: it belongs to --launcher local, but --launcher is {name}"
        )
    if name == "ray":
        return RayLauncher(address=ray_address, shared=shared)
    if name == "slurm":
        if slurm_minutes is not None and slurm_minutes < 1:
            raise BenchError(f"--slurm-minutes {slurm_minutes}: it must be at least 1")
        if "time" in (slurm or {}):
            raise BenchError("--slurm-option time: give the limit in minutes, as --slurm-minutes N")
        return SlurmLauncher(minutes=slurm_minutes or 60, parameters=slurm or {})
    if timeout is not None and not timeout > 0:  # a NaN is refused, too
        raise BenchError(f"--timeout {timeout:g}: seconds without progress, more than 0")
    return LocalLauncher(isolate=True, timeout=timeout, announce=announce)
