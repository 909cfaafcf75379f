from __future__ import annotations

import contextlib
import dataclasses
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
import types
from multiprocessing.connection import Connection

import psutil
import pytest
import torch
from safetensors.torch import save_file

from bench import load_results
from bench.launch import processes
from bench.launch.assignment import Assignment
from bench.launch.processes import LocalLauncher
from bench.system.signals import Stop, StopRequestedError
from bench.training.outcome import begin_record
from bench.training.resources import Resources
from bench.training.weights import weights_digest

RESOURCES = Resources(device="cpu", threads=1)


@pytest.fixture
def run(store):
    """Launch requests; returns run → (status, error) as the events told."""

    def launch_all(requests, workers=2, listen=lambda _event: None, launcher=None, weights=None):
        ends = {}

        def note(event):
            listen(event)
            if event["event"] == "end":
                ends[event["run"]] = (event["status"], event["error"])

        work = Assignment(requests, store, RESOURCES, workers, Stop(), note, weights)
        (launcher or LocalLauncher()).run(work)
        return [ends[request.run_id] for request in requests]

    return launch_all


def test_dead_and_failing_workers_cost_their_run_alone(make_requests, run, store):
    requests = make_requests("killed", "leaves", "raises", "fine")
    killed, left, raised, fine = run(requests)
    assert killed[0] == left[0] == raised[0] == "failed"
    assert killed[1].startswith("the worker process was ended by SIGKILL")
    assert left[1] == "the worker process exited with code 3"
    assert raised[1] == "KeyError: 'wrong'"
    assert fine == ("complete", None)
    recorded = {record.run: (record.status, record.error) for record in store.unfinished()}
    assert [recorded[request.run_id] for request in requests[:3]] == [killed, left, raised]
    assert [record.run for record in store.runs()] == [requests[3].run_id]


def test_workers_train_what_one_process_trains(make_requests, run, store):
    fine = make_requests("fine")[0]
    requests = [dataclasses.replace(fine, seed=seed, deterministic=True) for seed in range(3)]
    run(requests, workers=2)
    side_by_side = [store.read_run(r.run_id).files["model.safetensors"] for r in requests]
    assert load_results(store.root)["workers"].tolist() == [2, 2, 2]
    for request in requests:
        store.remove_run(request.run_id)
    run(requests, workers=1)
    alone = [store.read_run(r.run_id).files["model.safetensors"] for r in requests]
    assert side_by_side == alone
    assert load_results(store.root)["workers"].tolist() == [1, 1, 1]
    assert len(set(alone)) == 3


@pytest.mark.slow
def test_workers_start_from_the_weights_that_were_given(make_requests, run, store, tmp_path):
    path = tmp_path / "start.safetensors"
    start = {"head.2.weight": torch.full((10, 4), 0.5), "head.2.bias": torch.arange(10.0)}
    save_file(start, path)
    fine = dataclasses.replace(make_requests("fine")[0], initial_weights=weights_digest(path))
    fine = fine.with_recipe(learning_rate=1e-12, weight_decay=0.0)
    requests = [dataclasses.replace(fine, seed=seed) for seed in range(2)]
    run(requests, workers=2, weights=path)
    for request in requests:
        trained = store.read_tensors(request.run_id, "model.safetensors")
        torch.testing.assert_close(trained, start)


def test_a_crash_costs_its_run_alone_with_one_worker_too(make_requests, run, store):
    requests = make_requests("crashes", "fine")
    crashed, fine = run(requests, workers=1, launcher=LocalLauncher(isolate=True))
    assert crashed[0] == "failed"
    assert crashed[1].startswith("the worker process was ended by SIGSEGV (a fault in native code")
    assert fine == ("complete", None)
    (record,) = store.unfinished()
    assert (record.run, record.status) == (requests[0].run_id, "failed")


def announced(requests, store):
    """Do requests in one worker process that first times them; returns the events."""
    events = []
    work = Assignment(requests, store, RESOURCES, 1, Stop(), events.append, planned=requests)
    LocalLauncher(isolate=True, announce=True).run(work)
    return events


def test_a_network_that_crashes_while_it_is_timed_costs_its_run_alone(make_requests, store):
    requests = tuple(r.with_recipe(epochs=60) for r in make_requests("killed", "fine"))
    events = announced(requests, store)
    ends = [event["status"] for event in events if event["event"] == "end"]
    assert ends == ["failed", "complete"]
    assert "estimate" not in {event["event"] for event in events}


