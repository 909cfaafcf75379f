"""Every command does what its help says, for a person and for a program."""

from __future__ import annotations

import json
import math
import re
import shlex
import shutil
import signal
import subprocess
from dataclasses import replace
from importlib.metadata import version

import pytest
import typer
from PIL import Image
from rich.console import Console

from bench.cli import progress
from bench.cli.app import app
from bench.models import list_models
from bench.store import Store
from bench.store.analyses import Analyses
from bench.store.tables.columns import COLUMNS
from bench.studies import shipped_studies
from bench.studies.recipe import get_recipe
from bench.system.devices import resolve_device
from bench.training.optimisers import muon_precision
from builders import TROUBLED_NETWORK, make_record, make_request, make_study, make_unfinished


def leaves(group=None, path=()):
    for name, command in (group or typer.main.get_command(app)).commands.items():
        if hasattr(command, "commands"):
            yield from leaves(command, (*path, name))
        else:
            yield (*path, name), command


def commands():
    return (path for path, _ in leaves())


def first_run(results):
    return next(Store(results).runs()).run


def run_study(bench, study, results, *words):
    where = ("--results", results, "--device", "cpu", "--threads", 1, "--workers", 1)
    return bench("run-ablation", study, *where, *words)


@pytest.mark.parametrize("command", list(commands()), ids=" ".join)
def test_the_help_of_every_command_shows_an_example(command, bench):
    outcome = bench(*command, "--help")
    assert outcome.code == 0
    assert outcome.err == ""
    _, found, examples = re.sub(r"[│╭╮╰╯─]", " ", outcome.out).partition("Example")
    assert found
    assert f"bench {' '.join(command)}" in examples


@pytest.mark.parametrize(
    ("path", "command"), [pytest.param(*x, id=" ".join(x[0])) for x in leaves()]
)
def test_the_help_of_a_command_is_its_docstring(path, command, bench):
    shown, written = bench(*path, "--help").out, command.callback.__doc__
    assert " ".join(written.split()) in " ".join(shown.split())  # [[machine]] is no markup


@pytest.mark.parametrize("command", [pytest.param(c, id=" ".join(p)) for p, c in leaves()])
def test_the_help_of_every_option_is_a_sentence_below_80_characters(command):
    for parameter in command.params:
        assert re.fullmatch(r".{1,78}\.", parameter.help or ""), parameter.opts


def test_commands_are_listed_in_panels_in_the_order_of_a_days_work(bench):
    shown = bench("--help").out
    panels = re.findall(r"^╭─ (\w+) ─", shown, re.MULTILINE)
    assert panels == ["Options", "Study", "Results", "Export", "Speed", "Inspect", "Manage"]
    listed = re.findall(r"^│ ([a-z][\w-]+)  ", shown, re.MULTILINE)
    assert listed[:5] == ["init", "run-ablation", "train", "import", "report"]
    assert listed[-4:] == ["results", "list", "doctor", "plan"]
    assert set(listed) == {name for name, *_ in commands()}


def test_a_shell_can_complete_commands_and_values(bench, monkeypatch):
    monkeypatch.setenv("_BENCH_COMPLETE", "complete_bash")
    for words, position, completed in (
        ("bench run", 1, "run-ablation"),
        ("bench export-onnx --precision i", 3, "int8"),
    ):
        monkeypatch.setenv("COMP_WORDS", words)
        monkeypatch.setenv("COMP_CWORD", str(position))
        assert bench().out.split() == [completed]


def test_the_version_is_the_packages(bench):
    assert bench("--version").out == f"bench {version('resnet-bench')}\n"


def test_a_bare_command_shows_the_help(bench):
    outcome = bench()
    assert "run-ablation" in outcome.out + outcome.err
    assert outcome.code == 2


# run-ablation


