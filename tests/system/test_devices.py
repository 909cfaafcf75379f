"""Devices: what was asked for, or an error that says why not; never another one."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
import torch

from bench.errors import BenchError
from bench.system.devices import physical_cores, resolve_device

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import Any

without_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")


def test_the_cpu_is_always_there() -> None:
    assert resolve_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize(
    "name",
    ["gpu", "", "cpu:0", "cpu:", "cuda:", "cuda:x", "cuda:-1", "cuda:²", "mps:0", "CPU"],
)
def test_an_unknown_device_is_refused(name: str) -> None:
    with pytest.raises(
        BenchError, match=r"unknown device '.*': use auto, cpu, cuda, cuda:N or mps"
    ):
        resolve_device(name)


@without_gpu
@pytest.mark.parametrize("name", ["cuda", "cuda:0", "cuda:3"])
def test_a_gpu_that_is_not_there_is_refused_with_torchs_reason(name: str) -> None:
    with pytest.raises(BenchError) as refusal:
        resolve_device(name)
    message = str(refusal.value)
    assert message.startswith(f"--device {name}: ")
    assert message.endswith("use --device cpu")
    assert "\n" not in message
    with pytest.raises((RuntimeError, AssertionError)) as reason:
        torch.cuda.init()
    if torch.version.cuda is not None:
        assert str(reason.value).split(". ")[0].split("\n")[0].rstrip(".") in message


@pytest.mark.gpu
def test_a_gpu_beyond_the_last_is_refused() -> None:
    count = torch.cuda.device_count()
    assert resolve_device(f"cuda:{count - 1}").index == count - 1
    with pytest.raises(BenchError, match=rf"--device cuda:{count}: this machine has {count} CUDA"):
        resolve_device(f"cuda:{count}")


@without_gpu
@pytest.mark.parametrize("command", [("train", "resnet8"), ("run-ablation", "depth")])
def test_no_command_falls_back_to_the_cpu(
    command: tuple[str, ...], bench: Callable[..., Any], tmp_path: Path
) -> None:
    message = bench(*command, "--device", "cuda").refusal
    assert message.startswith("--device cuda: ")
    assert not (tmp_path / "bench-runs").exists()


def test_the_cores_are_those_that_this_process_may_use() -> None:
    allowed = os.sched_getaffinity(0)
    assert 1 <= physical_cores() <= len(allowed)
    try:
        os.sched_setaffinity(0, {min(allowed)})
        assert physical_cores() == 1
    finally:
        os.sched_setaffinity(0, allowed)
