"""Input made to harm: every one is one line and exit code 2, and nothing is left behind."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

STUDY = 'question = "q"\n[[variant]]\nname = "a"\nmodel = "resnet8"\n'
GRID = "".join(f"options.o{n} = [1, 2, 3, 4, 5, 6, 7, 8, 9]\n" for n in range(12))
FILES = {
    "nested too deeply": (f"x = {'[' * 100_000}", "nested too deeply for a study"),
    "a number of 5,000 digits": (f"x = {'9' * 5_000}", "not valid TOML: Exceeds the limit"),
    "a grid that multiplies out to billions": (
        f'question = "q"\n[grid]\nmodel = ["resnet8"]\n{GRID}',
        r"study.toml:2: the grid multiplies out to 282,429,536,481 variants, .* at most 1,000",
    ),
    "ten megabytes": (STUDY + "#" * 10_000_000, "more than 1,000,000 bytes"),
    "a rate that is no number": (
        f"{STUDY}learning_rate = nan\n",
        "learning_rate = NaN: input should be less than or equal to 1000000",
    ),
}


@pytest.mark.parametrize(("content", "message"), FILES.values(), ids=FILES)
def test_a_hostile_study_is_refused_in_one_line(content, message, bench, tmp_path, entries):
    (tmp_path / "study.toml").write_text(content)
    refusal = bench("run-ablation", "study.toml", "--dry-run").refusal
    assert re.search(message, refusal), refusal
    assert entries(tmp_path) == {"study.toml"}


CODE = "__import__('pathlib').Path('ran').touch()"


@pytest.mark.parametrize("code", [CODE, f"{{{CODE}}}", f"${{{CODE}}}", "$(touch ran)"])
@pytest.mark.parametrize(
    "place", ["question", "name", "dataset", "model", "options.width", "learning_rate"]
)
def test_nothing_in_a_study_or_an_option_is_evaluated(place, code, bench, tmp_path):
    values = {"question": "q", "name": "a", "model": "resnet8", "dataset": "mnist", place: code}
    lines = [f'{key} = "{value}"' for key, value in values.items()]
    (tmp_path / "study.toml").write_text("\n".join([lines[0], "[[variant]]", *lines[1:]]))
    bench("run-ablation", "study.toml", "--dry-run")
    bench("train", "resnet8", "--option", f"width={code}", "--set", f"learning_rate={code}")
    assert not (tmp_path / "ran").exists()


def test_a_pipe_is_no_study(bench, tmp_path):
    os.mkfifo(tmp_path / "pipe.toml")
    assert "it is a device or pipe; give a file" in bench("run-ablation", "pipe.toml").refusal


@pytest.mark.parametrize("name", ["a\x1b[2Jb.toml", "a\udcffb.toml", "a\x07b.toml"])
def test_a_name_cannot_steer_the_terminal(name, bench):
    assert bench("run-ablation", name).refusal.isprintable()


LONG = "a" * 300
NAMES = (
    f"compare {LONG}", f"describe {LONG}", f"lesion {LONG}", f"predict {LONG} x.png",
    f"results locate {LONG} .", f"results show {LONG}", f"results unpack {LONG}",
    f"run-ablation {LONG}", f"run-ablation {LONG}.toml", f"throughput {LONG}",
    f"train resnet8 --dataset {LONG}", f"train resnet8 --dataset imagefolder:{LONG}",
)  # fmt: skip


@pytest.mark.parametrize("words", NAMES, ids=lambda words: words.replace(LONG, "NAME"))
def test_a_name_longer_than_any_files_is_refused(words, bench, store):
    store.prepare()
    assert LONG in bench(*words.split()).refusal


def test_a_network_larger_than_any_memory_is_refused(bench, tmp_path):
    outcome = bench("train", "resnet8", "--option", "width=33000000")
    assert "not enough memory" in outcome.refusal
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full")
@pytest.mark.parametrize("words", [["list", "models"], ["list", "models", "--json"]], ids=" ".join)
def test_output_to_a_full_disk_is_one_line(words, program, tmp_path):
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            program(*words), stdout=full, stderr=subprocess.PIPE, text=True, check=False,
            cwd=tmp_path,
        )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith("bench: error: cannot write the output: No space left")
    assert done.stderr.count("\n") == 1, done.stderr


BIG = "9" * 23
HUGE = "9" * 5_000  # of which Python makes no integer
NUMBERS = {
    f"train resnet8 --epochs {BIG}": "--epochs 9+: .* at most 2,147",
    f"run-ablation --epochs {BIG} --dry-run": "--epochs 9+: .* at most 2,147",
    f"plan depth --machines m.toml --epochs {BIG}": "--epochs 9+: .* at most 2,147",
    f"train resnet8 --set batch_size={BIG}": "batch_size = 9+: .* less than or equal to 2147483647",
    "train resnet8 --set learning_rate=inf": "learning_rate = Infinity: .* or equal to 1000000",
    "train resnet8 --set weight_decay=1e400": "weight_decay = Infinity: .* or equal to 1000000",
    f"train resnet8 --option width={BIG}": "width=9+ must be a .* at least 1 and below 33,554,432",
    f"describe resnet8 --option width={BIG}": "width=9+ must be a .* at least 1 and below 33,554",
    f"describe resnet8 --option width={HUGE}": "width='9+' must be a .* at least 1 and below 33,",
    f"describe plain_cnn --option width={BIG}": "width=9+ must be a .* at least 1 and below 33,5",
    f"describe resnet8 --option width={'[' * 9_000}": r"width='\[+' must be a .* at least 1",
    f"describe resnet8 --input 1x1x{HUGE}x4": "--input .*: write it as N x C x H x W",
    "describe resnet8 --input 1x1x²x4": "--input 1x1x²x4: write it as N x C x H x W",
    "describe resnet1٨": "no model, run or study 'resnet1٨'",
    f"train resnet8 --set batch_size={HUGE}": "batch_size = .*: input should be a valid integer",
    f"train resnet8 --device cuda:{HUGE}": "unknown device 'cuda:9+': use auto",
    f"run-ablation --seeds {HUGE}": "--seeds 9+: random seeds are integers or ranges",
    f"run-ablation --seeds 0-{HUGE}": "--seeds 0-9+: random seeds are integers or ranges",
}


@pytest.mark.parametrize(("words", "message"), NUMBERS.items(), ids=[w[:60] for w in NUMBERS])
def test_a_number_that_fits_nothing_is_refused(words, message, bench, tmp_path):
    refusal = bench(*words.split()).refusal
    assert re.search(message, refusal), refusal
    assert not list(tmp_path.iterdir())


FORWARD = """import sys, torch
class Net(torch.nn.Module):
    def forward(self, x):
        sys.exit("bye")