def test_the_time_that_an_interrupted_run_has_taken_is_not_announced(make_requests, store):
    (request,) = requests = tuple(make_requests("fine"))
    store.mark_unfinished(dataclasses.replace(begin_record(request, RESOURCES), seconds=1e6))
    (estimate,) = (e for e in announced(requests, store) if e["event"] == "estimate")
    assert (estimate["seconds"], estimate["basis"]) == (0, "a few timed steps")


@pytest.mark.slow
def test_a_hang_costs_its_run_alone(make_requests, run, store):
    requests = make_requests("hangs", "fine")
    hung, fine = run(requests, workers=1, launcher=LocalLauncher(isolate=True, timeout=30))
    assert hung[0] == "failed"
    assert hung[1] == "no sign of progress for 30 s (--timeout); its process was ended"
    assert fine == ("complete", None)
    assert [record.status for record in store.unfinished()] == ["failed"]


@pytest.mark.slow
def test_a_slow_run_is_no_hang(make_requests, run, store):
    """Every step is a sign of life: in all it takes longer than the time-out."""
    request = make_requests("slow")[0].with_recipe(epochs=15)
    (ended,) = run([request], workers=1, launcher=LocalLauncher(isolate=True, timeout=20))
    assert ended == ("complete", None)
    assert store.read_run(request.run_id).seconds > 20


@pytest.mark.parametrize(
    ("heard", "allowed"),  # when there are signs of progress, and how long may pass without one
    [([], 3600), ([5, 10], 600), ([500, 505], 1000), ([5, 10, 60, 65], 1000), ([500, 555], 1100)],
)
def test_by_default_a_run_may_take_a_multiple_of_its_longest_step(
    make_requests, run, monkeypatch, heard, allowed
):
    now, left, killed = [0.0], list(heard), []
    worker = types.SimpleNamespace(send=lambda _: None, close=lambda: None)
    worker.recv = lambda: {"event": "progress", "run": left.pop(0)}

    def wait(connections, **_):  # a second at a time
        now[0] += 1
        return connections if left and left[0] <= now[0] else []

    class Process:
        exitcode = -signal.SIGKILL

        def __init__(self, **_): ...
        def start(self): ...
        def join(self, **_): ...
        def is_alive(self): ...

        def kill(self):
            killed.append(now[0])

    context = types.SimpleNamespace(Pipe=lambda: (worker, worker), Process=Process)
    fake = types.SimpleNamespace(get_context=lambda _method: context)
    monkeypatch.setattr(processes, "multiprocessing", fake)
    monkeypatch.setattr(processes, "wait", wait)
    monkeypatch.setattr(processes, "time", types.SimpleNamespace(monotonic=lambda: now[0]))
    (hung,) = run(make_requests("hangs"), workers=1, launcher=LocalLauncher(isolate=True))
    reason = f"no sign of progress for {allowed} s (--timeout); its process was ended"
    assert hung == ("failed", reason)
    assert killed == [[0, *heard][-1] + allowed + 1]


def test_a_suspended_machine_is_no_hang(make_requests, run, monkeypatch):
    """A clock that also counts while the machine sleeps jumps when it wakes up."""
    clock, woken = time.monotonic, []

    def sleep(event):
        if event["event"] == "progress" and not woken:
            woken.append(event)
            monkeypatch.setattr(time, "monotonic", lambda: clock() + 10_000)

    launcher = LocalLauncher(isolate=True, timeout=100)
    (ended,) = run(make_requests("slow"), workers=1, listen=sleep, launcher=launcher)
    assert woken
    assert ended == ("complete", None)


@pytest.mark.parametrize(("workers", "isolate"), [(1, False), (2, True)])
def test_what_another_program_does_is_left_for_the_end(make_requests, run, store, workers, isolate):
    fine = make_requests("fine")[0]
    requests = [dataclasses.replace(fine, seed=seed) for seed in range(3)]
    events = []
    with contextlib.ExitStack() as other:
        other.enter_context(store.lock(requests[0].run_id))

        def listen(event):
            events.append((event["event"], event.get("run")))
            if event["event"] == "held":
                other.close()

        launcher = LocalLauncher(isolate=isolate)
        ends = run(requests, workers=workers, listen=listen, launcher=launcher)
    assert ends == [("complete", None)] * 3
    told = events.index(("held", None))
    assert {name for kind, name in events[:told] if kind == "end"} == {
        request.run_id for request in requests[1:]
    }
    assert [name for kind, name in events[told:] if kind == "start"] == [requests[0].run_id]


