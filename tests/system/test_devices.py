"""Devices: what was asked for, or an error that says why not; never another one."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import psutil
import pytest
import torch

from bench.errors import BenchError
from bench.system import control_groups, devices
from bench.system.devices import by_core, default_threads, physical_cores, resolve_device
from bench.system.folders import cache_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from pathlib import Path
    from typing import Any

without_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
of_linux = pytest.mark.skipif(sys.platform != "linux", reason="affinities of Linux")


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


@pytest.mark.parametrize(
    ("siblings", "allowed", "order"),
    [
        (["0-1", "0-1", "2-3", "2-3", "4-5", "4-5"], range(6), [0, 2, 4, 1, 3, 5]),
        (["0-1", "0-1", "2-3", "2-3", "4-5", "4-5"], {2, 3, 5}, [2, 5, 3]),
        (["0,3", "1,4", "2,5", "0,3", "1,4", "2,5"], range(6), [0, 1, 2, 3, 4, 5]),
        ([], range(6), [0, 1, 2, 3, 4, 5]),  # the system does not tell
    ],
)
def test_each_core_has_one_processor_before_any_has_two(
    siblings: list[str],
    allowed: Collection[int],
    order: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = "/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"
    files = {folder.format(number): text for number, text in enumerate(siblings)}
    for module in (control_groups, devices):
        monkeypatch.setattr(module, "read_line", files.get)
    assert by_core(allowed) == order


@of_linux
@pytest.mark.parametrize(
    ("siblings", "allowed", "cores"),
    [
        (["0,4", "1,5", "2,6", "3,7"] * 2, range(8), 4),
        (
            ["0,4", "1,5", "2,6", "3,7"] * 2,
            {0, 1, 2},
            3,
        ),  # one of each core, as with taskset -c 0-2
        (["0,4", "1,5", "2,6", "3,7"] * 2, {0, 4}, 1),
        (["0-1", "0-1", "2", "3"], range(4), 3),  # only some cores have two
        ([], range(6), 3),  # the system does not tell: psutil's number of threads to a core
        ([], {5}, 1),
    ],
)
def test_cores_are_counted_and_not_their_hardware_threads(
    siblings: list[str], allowed: Collection[int], cores: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = "/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"
    files = {folder.format(number): text for number, text in enumerate(siblings)}
    for module in (control_groups, devices):
        monkeypatch.setattr(module, "read_line", files.get)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(allowed))
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setattr(psutil, "cpu_count", lambda **_: 4)
    assert physical_cores() == cores


@of_linux
@pytest.mark.parametrize("known", [None, 16])
def test_where_nobody_knows_the_cores_each_processor_is_one(
    known: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a container on ARM without /sys; psutil may also count more than Python may use."""
    for module in (control_groups, devices):
        monkeypatch.setattr(module, "read_line", lambda _: None)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(6)))
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setattr(psutil, "cpu_count", lambda **_: known)
    assert physical_cores() == 6


@of_linux
def test_the_newer_name_of_a_core_s_threads_is_read_first(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = "/sys/devices/system/cpu/cpu{}/topology/"
    newer = {f"{folder.format(n)}core_cpus_list": "0-1" if n < 2 else "2-3" for n in range(4)}
    older = {f"{folder.format(n)}thread_siblings_list": str(n) for n in range(4)}
    files = older | newer
    for module in (control_groups, devices):
        monkeypatch.setattr(module, "read_line", files.get)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(4)))
    assert physical_cores() == 2


@pytest.mark.parametrize(
    ("value", "threads"),
    [(None, 8), ("3", 3), ("2,4", 2), ("16", 8), ("0", 8), ("", 8), ("many", 8)],
)
def test_omp_num_threads_is_the_most_by_default(
    value: str | None, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "physical_cores", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if value is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", value)
    assert default_threads() == threads


GROUP = "/sys/fs/cgroup"
QUOTAS = {
    "none": ({}, None),
    "version 2, the root of a container": ({f"{GROUP}/cpu.max": "150000 100000"}, 1.5),
    "version 2, without a limit": (
        {"/proc/self/cgroup": "0::/a", f"{GROUP}/a/cpu.max": "max 100000"},
        None,
    ),
    "version 2, a slice above": (
        {
            "/proc/self/cgroup": "0::/user.slice/run-1.scope",
            f"{GROUP}/user.slice/cpu.max": "100000 100000",
            f"{GROUP}/user.slice/run-1.scope/cpu.max": "300000 100000",
        },
        1,
    ),
    "version 1": (
        {
            "/proc/self/cgroup": "9:memory:/docker/x\n4:cpu,cpuacct:/docker/x",
            f"{GROUP}/cpu,cpuacct/docker/x/cpu.cfs_quota_us": "200000",
            f"{GROUP}/cpu,cpuacct/docker/x/cpu.cfs_period_us": "100000",
        },
        2,
    ),
    "version 1, the root of a container": (
        {
            "/proc/self/cgroup": "4:cpu,cpuacct:/docker/x",
            f"{GROUP}/cpu/cpu.cfs_quota_us": "50000",
            f"{GROUP}/cpu/cpu.cfs_period_us": "100000",
        },
        0.5,
    ),
    "version 1, without a limit": (
        {
            "/proc/self/cgroup": "4:cpu:/",
            f"{GROUP}/cpu/cpu.cfs_quota_us": "-1",
            f"{GROUP}/cpu/cpu.cfs_period_us": "100000",
        },
        None,
    ),
}


@pytest.mark.parametrize("layout", QUOTAS)
def test_a_quota_is_found_in_every_layout(layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    files, cores = QUOTAS[layout]
    for module in (control_groups, devices):
        monkeypatch.setattr(module, "read_line", files.get)
    assert devices._cgroup_cores() == cores
    assert physical_cores() >= 1


def test_a_user_without_name_and_home_has_a_cache_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def no_home(_name: str) -> str:
        raise RuntimeError("could not determine the home directory for '~/.cache'")

    monkeypatch.setattr("platformdirs.user_cache_dir", no_home)
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    assert cache_folder("bench") == tmp_path / f"bench-{os.getuid()}"
