"""Recorded runs are reused for the code and the images they were trained with, and no other."""

from __future__ import annotations

import shutil
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import bench
from bench.errors import BenchError
from bench.launch import carry_out, reuse
from bench.launch.processes import LocalLauncher
from bench.store import Store
from bench.studies import Overrides, expand, parse_study
from bench.system import user_code
from bench.system.environment import describe_environment
from bench.training.resources import Resources
from builders import make_record, make_request, make_study

NETWORK = """
from torch import nn
def net(num_classes, in_channels):
    return nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(16 * in_channels, WIDE),
                         nn.Linear(WIDE, num_classes))
WIDE = 8
"""
DATA = """
import numpy as np
SEED = 0
def data():
    draw = np.random.default_rng(SEED)
    x, y = draw.integers(0, 256, (60, 8, 8), dtype=np.uint8), np.arange(60) % 2
    return (x[:40], y[:40]), (x[40:], y[40:])
"""
STUDY = """
question = "Is b better?"
[base]
dataset = "reused_data:data"
epochs = 1
seeds = [0]
batch_size = 16
[[variant]]
name = "a"
model = "resnet8"
options = { width = 2 }
"""
ANOTHER = '[[variant]]\nname = "b"\nmodel = "resnet8"\nlearning_rate = 0.1\n'
QUICK = {"epochs": 1, "results": "r", "workers": 1, "device": "cpu"}
SETTINGS = {"train_images": 100, "batch_size": 20}


@pytest.fixture
def new_process():
    """Forget the user's modules, as a new process would have."""

    def forget():
        user_code._first.clear()
        for name in [name for name in sys.modules if name.startswith("reused_")]:
            del sys.modules[name]

    forget()
    yield forget
    forget()


