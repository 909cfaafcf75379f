from __future__ import annotations

import signal
from pathlib import Path

import pytest
import torch

from bench.errors import BenchError
from bench.launch.carry_out import carry_out
from bench.launch.estimate import estimate_plan, footprint
from bench.launch.learning_rates import tuning_requests
from bench.launch.processes import LocalLauncher
from bench.launch.workers import Execution, allot
from bench.store import Store
from bench.studies import expand, parse_study
from bench.system.signals import StopRequestedError
from bench.training.resources import Resources
from bench.training.run import execute
from bench.training.step_time import steps_of
from builders import make_record

STUDY = """
question = "How long?"
[base]
train_images = 100
input_size = 8
epochs = 2
batch_size = 32
seeds = [0, 1]
options = { width = 4 }
[[variant]]
name = "residual"
model = "resnet14"
[[variant]]
name = "longer"
model = "resnet14"
epochs = 40
"""


def plan(text=STUDY):
    return expand("long", parse_study(text, Path("long.toml")))


@pytest.mark.parametrize(
    ("device", "gpus", "old", "new", "workers"),
    [
        ("cuda", 1, "", "", 4),  # a GPU waits for Python with networks this small
        ("cuda:1", 2, "", "", 4),
        ("cuda", 2, "seeds = [0, 1]", "seeds = [0, 1, 2, 3, 4]", 8),
        ("cuda", 1, "input_size = 8", "input_size = 1024", 1),
    ],
)
def test_small_networks_share_a_gpu(tmp_path, monkeypatch, device, gpus, old, new, workers):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr("bench.launch.workers.resolve_device", torch.device)
    monkeypatch.setattr("bench.launch.workers.physical_cores", lambda: 16)
    monkeypatch.setattr("bench.launch.workers.memory_left", lambda: 2**40)
    runs = plan(STUDY.replace(old, new) if old else STUDY)
    found, resources = allot(runs, Execution(results=tmp_path, device=device))
    assert (found, resources.device) == (workers, device)
    assert allot(runs, Execution(results=tmp_path, device=device, workers=2))[0] == 2


def test_the_memory_of_the_images_limits_the_workers(tmp_path, monkeypatch):
    monkeypatch.setattr("bench.launch.workers.physical_cores", lambda: 16)
    monkeypatch.setattr("bench.launch.workers.memory_left", lambda: 7 * 2**30)
    for images, workers in ((0, 4), (2**29, 3), (2**30, 2), (2**40, 1)):
        monkeypatch.setattr("bench.launch.workers.memory_of_images", lambda _, size=images: size)
        assert allot(plan(), Execution(results=tmp_path, device="cpu"))[0] == workers
    assert allot(plan(), Execution(results=tmp_path, device="cpu", workers=4))[0] == 4


@pytest.fixture
def how(tmp_path):
    return Execution(results=tmp_path / "results", device="cpu", threads=1)


def test_every_run_is_estimated_and_nothing_is_written(how, tmp_path):
    rows = estimate_plan(plan(), how)
    assert [(row["variant"], row["seed"]) for row in rows] == [
        ("residual", 0), ("longer", 0), ("residual", 1), ("longer", 1),
    ]  # fmt: skip
    assert all(row["status"] == "to do" and row["seconds"] > 0 for row in rows)
    assert list(tmp_path.iterdir()) == []


def test_finished_run_needs_no_time(how):
    first = plan().requests[0]
    execute(first, Store(how.results), Resources(device="cpu", threads=1))
    rows = {row["run"]: row for row in estimate_plan(plan(), how)}
    assert (rows[first.run_id]["status"], rows[first.run_id]["seconds"]) == ("complete", 0)
    assert sum(row["seconds"] > 0 for row in rows.values()) == 3


def test_tuning_is_counted(how):
    rows = estimate_plan(plan(STUDY + "[tune]\nlearning_rate = [0.01, 0.02]\n"), how)
    # Two networks, two rates, and the two seeds that a study tunes with.
    assert [row["variant"] for row in rows].count("tuning") == 8


def test_disk_for_a_search_and_for_the_runs_with_the_chosen_rate_is_counted(bench, tmp_path):
    text = STUDY.replace("epochs = 40", "epochs = 1") + "[tune]\nlearning_rate = [0.01, 0.02]\n"
    (tmp_path / "long.toml").write_text(text)
    words = ("run-ablation", "long.toml", "--dry-run", "--device", "cpu", "--workers", 1)
    tuned, store = plan(text), Store(tmp_path / "bench-runs")
    search = tuning_requests(tuned)
    assert str(footprint([*search, *tuned.requests], 1)) in bench(*words).out
    for request in search:
        result = {"validation_accuracy": 0.5, "validation_images": 10}
        store.finish_run(make_record(request, result=result))
    assert str(footprint(tuned.requests, 1)) in bench(*words).out


def test_network_that_cannot_be_trained_is_refused(how):
    single = STUDY.replace("batch_size = 32", "batch_size = 1").replace("size = 8", "size = 4")
    with pytest.raises(BenchError, match="batch norm"):
        estimate_plan(plan(single), how)


@pytest.mark.usefixtures("own_models")
def test_a_plan_says_how_long_all_its_networks_take_before_the_first_run(tmp_path):
    text = STUDY.replace("options = { width = 4 }", "").replace("epochs = 40", "epochs = 2")
    networks = "launched_networks:fine", "launched_networks:slow"  # 0.4 s longer each batch
    runs = plan(text.replace("resnet14", networks[0], 1).replace("resnet14", networks[1]))
    events = []

    def stop_at_once(event):
        events.append(event)
        if event["event"] == "start":
            signal.raise_signal(signal.SIGINT)

    how = Execution(
        results=tmp_path / "results",
        device="cpu",
        threads=1,
        workers=1,
        launcher=LocalLauncher(isolate=True, announce=True),
        on_event=stop_at_once,
    )
    with pytest.raises(StopRequestedError):
        carry_out(runs, how)
    assert [event["event"] for event in events[:3]] == ["plan", "estimate", "start"]
    assert events[2]["run"] == runs.requests[0].run_id  # the fast network
    slow = [request for request in runs.requests if request.model == networks[1]]
    assert len(slow) == 2
    assert events[1]["seconds"] > 0.4 * sum(map(steps_of, slow))
