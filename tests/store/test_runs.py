"""Runs and studies in a results folder: complete or absent, and never believed when damaged."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
import torch

from bench import load_results
from bench.errors import BenchError
from bench.store import Store
from bench.store.files import StorageError
from bench.store.records import NewerFormatError, seal
from bench.studies.run_request import FORMAT_VERSION, RunRequest
from builders import make_study

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def test_a_finished_run_is_read_back(store, record, finish):
    run = finish(store, seed=7)
    read = store.read_run(run)
    assert read is not None
    assert set(read.files) == {"history.csv", "initial_weights.json", "model.safetensors"}
    assert dataclasses.replace(read, files={}) == record(7)
    assert RunRequest.from_dict(read.request).run_id == run
    assert store.read_tensors(run, "model.safetensors")["weight"].tolist() == [7.0, 8.0, 9.0]
    assert store.read_document(run, "initial_weights.json") == {"weight": "0" * 16}
    assert [r.run for r in store.runs()] == [run]
    assert store.size(run) > 0


def test_bytes_of_file_names_that_are_no_text_are_stored(store, record):
    weights = os.fsdecode(b"/models/caf\xe9.pt")
    run = store.finish_run(
        dataclasses.replace(record(7), environment={"weights_file": weights})
    ).run
    assert store.read_run(run).environment == {"weights_file": weights}


def test_an_empty_or_missing_folder_has_nothing(tmp_path):
    store = Store(tmp_path / "nowhere")
    assert list(store.runs()) == list(store.unfinished()) == store.studies() == []
    assert store.read_run("x") is store.read_study("x") is store.load_checkpoint("x") is None
    assert not store.root.exists()


def test_a_file_is_no_results_folder(tmp_path):
    path = tmp_path / "file"
    path.write_text("")
    with pytest.raises(BenchError, match=r"--results .*file is a file; give a folder"):
        Store(path)


def test_preparing_leaves_no_file(store, entries):
    store.prepare()
    assert entries(store.root) == {"runs"}


def test_a_run_is_absent_until_it_is_complete(store, record, finish, monkeypatch):
    written: list[str] = []
    replace = os.replace

    def watch(source, target, **rest):
        replace(source, target, **rest)
        if os.path.isdir(target):  # noqa: PTH112 - the publication itself
            return
        written.append(str(target))
        assert store.read_run(record().run) is None
        assert list(store.runs()) == []

    monkeypatch.setattr("pathlib.os.replace", watch)
    run = finish(store)
    assert len(written) == 4
    assert store.read_run(run) is not None


@pytest.mark.parametrize("file", range(5))
def test_a_disk_that_fills_up_leaves_no_run(file, store, record, finish, monkeypatch, entries):
    sync, calls = os.fsync, iter(range(100))

    def refuse(descriptor):
        if next(calls) >= 2 * file:  # each file is synced, and then its folder
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", refuse)
        with pytest.raises(StorageError, match="the disk is full; free some space") as refusal:
            finish(store)
    assert "\n" not in str(refusal.value)
    assert list(store.runs()) == []
    assert not any(name.rsplit("/", 1)[-1].startswith(".") for name in entries(store.root))
    run = finish(store)  # with space again, the same is done anew
    assert run == record().run
    assert entries(store.folder(run)) == {
        "history.csv",
        "initial_weights.json",
        "model.safetensors",
        "run.json",
    }


def rewrite(path, change):
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


def forge(path, change):
    """Rewrite a record with a checksum that fits: damage of another kind than the disk's."""
    values = json.loads(path.read_text())
    del values["checksum"], values["format_version"]
    change(values)
    path.write_bytes(seal(values))


def truncate(path):
    path.write_bytes(path.read_bytes()[:100])


def flip_a_bit(path):
    text = path.read_text()
    assert text.count('"seconds": 1.5') == 1
    path.write_text(text.replace('"seconds": 1.5', '"seconds": 3.5'))


BREAKAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "truncated": (truncate, r"run.json cannot be read"),
    "a flipped bit": (flip_a_bit, r"run.json is damaged \(its checksum differs\)"),
    "empty": (lambda path: path.write_bytes(b""), "run.json cannot be read"),
    "not text": (lambda path: path.write_bytes(b"\xff\xfe\x00"), "run.json cannot be read"),
    "a list": (lambda path: path.write_text("[]"), "run.json cannot be read"),
    "a number": (lambda path: path.write_text("3"), "run.json cannot be read"),
    "no checksum": (
        lambda path: rewrite(path, lambda values: values.pop("checksum")),
        "run.json cannot be read",
    ),
    "of a newer bench": (
        lambda path: rewrite(path, lambda values: values.update(format_version=99)),
        f"format version 99, this bench reads up to {FORMAT_VERSION}; upgrade bench",
    ),
    "missing": (lambda path: path.unlink(), "it has no run.json"),
}


