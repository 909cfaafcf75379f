"""Paths of a network's modules, such as `layer1.0.conv1`; without torch, for reports."""

from __future__ import annotations

import re

_BLOCK = re.compile(r"[^.]+(\.\d+)?")


def block_of(path: str) -> str:
    """Return the block that a module lies in: layer1.0 for layer1.0.conv1."""
    found = _BLOCK.match(path)
    return found[0] if found else path
