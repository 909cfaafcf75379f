"""Recorded analyses: whole and checked, or named and passed over."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from bench.store.analyses import Analyses
from bench.store.files import StorageError
from bench.store.records import NewerFormatError, seal

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

ROW = {"run": "resnet20-s0", "lesion": "drop", "test_accuracy": 0.1 + 0.2, "other": None}


@pytest.fixture
def store(tmp_path):
    return Analyses(tmp_path / "bench-runs")


def publish(store, run="resnet20-s0", accuracy=0.1 + 0.2):
    rows = {"lesions": [{**ROW, "run": run, "test_accuracy": accuracy}]}
    return store.publish("lesion", {"run": run}, rows, {"cpu": "made up"}).analysis


def test_what_is_written_is_read_back_and_the_same_request_replaces_it(store):
    assert store.records() == []
    name = publish(store, accuracy=0.5)
    other = publish(store, "plain20-s0")
    assert publish(store) == name != other
    by_name = {record.analysis: record for record in store.records()}
    assert set(by_name) == {name, other} == {path.stem for path in store.root.iterdir()}
    found = by_name[name]
    assert found.tables == {"lesions": [ROW]}
    assert (found.kind, found.request) == ("lesion", {"run": "resnet20-s0"})
    assert found.environment == {"cpu": "made up"}
    assert [record.analysis for record in store.records()] == [other, name]  # the oldest first


def test_numbers_that_json_lacks_are_missing(store):
    rows = [{"loss": float("inf")}, {"loss": float("nan")}, {"loss": 1.0}]
    name = store.publish("landscape", {"run": "a"}, {"landscapes": rows}, {}).analysis
    (found,) = store.records()
    assert [row["loss"] for row in found.tables["landscapes"]] == [None, None, 1.0]
    json.loads(store.file(name).read_text(), parse_constant=pytest.fail)


def test_the_analyses_of_a_run_are_removed_and_no_others(store):
    name, other = publish(store), publish(store, "plain20-s0")
    assert [record.analysis for record in store.of(["resnet20-s0"])] == [name]
    store.remove(["resnet20-s0", "no such run"])
    assert [record.analysis for record in store.records()] == [other]


def flip(path):
    path.write_text(path.read_text().replace("0.3000", "0.9000"))


def of_a_newer_format(path):
    values = json.loads(path.read_text())
    del values["checksum"]
    path.write_bytes(seal({**values, "format_version": 7}))


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "half": (lambda p: p.write_bytes(p.read_bytes()[: p.stat().st_size // 2]), "cannot be read"),
    "nothing": (lambda p: p.write_bytes(b""), "cannot be read"),
    "flipped": (flip, "is damaged"),
    "a list": (lambda p: p.write_text("[]"), "cannot be read"),
    "of another name": (lambda p: p.rename(p.with_name("lesion-0.json")), "another analysis"),
    "newer": (of_a_newer_format, "has format version 7, this bench reads up to 1"),
    "a folder": (lambda p: (p.unlink(), p.mkdir()), "cannot be read"),
}


@pytest.mark.parametrize(("damage", "said"), DAMAGES.values(), ids=DAMAGES)
def test_a_broken_one_is_named_and_the_others_are_read(damage, said, store):
    broken, whole = publish(store), publish(store, "plain20-s0")
    damage(store.file(broken))
    with pytest.warns(UserWarning, match=said) as warned:
        found, problems = store.read()
    assert [record.analysis for record in found] == [whole]
    assert len(warned) == len(problems) == 1
    assert said in problems[0]
    assert str(store.root) in problems[0]


def test_a_newer_one_is_not_written_over(store):
    path = store.file(publish(store))
    of_a_newer_format(path)
    before = path.read_bytes()
    with pytest.raises(NewerFormatError, match="written by a newer bench"):
        publish(store)
    assert path.read_bytes() == before


def test_where_nothing_can_be_written_nothing_is_left(tmp_path):
    (tmp_path / "bench-runs").mkdir()
    (tmp_path / "bench-runs" / "analyses").write_text("mine")
    store = Analyses(tmp_path / "bench-runs")
    for write in (store.prepare, lambda: publish(store)):
        with pytest.raises(StorageError, match="cannot write"):
            write()
    assert (tmp_path / "bench-runs" / "analyses").read_text() == "mine"