@pytest.mark.parametrize(("damage", "reason"), BREAKAGES.values(), ids=BREAKAGES)
def test_a_broken_run_is_passed_over_with_a_warning_that_names_it(damage, reason, store, finish):
    broken, whole = finish(store, seed=0), finish(store, seed=1)
    damage(store.folder(broken) / "run.json")
    with pytest.warns(UserWarning, match=rf"passing over .*{broken}: .*{reason}"):
        assert store.read_run(broken) is None
    with pytest.warns(UserWarning, match=broken):
        assert [r.run for r in store.runs()] == [whole]


def test_a_record_with_other_fields_is_passed_over(store, record):
    values = {**json.loads(record().to_json()), "mood": "good"}
    del values["checksum"]
    checksum = hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
    run = record().run
    store.folder(run).mkdir(parents=True)
    (store.folder(run) / "run.json").write_text(json.dumps({**values, "checksum": checksum}))
    with pytest.warns(UserWarning, match=r"a newer bench wrote it .*mood"):
        assert store.read_run(run) is None


def test_another_runs_folder_is_passed_over(store, finish):
    run = finish(store)
    shutil.copytree(store.folder(run), store.folder("foreign"))
    with pytest.warns(UserWarning, match=f"foreign: it holds the record of another run, {run}"):
        assert [r.run for r in store.runs()] == [run]


def test_damaged_weights_are_not_loaded(store, finish):
    run = finish(store)
    path = store.folder(run) / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(
        BenchError, match=r"model.safetensors is missing or damaged .*bench results rm"
    ):
        store.read_tensors(run, "model.safetensors")
    path.unlink()
    with pytest.raises(BenchError, match="is missing or damaged"):
        store.read_tensors(run, "model.safetensors")
    with pytest.raises(BenchError, match=r"is complete and has no other.json"):
        store.read_document(run, "other.json")


def test_a_checkpoint_is_kept_until_the_run_is_finished(store, record, finish):
    run = record().run
    store.save_checkpoint(run, {"momentum": torch.ones(2)}, {"epoch": 3})
    store.mark_unfinished(record(status="interrupted", error="stopped"))
    assert store.read_run(run) is None
    assert [r.status for r in store.unfinished()] == ["interrupted"]
    found = store.load_checkpoint(run)
    assert found is not None
    assert found[0]["momentum"].tolist() == [1.0, 1.0]
    assert found[1] == {"epoch": 3}
    assert store.size(run) > 0
    assert finish(store) == run
    assert store.load_checkpoint(run) is None
    assert list(store.unfinished()) == []


@pytest.mark.parametrize("content", [b"", b"\x00" * 64, b'{"a": 1}'])
def test_a_broken_checkpoint_starts_the_run_from_the_beginning(content, store):
    store.save_checkpoint("run", {"a": torch.ones(1)}, {})
    (path,) = store.partial("run").iterdir()
    path.write_bytes(content)
    with pytest.warns(UserWarning, match="run starts from the beginning: its checkpoint is broken"):
        assert store.load_checkpoint("run") is None


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"run": "other"}'])
def test_a_broken_mark_of_an_unfinished_run_is_passed_over(content, store, record):
    store.mark_unfinished(record(status="failed"))
    (path,) = store.partial(record().run).iterdir()
    path.write_text(content)
    assert list(store.unfinished()) == []


def test_an_unfinished_mark_speaks_for_its_own_folder_only(store, record):
    store.mark_unfinished(record(status="failed"))
    store.partial(record().run).rename(store.partial("another"))
    assert list(store.unfinished()) == []


def test_a_run_is_found_by_id_beginning_hash_and_folder(store, finish):
    run, other = finish(store, seed=0), finish(store, seed=1)
    digest = run.rsplit("-", 1)[-1]
    for name in (run, run[:-3], digest, digest[:8], str(store.folder(run)), f"runs/{run}/"):
        assert store.find_run(name) == run
    with pytest.raises(BenchError, match=f"'resnet20' fits 2 runs: {run}, {other}|{other}, {run}"):
        store.find_run("resnet20")
    for name in ("", "/", "vgg", digest[:3]):
        with pytest.raises(BenchError, match=f"no run '{name}' in "):
            store.find_run(name)
    with pytest.raises(BenchError, match=f"did you mean '{run}'"):
        store.find_run(run.replace("mnist", "mist"))


def test_a_run_of_another_results_folder_is_not_taken_for_its_namesake(store, finish, tmp_path):
    run = finish(store, seed=0)
    other = Store(tmp_path / "elsewhere")
    assert finish(other, seed=0) == run
    with pytest.raises(BenchError, match=f"another results folder: give --results {other.root}"):
        store.find_run(str(other.folder(run)))