@pytest.fixture
def write(tmp_path, monkeypatch, new_process):
    """Write a module of the user's, and go on as in a new process."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # a file of the same second and size

    def change(name, content):
        (tmp_path / name).write_text(content)
        new_process()

    return change


def test_an_edited_network_is_not_taken_for_the_old_one(write, new_process, monkeypatch):
    write("reused_net.py", NETWORK)
    train = {"settings": SETTINGS, **QUICK}
    first = bench.train("reused_net:net", **train)["run"].item()
    write("reused_net.py", NETWORK + "# a remark\ndef another(): ...\n")
    assert bench.train("reused_net:net", **train)["run"].item() == first
    assert bench.load_model(first, results="r")

    write("reused_net.py", NETWORK.replace("WIDE = 8", "WIDE = 9"))
    wrong = "other code than there is now in reused_net; restore .*, or train it again with --force"
    with pytest.raises(bench.BenchError, match=wrong):
        bench.train("reused_net:net", **train)
    with pytest.raises(bench.BenchError, match=wrong):
        bench.load_model(first, results="r")
    with monkeypatch.context() as patch:
        patch.setattr("sys.path", [p for p in sys.path if p != str(Path.cwd())])
        patch.chdir("r")
        new_process()
        with pytest.raises(
            bench.BenchError, match=r"code of its network \(reused_net\) is not found"
        ):
            bench.load_model(first, results=".")
    new_process()
    bench.train("reused_net:net", **train, force=True)
    assert bench.load_model(first, results="r")[3].in_features == 9
    new_process()
    assert bench.train("reused_net:net", **train)["status"].item() == "complete"


def test_a_process_that_imported_the_old_code_does_not_pretend(write, tmp_path):
    write("reused_net.py", NETWORK)
    bench.train("reused_net:net", settings=SETTINGS, **QUICK)
    (tmp_path / "reused_net.py").write_text(NETWORK.replace("WIDE = 8", "WIDE = 9"))
    with pytest.raises(bench.BenchError, match="changed after this process had imported it"):
        bench.train("reused_net:net", settings=SETTINGS, force=True, **QUICK)


def study(tmp_path, content):
    path = tmp_path / "own.toml"
    path.write_text(content)
    return {"study": path, "results": "r", "workers": 1, "device": "cpu"}


def test_a_study_does_not_mix_two_versions_of_its_images(write, tmp_path):
    write("reused_data.py", DATA)
    bench.run_study(**study(tmp_path, STUDY))
    write("reused_data.py", DATA.replace("SEED = 0", "SEED = 1"))
    both = study(tmp_path, STUDY + ANOTHER)
    wrong = "was trained on other images than dataset 'reused_data:data' has now"
    for more in ({}, {"only": ["b"]}, {"only": ["b"], "force": True}):
        with pytest.raises(bench.BenchError, match=wrong):
            bench.run_study(**both, **more)
    rows = bench.run_study(**both, force=True)
    assert len({Store("r").read_run(r).result["dataset_fingerprint"] for r in rows["run"]}) == 1


@pytest.mark.parametrize("what", ["code", "images"])
def test_runs_replaced_by_those_of_other_code_or_images_are_another_look(write, tmp_path, what):
    own = (
        STUDY
        if what == "images"
        else STUDY.replace('"resnet8"\noptions = { width = 2 }', '"reused_net:net"')
    )
    given = study(tmp_path, own + ANOTHER)
    rules = []
    for edit in ("", "", "# a remark\n", "SEED = 1\nWIDE = 9\n"):
        write("reused_data.py", DATA + edit * (what == "images"))
        write("reused_net.py", NETWORK + edit)
        bench.run_study(**given, force=True)
        rules.append(len(Store("r").find_study("own").rules))
    bench.run_study(**given)
    assert [*rules, len(Store("r").find_study("own").rules)] == [1, 1, 1, 2, 2]


def test_class_names_and_statistics_count_as_well(write):
    named = DATA.replace("return (", "return {'classes': ['cat', 'dog'], 'train': (").replace(
        "), (x[40:], y[40:])", "), 'test': (x[40:], y[40:])}"
    )
    write("reused_data.py", named)
    train = {"dataset": "reused_data:data", "settings": {"batch_size": 16}, **QUICK}
    bench.train("resnet8", options={"width": 2}, **train)
    write("reused_data.py", named.replace("'cat', 'dog'", "'dog', 'cat'"))
    with pytest.raises(bench.BenchError, match="was trained on other classes than"):
        bench.train("resnet8", options={"width": 2}, **train)


def interrupt(event):
    if event["event"] == "epoch":
        raise KeyboardInterrupt


def test_a_run_is_not_resumed_on_other_images(write, monkeypatch):
    monkeypatch.setattr("bench.training.run.CHECKPOINT_SECONDS", 0.0)
    unseeded = DATA.replace("default_rng(SEED)", "default_rng()")
    write("reused_data.py", unseeded)
    train = {"dataset": "reused_data:data", "settings": {"batch_size": 16}, **QUICK, "epochs": 3}
    with pytest.raises(KeyboardInterrupt):
        bench.train("resnet8", options={"width": 2}, **train, on_event=interrupt)
    with pytest.raises(bench.BenchError, match=r"was begun on other images .* must seed"):
        bench.train("resnet8", options={"width": 2}, **train)
    assert (
        bench.train("resnet8", options={"width": 2}, **train, force=True)["status"].item()
        == "complete"
    )


def test_workers_refuse_images_that_every_call_draws_anew(write):
    write("reused_data.py", DATA.replace("default_rng(SEED)", "default_rng()"))
    with pytest.raises(bench.RunsFailedError, match="gave other images to this process"):
        bench.train(
            "resnet8",
            options={"width": 2},
            dataset="reused_data:data",
            **QUICK,
            launcher=LocalLauncher(isolate=True),
        )


def test_code_that_is_edited_after_the_study_began_is_refused(write):
    class Edited(LocalLauncher):
        """Works as a worker process does that starts after an edit."""

        def run(self, work):
            write("reused_net.py", NETWORK.replace("WIDE = 8", "WIDE = 9"))
            super().run(work)

    write("reused_net.py", NETWORK)
    with pytest.raises(bench.RunsFailedError, match=r"other code in this process .*\(reused_net\)"):
        bench.train("reused_net:net", settings=SETTINGS, **QUICK, launcher=Edited())
    write("reused_net.py", NETWORK)
    done = bench.train("reused_net:net", settings=SETTINGS, **QUICK)
    assert done["status"].item() == "complete"


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """A/pets and B/pets, of different images."""
    monkeypatch.setenv("BENCH_DATA", str(tmp_path / "cache"))
    for place, seed in (("A", 0), ("B", 1)):
        draw = np.random.default_rng(seed)
        for split, count in (("train", 8), ("test", 4)):
            for name in ("cat", "dog"):
                folder = tmp_path / place / "pets" / split / name
                folder.mkdir(parents=True)
                for index in range(count):
                    pixels = draw.integers(0, 256, (8, 8, 3), dtype=np.uint8)
                    Image.fromarray(pixels).save(folder / f"{index}.png")
    return tmp_path


def test_a_folder_is_one_dataset_however_it_is_written(folders, monkeypatch):
    def train(place, name):
        monkeypatch.chdir(folders / place)
        quick = {**QUICK, "results": folders / "r"}
        settings = {"batch_size": 8}
        row = bench.train(
            "resnet8",
            options={"width": 2},
            dataset=f"imagefolder:{name}",
            settings=settings,
            **quick,
        )
        return row["run"].item()

    first = train("A", "pets")
    for name in ("./pets/", "../A/pets", str(folders / "A" / "pets")):
        assert train("A", name) == first
    second = train("B", "pets")
    assert second != first
    assert train("B", "./pets") == second
    assert train("A", "pets") == first
    fingerprints = [r.result["dataset_fingerprint"] for r in Store(folders / "r").runs()]
    assert len(set(fingerprints)) == 2

    shutil.rmtree(folders / "A" / "pets" / "train" / "cat")
    shutil.copytree(folders / "B" / "pets" / "train" / "cat", folders / "A/pets/train/cat")
    with pytest.raises(bench.BenchError, match="was trained on other images than dataset"):
        train("A", "pets")


PRETRAINED = """
import torch
from torch import nn
def small(num_classes, in_channels):
    return nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(16, num_classes))