def test_a_finished_study_trains_nothing_and_prints_its_table_again(bench, results, tiny_study):
    files = [path for path in (results / "runs").rglob("*") if path.is_file()]
    before = {path: path.stat().st_mtime_ns for path in files}
    assert len(before) >= 16
    first, again = (run_study(bench, tiny_study, results) for _ in range(2))
    assert first.code == 0
    assert first.err == ""
    assert first.out == again.out
    assert before == {path: path.stat().st_mtime_ns for path in files}
    lines = first.out.strip().splitlines()
    assert lines[:2] == ["Does the shortcut matter here?", "(He et al. 2016a, Table 2)"]
    # A run as short as these may end at chance accuracy; then median and worst seed follow.
    assert re.match(r"residual +\d+\.\d\d (± |\[).* +reference .* 4\.934 k +592\.9 k ", lines[3])
    assert re.match(
        r"plain .* [+-]\d+\.\d\d \[[+-]\d+\.\d\d, [+-]\d+\.\d\d\] .* 4\.\d+ k ", lines[4]
    )
    said = "There is no significant difference between plain and residual (n = 2)"
    assert any(line.startswith(said) for line in lines)
    # Seven convolutions, each with the scale and shift of a batch norm, and the last layer's two.
    assert "Initial tensors equal to the reference's, same seed: plain 23 of 23" in lines
    assert any(line.startswith(f"Results: {results} (study 'tiny', 4 runs)") for line in lines)


def test_the_next_commands_can_be_pasted(bench, trained, tiny_study, tmp_path):
    spaced = shutil.copytree(trained, tmp_path / "my runs")
    shown = run_study(bench, tiny_study, spaced).out.splitlines()
    pasted = [shlex.split(line) for line in shown if line.startswith("  bench ")]
    assert len(pasted) >= 3
    assert all(str(spaced) in words for words in pasted)
    assert all(words[1] in {name for name, *_ in commands()} for words in pasted)


def test_a_study_is_json_for_a_program(bench, results, tiny_study):
    outcome = run_study(bench, tiny_study, results, "--json")
    assert outcome.code == 0
    assert outcome.err == ""
    rows = outcome.document["rows"]
    assert outcome.document["errors"] == []
    assert [(row["variant"], row["seed"]) for row in rows] == [
        ("residual", 0), ("residual", 1), ("plain", 0), ("plain", 1),
    ]  # fmt: skip
    assert all(set(row) == set(COLUMNS["runs"]) for row in rows)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT.*Z?", rows[0]["started_at"])


def test_only_what_changed_is_trained(bench, results, tiny_study):
    before = {record.run for record in Store(results).runs()}
    outcome = run_study(bench, tiny_study, results, "--seeds", "1,2", "--only", "residual")
    assert outcome.code == 0
    new = {record.run for record in Store(results).runs()} - before
    assert len(new) == 1
    assert next(iter(new)).split("-")[-2] == "s2"
    assert re.findall(r"^(\w+ seed \d): complete", outcome.err, re.MULTILINE) == ["residual seed 2"]


def test_a_variant_that_was_not_requested_does_not_count_as_failed(bench, results, tiny_study):
    store = Store(results)
    runs = store.find_study("tiny").variants["plain"]["runs"].values()
    for run in runs:
        make_unfinished(store, run, status="interrupted")
    outcome = run_study(bench, tiny_study, results, "--only", "residual", "--quiet")
    assert outcome.code == 0
    assert set(store.run_ids()) >= set(runs)
    assert not any(store.read_run(run) for run in runs)


def test_force_trains_again(bench, results, tiny_study):
    before = {r.run: "2026-01-02T03:04:05+00:00" for r in Store(results).runs()}
    for record in Store(results).runs():  # now may be within the second of the first training
        earlier = replace(record, started_at=before[record.run])
        (Store(results).folder(record.run) / "run.json").write_bytes(earlier.to_json())
    words = ("--force", "--only", "plain", "--seeds", "0", "--quiet")
    outcome = run_study(bench, tiny_study, results, *words)
    assert outcome.code == 0
    assert outcome.err == ""
    after = {r.run: r.started_at for r in Store(results).runs()}
    assert before.keys() == after.keys()
    assert sum(after[run] > before[run] for run in before) == 1


def test_a_dry_run_tells_what_is_left_and_writes_nothing(
    bench, results, tiny_study, entries, tmp_path
):
    before = entries(results)
    words = ("--seeds", "0,7", "--dry-run")
    rows = run_study(bench, tiny_study, results, *words, "--json").document["rows"]
    left = {(row["variant"], row["seed"]): row["status"] for row in rows}
    assert left == {
        ("residual", 0): "complete", ("plain", 0): "complete",
        ("residual", 7): "to do", ("plain", 7): "to do",
    }  # fmt: skip
    assert all((row["seconds"] > 0) == (row["status"] == "to do") for row in rows)
    shown = run_study(bench, tiny_study, results, *words)
    assert re.search(r"4 runs, 2 to do: about \d+ s left here with start-up", shown.out)
    assert entries(results) == before
    assert run_study(bench, tiny_study, tmp_path / "none", "--dry-run").code == 0
    assert not (tmp_path / "none").exists()


