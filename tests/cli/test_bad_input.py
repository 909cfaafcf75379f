"""Bad input: exit code 2, one line that says what and how to fix it, nothing written."""

from __future__ import annotations

import errno
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from bench.store import Store

STUDY = """question = "Why?"
[base]
dataset = "fashion-mnist-mini"
[[variant]]
name = "a"
model = "resnet8"
"""

USAGE = {
    "no command": ("", r"give a command \(see 'bench --help'\)"),
    "unknown command": ("traim", "No such command 'traim'. Did you mean 'train'.*bench --help"),
    "no command of results": ("results", r"give a command \(see 'bench results --help'\)"),
    "unknown command of results": ("results lst", "No such command 'lst'"),
    "unknown option": ("train resnet8 --sead 1", "No such option: --sead .*--seed"),
    "missing argument": ("train", "Missing argument 'MODEL'"),
    "one argument too many": ("train resnet8 resnet14", "unexpected extra argument.*14"),
    "an option without its value": ("train resnet8 --seed", "Option '--seed' requires"),
    "a bad integer": ("train resnet8 --epochs ten", "Invalid value for '--epochs'"),
    "an unknown list": ("list model", "'model' is not one of 'models', 'options', 'studies'"),
}

REQUESTS = {
    "unknown study": (
        "run-ablation quikstart",
        "unknown study 'quikstart'; did you mean 'quickstart'",
    ),
    "missing study file": (
        "run-ablation x.toml",
        "cannot read the study x.toml: No such file or directory; 'bench init",
    ),
    "broken TOML": ("run-ablation broken.toml", r"broken.toml: not valid TOML: .*\(at "),
    "empty TOML": ("run-ablation empty.toml", "empty.toml is empty; 'bench init empty.toml'"),
    "invalid study": ("run-ablation invalid.toml", r"invalid.toml:7: \[\[variant\]\] 1, e"),
    "unknown variant": ("run-ablation study.toml --only b", "--only b is unknown"),
    "seeds that are words": (
        "run-ablation study.toml --seeds 0,one",
        "--seeds 0,one: random seeds are integers or ranges, separated by commas, such as",
    ),
    "seeds that are fractions": ("run-ablation study.toml --seeds 1.5", "--seeds 1.5: "),
    "no seeds": ("run-ablation study.toml --seeds ''", "--seeds : random seeds are"),
    "no epochs": ("run-ablation study.toml --epochs 0", "--epochs 0: it must be at"),
    "no workers": ("run-ablation study.toml --workers 0", "--workers 0: .* use 1 to"),
    "absurdly many workers": (
        "run-ablation study.toml --workers 100000",
        "--workers 100000: this machine has .*; use 1 to .* leave --workers out",
    ),
    "absurdly many threads": (
        "run-ablation study.toml --threads 99999",
        "--threads 99999: this machine has .*; use 1 to",
    ),
    "no threads": ("train resnet8 --threads 0", "--threads 0: .* use 1 to"),
    "negative epochs": ("train resnet8 --epochs -1", "--epochs -1: it must be at least"),
    "no batch": (
        "train resnet8 --set batch_size=0",
        "batch_size = 0: input should be greater than or equal to 1",
    ),
    "unknown model": ("train resnet8x", "unknown model 'resnet8x'; did you mean 'resnet"),
    "the file of a network": (
        "train nets.py --seed 1",
        r"^unknown model 'nets.py'; did you mean 'nets:FUNCTION'",
    ),
    "the file of a network to describe": (
        "describe my/nets.py",
        "no model, run or study 'my/nets.py'; did you mean 'my.nets:FUNCTION'",
    ),
    "the file of a network, and a function": (
        "import nets.py:make --dataset fashion-mnist-mini",
        "no module 'nets.py' .*; did you mean 'nets:make'",
    ),
    "an option that is no width": (
        "train resnet8 --option width=0",
        "^width=0 must be a whole number of at least 1",
    ),
    "a folder of images": (
        "train resnet8 --dataset images",
        "unknown dataset 'images'; did you mean 'imagefolder:images'",
    ),
    "a file of images": (
        "train resnet8 --dataset imagefolder:study.toml",
        "study.toml: it is a file; give the folder that has one folder of images per class",
    ),
    "an unknown choice": (
        "export-onnx resnet8 --precision int4",
        "^Invalid value for '--precision': 'int4' is not one of 'fp32', 'fp16', 'int8'",
    ),
    "a study file called otherwise": (
        "run-ablation studdy.toml",
        "No such file or directory; did you mean 'study.toml'",
    ),
    "weights called otherwise": (
        "train resnet8 --weights weigths.pt",
        "No such file or directory; did you mean 'weights.pth'",
    ),
    "a mean that normalises nothing": (
        "train resnet8 --set normalize=false --set mean=0.5 --set std=0.5",
        "its recipe has normalize = false, so that mean and std do nothing; leave them out",
    ),
    "impossible depth": ("train resnet33", "resnet33"),
    "unknown dataset": (
        "train resnet8 --dataset fashion-mnst",
        "unknown dataset 'fashion-mnst'; did you mean 'fashion-mnist'",
    ),
    "unknown recipe": (
        "train resnet8 --recipe fats",
        "recipe fats is unknown; did you mean 'fast'",
    ),
    "unknown option of the network": (
        "train resnet8 --option shortcuts=none",
        "has no option 'shortcuts'; did you mean 'shortcut'",
    ),
    "unknown value of an option": (
        "train resnet8 --option shortcut=non",
        "shortcut='non' is unknown; did you mean 'none'",
    ),
    "unknown setting": (
        "train resnet8 --set learning_rat=0.1",
        "learning_rat is unknown; did you mean 'learning_rate'",
    ),
    "an option without a value": (
        "train resnet8 --option shortcut",
        "--option shortcut: write it as key=value, such as shortcut=none",
    ),
    "a setting without a value": (
        "train resnet8 --set momentum",
        "--set momentum: write it as key=value, such as learning_rate=0.1",
    ),
    "a setting with an option of its own": (
        "train resnet8 --set dataset=mnist",
        "--set dataset: it has an argument or option of its own",
    ),
    "more images than there are": (
        "train resnet8 --set train_images=6001",
        "train_images = 6001, but the training set has 6000 images",
    ),
    "unknown device": ("train resnet8 --device gpu", "unknown device 'gpu': use auto"),
    "missing weights": (
        "train resnet8 --weights x.pt",
        "--weights x.pt: No such file or directory; give the path of a safetensors file or",
    ),
    "an input where a map vanishes": (
        "train torchvision:squeezenet1_0 --set input_size=8 --epochs 1",
        "its maps vanish at an input of 1×8×8; choose a larger input_size",
    ),
    "an input where batch norm sees one value": (
        (
            "train resnet18 --option width=2 --set input_size=28 --set train_images=110 "
            "--set batch_size=9"
        ),
        "single value per channel for batch norm .*; choose another batch_size or a larger",
    ),
    "a batch of one image": (
        "train resnet18 --option width=2 --set batch_size=1",
        "single value per channel for batch norm",
    ),
    "results in a file": (
        "train resnet8 --results empty.toml",
        "--results empty.toml is a file; give a folder",
    ),
    "results with too long a name": (
        f"train resnet8 --results {'x' * 300}",
        "cannot write x*: File name too long",
    ),
    "no results to list": ("results ls --results x", "no results folder at x; 'bench"),
    "no results to show": ("results show r --results x", "no results folder at x"),
    "no results to remove": ("results rm r --results x", "no results folder at x"),
    "no results to clear": ("results gc --results x", "no results folder at x"),
    "no results to pack": ("results pack a.gz --results x", "no results folder at x"),
    "no archive": ("results unpack a.tar.gz", "a.tar.gz cannot be unpacked: there is no"),
    "no study to report": ("report x", "no results folder at bench-runs; 'bench run-abl"),
    "no run to predict with": ("predict x empty.toml", "no run 'x' in bench-runs"),
    "no classes to show": ("predict x a.png --top 0", "--top 0: it must be at least"),
    "unknown model to describe": (
        "describe resnet8x",
        "no model, run or study 'resnet8x'; did you mean",
    ),
    "a shape of three numbers": (
        "describe resnet8 --input 3x32x32",
        "--input 3x32x32: write it as N x C x H x W, such as 1x3x224x224",
    ),
    "no latency to tune for": ("tune resnet8 --max-latency-ms 0", "--max-latency-ms 0: it must be"),
    "a negative latency": (
        "throughput resnet8 --max-latency-ms -1",
        "--max-latency-ms -1: it must",
    ),
    "no time to tune": ("tune resnet8 --max-minutes 0", "--max-minutes 0: it must be"),
    "an empty shape": ("describe resnet8 --input ''", "--input : write it as N x C"),
    "classes as an option": (
        "describe resnet8 --option num_classes=5",
        "--option num_classes: give --classes N instead",
    ),
    "no classes to describe": ("describe resnet8 --classes 0", "--classes 0: it must"),
    "a study file that is there": ("init study.toml", "study.toml exists; give another name"),
    "a study file of another kind": ("init my-study", "my-study: a study file ends in .toml"),
    "a study file called as a model": (
        "init resnet18.toml",
        "resnet18.toml: 'resnet18' is a model, which commands would take it for; choose another",
    ),
    "a study file in no folder": ("init no/my.toml", "cannot write no/my.toml: No such file"),
    "three measurements to compare": (
        "compare a.json b.json c.json",
        "bench compare takes one or two measurements, not 3",
    ),
    "channels as an option": (
        "describe resnet8 --option in_channels=1",
        "--option in_channels: give --input 1xCxHxW instead",
    ),
    "an input size that is no number": (
        "throughput resnet8 --input-size 64y",
        "--input-size 64y: write a side in pixels, or HxW, such as 64x256",
    ),
    "a GPU to train on that is not there": (
        "run-ablation study.toml --gpu A100",
        "--gpu A100 only estimates the time: add --dry-run, or use 'bench plan'",
    ),
    "no machines": ("plan study.toml --machines m.toml", "--machines m.toml: No such file"),
    "machines that are none": (
        "plan study.toml --machines study.toml",
        r"--machines study.toml: it has no \[\[machine\]\]; each needs at least a name",
    ),
    "two texts on stdout": (
        "report --format markdown,json --output -",
        "--output - writes one text to stdout: give --format markdown or latex or json too",
    ),
    "measurements of a study": ("report x --measurements", "--measurements takes no STUDY, --ser"),
    "measurements to serve": ("report --measurements --serve", "--measurements takes no STUDY"),
    "measurements on stdout": (
        "report --measurements --format markdown --output -",
        "--measurements takes no STUDY",
    ),
    "charts of measurements": (
        "report --measurements --figures charts",
        "--measurements takes no STUDY",
    ),
}


