from __future__ import annotations

import subprocess
import sys
from collections import namedtuple

import pytest
import torch

from bench.system import control_groups, memory
from bench.system.memory import is_out_of_memory


class LibraryError(Exception):
    """As ONNX Runtime and others have."""


def test_what_counts_as_out_of_memory():
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA"))
    assert is_out_of_memory(LibraryError("[ONNXRuntimeError] : Failed to allocate memory for 9"))
    assert not is_out_of_memory(LibraryError("no such input"))
    assert is_out_of_memory(RuntimeError("DefaultCPUAllocator: not enough memory: you tried to"))
    assert is_out_of_memory(RuntimeError("MPS backend out of memory (MPS allocated: 9 GB"))
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not is_out_of_memory(ValueError("out of memory lane"))


STARVED = """
import resource
from pathlib import Path
from types import SimpleNamespace
import psutil
from bench.system import memory
from bench.system.memory import is_out_of_memory

# Only the limit counts, whatever else runs here.
psutil.virtual_memory = lambda: SimpleNamespace(available=8 << 30)
memory.group_folders = lambda _: ()
error = RuntimeError("could not create a primitive")
assert not is_out_of_memory(error)
taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (taken + 300_000_000, -1))
assert is_out_of_memory(error)
assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc for what is taken")
def test_onednn_that_gives_no_reason_is_out_of_memory_where_little_is_left():
    subprocess.run([sys.executable, "-c", STARVED], check=True)


@pytest.mark.skipif(sys.platform == "win32", reason="has no such limits")
def test_where_the_data_segment_is_unknown_memory_is_left(monkeypatch):
    """As on macOS."""
    info = namedtuple("pmem", "rss vms")(1, 1)
    monkeypatch.setattr("psutil.Process.memory_info", lambda _: info)
    assert memory.memory_left() > 0


GROUP = "/sys/fs/cgroup"


@pytest.mark.parametrize(
    ("files", "left"),
    [
        ({}, None),
        ({f"{GROUP}/memory.max": "max", f"{GROUP}/memory.current": "5"}, None),
        ({f"{GROUP}/memory.max": "1000", f"{GROUP}/memory.current": "400"}, 600),
        (
            {
                f"{GROUP}/memory.max": "1000",
                f"{GROUP}/memory.current": "900",
                f"{GROUP}/memory.stat": "anon 400\ninactive_file 300\nactive_file 200",
            },
            600,
        ),
        (
            {
                "/proc/self/cgroup": "4:memory:/slurm/job",
                f"{GROUP}/memory/slurm/memory.limit_in_bytes": "800",
                f"{GROUP}/memory/slurm/memory.usage_in_bytes": "500",
                f"{GROUP}/memory/slurm/memory.stat": "total_inactive_file 100\ninactive_file 7",
            },
            400,
        ),
    ],
)
def test_the_limit_of_a_container_or_job_bounds_the_memory(files, left, monkeypatch):
    """Pages of files are given up when memory is needed, so they are free."""
    for module in (control_groups, memory):
        monkeypatch.setattr(module, "read_line", files.get)
    found = memory.memory_left()
    assert found > 2**20 if left is None else found == left


@pytest.mark.parametrize(
    ("files", "kills"),
    [
        ({"own/memory.events": "oom 5\noom_kill 3\noom_group_kill 9"}, 3),
        ({"memory.events": "oom_kill 4"}, 4),  # a group above counts
        ({"own/memory.events": "oom_kill 0", "memory.events": "oom_kill 4"}, 0),
        ({}, None),  # the machine's
    ],
)
def test_kills_for_memory_are_those_of_the_own_group(tmp_path, monkeypatch, files, kills):
    (tmp_path / "own").mkdir()
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    groups = [(True, str(tmp_path / "own")), (True, str(tmp_path))]
    monkeypatch.setattr(memory, "group_folders", lambda _: groups)
    found = memory.out_of_memory_kills()
    monkeypatch.setattr(memory, "group_folders", lambda _: [])
    assert found == (memory.out_of_memory_kills() if kills is None else kills)