def test_the_exact_name_of_a_study_or_run_goes_before_the_beginning_of_a_run(store, finish):
    run, other = finish(store, seed=0), finish(store, seed=1)
    assert {run[:7], other[:7]} == {"resnet2"}
    store.save_study(make_study({"net": [other]}, name="resnet2"))
    assert store.find_run("resnet2") == other
    store.save_study(make_study({"net": [run, other]}, name="resnet2"))
    with pytest.raises(BenchError, match="'resnet2' is a study of 2 runs, and one is needed: name"):
        store.find_run("resnet2")
    store.save_study(make_study({"net": ["gone"]}, name="resnet2"))
    with pytest.raises(BenchError, match="study 'resnet2' has no run in"):
        store.find_run("resnet2")
    with pytest.raises(BenchError, match=r"fits 2 runs: .*; give more of the name, or the hash"):
        store.find_run("resnet")
    with pytest.raises(BenchError, match="did you mean 'resnet2'"):
        store.find_run("rsnet2")


def test_an_unfinished_run_is_found_and_removed(store, record):
    run = record().run
    store.mark_unfinished(record(status="failed"))
    assert store.find_run(run[:-2]) == store.find_run(f"{run}.partial") == run
    store.remove_run(run)
    assert list((store.root / "runs").iterdir()) == []


def study(finish, store, name="mine"):
    runs = [finish(store, seed) for seed in (0, 1)]
    tried = {"values": {"0.1": 0.5}, "chosen": 0.1, "runs": {"0.1": finish(store, 2)}}
    return make_study({"a": runs}, name=name, tuning={"a": tried}, updated_at="2026-01-02")


def test_a_study_is_read_back_and_refers_to_its_tuning_too(store, finish):
    record = study(finish, store)
    store.save_study(record)
    assert store.read_study("mine") == record
    assert store.studies() == [record]
    assert record.runs == {r.run for r in store.runs()}
    assert len(record.runs) == 3


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda values: values.update(format_version=99), "format version 99"),
        (lambda values: values.update(name="../../other"), "the record of another study"),
        (lambda values: values.update(mood="good"), "a newer bench wrote it .*mood"),
        (lambda values: values.pop("question"), "cannot be read .*question"),
        (lambda values: values["variants"]["a"].pop("runs"), "cannot be read"),
        (lambda values: values["variants"]["a"].pop("reference"), "reference"),
        (lambda values: values.update(variants=[]), "cannot be read"),
    ],
)
def test_a_broken_study_is_passed_over_with_a_warning(change, reason, store, finish):
    store.save_study(study(finish, store))
    forge(store.root / "studies" / "mine.json", change)
    with pytest.warns(UserWarning, match=rf"passing over .*mine.json: .*{reason}"):
        assert store.studies() == []


@pytest.mark.parametrize("content", ["", "[]", "3", '{"format_version"'])
def test_a_study_of_another_form_is_passed_over(content, store):
    path = store.root / "studies" / "mine.json"
    path.parent.mkdir(parents=True)
    path.write_text(content)
    with pytest.warns(UserWarning, match=r"passing over .*mine.json"):
        assert store.read_study("mine") is None


HOLD = """
import sys
from bench.store import Store
with Store(sys.argv[1]).lock("run") as ours:
    print(ours, flush=True)
    sys.stdin.read()
"""


def test_a_lock_keeps_other_processes_out_until_its_owner_is_gone(store):
    owner = subprocess.Popen(
        [sys.executable, "-c", HOLD, store.root],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert owner.stdin is not None
    assert owner.stdout is not None
    assert owner.stdout.readline() == "True\n"
    with store.lock("run", wait=False) as ours:
        assert not ours
    with store.lock("another", wait=False) as ours:
        assert ours
    owner.kill()  # even a killed owner holds nothing
    owner.communicate()
    with store.lock("run") as ours:
        assert ours


def test_a_newer_run_is_not_written_over(store, finish):
    """The refusal is an error like any other that a person can mend, so it was once swallowed."""
    path = store.folder(finish(store)) / "run.json"
    values = json.loads(path.read_text())
    del values["checksum"]
    path.write_bytes(seal({**values, "format_version": 7}))
    before = path.read_bytes()
    with pytest.raises(NewerFormatError, match="written by a newer bench"):
        finish(store)
    assert path.read_bytes() == before


def test_a_study_with_fields_of_a_newer_bench_is_not_written_over(store, finish):
    """Its looks would be forgotten, and the study tested as at its first one."""
    store.save_study(study(finish, store))
    path = store.root / "studies" / "mine.json"
    forge(path, lambda values: values.update(look_levels=[0.05]))
    before = path.read_bytes()
    with pytest.raises(
        NewerFormatError, match=r"mine\.json: .*'look_levels', unknown here.*upgrade"
    ):
        store.save_study(study(finish, store))
    assert path.read_bytes() == before


def test_a_warning_shows_the_line_of_the_caller(store, finish):
    (store.folder(finish(store)) / "run.json").write_text("damaged")
    with pytest.warns(UserWarning, match="passing over") as found:
        load_results(store.root)
    assert {warning.filename for warning in found} == {__file__}