def test_a_dry_run_of_train_writes_nothing(bench, tmp_path):
    words = ("train", "resnet8", "--option", "width=4", "--threads", 1, "--dry-run")
    (row,) = bench(*words, "--json").document["rows"]
    assert (row["variant"], row["status"]) == ("resnet8", "to do")
    assert row["seconds"] > 0
    out = " ".join(bench(*words, "--compile").out.split())
    assert "1 runs, 1 to do: about" in out
    assert "from a few timed steps without --compile" in out
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("terminal", [False, True])
def test_only_long_plans_are_announced(terminal, monkeypatch, capsys):
    console = Console(stderr=True, width=300, force_terminal=terminal, color_system=None)
    monkeypatch.setattr(progress, "stderr", lambda: console)
    with progress.progress_view(quiet=False) as view:
        for seconds in (1200, 10_800):
            view({"event": "plan", "what": "training", "runs": {"a": "a"}})
            view({"event": "estimate", "seconds": seconds, "basis": "a few timed steps"})
    said = capsys.readouterr().err
    assert said.count("about 3.0 h here") == said.count(" here, ") == 1
    assert said.count("To shorten: ") == 1


def test_a_name_that_is_markup_of_the_terminal_is_shown_as_it_is(monkeypatch, capsys):
    console = Console(stderr=True, width=300, force_terminal=True, color_system=None)
    monkeypatch.setattr(progress, "stderr", lambda: console)
    with progress.progress_view(quiet=False) as view:
        view({"event": "plan", "what": "training", "runs": {"a": "width [/2] seed 0"}})
        view({"event": "start", "run": "a", "epochs": 1, "done": 0})
    assert "width [/2] seed 0" in capsys.readouterr().err


def test_the_starter_study_can_be_dry_run(bench, tmp_path):
    written = bench("init", "mine.toml")
    assert written.out == "Wrote mine.toml. Run it: bench run-ablation mine.toml\n"
    outcome = bench("run-ablation", "mine.toml", "--dry-run", "--only", "plain", "--threads", 1)
    assert outcome.code == 0
    assert "3 runs, 3 to do" in outcome.out
    assert [path.name for path in tmp_path.iterdir()] == ["mine.toml"]


TRIPPING = """
import torch
from torch import nn

class Tripping(nn.Sequential):
    def forward(self, x):
        if torch.is_grad_enabled():  # in training only, not while it is checked
            raise RuntimeError("the network tripped")
        return super().forward(x)

def network(num_classes, in_channels):
    return Tripping(nn.Flatten(), nn.Linear(784, num_classes))
"""


def test_a_failed_run_is_told_and_exits_with_1(bench, results, tiny_study, tmp_path):
    (tmp_path / "tripping.py").write_text(TRIPPING)
    study = tmp_path / "own.toml"
    variant = '[[variant]]\nname = "own"\nmodel = "tripping:network"\n'
    study.write_text(tiny_study.read_text().replace("[0, 1]", "[0]") + variant)
    outcome = run_study(bench, study, results)
    assert outcome.code == 1
    run = next(Store(results).unfinished()).run
    assert f"own s0 {run[-12:-4]}: failed: RuntimeError: the network tripped" in outcome.out
    assert "1 failed" in outcome.out
    document = run_study(bench, study, results, "--json").document
    assert len(document["rows"]) == 3
    failed = {"run": run, "status": "failed", "error": "RuntimeError: the network tripped"}
    assert document["errors"] == [failed]
    listed = bench("results", "ls", "--results", results, "--json").document["rows"]
    assert {row["status"] for row in listed if row["run"] == run} == {"failed"}


# train


