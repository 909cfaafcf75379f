"""Whole programs: two at once on one folder, and one that is told to stop."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from bench.store import Store

PROGRAM = """
import sys, bench
from bench.system.signals import StopRequestedError

def tell(event):
    print(event["event"], event.get("run", ""), flush=True)

if __name__ == "__main__":
    try:
        bench.run_study("study.toml", results=sys.argv[1], workers=int(sys.argv[2]), threads=1,
                        device="cpu", deterministic=True, on_event=tell)
    except StopRequestedError as error:
        sys.exit(error.exit_code)
"""

STUDY = """
question = "Does stopping change anything?"
[base]
model = "resnet14"
train_images = 100
input_size = 8
batch_size = 32
epochs = {epochs}
seeds = {seeds}
ema_decay = 0.8
options = {{ width = 4, shortcut = "dropout" }}
[[variant]]
name = "only"
"""


@pytest.fixture
def start(tmp_path):
    """Start the program as the leader of a process group of its own."""
    (tmp_path / "program.py").write_text(PROGRAM)
    started = []

    def begin(results, workers=1, epochs=2, seeds="[0]", study=STUDY):
        (tmp_path / "study.toml").write_text(study.format(epochs=epochs, seeds=seeds))
        process = subprocess.Popen(
            [sys.executable, "program.py", results, str(workers)],
            cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            start_new_session=True,
        )  # fmt: skip
        started.append(process)
        return process

    yield begin
    for process in started:
        if process.poll() is None:
            process.kill()
            process.wait()


def weights(tmp_path, results):
    return {r.run: r.files["model.safetensors"] for r in Store(tmp_path / results).runs()}


def test_two_programs_asked_for_the_same_run_do_it_once(start, tmp_path):
    programs = [start("results", epochs=20) for _ in range(2)]
    said = [program.communicate(timeout=100) for program in programs]
    assert [program.returncode for program in programs] == [0, 0], said
    lines = [line.split()[0] for out, _ in said for line in out.splitlines()]
    assert lines.count("plan") == 2
    assert lines.count("start") == 1
    assert lines.count("epoch") == 20
    assert len(weights(tmp_path, "results")) == 1


@pytest.mark.slow
def test_program_told_to_stop_leaves_a_checkpoint_and_goes_on(start, tmp_path):
    stop_and_go_on(
        start, tmp_path, lambda p: p.send_signal(signal.SIGINT), workers=1, epochs=12, code=130
    )


@pytest.mark.slow
def test_workers_told_to_stop_leave_checkpoints_and_go_on(start, tmp_path):
    stop_and_go_on(start, tmp_path, lambda p: p.send_signal(signal.SIGTERM), workers=2, code=75)


SLOW_STEPS = """
import time
from bench.models import build_model

def network(num_classes, in_channels):
    model = build_model("resnet8", num_classes=num_classes, in_channels=in_channels, width=4)
    model.register_forward_pre_hook(lambda *_: time.sleep(1))
    return model
"""


@pytest.mark.slow
def test_workers_that_hear_of_a_stop_twice_finish_their_step(start, tmp_path):
    """A scheduler signals every process of the group, and so does our own parent after it."""
    (tmp_path / "slow_steps.py").write_text(SLOW_STEPS)
    study = STUDY.replace('"resnet14"', '"slow_steps:network"').replace("options =", "# options =")
    process = start("stopped", workers=2, epochs=9, seeds="[0, 1]", study=study)
    wait_for(process, "start", 2)
    time.sleep(1)  # both are within a step
    os.killpg(process.pid, signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 75, errors
    store = Store(tmp_path / "stopped")
    assert [record.status for record in store.unfinished()] == ["interrupted"] * 2
    for record in store.unfinished():
        assert store.load_checkpoint(record.run) is not None


def stop_and_go_on(start, tmp_path, stop, *, workers, code, epochs=40):
    study = {"workers": workers, "epochs": epochs, "seeds": json.dumps(list(range(workers)))}
    process = start("stopped", **study)
    wait_for(process, "epoch", workers)
    stop(process)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == code, errors
    assert "Traceback" not in errors
    store = Store(tmp_path / "stopped")
    assert not list(store.runs())
    unfinished = list(store.unfinished())
    assert [record.status for record in unfinished] == ["interrupted"] * workers
    for record in unfinished:
        _, state = store.load_checkpoint(record.run)
        assert 0 < state["position"]["epoch"] < epochs
    assert start("stopped", **study).wait(timeout=100) == 0
    assert start("undisturbed", **study).wait(timeout=100) == 0
    assert len(weights(tmp_path, "stopped")) == workers
    assert weights(tmp_path, "stopped") == weights(tmp_path, "undisturbed")


def wait_for(process, word, runs):
    """Read on until *word* was said of so many runs."""
    deadline, seen = time.monotonic() + 60, set()
    while len(seen) < runs:
        assert time.monotonic() < deadline
        line = process.stdout.readline()
        assert line, process.stderr.read()
        if line.startswith(word):
            seen.add(line.split()[1])


@pytest.mark.slow
def test_workers_whose_program_was_killed_stop_with_a_checkpoint(start, tmp_path):
    process = start("orphaned", workers=2, epochs=2000, seeds="[0, 1]")
    wait_for(process, "epoch", 2)
    process.kill()
    process.wait()
    store = Store(tmp_path / "orphaned")
    deadline = time.monotonic() + 30
    while len(list(store.unfinished())) < 2 and time.monotonic() < deadline:
        time.sleep(0.2)
    assert [record.status for record in store.unfinished()] == ["interrupted"] * 2
    for record in store.unfinished():
        assert store.load_checkpoint(record.run) is not None
        with store.lock(record.run, wait=False) as free:
            assert free