@pytest.fixture
def folder(tmp_path, entries):
    """A folder with good and bad studies; tells what has come to it since."""
    (tmp_path / "study.toml").write_text(STUDY)
    (tmp_path / "invalid.toml").write_text(f"{STUDY}epoch = 2\n")
    (tmp_path / "broken.toml").write_text("question = 'Why?\n")
    (tmp_path / "empty.toml").write_text("")
    (tmp_path / "weights.pth").write_text("")
    (tmp_path / "nets.py").write_text("")
    (tmp_path / "images").mkdir()
    before = entries(tmp_path)
    return lambda: entries(tmp_path) - before


@pytest.mark.parametrize(("words", "message"), USAGE.values(), ids=USAGE)
def test_a_usage_error_is_one_line(words, message, bench):
    refusal = bench(*shlex.split(words)).refusal
    assert re.search(message, refusal), refusal
    assert re.search(r"\(see 'bench.* --help'\)$|requires an argument$", refusal), refusal


@pytest.mark.parametrize(("words", "message"), REQUESTS.values(), ids=REQUESTS)
def test_a_request_that_cannot_be_met_is_one_line_and_writes_nothing(words, message, bench, folder):
    outcome = bench(*shlex.split(words))
    assert re.search(message, outcome.refusal), outcome.refusal
    assert outcome.out == ""
    assert folder() == set()