def test_a_network_that_a_study_trained_is_not_trained_again(bench, results, tiny_run):
    before = {record.run for record in Store(results).runs()}
    outcome = bench(*tiny_run, "--results", results)
    assert outcome.code == 0
    assert re.fullmatch(
        r"resnet8 s0 \w{8}: test accuracy \d+\.\d\d %, train accuracy \d+\.\d\d %, \d+ s\n",
        outcome.out,
    )
    assert {record.run for record in Store(results).runs()} == before
    (row,) = bench(*tiny_run, "--results", results, "--json").document["rows"]
    assert row["run"] in before
    assert (row["study"], row["variant"]) == ("adhoc", "resnet8")
    assert set(row) == set(COLUMNS["runs"])


def test_made_up_images_show_a_speed_and_no_accuracy(bench, tiny_run):
    outcome = bench(*tiny_run, "--dataset", "synthetic", "--quiet")
    assert outcome.code == 0
    assert re.search(r": [\d,]+ images/s \(synthetic images: no accuracy\), \d+ s", outcome.out)
    assert outcome.err == ""


# Its 20th step, in the second epoch, ends once a stop is requested, or is resumed.
WAITING = f"""{TROUBLED_NETWORK}
import signal, time
from pathlib import Path

def wait():
    stop = signal.getsignal(signal.SIGTERM).__self__
    while stop.signal is None and not Path("resumed").exists():
        time.sleep(0.01)

def network(num_classes, in_channels):
    return Network(num_classes, in_channels, 20, wait)
"""
# A worker has as long as it takes to write its checkpoint.
PATIENT = "from bench.launch import processes; processes.STOP_SECONDS = 600; "

STOPS = [pytest.param(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 75, marks=pytest.mark.slow)]


