from __future__ import annotations

from importlib import util

import pytest

REFUSALS = {
    "unknown": (["--launcher", "rey"], "unknown launcher 'rey'; did you mean 'ray'"),
    "address without ray": (["--ray-address", "a:1"], "--ray-address a:1: it belongs to"),
    "bytes without ray": (["--return-bytes"], "--return-bytes: it belongs to --launcher ray"),
    "minutes without slurm": (["--slurm-minutes", "5"], "it belongs to --launcher slurm"),
    "no minutes": (["--launcher", "slurm", "--slurm-minutes", "0"], "--slurm-minutes 0: it must"),
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
