"""The control groups of this process (Linux), which bound what a container or a job may use."""

from __future__ import annotations

from pathlib import Path, PurePosixPath


def group_folders(controller: str) -> list[tuple[int, str]]:
    """Return version and folder of the process's group and those above it, for a controller.

    A container may show its own group as the root, so that also the root's files are read.
    """
    folders: list[tuple[int, str]] = []
    for line in (read_line("/proc/self/cgroup") or "0::/").splitlines():
        _, controllers, path = line.split(":", 2)
        groups = [g.rstrip("/") for g in (path, *map(str, PurePosixPath(path).parents), "/")]
        if not controllers:
            folders += [(2, f"/sys/fs/cgroup{group}") for group in groups]
        elif controller in controllers.split(","):
            names = dict.fromkeys((controllers, controller))
            folders += [(1, f"/sys/fs/cgroup/{name}{group}") for name in names for group in groups]
    return folders


def read_line(file: str) -> str | None:
    """Return what a file of the kernel holds; None if it cannot be read."""
    try:
        return Path(file).read_text().strip()
    except OSError:
        return None
