"""One run trained by several processes that a real torchrun started (gloo, CPU)."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest

from bench.store import Store

pytestmark = pytest.mark.slow

# Plain batch norm sees each process's slice only, so that its statistics are frozen here.
# Training is by SGD, since Muon amplifies what sums in another order differ by.
NETWORK = """
import os
import time
from torch import nn
from bench.models import build_model

class Frozen(nn.BatchNorm2d):
    def train(self, mode=True):
        return super().train(False)

class Failing:
    def __init__(self, rank):
        self.fails, self.steps = rank in (2, int(os.environ.get("RANK", 0))), 0

    def __call__(self, module, _):
        self.steps += module.training
        if self.fails and self.steps > 3:
            raise KeyError("here")

def network(num_classes, in_channels, delay=0.0, fails=-1):
    model = build_model("resnet8", num_classes=num_classes, in_channels=in_channels, width=4)
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.BatchNorm2d):
                setattr(module, name, Frozen(child.num_features))
    if delay:
        model.register_forward_pre_hook(lambda *_: time.sleep(delay))
    model.register_forward_pre_hook(Failing(fails))
    return model
"""
# A worker process imports its parent's program anew: as the installed command, it has a guard.
# Losses are read late, as on a GPU, and checkpoints written between two readings.
PROGRAM = """
from bench.cli import main
from bench.training import run
from bench.training.loop import Trainer

make, run.CHECKPOINT_SECONDS = Trainer.__init__, 0.1

def make_as_on_a_gpu(trainer, *args, **named):
    make(trainer, *args, **named)
    trainer.read_together = 4

Trainer.__init__ = make_as_on_a_gpu

if __name__ == "__main__":
    main()
"""


@pytest.fixture
def start(tmp_path):
    (tmp_path / "frozen.py").write_text(NETWORK)
    (tmp_path / "program.py").write_text(PROGRAM)
    started = []

    def begin(processes, *words, epochs=3):
        torchrun = [sys.executable]
        if processes > 1:
            torchrun += ["-m", "torch.distributed.run", "--standalone"]
            torchrun += [f"--nproc-per-node={processes}"]
        command = ["train", "frozen:network", "--device", "cpu", "--threads", "1", "--epochs",
                   str(epochs), "--set", "train_images=230", "--set", "batch_size=32",
                   "--set", "input_size=12", "--set", "muon_learning_rate=0",
                   "--results", f"by{processes}", *words]  # fmt: skip
        process = subprocess.Popen(
            [*torchrun, "program.py", *command], cwd=tmp_path, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
            env={**os.environ, "PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"},
        )  # fmt: skip
        started.append(process)
        return process

    yield begin
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def history(tmp_path, processes):
    store = Store(tmp_path / f"by{processes}")
    (record,) = store.runs()
    assert record.environment.get("processes", 1) == processes
    return pd.read_csv(store.checked_file(record.run, "history.csv")), record


@pytest.mark.parametrize("processes", [2, 4])
def test_same_losses_as_one_process(start, tmp_path, processes):
    for count in (1, processes):
        process = start(count)
        said, _ = process.communicate(timeout=200)
        assert process.returncode == 0, said
    (alone, one), (together, several) = history(tmp_path, 1), history(tmp_path, processes)
    columns = ["train_loss", "train_accuracy", "gradient_norm", "validation_loss"]
    pd.testing.assert_frame_equal(together[columns], alone[columns], rtol=1e-4, check_exact=False)
    assert several.result["test_loss"] == pytest.approx(one.result["test_loss"], rel=1e-4)
    assert said.count("test accuracy") == 1  # one process speaks


@pytest.mark.parametrize("victim", [0, 1])
def test_killed_rank_is_a_recorded_failure_that_resumes(start, tmp_path, victim):
    words = ("--option", "delay=0.2")
    process = start(2, *words, epochs=4)
    store = Store(tmp_path / "by2")
    deadline = time.monotonic() + 100
    while not rank(process.pid, victim) or "epoch 1/" not in process.stdout.readline():
        assert time.monotonic() < deadline
    os.kill(rank(process.pid, victim), signal.SIGKILL)
    process.communicate(timeout=60)
    assert process.returncode != 0
    (unfinished,) = store.unfinished()
    assert unfinished.status == "failed"
    assert unfinished.error
    assert not list(store.runs())
    process = start(2, *words, epochs=4)
    said, _ = process.communicate(timeout=200)
    assert process.returncode == 0, said
    assert len(history(tmp_path, 2)[0]) == 4


@pytest.mark.parametrize("victim", [0, 1])
def test_an_error_in_one_process_ends_all_and_is_recorded(start, tmp_path, victim):
    process = start(2, "--option", f"fails={victim}")
    said, _ = process.communicate(timeout=100)
    assert process.returncode != 0
    assert "failed in one of 2 processes, which ends all: KeyError: 'here'; the same" in said
    (unfinished,) = Store(tmp_path / "by2").unfinished()
    assert (unfinished.status, unfinished.error) == ("failed", "KeyError: 'here'")


def test_an_error_in_all_processes_fails_the_run_alone(start, tmp_path):
    process = start(2, "--option", "fails=2")
    said, _ = process.communicate(timeout=100)
    assert said.count("failed: KeyError: 'here'\n") == 1  # the row of the command, which goes on
    assert "in one of" not in said
    (unfinished,) = Store(tmp_path / "by2").unfinished()
    assert unfinished.status == "failed"


def rank(torchrun, number):
    import psutil

    for child in psutil.Process(torchrun).children(recursive=True):
        try:
            found = child.environ().get("RANK") == str(number) and "program.py" in child.cmdline()
        except psutil.Error:  # it has just ended
            continue
        if found:
            return child.pid
    return None
