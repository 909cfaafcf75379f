"""Runs as jobs: through submitit's local executor, and a real Slurm where one can be started."""

from __future__ import annotations

import dataclasses
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench.errors import BenchError
from bench.launch.assignment import Assignment
from bench.launch.slurm import SlurmLauncher
from bench.system.signals import Stop
from bench.training.resources import Resources

submitit = pytest.importorskip("submitit")
pytestmark = pytest.mark.slow


@pytest.fixture
def run(store, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))  # the jobs' own networks

    def launch_all(requests, **options):
        ends = {}
        work = Assignment(
            requests, store, Resources(device="cpu", threads=1), workers=2, stop=Stop(),
            on_event=lambda e: ends.update({e["run"]: (e["status"], e["error"])}),
        )  # fmt: skip
        SlurmLauncher(folder=str(tmp_path / "jobs"), **options).run(work)
        return ends

    return launch_all


def check_jobs(requests, run, store, **options):
    killed, raised, fine = requests
    ends = run(requests, **options)
    assert ends[killed.run_id][0] == "failed"
    assert ends[killed.run_id][1].startswith("the Slurm job left the queue")
    assert ends[raised.run_id] == ("failed", "KeyError: 'wrong'")
    assert ends[fine.run_id] == ("complete", None)
    assert [record.run for record in store.runs()] == [fine.run_id]


def test_local_executor(make_requests, run, store):
    check_jobs(make_requests("killed", "raises", "fine"), run, store, cluster="local")


SLOW = """
import time
from launched_networks import Network

class Slow(Network):
    def forward(self, x):
        time.sleep(0.05)
        return super().forward(x)

def network(num_classes, in_channels):
    return Slow(num_classes, in_channels)
"""


def check_requeue(request, run, store, tmp_path, minutes, epochs, **options):
    """A run that needs longer than its time limit is queued again, and goes on from there."""
    (tmp_path / "slow_network.py").write_text(SLOW)
    request = dataclasses.replace(request, model="slow_network:network").with_recipe(epochs=epochs)
    assert run([request], minutes=minutes, **options) == {request.run_id: ("complete", None)}
    logs = "".join(p.read_text() for p in (tmp_path / "jobs").glob("*_log.*"))
    logs += "".join(p.read_text() for p in (tmp_path / "jobs").glob("*/*_log.*"))
    assert "Caught signal SIGUSR2" in logs or "timed-out" in logs, logs
    record = store.read_run(request.run_id)
    assert record.seconds > epochs * 4 * 0.05  # four steps an epoch, over all attempts
    assert len(store.checked_file(request.run_id, "history.csv").read_text().split()) == epochs + 1


def test_local_executor_takes_a_run_up_whose_time_was_up(make_requests, run, store, tmp_path):
    request = make_requests("fine")[0]
    check_requeue(
        request, run, store, tmp_path, 0.5, 200, cluster="local",
        parameters={"signal_delay_s": 5},
    )  # fmt: skip


DRIVER = """
import sys, bench
from bench.launch.slurm import SlurmLauncher

if __name__ == "__main__":
    bench.run_study("own.toml", results="bench-runs", device="cpu", threads=1,
                    launcher=SlurmLauncher(folder="jobs", cluster=sys.argv[1]))
"""


def check_lost_driver(make_study, run, store, tmp_path, cluster):
    """The jobs go on without the process that submitted them; its command then finds the run."""
    (request,) = make_study("fine", epochs=2000)
    (tmp_path / "driver.py").write_text(DRIVER)
    driver = subprocess.Popen([sys.executable, "driver.py", cluster])
    begun = wait_until(lambda: not free(store, request.run_id), driver)
    driver.kill()
    driver.wait()
    assert begun
    assert store.read_run(request.run_id) is None
    assert wait_until(lambda: store.read_run(request.run_id) is not None)
    done = store.read_run(request.run_id)
    assert run([request], cluster=cluster) == {request.run_id: ("complete", None)}
    assert store.read_run(request.run_id) == done  # not trained again


def free(store, run):
    with store.lock(run, wait=False) as ours:
        return ours