def pretrained(num_classes, in_channels):
    model = small(num_classes, in_channels)
    model.load_state_dict(torch.load("trained.pt", weights_only=True))
    return model
"""
STILL = {"learning_rate": 1e-12, "muon_learning_rate": 0.0, "weight_decay": 0.0}


def test_weights_that_the_network_loads_are_its_start(write):
    write("reused_net.py", PRETRAINED)
    settings = {"train_images": 200}
    first = bench.train("reused_net:small", settings=settings, **{**QUICK, "epochs": 5})
    torch.save(bench.load_model(first["run"].item(), results="r").state_dict(), "trained.pt")
    kept = bench.train("reused_net:pretrained", settings={**settings, **STILL}, **QUICK)
    assert kept["test_accuracy"].item() == pytest.approx(first["test_accuracy"].item(), abs=0.01)
    assert kept["test_accuracy"].item() > 0.3
    drawn = {**settings, **STILL, "initialization": "he"}
    redrawn = bench.train("reused_net:pretrained", settings=drawn, **QUICK)
    assert redrawn["test_accuracy"].item() < 0.3

    tensors = torch.load("trained.pt", weights_only=True)
    torch.save({name: -values for name, values in tensors.items()}, "trained.pt")
    with pytest.raises(bench.BenchError, match=r"was made from other weights .*'2\.weight'"):
        bench.train("reused_net:pretrained", settings={**settings, **STILL}, **QUICK)


@pytest.mark.parametrize("begun", ["finished", "interrupted"])
def test_a_network_of_a_notebook_is_not_taken_for_an_earlier_one(tmp_path, monkeypatch, begun):
    """Its code is in no file, so that nobody knows whether the cell was edited."""
    monkeypatch.setattr(reuse, "current_code", lambda _model: {})
    store, request = Store(tmp_path / "r"), make_request("__main__:net")
    reuse.refuse_changed([request], store, set())  # nothing is recorded yet
    if begun == "finished":
        store.finish_run(make_record(request))
    else:
        monkeypatch.setattr(store, "load_checkpoint", lambda _run: ({}, {}))
    with pytest.raises(BenchError, match="whether the code of __main__:net has changed"):
        reuse.refuse_changed([request], store, set())
    if begun == "finished":
        reuse.refuse_changed([request], store, {request.run_id})  # it is trained again


SHORT = """
question = "?"
[base]
epochs = 1
seeds = [0]
[[variant]]
name = "a"
model = "resnet8"
"""


def plan_of(text=SHORT, **overrides):
    return expand("own", parse_study(text, Path("own.toml")), Overrides(**overrides))


def record_of(plan):
    runs = {"a": [request.run_id for request in plan.requests]}
    return make_study(runs, name="own", overrides=plan.overrides)


def test_finished_runs_that_other_settings_replace_are_named_with_the_way_back(tmp_path):
    store, short, longer = Store(tmp_path), plan_of(), plan_of(epochs=2)
    edited = plan_of(SHORT.replace("seeds", "batch_size = 16\nseeds"))
    for plan in (short, longer):
        store.finish_run(make_record(plan.requests[0]))
    for plan, before, back in (
        (longer, short, "repeat it without --epochs 2"),
        (short, longer, "repeat it with --epochs 2"),
        (edited, short, "restore the study's settings"),
    ):
        with pytest.warns(
            UserWarning, match=rf"'own' had 1 finished run\(s\) .* keep them, {back}"
        ):
            carry_out._tell_of_runs_replaced(plan, store, record_of(before))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        carry_out._tell_of_runs_replaced(short, store, None)
        carry_out._tell_of_runs_replaced(short, store, record_of(short))
        carry_out._tell_of_runs_replaced(short, store, record_of(edited))  # not finished
        carry_out._tell_of_runs_replaced(plan_of(seeds=[1]), store, record_of(short))  # told of


def test_a_checkpoint_alone_tells_the_environment_that_its_run_was_begun_in(tmp_path):
    store, plan, here = Store(tmp_path), plan_of(), Resources(device="cpu", threads=1)
    (run,) = (request.run_id for request in plan.requests)
    environment = describe_environment("cpu", threads=1)
    for state in ({}, {"environment": environment}):  # older ones have none
        store.save_checkpoint(run, {"w": torch.zeros(1)}, state)
        carry_out._refuse_mixed(plan, store, here)
    store.save_checkpoint(
        run, {"w": torch.zeros(1)}, {"environment": environment | {"torch": "1.0"}}
    )
    with pytest.raises(BenchError, match=rf"another environment \({run}: torch 1.0 then"):
        carry_out._refuse_mixed(plan, store, here)