@pytest.mark.parametrize(
    "words",
    [
        "train resnet8x",
        "run-ablation quikstart",
        "describe resnet8x",
        "list model",
        "results ls --results nowhere",
        "results show x --results nowhere",
        "predict x image.png",
        "train resnet8 --sead 1",
    ],
)
def test_a_refusal_is_json_where_json_is_asked_for(words, bench):
    outcome = bench(*words.split(), "--json")
    assert outcome.document["rows"] == []
    assert outcome.document["errors"] == [{"error": outcome.refusal}]


def test_a_process_refuses_in_one_line_too(bench_process):
    assert bench_process("traim").refusal.startswith("No such command 'traim'")
    refusal = bench_process("results", "ls", "--results", "nowhere").refusal
    assert refusal.startswith("no results folder at nowhere")


UNWRITABLE = {
    "below a file": ("file/runs", "a file stands where a folder is needed; choose another"),
    "in /proc": ("/proc/bench-runs", "cannot be made there; choose another --results folder"),
}


@pytest.mark.parametrize(("results", "message"), UNWRITABLE.values(), ids=UNWRITABLE)
@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
def test_a_results_folder_that_cannot_be_made_is_refused_before_training(
    results, message, bench, tiny_run, tmp_path
):
    (tmp_path / "file").write_text("")
    outcome = bench(*tiny_run, "--results", results)
    assert re.search(message, outcome.refusal), outcome.refusal
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("command", ["lesion", "gradients", "landscape"])
def test_an_output_that_cannot_be_written_is_refused_before_any_work(
    command, bench, trained, tmp_path
):
    (tmp_path / "taken").write_text("")
    run = next((trained / "runs").glob("resnet8*")).name
    refusal = bench(command, run, "--results", trained, "--output", "taken").refusal
    assert refusal.endswith("choose another --output folder")
    assert not (trained / "analyses").exists()