@pytest.mark.parametrize(("number", "code"), STOPS)
def test_a_stopped_training_goes_on_with_the_same_command(number, code, program, bench, tmp_path):
    (tmp_path / "waiting.py").write_text(WAITING)
    words = (
        "train", "waiting:network", "--epochs", 12, "--set", "train_images=300",
        "--set", "batch_size=20", "--device", "cpu", "--threads", 1,
    )  # fmt: skip
    python, dash_c, script, *rest = program(*words)
    command = [python, dash_c, PATIENT + script, *rest]
    process = subprocess.Popen(
        command, cwd=tmp_path, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stderr is not None
    lines = iter(process.stderr.readline, "")
    assert any(line.startswith("waiting:network seed 0: epoch 1/12") for line in lines)
    process.send_signal(number)
    out, err = process.communicate(timeout=120)
    assert process.returncode == code, err
    last = f"bench: stopped by {number.name}; rerun the same command to resume"
    assert err.splitlines()[-1] == last
    assert "Traceback" not in err
    assert out == ""
    assert list((tmp_path / "bench-runs" / "runs").glob("*.partial/checkpoint.safetensors"))
    store = Store(tmp_path / "bench-runs")
    assert list(store.runs()) == []
    (begun,) = store.unfinished()
    assert begun.status == "interrupted"

    (tmp_path / "resumed").touch()
    outcome = bench(*words)
    assert outcome.code == 0
    epochs = [int(n) for n in re.findall(r"epoch (\d+)/12", outcome.err)]
    assert epochs == list(range(2, 13))
    assert [record.run for record in store.runs()] == [begun.run]
    assert list(store.unfinished()) == []
    history = store.checked_file(begun.run, "history.csv").read_text().splitlines()
    assert len(history) == 1 + 12


# predict, report, describe, list, doctor


def test_predict_tells_classes_and_probabilities(bench, trained, tmp_path):
    for name in ("a.png", "b [1].png"):
        Image.new("RGB", (40, 30), "white").save(tmp_path / name)
    words = ("predict", first_run(trained), "a.png", "b [1].png", "--results", trained)
    outcome = bench(*words)
    assert outcome.code == 0
    assert re.search(r"^a\.png +1 +\S.* 0\.\d{3}$", outcome.out, re.MULTILINE)
    assert re.search(r"^b \[1\]\.png +1 ", outcome.out, re.MULTILINE)
    rows = bench(*words, "--top", 2, "--json").document["rows"]
    assert [(row["image"], row["rank"]) for row in rows] == [
        ("a.png", 1), ("a.png", 2), ("b [1].png", 1), ("b [1].png", 2),
    ]  # fmt: skip
    assert all(0 <= row["probability"] <= 1 for row in rows)


def test_report_writes_the_last_studys_page(bench, trained, tmp_path):
    outcome = bench("report", "--results", trained, "--output", "page")
    assert outcome.code == 0
    files = outcome.out.split()
    assert {"page/README.md", "page/study.svg", "page/runs.csv"} <= set(files)
    assert all((tmp_path / file).is_file() for file in files)


def test_describe_takes_a_depth_that_an_option_makes_one(bench):
    words = ("--option", "block=bottleneck", "--json")
    *rows, _ = bench("describe", "resnet29", *words).document["rows"]
    assert [row["kind"] for row in rows].count("Bottleneck") == 9


def test_describe_prints_the_layers_and_their_totals(bench):
    outcome = bench("describe", "resnet20", "--input", "1x3x32x32")
    assert outcome.code == 0
    assert re.search(r"^layer +kind +output shape +parameters +multiply-adds$", outcome.out, re.M)
    assert re.search(r"^total +269,722 +40,5\d\d,\d\d\d *$", outcome.out, re.MULTILINE)
    assert "1×64×8×8" in outcome.out
    assert "whole batch" not in outcome.out
    (macs,) = re.findall(r"^total .* ([\d,]+) *$", outcome.out, re.MULTILINE)
    of_four = bench("describe", "resnet20", "--input", "4x3x32x32").out
    assert f"those of the whole batch: {macs} for each of its 4 images" in of_four
    *rows, total = bench("describe", "resnet20", "--json").document["rows"]
    assert total["layer"] == "total"
    assert total["parameters"] == 269_722 == sum(row["parameters"] for row in rows)
    assert total["macs"] == sum(row["macs"] for row in rows)
    words = ("describe", "resnet20", "--option", "shortcut=none", "--classes", 7, "--json")
    assert bench(*words).document["rows"][-2]["output_shape"] == [1, 7]


def test_list_tells_what_there_is(bench):
    rows = bench("list", "--json").document["rows"]
    kinds = {kind: {r["name"] for r in rows if r["kind"] == kind} for kind in
             ("models", "studies", "datasets", "recipes")}  # fmt: skip
    assert kinds["models"] >= {*list_models(), "timm:NAME", "package.module:function"}
    assert kinds["studies"] == set(shipped_studies())
    assert kinds["datasets"] >= {"fashion-mnist-mini", "cifar10", "synthetic", "imagefolder:PATH"}
    assert kinds["recipes"] == {"book", "fast"}
    for kind, names in kinds.items():
        shown = bench("list", kind)
        assert shown.code == 0
        assert all(name in shown.out for name in names)
    assert all(f"\n{kind}\n" in "\n" + bench("list").out for kind in kinds)


def test_list_shows_every_value_in_which_the_recipes_differ(bench):
    rows = bench("list", "recipes", "--json").document["rows"]
    book, fast = (get_recipe(row["name"]).model_dump(mode="json") for row in rows)
    assert {key for key in book if book[key] != fast[key]} <= set(rows[0])
    for row, recipe in zip(rows, (book, fast), strict=True):
        assert {key: row[key] for key in row.keys() & recipe.keys()} == {
            key: recipe[key] for key in row.keys() & recipe.keys()
        }


def test_doctor_fits_on_one_screen(bench):
    outcome = bench("doctor")
    assert outcome.code in {0, 1}
    assert len(outcome.out.splitlines()) <= 30
    rows = bench("doctor", "--json").document["rows"]
    names = [row["name"] for row in rows]
    assert {"Python", "torch", "processor", "ONNX Runtime", "GPU", "disk"} <= set(names)
    (datasets,) = [row["found"] for row in rows if row["name"] == "datasets"]
    assert "fashion-mnist-mini" in datasets
    chosen = {r["name"]: r["found"] for r in rows if r["name"].startswith("default ")}
    assert chosen["default Muon's arithmetic"].startswith(
        muon_precision(resolve_device("auto")) + " ("
    )
    assert {"default workers", "default memory layout", "default precision"} <= chosen.keys()
    # One source: what a sweep and `list backends` go by.
    pairs = bench("list", "backends", "--json").document["rows"]
    others = [row["found"].split(", ") for row in rows if row["name"] == "other backends"]
    for name in {pair["name"] for pair in pairs} - {"null"}:
        lines = {r["name"]: r for r in rows if r["name"].startswith(f"backend {name}, ")}
        assert bool(lines) != any(name in absent for absent in others)
        for device in {pair["device"] for pair in pairs if pair["name"] == name}:
            runs = [p["precision"] for p in pairs if (p["name"], p["device"]) == (name, device)
                    and p["runs_here"]]  # fmt: skip
            line = lines.get(f"backend {name}, {device}")
            assert not runs or line is not None
            if line is not None:
                assert line["state"] == ("ok" if runs else "missing")
                assert not runs or line["found"].split() == runs
    assert all(row["fix"] for row in rows if row["state"] != "ok")
    assert outcome.code == int(any(row["state"] == "broken" for row in rows))


def test_doctor_tells_when_torch_is_missing(bench_process, tmp_path):
    (tmp_path / "torch.py").write_text("raise ImportError('no torch here')\n")
    outcome = bench_process("doctor", "--json")  # -c puts the current folder first
    assert outcome.code == 1
    rows = {row["name"]: row for row in outcome.document["rows"]}
    assert rows["torch"]["state"] == "broken"
    assert rows["torch"]["fix"] == "pip install torch"
    assert "Traceback" not in outcome.err


CHATTY = """
import os
import torch
from torch import nn

class Network(nn.Module):
    def __init__(self, num_classes, in_channels):
        super().__init__()
        self.head = nn.Linear(in_channels * 64, num_classes)

    def forward(self, images):
        print("forward", flush=True)
        os.write(1, b"native code")
        return self.head(images.flatten(1))

def network(num_classes, in_channels):
    return Network(num_classes, in_channels)

def dataset():
    print("dataset")
    images = torch.arange(40).view(40, 1, 1, 1).expand(40, 1, 8, 8).to(torch.uint8)
    labels = torch.arange(40) % 2
    return images, labels, images + 100, labels
"""


def test_what_the_users_code_prints_stays_out_of_the_json(bench_process, tmp_path):
    (tmp_path / "chatty.py").write_text(CHATTY)
    words = ("chatty:network", "--dataset", "chatty:dataset", "--epochs", 1, "--threads", 1)
    trained = bench_process("train", *words, "--json")
    (row,) = trained.document["rows"]
    for printed in ("dataset\n", "forward\n", "native code"):
        assert printed in trained.err
    walked = bench_process("landscape", row["run"], "--points", 3, "--images", 4, "--json")
    assert walked.document["rows"]
    assert "native code" in walked.err
    refused = bench_process("train", *words, "--set", "batch_size=0", "--json")
    assert refused.document["errors"]


# results


def test_results_are_listed_with_their_size_and_studies(bench, results):
    make_unfinished(Store(results))
    rows = bench("results", "ls", "--results", results, "--json").document["rows"]
    assert len(rows) == 4
    assert {row["studies"] for row in rows} == {"tiny"}
    assert all(row["bytes"] > 0 for row in rows)
    assert [row["status"] for row in rows].count("failed") == 1
    assert {(row["variant"], row["seed"]) for row in rows} == {
        (variant, seed) for variant in ("plain", "residual") for seed in (0, 1)
    }
    shown = bench("results", "ls", "--results", results)
    assert shown.code == 0
    for row in rows:
        listed = rf"^{row['variant']} +{row['seed']}  {row['run'][-12:-4]}  {row['status']} "
        assert re.search(listed, shown.out, re.MULTILINE)
    assert re.search(r"^4 runs, \d\.\d MB in ", shown.out, re.MULTILINE)


@pytest.fixture
def killed(results):
    """A run that SIGKILL ended after a checkpoint, and which no study uses any more."""
    store, run = Store(results), first_run(results)
    store.folder(run).rename(store.partial(run))
    (store.partial(run) / "run.json").unlink()
    store.save_checkpoint(run, {}, {})
    tiny = store.find_study("tiny")
    kept = {
        name: entry for name, entry in tiny.variants.items() if run not in entry["runs"].values()
    }
    store.save_study(replace(tiny, variants=kept))
    return run


@pytest.mark.filterwarnings("ignore:passing over")
def test_runs_without_a_record_are_listed_and_collected(bench, results, killed):
    store = Store(results)
    broken = next(r.run for r in store.runs() if r.run not in store.find_study().runs)
    (store.folder(broken) / "run.json").write_text("{}")
    rows = bench("results", "ls", "--results", results, "--json").document["rows"]
    status = {row["run"]: row["status"] for row in rows}
    assert (status[killed], status[broken], len(status)) == ("begun", "unreadable", 4)
    shown = bench("results", "ls", "--results", results)
    assert (shown.code, "None" in shown.out) == (0, False)
    refusal = bench("results", "show", killed, "--results", results).refusal
    assert "cannot be shown (begun, and nothing recorded yet)" in refusal
    assert bench("results", "gc", "--yes", "--results", results).out == "Removed 2 run(s).\n"
    assert len(store.run_ids()) == 2


def test_a_run_that_is_being_trained_is_not_collected(bench, results, killed):
    with Store(results).lock(killed):
        outcome = bench("results", "gc", "--yes", "--results", results)
    assert outcome.out == "Removed 1 run(s).\n"
    assert killed in Store(results).run_ids()


def test_nothing_is_collected_while_a_study_cannot_be_read(bench, results):
    (results / "studies" / "tiny.json").write_text("{}")
    refusal = bench("results", "gc", "--yes", "--results", results).refusal
    assert refusal.startswith(f"study 'tiny' in {results} cannot be read: ")
    assert len(Store(results).run_ids()) == 4


def test_an_unfinished_run_is_shown_with_its_reason(bench, results):
    run = make_unfinished(Store(results))
    shown = bench("results", "show", run, "--results", results)
    assert shown.code == 0
    assert "  status: failed\n  error: why\n" in shown.out
    (row,) = bench("results", "show", run, "--results", results, "--json").document["rows"]
    assert row["error"] == "why"
    refusal = bench("results", "locate", run, ".", "--results", results).refusal
    assert refusal == f"run {run} cannot be used (failed: why)"


def test_a_run_is_shown_in_full(bench, trained):
    run = first_run(trained)
    outcome = bench("results", "show", run[:-3], "--results", trained)
    assert outcome.code == 0
    for text in (
        f"  run: {run}",
        "recipe.batch_size: 50",
        "torch_cpu_capability",
        "epoch,train_loss",
    ):
        assert text in outcome.out
    (row,) = bench(
        "results", "show", trained / "runs" / run, "--results", trained, "--json"
    ).document["rows"]
    assert row["request"]["recipe"]["batch_size"] == 50
    assert row["files"].keys() >= {"history.csv", "model.safetensors", "predictions.safetensors"}
    assert {"torch", "cpu", "instruction_sets", "git_commit", "threads"} <= set(row["environment"])


def test_numbers_that_json_lacks_are_null(bench, tmp_path):
    result = {"test_loss": math.inf, "per_class_accuracy": [math.nan, 1.0]}
    store = Store(tmp_path / "bench-runs")
    run = store.finish_run(make_record(result=result)).run
    shown = bench("results", "show", run, "--json").out
    assert "Infinity" not in shown
    assert "NaN" not in shown
    (row,) = json.loads(shown)["rows"]
    assert row["result"] == {"test_loss": None, "per_class_accuracy": [None, 1.0]}


def test_removal_asks_and_names_the_studies_that_lose_a_run(bench, results):
    run = first_run(results)
    Analyses(results).publish("lesion", {"run": run}, {"lesions": []}, {})
    refused = bench("results", "rm", run, "--results", results, stdin="n\n")
    assert refused.code == 130
    assert f"{run} is used by: tiny" in refused.out
    assert "These studies will train them again" in refused.out
    assert Store(results).read_run(run) is not None
    assert bench("results", "rm", run, "--results", results, stdin="").code == 130
    done = bench("results", "rm", run, "--results", results, stdin="y\n")
    assert done.code == 0
    assert "Removed 1 run(s)" in done.out
    assert Store(results).read_run(run) is None
    assert Analyses(results).of([run]) == []
    told = bench("results", "rm", first_run(results), "--yes", "--results", results)
    assert "is used by: tiny" in told.out  # said even where it does not ask


def test_a_run_that_is_being_trained_is_not_removed(bench, results):
    store = Store(results)
    idle, busy = (record.run for record in list(store.runs())[:2])
    with store.lock(busy):
        refusal = bench("results", "rm", idle, busy, "--yes", "--results", results).refusal
    assert refusal.startswith(f"run {busy} is being trained now: wait until it has ended, or stop")
    assert store.read_run(idle) is not None
    assert bench("results", "rm", idle, busy, "--yes", "--results", results).code == 0


def test_a_removed_single_run_is_listed_nowhere(bench, tmp_path):
    store = Store(tmp_path / "bench-runs")
    runs = [store.finish_run(make_record(make_request(seed=seed))).run for seed in (0, 1)]
    other = store.finish_run(make_record(make_request(seed=2))).run
    study = make_study({"a": runs, "b": [other]}, {"b": None}, name="adhoc")
    store.save_study(study)
    told = bench("results", "rm", runs[0], other, "--yes")
    assert told.out == "Removed 2 run(s).\n"  # no study will train them again
    assert store.find_study("adhoc").variants == {"a": {"reference": None, "runs": {"1": runs[1]}}}
    bench("results", "rm", runs[1], "--yes")
    assert store.studies() == []


def test_a_removed_import_takes_the_study_that_names_it_along(bench, tmp_path):
    store = Store(tmp_path / "bench-runs")
    imported = store.finish_run(make_record(make_request(epochs=0))).run
    trained = store.finish_run(make_record(make_request())).run
    store.save_study(make_study({"mine": [imported]}, {"mine": None}, name="mine"))
    store.save_study(make_study({"a": [trained]}, {"a": None}, name="one-run"))
    assert bench("results", "rm", "mine", "--yes").out == "Removed 1 run(s).\n"
    assert [study.name for study in store.studies()] == ["one-run"]
    told = bench("results", "rm", trained, stdin="n\n").out
    assert "These studies will train them again" in told


def test_only_what_no_study_uses_is_collected(bench, results, monkeypatch):
    store = Store(results)
    nothing = bench("results", "gc", "--yes", "--results", results)
    assert nothing.out == "Every run is used by a study; nothing to remove.\n"
    tiny = store.find_study("tiny")
    store.save_study(replace(tiny, variants={"residual": tiny.variants["residual"]}))
    unused = set(tiny.variants["plain"]["runs"].values())
    asked = bench("results", "gc", "--results", results, stdin="n\n")
    assert "Remove 2 run(s) that no study uses?" in asked.out
    assert all(f"  {run}\n" in asked.out for run in unused)
    assert len(list(store.runs())) == 4
    with monkeypatch.context() as patch:  # while the question is open, a study takes them up
        patch.setattr("typer.confirm", lambda *_, **__: store.save_study(tiny))
        assert "Removed 0 run(s)" in bench("results", "gc", "--results", results).out
    store.save_study(replace(tiny, variants={"residual": tiny.variants["residual"]}))
    assert bench("results", "gc", "--yes", "--results", results).out == "Removed 2 run(s).\n"
    assert {record.run for record in store.runs()} == tiny.runs - unused


def test_a_study_asks_for_what_was_removed(bench, results, tiny_study):
    run = first_run(results)
    bench("results", "rm", run, "--yes", "--results", results)
    rows = run_study(bench, tiny_study, results, "--dry-run", "--json").document["rows"]
    assert {row["run"]: row["status"] for row in rows}[run] == "to do"
    page = bench("report", "tiny", "--results", results, "--output", "page")
    assert page.code == 0


def test_packed_runs_unpack_elsewhere(bench, trained, tmp_path):
    packed = bench("results", "pack", "runs.tar.gz", "--results", trained)
    assert re.fullmatch(r"Packed 4 run\(s\), .* into runs\.tar\.gz \(\d\.\d MB\)\.\n", packed.out)
    unpacked = bench("results", "unpack", "runs.tar.gz", "--results", "there")
    assert re.fullmatch(r"Added 4 run\(s\), .* to there\.\n", unpacked.out)
    assert bench("results", "unpack", "runs.tar.gz", "--results", "there").out.startswith("Added 0")
    ours, theirs = (
        bench("results", "ls", "--results", place, "--json").document["rows"]
        for place in (trained, tmp_path / "there")
    )
    assert ours == theirs
    assert json.loads((tmp_path / "there" / "studies" / "tiny.json").read_text())["name"] == "tiny"