def net():
    return Net()
"""
LEAVES = {
    "on import": ("import sys\nsys.exit(7)\n", "importing it raised SystemExit: 7"),
    "when called": ("import sys\ndef net():\n    sys.exit(3)\n", "raised SystemExit: 3"),
    "in a forward pass": (FORWARD, "cannot take an input of .*: bye"),
}


@pytest.mark.parametrize(("code", "message"), LEAVES.values(), ids=LEAVES)
def test_a_network_that_ends_the_program_is_refused(code, message, bench, tmp_path, request):
    name = f"leaving_{abs(hash(request.node.name))}"
    (tmp_path / f"{name}.py").write_text(code)
    refusal = bench("train", f"{name}:net", "--epochs", "1").refusal
    assert re.search(message, refusal), refusal
    assert [p.name for p in tmp_path.iterdir() if p.suffix] == [f"{name}.py"]


def test_a_clone_is_used_as_well_as_what_is_installed(tmp_path):
    """Python finds a clone's `bench/` before the installed one; its models lie beside it."""
    clone = tmp_path / "clone"
    here = Path(__file__).parents[2]
    clone.mkdir()
    for room in ("bench", "models", "ablations"):
        (clone / room).symlink_to(here / room)
    installed = [path for path in sys.path if path and Path(path) != here]
    code = "import bench.models, bench.ablations, bench; print(bench.__file__, bench.load_model)"
    done = subprocess.run(
        [sys.executable, "-S", "-c", f"import sys; sys.path += {installed!r}\n{code}"],
        cwd=clone, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert str(clone) in done.stdout


def test_a_signal_while_a_network_is_imported_is_no_error_of_the_network(bench, tmp_path):
    code = "import os, signal\nos.kill(os.getpid(), signal.SIGTERM)\ndef net(): pass\n"
    (tmp_path / "signalled.py").write_text(code)
    outcome = bench("train", "signalled:net", "--epochs", "1")
    assert (outcome.code, outcome.err.count("\n")) == (75, 1), outcome
