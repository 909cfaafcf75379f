from __future__ import annotations

import subprocess
from importlib import util
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch

from bench.launch import slurm
from bench.launch.assignment import Assignment
from bench.store import Store
from bench.system.signals import Stop
from bench.training.resources import Resources
from builders import make_record, make_request

REFUSALS = {
    "unknown": (["--launcher", "rey"], "unknown launcher 'rey'; did you mean 'ray'"),
    "address without ray": (["--ray-address", "a:1"], "--ray-address a:1: it belongs to"),
    "bytes without ray": (["--return-bytes"], "--return-bytes: it belongs to --launcher ray"),
    "minutes without slurm": (["--slurm-minutes", "5"], "it belongs to --launcher slurm"),
    "no minutes": (["--launcher", "slurm", "--slurm-minutes", "0"], "--slurm-minutes 0: it must"),
    "a time limit of two names": (
        ["--launcher", "slurm", "--slurm-option", "time=02:00:00"],
        "--slurm-option time: give the limit in minutes, as --slurm-minutes N",
    ),
    "a script and a time on a GPU": (
        ["--launcher", "slurm", "--gpu", "H100", "--dry-run"],
        "--gpu H100: the dry run of Slurm shows its script",
    ),
    "no patience": (["--timeout", "0"], "--timeout 0: seconds without progress, more than 0"),
    "no number": (["--timeout", "nan"], "--timeout nan: seconds without progress, more than 0"),
    "time-out elsewhere": (
        ["--launcher", "slurm", "--timeout", "5"],
        "--timeout 5: it belongs to --launcher local, but --launcher is slurm",
    ),
    "no threads": (["--launcher", "slurm", "--threads", "0"], "--threads 0: it must be at least 1"),
    "a word that is no address": (
        ["--launcher", "ray", "--ray-address", "cluster"],
        "--ray-address cluster: write it as HOST:PORT",
    ),
    "no key": (
        ["--launcher", "slurm", "--slurm-option", "gpu"],
        "--slurm-option gpu: write it as key=value, such as partition=gpu",
    ),
}

without_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")


@pytest.mark.parametrize("name", REFUSALS)
def test_refused(bench, tiny_study, tmp_path, name):
    words, said = REFUSALS[name]
    if "ray" in words:
        pytest.importorskip("ray")
    assert said in bench("run-ablation", tiny_study, "--device", "cpu", *words).refusal
    assert not list((tmp_path / "bench-runs").glob("runs/*-*"))


@pytest.mark.parametrize(("launcher", "library"), [("ray", "ray"), ("slurm", "submitit")])
def test_missing_library_names_the_extra(bench, tiny_study, monkeypatch, launcher, library):
    real = util.find_spec
    monkeypatch.setattr(
        util, "find_spec", lambda name, *more: None if name == library else real(name, *more)
    )
    refusal = bench("run-ablation", tiny_study, "--device", "cpu", "--launcher", launcher).refusal
    assert f"pip install 'resnet-bench[{launcher}]'" in refusal


@pytest.mark.parametrize(
    ("address", "message"),
    [("h:²", "write it as HOST:PORT"), (f"{'h' * 300}:1", "nothing answers there")],
)
def test_an_address_that_cannot_be_one_is_refused(bench, tiny_study, monkeypatch, address, message):
    monkeypatch.setattr(util, "find_spec", lambda *_: object())  # as if Ray were installed
    words = ("run-ablation", tiny_study, "--launcher", "ray", "--ray-address", address)
    assert f"--ray-address {address}: {message}" in bench(*words).refusal


def test_dry_run_shows_the_batch_script(bench, tiny_study, tmp_path):
    pytest.importorskip("submitit")
    words = ("--launcher", "slurm", "--slurm-minutes", 90, "--slurm-option", "partition=gpu")
    more = ("--slurm-option", "mem=8GB", "--threads", 2, "--workers", 3, "--device", "cuda")
    shown = bench("run-ablation", tiny_study, *words, *more, "--dry-run")
    assert shown.code == 0, shown
    directives = {line for line in shown.out.splitlines() if line.startswith("#SBATCH")}
    assert {
        "#SBATCH --array=0-3%3", "#SBATCH --time=90", "#SBATCH --partition=gpu",
        "#SBATCH --cpus-per-task=2", "#SBATCH --gpus-per-node=1", "#SBATCH --requeue",
        "#SBATCH --signal=USR2@90", "#SBATCH --mem=8GB",
    } <= directives  # fmt: skip
    assert not (tmp_path / "bench-runs").exists()


@without_gpu
def test_a_login_node_without_a_gpu_says_how_to_use_those_of_the_nodes(bench_process, tiny_study):
    pytest.importorskip("submitit")
    words = ("run-ablation", tiny_study, "--launcher", "slurm", "--dry-run")
    said = "--device cuda trains on the GPUs of the others"
    assert said in bench_process(*words).err
    assert said not in bench_process(*words, "--device", "cpu").err


def test_slurm_takes_options_as_sbatch_spells_them(bench, tiny_study):
    """One line each: of two that contradict each other, sbatch takes the last."""
    pytest.importorskip("submitit")
    words = ("--launcher", "slurm", "--slurm-option", "cpus-per-task=8")
    more = ("--slurm-option", "job-name=depths", "--device", "cpu", "--dry-run")
    lines = bench("run-ablation", tiny_study, *words, *more).out.splitlines()
    for option, value in (("cpus-per-task", "8"), ("job-name", "depths")):
        assert [x for x in lines if option in x] == [f"#SBATCH --{option}={value}"]


def test_a_controller_that_does_not_answer_is_asked_again(monkeypatch):
    def squeue(*_words, timeout, **_options):
        raise subprocess.TimeoutExpired("squeue", timeout)

    monkeypatch.setattr(subprocess, "run", squeue)
    job = Mock(job_id="1_0")
    assert slurm._present("slurm", {job: make_request()}) == {job}


@pytest.mark.parametrize("earlier", ["complete", "failed", None])
def test_what_an_earlier_attempt_recorded_is_not_how_a_lost_job_ended(tmp_path, earlier):
    """With --force, the record of a run that is trained again is still there."""
    store, request, told = Store(tmp_path / "bench-runs"), make_request(), []
    store.prepare()
    if earlier == "complete":
        store.finish_run(make_record(request))
    elif earlier == "failed":
        store.mark_unfinished(make_record(request, status="failed", error="of before"))
    before = store.read(request.run_id)
    resources = Resources(device="cpu", threads=1, force=True)
    work = Assignment([request], store, resources, 1, Stop(), told.append)
    slurm._settle(work, request, before, Path("1_0_log.out"))
    assert (told[0]["status"], "left the queue" in told[0]["error"]) == ("failed", True)
    store.finish_run(make_record(request, started_at="2026-02-03T04:05:06+00:00"))
    slurm._settle(work, request, before, Path("1_0_log.out"))
    assert told[1]["status"] == "complete"