@pytest.mark.parametrize("second", [False, True])
def test_a_request_to_stop_ends_a_worker_that_hangs(make_requests, store, monkeypatch, second):
    monkeypatch.setattr(processes, "STOP_SECONDS", 0.5 if not second else 600)
    stop, children = Stop(), []

    def listen(event):
        if event["event"] == "start":
            children.extend(multiprocessing.active_children())
            stop.request(signal.SIGTERM)
            if second:
                stop.abandon()  # as a second signal does

    begun = time.monotonic()
    work = Assignment(make_requests("hangs"), store, RESOURCES, 1, stop, listen)
    with pytest.raises(StopRequestedError):
        LocalLauncher(isolate=True).run(work)
    assert time.monotonic() - begun < 60
    assert children
    assert not any(child.is_alive() for child in children)


@pytest.mark.parametrize(("stops", "status"), [(1, "complete"), (2, "failed")])
def test_a_worker_that_alone_is_asked_to_stop_is_replaced_once(
    make_requests, run, store, monkeypatch, stops, status
):
    first, second = (request.run_id for request in make_requests("fine", "slow"))
    begun, started = [], []

    def work(connection):
        while (request := connection.recv()) is not None:
            begun.append(request.run_id)
            connection.send({"event": "start", "run": request.run_id, "epochs": 2})
            if request.run_id == first and begun.count(first) <= stops:
                connection.send({"event": "stopped"})
                break
            end = {"event": "end", "run": request.run_id, "status": "complete", "error": None}
            connection.send(end)
            connection.send({"event": "idle"})
        connection.close()

    class Process(threading.Thread):
        exitcode = 0

        def __init__(self, *, args, **_rest):
            super().__init__(target=work, args=(Connection(os.dup(args[0].fileno())),))

        def kill(self): ...

    context = types.SimpleNamespace(Pipe=multiprocessing.Pipe, Process=Process)
    fake = types.SimpleNamespace(get_context=lambda _method: context)
    monkeypatch.setattr(processes, "multiprocessing", fake)
    ends = run(
        make_requests("fine", "slow"), workers=1, launcher=LocalLauncher(isolate=True),
        listen=lambda event: started.append(event["run"]) if event["event"] == "start" else None,
    )  # fmt: skip
    assert [end for end, _ in ends] == [status, "complete"]
    assert begun == [first, first, second]
    assert started == [first, second]
    if status == "failed":
        assert ends[0][1] == "its worker process was stopped by SIGTERM twice"
        assert store.read_unfinished(first).status == "failed"


ORPHAN = """
import bench, os, signal
from bench.launch.processes import LocalLauncher
def kill(event):
    if event["event"] == "start":
        os.kill(os.getpid(), signal.SIGKILL)
bench.train("launched_networks:hangs", settings={"train_images": 100, "input_size": 8},
            device="cpu", results="r", launcher=LocalLauncher(isolate=True), on_event=kill)
"""


@pytest.mark.slow
@pytest.mark.usefixtures("own_models")
def test_a_worker_that_hangs_does_not_outlive_its_parent(tmp_path):
    (tmp_path / "orphan.py").write_text(ORPHAN)
    parent = psutil.Popen([sys.executable, "orphan.py"], cwd=tmp_path)
    children = []
    while parent.is_running() and parent.status() != psutil.STATUS_ZOMBIE:
        children = parent.children() or children
        time.sleep(0.05)
    assert parent.wait() == -signal.SIGKILL
    assert children
    assert not psutil.wait_procs(children, timeout=2 * processes.STOP_SECONDS)[1]


SCRIPT = """
import bench
print(list(bench.run_study("own.toml", seeds=[0, 1], results="r", device="cpu")["status"]))
"""


@pytest.mark.parametrize("place", ["file", pytest.param("stdin", marks=pytest.mark.slow)])
def test_a_script_needs_no_main_guard(make_study, tmp_path, place):
    make_study("fine", 1)
    (tmp_path / "script.py").write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, *(["script.py"] if place == "file" else ["-"])],
        cwd=tmp_path, input=SCRIPT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "['complete', 'complete']\n"), done.stderr


GUARDED = """
import bench
from bench.launch.processes import LocalLauncher
from torch import nn

def net(num_classes, in_channels):
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1, num_classes))

if __name__ == "__main__":
    row = bench.train("__main__:net", settings={"train_images": 100}, epochs=1, device="cpu",
                      launcher=LocalLauncher(isolate=True))
    print(row["status"].item())
"""


@pytest.mark.slow
def test_a_network_of_the_script_itself_is_found_by_workers(tmp_path):
    (tmp_path / "script.py").write_text(GUARDED)
    done = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "complete\n"), done.stderr
