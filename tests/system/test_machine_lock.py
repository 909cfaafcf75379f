"""Measurement never runs beside training, whoever began first; trainings go side by side."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from bench.system import machine_lock

HOLD = """
import sys
from bench.system import machine_lock
with getattr(machine_lock, sys.argv[1] + '_lock')():
    print("holding", flush=True)
    sys.stdin.read()
"""


class GaveUpError(Exception):
    pass


def give_up():
    raise GaveUpError


@pytest.fixture
def hold(tmp_path, monkeypatch):
    """Hold the machine for training or measuring in another process."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    started = []

    def begin(what):
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD, what],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        started.append(process)
        assert process.stdout.readline() == "holding\n"
        return process

    yield begin
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(
    ("there", "here", "named"),
    [
        ("training", machine_lock.measuring_lock, "training, or another measurement,"),
        ("measuring", machine_lock.training_lock, "a measurement"),
        ("measuring", machine_lock.measuring_lock, "training, or another measurement,"),
    ],
)
def test_the_second_waits_and_says_so_in_one_line(hold, capsys, there, here, named):
    owner = hold(there)
    with pytest.raises(GaveUpError), here(give_up):
        pass
    said = capsys.readouterr().err
    assert re.fullmatch(
        f"bench: waiting for {named} of another command on this machine to end: process "
        rf"{owner.pid} \(.*python.*\), since \d\d:\d\d:\d\d\. Figures taken beside other work "
        rf"would be wrong: wait, or end it with 'kill {owner.pid}' \(a training then saves its "
        r"state; its command resumes it\)\n",
        said,
    )
    owner.kill()  # even a killed owner holds nothing
    owner.communicate()
    with here(give_up):
        pass


def test_trainings_go_side_by_side(hold, capsys):
    hold("training")
    with machine_lock.training_lock(give_up), machine_lock.training_lock(give_up):
        assert not capsys.readouterr().err


def test_a_measurement_may_measure_within_itself(hold):
    with machine_lock.measuring_lock(give_up), machine_lock.measuring_lock(give_up):
        pass
    assert not list(Path(os.environ["XDG_RUNTIME_DIR"]).rglob("holder-*"))
    hold("training")


def test_without_a_folder_for_the_lock_it_is_a_warning(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr("platformdirs.user_runtime_dir", lambda name: str(tmp_path / "file" / name))
    with (
        pytest.warns(UserWarning, match="are not kept apart"),
        machine_lock.measuring_lock(give_up),
    ):
        pass


@pytest.mark.parametrize("content", [b"no database" * 100, b"SQLite format 3\0" + b"?" * 100])
def test_a_damaged_lock_is_a_warning_that_names_it(hold, tmp_path, content):
    hold("training").kill()
    (path,) = tmp_path.rglob("machine.lock")
    path.write_bytes(content)
    said = rf"not kept apart: {path} cannot be locked .*; remove it"
    with pytest.warns(UserWarning, match=said), machine_lock.measuring_lock(give_up):
        pass