def test_an_archive_that_cannot_be_written_names_no_option(bench, trained, tmp_path):
    (tmp_path / "taken").write_text("")
    refusal = bench("results", "pack", "taken/runs.tar.gz", "--results", trained).refusal
    assert refusal == (
        "cannot write taken: a file stands where a folder is needed; choose another folder"
    )
    assert bench("results", "pack", "new/runs.tar.gz", "--results", trained).code == 0


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (errno.ENOSPC, "the disk is full; free some space"),
        (errno.EROFS, "the disk is read-only; choose another --results folder"),
        (errno.EACCES, "permission denied; choose a --results folder that you may write"),
    ],
)
def test_a_disk_that_refuses_is_refused_before_training(
    number, message, bench, tiny_run, tmp_path, monkeypatch
):
    def refuse(_descriptor):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", refuse)
    outcome = bench(*tiny_run)
    assert message in outcome.refusal
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.slow
def test_a_disk_that_fills_up_while_training_leaves_no_run(program, tiny_run, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    # A mount namespace of its own: nothing else sees the disk, and it goes with the process.
    alone = ["unshare", "-m", "sh", "-c"]
    possible = (
        shutil.which("unshare")
        and not subprocess.run(
            [*alone, 'mount -t tmpfs tmpfs "$0"', disk], check=False, capture_output=True
        ).returncode
    )
    if not possible:
        pytest.skip("mounting a small disk needs root")
    script = (
        'mount -t tmpfs -o size=24k tmpfs "$0"; "$@"; code=$?; find "$0" -name run.json; exit $code'
    )
    command = program(*tiny_run, "--results", disk, "--quiet")
    done = subprocess.run(
        [*alone, script, disk, *command], check=False, capture_output=True, text=True
    )
    assert done.returncode == 2, done
    assert done.stderr.count("\n") == 1, done.stderr
    assert re.match(r"bench: error: cannot write .*: the disk is full; free some", done.stderr)
    assert done.stdout == ""  # no run.json


def test_an_image_that_is_none_is_named(bench, trained, tmp_path):
    (tmp_path / "notes.txt").write_text("no image")
    words = ("predict", next((trained / "runs").glob("resnet*")).name, "--results", trained)
    refusal = bench(*words, "notes.txt").refusal
    assert (
        refusal == "notes.txt: unreadable image (no image that Pillow can read): give image files"
    )
    (tmp_path / "note.png").write_text("no image")
    assert bench(*words, "note.png").refusal.endswith("repair or remove it")
    assert bench(*words, tmp_path).refusal.endswith("(Is a directory): give image files")
    refusal = bench(*words, "noto.png").refusal
    assert refusal.startswith("cannot read the image noto.png: No such file or directory; did you ")


def test_an_image_of_16_bits_is_refused_rather_than_cut_to_white(bench, trained, tmp_path):
    Image.fromarray(np.full((28, 28), 4000, dtype=np.uint16)).save(tmp_path / "deep.png")
    words = ("predict", next((trained / "runs").glob("resnet*")).name, "--results", trained)
    refusal = bench(*words, "deep.png").refusal
    assert refusal == "deep.png: mode I;16 is not supported: convert it to 8-bit grey or RGB"


def test_the_next_command_can_be_pasted(bench):
    assert bench("init", "a b.toml").out.endswith("bench run-ablation 'a b.toml'\n")


def test_an_unknown_run_is_refused_with_the_nearest(bench, trained):
    run = next((trained / "runs").glob("resnet*")).name
    wrong = run.replace("fashion", "fasion")
    for words in (("results", "show"), ("results", "rm"), ("predict",)):
        image = ["image.png"] if words == ("predict",) else []
        refusal = bench(*words, wrong, *image, "--results", trained).refusal
        assert refusal == f"no run '{wrong}' in {trained}; did you mean '{run}'?"
    assert "fits 4 runs" in bench("results", "show", "resnet8", "--results", trained).refusal


def test_an_unknown_study_is_not_reported(bench, trained):
    refusal = bench("report", "tinny", "--results", trained).refusal
    assert refusal == f"no study 'tinny' in {trained}; did you mean 'tiny'? (there: tiny)"
    assert "did you mean 'tiny'" in bench("predict", "tinny", "x.png", "--results", trained).refusal
    refusal = bench("report", "others", "--results", trained).refusal
    assert refusal.endswith(" (there: tiny); 'bench run-ablation' runs one")


def test_other_hardware_is_not_mixed_in_silently(bench, results, tiny_study):
    store = Store(results)
    first, *others = store.runs()
    store.finish_run(replace(first, environment={**first.environment, "torch": "1.0"}))
    store.remove_run(others[0].run)
    words = ("run-ablation", tiny_study, "--results", results, "--threads", 1, "--workers", 1)
    refusal = bench(*words).refusal
    assert re.search(
        rf"of another environment \({first.run}: torch 1.0 then, .* now\); --allow-mixed", refusal
    )
    assert store.read_run(others[0].run) is None
    assert bench(*words, "--allow-mixed").code == 0
    assert store.read_run(others[0].run) is not None


@pytest.mark.parametrize(
    ("recorded", "named"),
    [
        ({"instruction_sets": ["sse4_2"]}, "instruction sets sse4_2 then, "),
        ({"device": "cuda", "gpu": "L4"}, "device kind cuda then, cpu now; gpu L4 then, None now"),
    ],
)
def test_runs_of_other_instructions_or_devices_are_not_added_to(
    bench, results, tiny_study, recorded, named
):
    store = Store(results)
    first, *others = store.runs()
    store.finish_run(replace(first, environment=first.environment | recorded))
    store.remove_run(others[0].run)
    refusal = bench("run-ablation", tiny_study, "--results", results).refusal
    assert f"has runs of another environment ({first.run}: {named}" in refusal
    assert store.read_run(others[0].run) is None


def test_a_folder_of_a_newer_version_is_left_alone(bench, results, tiny_study):
    store = Store(results)
    path = store.folder(next(store.runs()).run) / "run.json"
    values = json.loads(path.read_text())
    del values["checksum"]  # who knows how a newer one is computed
    path.write_text(json.dumps({**values, "format_version": values["format_version"] + 1}))
    before = {p: p.read_bytes() for p in results.rglob("*") if p.is_file()}
    for more in ((), ("--force",)):
        done = bench("run-ablation", tiny_study, "--results", results, *more)
        assert done.code == 2
        assert "was written by a newer bench" in done.err
        assert "upgrade bench, or choose another --results folder" in done.err
        assert "Traceback" not in done.err
    assert {p: p.read_bytes() for p in results.rglob("*") if p.is_file()} == before


def test_what_is_unknown_is_not_hidden(bench, monkeypatch):
    def fail(*_, **__):
        raise ZeroDivisionError("a mistake of ours")

    monkeypatch.setattr("bench.studies.file.shipped_studies", fail)
    with pytest.raises(ZeroDivisionError, match="a mistake of ours"):
        bench("list", "studies")
