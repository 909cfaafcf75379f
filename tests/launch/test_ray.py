"""Runs on a real Ray cluster of several local nodes."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import time

import pytest

from bench.launch.assignment import Assignment
from bench.launch.processes import LocalLauncher
from bench.launch.raytasks import RayLauncher
from bench.system.signals import Stop, StopRequestedError
from bench.training.resources import Resources

pytest.importorskip("ray")
pytestmark = pytest.mark.slow


@pytest.fixture
def cluster():
    """A head without CPUs, on which nothing can run, and one node with two."""
    from ray.cluster_utils import Cluster

    started = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False}
    )
    started.node = started.add_node(num_cpus=2)
    yield started
    started.shutdown()


@pytest.fixture
def run(store, cluster):
    """Launch requests on the cluster; returns run → (status, error) as the events told."""

    def launch_all(requests, on_event=lambda _: None, stop=None, force=False, **options):
        ends = {}

        def note(event):
            if event["event"] == "end":
                ends[event["run"]] = (event["status"], event["error"])
            on_event(event)

        launcher = RayLauncher(address=cluster.address, **options)
        resources = Resources(device="cpu", threads=1, force=force)
        launcher.run(Assignment(requests, store, resources, len(requests), stop or Stop(), note))
        return ends

    return launch_all


def seeds(request, *numbers, **recipe):
    request = dataclasses.replace(request.with_recipe(**recipe), deterministic=True)
    return [dataclasses.replace(request, seed=number) for number in numbers]


def digests(store, requests):
    return [store.read_run(r.run_id).files["model.safetensors"] for r in requests]


@pytest.mark.parametrize("shared", [True, False])
def test_tasks_train_what_one_process_trains(make_requests, run, store, shared):
    requests = seeds(make_requests("fine")[0], 0, 1, 2)
    ends = run(requests, shared=shared)
    assert ends == {request.run_id: ("complete", None) for request in requests}
    remote = digests(store, requests)
    for request in requests:
        store.remove_run(request.run_id)
    resources = Resources(device="cpu", threads=1)
    LocalLauncher().run(Assignment(requests, store, resources, 1, Stop(), lambda _: None))
    assert remote == digests(store, requests)


@pytest.mark.parametrize("shared", [True, False])
def test_force_trains_again(make_requests, run, store, shared):
    (request, *_) = make_requests("fine")
    for _ in range(2):
        ends = run([request], shared=shared, force=True)
        assert ends == {request.run_id: ("complete", None)}
        assert store.read_run(request.run_id) is not None


@pytest.mark.parametrize("shared", [True, False])
def test_a_run_grows_from_a_parent_on_another_machine(make_requests, run, store, shared):
    parent = make_requests("fine")[0]
    parent = dataclasses.replace(parent, model="resnet8", options={})
    child = dataclasses.replace(parent, model="resnet14", grown_from=parent.run_id)
    assert run([parent], shared=shared) == {parent.run_id: ("complete", None)}
    assert run([child], shared=shared) == {child.run_id: ("complete", None)}
    assert store.read_run(child.run_id).parent == parent.run_id


def test_another_programs_run_holds_nothing_up(make_requests, run, store):
    """The others are done first, and a request to stop ends the wait for it."""
    held, free = seeds(make_requests("fine")[0], 0, 1)
    stop = Stop()

    def stop_at_the_end(event):
        if event["event"] == "end":
            stop.request(15)

    with store.lock(held.run_id), pytest.raises(StopRequestedError):
        run([held, free], shared=False, on_event=stop_at_the_end, stop=stop)
    assert store.read_run(free.run_id) is not None


def test_runs_of_a_killed_node_are_taken_up_by_another(make_requests, run, store, cluster):
    requests = seeds(make_requests("fine")[0], 0, 1, epochs=600)
    begun = []

    def kill_the_node(event):
        if event["event"] == "epoch" and not begun:
            begun.append(event["run"])
            cluster.remove_node(cluster.node, allow_graceful=False)
            cluster.add_node(num_cpus=2)

    ends = run(requests, on_event=kill_the_node)
    assert begun
    assert ends == {request.run_id: ("complete", None) for request in requests}
    assert sorted(record.run for record in store.runs()) == sorted(r.run_id for r in requests)
    for request in requests:
        assert len(store.checked_file(request.run_id, "history.csv").read_text().split()) == 601


@pytest.mark.parametrize("shared", [True, False])
def test_dead_and_failing_tasks_cost_their_run_alone(make_requests, run, store, shared):
    requests = make_requests("killed", "raises", "fine")
    killed, raised, fine = requests
    ends = run(requests, shared=shared, retries=1)
    assert ends[killed.run_id][0] == "failed"
    assert ends[killed.run_id][1].startswith("Ray lost it: WorkerCrashedError")
    assert ends[raised.run_id] == ("failed", "KeyError: 'wrong'")
    assert ends[fine.run_id] == ("complete", None)
    recorded = {record.run: (record.status, record.error) for record in store.unfinished()}
    assert recorded == {r.run_id: ends[r.run_id] for r in (killed, raised)}


def test_stopped_driver_leaves_checkpoints(make_requests, run, store):
    requests = seeds(make_requests("fine")[0], 0, 1, 2, epochs=100_000)
    stop = Stop()

    def stop_at_an_epoch(event):
        if event["event"] == "epoch" and stop.signal is None:
            stop.request(15)

    with pytest.raises(StopRequestedError):
        run(requests, on_event=stop_at_an_epoch, stop=stop)
    unfinished = list(store.unfinished())
    assert unfinished
    assert {record.status for record in unfinished} == {"interrupted"}
    assert all(store.load_checkpoint(record.run) is not None for record in unfinished)


def test_command_on_a_cluster_it_starts_itself(bench_process, tiny_study):
    words = ("run-ablation", tiny_study, "--launcher", "ray", "--device", "cpu", "--json")
    done = bench_process(*words)
    assert done.code == 0, done
    assert [row["status"] for row in done.document["rows"]] == ["complete"] * 4


def test_need_that_no_node_can_meet_is_refused(bench_process, tiny_study):
    words = ("run-ablation", tiny_study, "--launcher", "ray")
    cores = os.cpu_count()
    assert f"largest node of the Ray cluster has {cores}" in bench_process(
        *words, "--device", "cpu", "--threads", cores + 1
    ).refusal  # fmt: skip
    assert (
        "no node of the Ray cluster has a GPU" in bench_process(*words, "--device", "cuda").refusal
    )


@pytest.mark.parametrize("address", ["127.0.0.1:9", "10.255.255.1:6379", "silent"])
def test_dead_address_is_told_within_fifteen_seconds(bench_process, tiny_study, address):
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:  # it listens, and never says a word
        if address == "silent":
            address = f"127.0.0.1:{server.getsockname()[1]}"
        words = ("run-ablation", tiny_study, "--device", "cpu", "--launcher", "ray")
        begun = time.monotonic()
        refusal = bench_process(*words, "--ray-address", address).refusal
        assert time.monotonic() - begun < 15 + 15  # the promise, and the program's own start
    assert refusal.startswith(f"--ray-address {address}: n")


DRIVER = """
import sys, bench
from bench.launch.raytasks import RayLauncher

def tell(event):
    print(event["event"], flush=True)

if __name__ == "__main__":
    bench.run_study("own.toml", results="results", device="cpu", threads=1, on_event=tell,
                    launcher=RayLauncher(address=sys.argv[1]))
"""


def test_a_run_whose_driver_was_killed_is_taken_up(make_study, run, store, cluster, own_models):
    (request,) = make_study("fine", epochs=2000)
    (own_models / "driver.py").write_text(DRIVER)
    driver = subprocess.Popen(
        [sys.executable, "driver.py", cluster.address], stdout=subprocess.PIPE, text=True
    )
    said = iter(driver.stdout.readline, "")
    assert "epoch\n" in said
    driver.kill()
    driver.communicate()
    assert run([request]) == {request.run_id: ("complete", None)}
    assert [record.run for record in store.runs()] == [request.run_id]
    assert len(store.checked_file(request.run_id, "history.csv").read_text().split()) == 2001
