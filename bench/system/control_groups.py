"""The control groups of this process (Linux), which bound what a container or a job may use."""

from __future__ import annotations

from pathlib import Path, PurePosixPath


def group_folders(controller: str) -> list[tuple[bool, str]]:
    """Return the folders of the process's group and those above it, for a controller.

    Each comes with whether it belongs to the unified hierarchy (version 2). A container may show
    its own group as the root, so that also the root's files are read.
    """
    folders: list[tuple[bool, str]] = []
    for line in (read_line("/proc/self/cgroup") or "0::/").splitlines():
        _, controllers, path = line.split(":", 2)
        groups = [g.rstrip("/") for g in (path, *map(str, PurePosixPath(path).parents), "/")]
        if not controllers:
            folders += [(True, f"/sys/fs/cgroup{group}") for group in groups]
        elif controller in controllers.split(","):
            names = dict.fromkeys((controllers, controller))
            folders += [
                (False, f"/sys/fs/cgroup/{name}{group}") for name in names for group in groups
            ]
    return folders


def read_line(file: str) -> str | None:
    """Return what a file of the kernel holds; None if it cannot be read."""
    try:
        return Path(file).read_text().strip()
    except OSError:
        return None
