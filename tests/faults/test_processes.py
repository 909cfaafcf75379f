"""Many processes on one folder, owners that die, memory that runs out, kill -9 at any moment."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import resource
import shutil
import signal
import time
from pathlib import Path

import pytest

from bench.launch.assignment import Assignment
from bench.launch.processes import LocalLauncher
from bench.store import Store, locks
from bench.store.exports import Exports
from bench.store.measurements import Measurements
from bench.system.signals import Stop, StopRequestedError, stop_on_signals
from bench.training import run as training


def test_ten_processes_do_each_run_once(root, fork, tiny, undisturbed, ledger, tmp_path):
    said, seeds = tmp_path / "said", [tiny.subject, *range(2, 25)]

    def note(event):
        if event["event"] == "start":
            with said.open("a") as file:
                file.write(f"{event['run']} {os.getpid()}\n")

    def work():
        requests = [tiny.request(seed) for seed in seeds]
        resources = training.Resources(threads=1)
        LocalLauncher().run(Assignment(requests, Store(root), resources, 1, Stop(), note))

    children = [fork(work) for _ in range(10)]
    assert [child.wait(400) for child in children] == [0] * 10, read(tmp_path)
    runs, processes = zip(*map(str.split, said.read_text().splitlines()), strict=True)
    assert sorted(runs) == sorted(tiny.request(seed).run_id for seed in seeds)
    assert len(set(processes)) > 5  # nobody did nothing but wait
    assert tiny.outcome(root) == undisturbed
    ledger(
        f"ten processes on one study and folder, {len(seeds)} runs", 10,
        f"each run done exactly once, by {len(set(processes))} of them; runs that another process "
        "held were left for the end", "nothing",
    )  # fmt: skip


@pytest.fixture
def flockless(monkeypatch):
    monkeypatch.setattr(locks, "knows_flock", lambda _folder: False)
    monkeypatch.setattr(locks, "LEASE_SECONDS", 3.0)


@pytest.mark.usefixtures("flockless")
@pytest.mark.parametrize("host", ["here", "elsewhere"])
def test_lease_of_a_dead_owner_is_taken_over(host, root, fork, ledger):
    path = root / "locks" / "run.lock"

    def work():
        with Store(root).lock("run"):
            path.with_suffix(".held").touch()
            time.sleep(60)

    owner = fork(work)
    while not path.with_suffix(".held").exists():
        time.sleep(0.01)
    time.sleep(4)  # longer than the lease: a living owner keeps it
    with Store(root).lock("run", wait=False) as ours:
        assert not ours
    owner.kill()
    owner.wait()
    marker = path.with_suffix(".lease")
    if host == "elsewhere":
        text, ours = marker.read_text(), f"host={os.uname().nodename}\n"
        assert ours in text
        marker.write_text(text.replace(ours, "host=far-away\n"))
        with Store(root).lock("run", wait=False) as ours:
            assert not ours  # nobody here can know yet whether it lives
    begun = time.monotonic()

    def give_up():
        assert time.monotonic() < begun + 30

    with Store(root).lock("run", waiting=give_up) as ours:
        assert ours
    ledger(
        f"no flock, and a lock's owner killed ({host})", 1,
        "taken over after the lease expired; kept while its owner lived", "nothing",
    )  # fmt: skip


@pytest.mark.parametrize("megabytes", [450, 500, 550, 600, 650, 700])
def test_out_of_memory_is_recorded(megabytes, root, fork, tiny, invariants, ledger, tmp_path):
    large = dataclasses.replace(tiny.request(), input_size=192, options={"width": 16})

    def starve(event):
        if event["event"] == "start":
            used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            limit = used + megabytes * 1_000_000  # for what is left to import, and a few tensors
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))

    def work():
        training.execute(large, Store(root), training.Resources(threads=1), on_event=starve)

    assert fork(work).wait() == 0, read(tmp_path)
    (record,) = Store(root).unfinished()
    assert (record.run, record.status) == (large.run_id, "out_of_memory"), record.error
    Store(root).remove_run(large.run_id)
    invariants()
    ledger(
        f"memory refused during training (RLIMIT_AS, {megabytes} MB more)", 1,
        f"recorded as out_of_memory ({record.error[:60]}…); other runs continue", "nothing",
    )  # fmt: skip


CGROUP = os.environ.get("BENCH_TEST_CGROUP")


@pytest.mark.skipif(
    CGROUP is None, reason="BENCH_TEST_CGROUP names no memory control group (v2) of our own"
)
def test_a_control_group_without_memory_costs_a_run(root, fork, tiny, invariants, ledger, tmp_path):
    """The kernel kills the worker, and not the process that started it."""
    group = Path(CGROUP or "") / "bench-test"
    large = dataclasses.replace(tiny.request(), input_size=256, options={"width": 32})

    def work():
        (group / "cgroup.procs").write_text(str(os.getpid()))
        requests, resources = [large, tiny.request()], training.Resources(threads=1)
        work = Assignment(requests, Store(root), resources, 1, Stop(), lambda _: None)
        LocalLauncher(isolate=True).run(work)

    group.mkdir()
    try:
        (group / "memory.max").write_text("900M")
        if (group / "memory.swap.max").exists():  # not where the kernel cannot swap
            (group / "memory.swap.max").write_text("0")
        assert fork(work).wait(300) == 0, read(tmp_path)
    finally:
        deadline = time.monotonic() + 30  # what the child's workers had started ends after it
        while (group / "cgroup.procs").read_text() and time.monotonic() < deadline:
            time.sleep(0.1)
        group.rmdir()
    (record,) = Store(root).unfinished()
    assert (record.run, record.status) == (large.run_id, "out_of_memory"), record.error
    assert invariants()
    ledger(
        "memory refused by a control group (900 MB)", 1,
        "recorded as out_of_memory; the next run of the study was trained", "nothing",
    )  # fmt: skip


def test_killed_in_training_at_random_moments(root, fork, tiny, invariants, forget, ledger):
    begun = time.monotonic()
    assert fork(lambda: tiny.train(root, 7)).wait() == 0
    usual = time.monotonic() - begun
    chance, times, finished = random.Random(7), 120, 0
    for _ in range(times):
        child = fork(lambda: tiny.train(root))
        time.sleep(chance.uniform(0, usual))
        child.kill()
        child.wait()
        Store(root).remove_run(tiny.request(7).run_id)
        finished += invariants()
        forget()
    ledger(
        "kill -9 at random moments of training", times,
        f"{finished} times the run was complete, otherwise resumed; always bitwise equal",
        "nothing",
    )  # fmt: skip


def export(root, run):
    from bench.api import export_onnx

    export_onnx(run, results=root)


def measure(root):
    from bench.api import measure as throughput

    throughput(
        "resnet8", results=root, device="cpu", threads=1, input_size=8, max_seconds=0.3,
        processes=1, options={"width": 4}, backends=("eager",), batch_sizes=(1,),
    )  # fmt: skip


def test_killed_in_export_at_random_moments(root, fork, tiny, ledger, tmp_path):
    run = tiny.request(tiny.bystander).run_id
    begun = time.monotonic()
    reference = tmp_path / "reference"
    shutil.copytree(root, reference)
    assert fork(lambda: export(reference, run)).wait() == 0, read(tmp_path)
    usual, before = time.monotonic() - begun, tiny.contents(root / "runs")
    expected = {r.export for r in Exports(reference).records()}
    chance, times, finished = random.Random(8), 40, 0
    for number in range(times):
        child = fork(lambda: export(root, run))
        time.sleep(chance.uniform(0, usual))
        child.kill()
        child.wait()
        found = {r.export for r in Exports(root).records()}
        assert found in (set(), expected)
        finished += bool(found)
        assert tiny.contents(root / "runs") == before
        if number % 8 == 7:
            assert fork(lambda: export(root, run)).wait() == 0, read(tmp_path)
            records = list(Exports(root).records())
            assert {r.export for r in records} == expected
            assert Exports(root).find(records[0].request) == records[0]
            shutil.rmtree(root / "exports")
    ledger(
        "kill -9 at random moments of export", times,
        f"{finished} times a complete export, otherwise none; remade with the same bytes",
        "the export in progress",
    )  # fmt: skip


def test_killed_in_measurement_at_random_moments(root, fork, tiny, ledger, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    begun = time.monotonic()
    assert fork(lambda: measure(tmp_path / "reference")).wait() == 0, read(tmp_path)
    usual, before = time.monotonic() - begun, tiny.contents(root / "runs")
    chance, times, finished = random.Random(9), 40, 0
    for number in range(times):
        child = fork(lambda: measure(root))
        time.sleep(chance.uniform(0, usual))
        child.kill()
        child.wait()
        finished = sum(1 for _ in Measurements(root).records())
        assert tiny.contents(root / "runs") == before
        if number % 10 == 9:
            assert fork(lambda: measure(root)).wait() == 0, read(tmp_path)
            assert sum(1 for _ in Measurements(root).records()) == finished + 1
    ledger(
        "kill -9 at random moments of measurement", times,
        "every existing measurement is complete; the next one runs", "the measurement in progress",
    )  # fmt: skip


@pytest.mark.parametrize("threads", [1, 2])
def test_sigterm_leaves_a_checkpoint_within_a_step(
    threads, root, fork, tiny, undisturbed, ledger, tmp_path
):
    run = tiny.request().run_id

    def work():
        steps = []
        original = training._Attempt._after_step

        def after(attempt):
            steps.append(attempt)
            if len(steps) == 2:
                os.kill(os.getpid(), signal.SIGTERM)
            original(attempt)

        training._Attempt._after_step = after
        with stop_on_signals() as stop:
            try:
                training.execute(
                    tiny.request(), Store(root), training.Resources(threads=1), stop=stop
                )
            except StopRequestedError as error:
                os._exit(error.exit_code)

    assert fork(work).wait() == 75, read(tmp_path)
    _, state = Store(root).load_checkpoint(run)
    assert state["position"]["batch"] == 2
    assert [r.status for r in Store(root).unfinished()] == ["interrupted"]
    moved = tmp_path / "another machine"
    shutil.copytree(root, moved)

    def go_on():
        resources = training.Resources(threads=threads)
        training.execute(tiny.request(), Store(moved), resources)

    assert fork(go_on).wait() == 0, read(tmp_path)
    found = tiny.outcome(moved)
    assert found[0] == "complete"
    assert json.dumps(found[3]["classes"]) == json.dumps(undisturbed[3]["classes"])
    if threads == 1:
        assert found == undisturbed
    ledger(
        f"SIGTERM during a step, resumed from a copy with {threads} thread(s)", 1,
        "checkpoint after that step, exit code 75; completed from the copy", "nothing",
    )  # fmt: skip


def read(folder):
    found = [folder / name for name in ("traceback", "refusal")]
    return "".join(path.read_text() for path in found if path.exists())