def wait_until(true, process=None, seconds=120):
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline or (process is not None and process.poll() is not None):
            return False
        time.sleep(0.5)
    return True


def test_local_jobs_go_on_when_their_driver_is_lost(make_study, run, store, tmp_path):
    check_lost_driver(make_study, run, store, tmp_path, "local")


def nodes():
    done = subprocess.run(["sinfo", "-h"], check=False, capture_output=True, text=True)
    return done.stdout


CONF = """
ClusterName=test
SlurmctldHost={host}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CryptoType=crypto/munge
SlurmUser=root
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SwitchType=switch/none
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SchedulerType=sched/builtin
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
ReturnToService=2
MinJobAge=10
NodeName={host} CPUs={cpus} RealMemory=1000 State=UNKNOWN
PartitionName=all Nodes={host} Default=YES MaxTime=INFINITE State=UP OverSubscribe=FORCE:4
"""


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """A cluster of this machine alone, with daemons of its own."""
    missing = [p for p in ("slurmctld", "slurmd", "munged", "sbatch") if not shutil.which(p)]
    if missing or os.geteuid() != 0:
        pytest.skip(f"needs root and Debian's slurmctld, slurmd, munge; missing: {missing}")
    folder = Path("/tmp") / f"slurm-{tmp_path.parent.name}-{os.getpid()}"
    folder.mkdir(mode=0o755)
    for name in ("state", "spool"):
        (folder / name).mkdir()
    daemons = []

    def start(*words):
        log = (folder / f"{words[0]}.out").open("w")
        daemons.append(subprocess.Popen(words, stdout=log, stderr=log))

    key = folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o400)
    start(
        "munged", "--foreground", "--force", f"--socket={folder}/munge.socket",
        f"--key-file={key}", f"--pid-file={folder}/munged.pid", f"--log-file={folder}/munged.log",
        f"--seed-file={folder}/munged.seed",
    )  # fmt: skip
    with socket.create_server(("", 0)) as one, socket.create_server(("", 0)) as two:
        ports = [one.getsockname()[1], two.getsockname()[1]]
    conf = folder / "slurm.conf"
    values = {"host": socket.gethostname().split(".")[0], "folder": folder, "ports": ports}
    conf.write_text(CONF.format(**values, cpus=os.cpu_count()))
    monkeypatch.setenv("SLURM_CONF", str(conf))
    time.sleep(1)
    start("slurmctld", "-D", "-f", str(conf))
    start("slurmd", "-D", "-f", str(conf))
    try:
        deadline = time.monotonic() + 30
        while "idle" not in nodes():
            if time.monotonic() > deadline:
                logs = [p.read_text()[-1500:] for p in folder.glob("*.log")]
                pytest.skip(f"Slurm could not be started here: {logs}")
            time.sleep(0.5)
        yield
    finally:
        for daemon in reversed(daemons):
            daemon.terminate()
        for daemon in daemons:
            daemon.wait(timeout=20)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.usefixtures("slurm")
def test_real_slurm(make_requests, run, store):
    check_jobs(make_requests("killed", "raises", "fine"), run, store)


@pytest.mark.usefixtures("slurm")
def test_real_slurm_queues_a_run_again_whose_time_was_up(make_requests, run, store, tmp_path):
    # Slurm may signal a minute early, and starts what is queued again after two minutes.
    request = make_requests("fine")[0]
    check_requeue(
        request, run, store, tmp_path, 2, 600, parameters={"signal_delay_s": 20}
    )  # fmt: skip


@pytest.mark.usefixtures("slurm")
def test_real_slurm_jobs_go_on_when_their_driver_is_lost(make_study, run, store, tmp_path):
    check_lost_driver(make_study, run, store, tmp_path, "slurm")


@pytest.mark.usefixtures("slurm")
def test_real_slurm_has_no_gpu(make_requests, store, tmp_path):
    gpu = Resources(device="cuda", threads=1)
    work = Assignment(make_requests("fine"), store, gpu, 1, Stop(), lambda _: None)
    with pytest.raises(BenchError, match=r"--launcher slurm: sbatch refused the jobs: .*gres"):
        SlurmLauncher(folder=str(tmp_path / "jobs")).run(work)
