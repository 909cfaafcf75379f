"""A fault in native code of a user's network or data ends a command, but never silently."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import save_file

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from conftest import Outcome

FAULTY = """
import ctypes, os

from torch import nn


class Faulty(nn.Module):
    def __init__(self, num_classes, in_channels):
        super().__init__()
        self.fc = nn.Linear(in_channels, num_classes)

    def forward(self, x):
        ctypes.string_at(0)  # line 13


def net(num_classes, in_channels):
    return Faulty(num_classes, in_channels)


def dataset():
    os.abort()  # line 21
"""
IMPORT = (
    "import", "faulty:net", "--weights", "faulty.safetensors", "--dataset", "fashion-mnist-mini",
)  # fmt: skip
FORWARD = "ended by SIGSEGV (a fault in native code: a library, or an extension of the network)"
LOADING = "ended by SIGABRT (a fault in native code: a library, or an extension of the network)"


@pytest.fixture
def faulty(tmp_path: Path) -> Path:
    """A module of the user's, and weights of its network."""
    (tmp_path / "faulty.py").write_text(FAULTY)
    weights = {"fc.weight": torch.zeros(10, 1), "fc.bias": torch.zeros(10)}
    save_file(weights, tmp_path / "faulty.safetensors")
    return tmp_path


@pytest.mark.parametrize(
    ("words", "number", "reason", "place"),
    [
        (IMPORT, signal.SIGSEGV, FORWARD, "line 13 of {}/faulty.py (forward)"),
        (
            ("train", "resnet8", "--dataset", "faulty:dataset"), signal.SIGABRT, LOADING,
            "line 21 of {}/faulty.py (dataset)",
        ),
    ],
    ids=["import", "train"],
)  # fmt: skip
def test_one_line_names_the_signal_and_the_line_of_the_users_code(
    bench_process: Callable[..., Outcome],
    faulty: Path,
    words: tuple[str, ...],
    number: int,
    reason: str,
    place: str,
) -> None:
    ended = bench_process(*words, "--quiet", "--device", "cpu", "--json")
    assert ended.code == -number  # 128 + number in a shell
    line = f"the command was {reason}, in {place.format(faulty)}"
    assert ended.err == f"bench: error: {line}\n"
    assert json.loads(ended.out) == {"schema": 1, "rows": [], "errors": [{"error": line}]}
