"""The index of runs is only a cache: whatever happened, the frames equal a full read."""

from __future__ import annotations

import os
import shutil
import warnings
from dataclasses import replace
from typing import TYPE_CHECKING

import pandas as pd
import pytest

from bench.store import Store
from bench.store.index import INDEXED_FROM
from bench.store.tables.frames import load_results
from bench.store.tables.runs import forget
from builders import make_record, make_request, make_study, write_run

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

RUNS = INDEXED_FROM + 20
TABLES = ("runs", "epochs")


def write(root: Path, seed: int, accuracy: float = 0.9, epochs: int = 2) -> str:
    """Write a finished run as the store does, but for waiting until the disk has it."""
    history = "epoch,train_loss,train_accuracy\n" + "".join(
        f"{epoch},{1 / epoch},{accuracy}\n" for epoch in range(1, epochs + 1)
    )
    record = make_record(
        make_request(seed=seed), result={"test_accuracy": accuracy},
        environment={"device": "cpu", "threads": 1, "cpu": "made up", "git_commit": None},
    )  # fmt: skip
    return write_run(root, record, history)


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("many") / "bench-runs"
    runs = [write(root, seed) for seed in range(RUNS)]
    Store(root).save_study(make_study({"a": runs}))
    return root


@pytest.fixture
def tree(many: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of many runs with an index of both tables, as if the files were seconds old."""
    monkeypatch.setattr("bench.store.index.SETTLED_SECONDS", 0)
    root = shutil.copytree(many, tmp_path / "bench-runs")
    for table in TABLES:
        load_results(root, table)  # type: ignore[arg-type]
        assert (root / ".index" / f"{table}.arrow").stat().st_size > 1000
    return root


def full_read(root: Path, table: str, at: Path) -> pd.DataFrame:
    """Read a copy that never had an index."""
    copy = shutil.copytree(root, at, ignore=shutil.ignore_patterns(".index"), dirs_exist_ok=True)
    return load_results(copy, table)  # type: ignore[arg-type]


def run_file(root: Path, seed: int, name: str) -> Path:
    return next((root / "runs").glob(f"*-s{seed}-*")) / name


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def changed_silently(root: Path) -> None:
    path = run_file(root, 7, "run.json")
    before = path.stat()
    write(root, 7, accuracy=0.8)  # as many bytes as before
    assert path.stat().st_size == before.st_size
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def renamed(root: Path) -> None:
    store = Store(root)
    study = store.find_study("mine")
    store.remove_study("mine")
    store.save_study(replace(study, name="ours", variants={"b": study.variants["a"]}))


CHANGES: dict[str, Callable[[Path], object]] = {
    "nothing": lambda _root: None,
    "a run more": lambda root: write(root, 10_000),
    "a run less": lambda root: Store(root).remove_run(run_file(root, 3, "").name),
    "a run trained again": lambda root: write(root, 3, accuracy=0.8, epochs=3),
    "a run changed in place with its times put back": changed_silently,
    "a damaged record": lambda root: flip(run_file(root, 5, "run.json")),
    "a damaged history": lambda root: flip(run_file(root, 5, "history.csv")),
    "a history less": lambda root: run_file(root, 5, "history.csv").unlink(),
    "a study renamed": renamed,
    "no index": lambda root: shutil.rmtree(root / ".index"),
    "a damaged index": lambda root: [flip(p) for p in (root / ".index").iterdir()],
    "half an index": lambda root: [
        p.write_bytes(p.read_bytes()[: p.stat().st_size // 2]) for p in (root / ".index").iterdir()
    ],
    "an empty index": lambda root: [p.write_bytes(b"") for p in (root / ".index").iterdir()],
}


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_whatever_changed_the_frame_is_that_of_a_full_read(
    change: Callable[[Path], object], table: str, tree: Path, tmp_path: Path
) -> None:
    change(tree)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of damaged runs
        expected = full_read(tree, table, tmp_path / "copy")
        found = load_results(tree, table)  # type: ignore[arg-type]
        pd.testing.assert_frame_equal(found, expected)
        forget()  # what this process remembers, so that the index answers
        found = load_results(tree, table)  # type: ignore[arg-type]
        pd.testing.assert_frame_equal(found, expected)


@pytest.mark.parametrize("remembered", [False, True])
def test_the_second_read_opens_no_run(
    remembered: bool, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_words: object) -> None:
        raise AssertionError("a record was read")

    expected = load_results(tree)
    if not remembered:
        forget()
    monkeypatch.setattr(Store, "read_run", refuse)
    pd.testing.assert_frame_equal(load_results(tree), expected)


def test_a_folder_that_cannot_be_written_is_read_all_the_same(many: Path, tmp_path: Path) -> None:
    root = shutil.copytree(many, tmp_path / "bench-runs")
    (root / ".index").write_text("a file where a folder is needed")
    assert len(load_results(root)) == RUNS


def test_a_young_record_is_not_trusted(many: Path, tmp_path: Path) -> None:
    root = shutil.copytree(many, tmp_path / "bench-runs")
    load_results(root)
    write(root, 3, accuracy=0.8)
    found = load_results(root).set_index("seed")
    assert found.loc[3, "test_accuracy"] == 0.8


def test_a_changed_frame_changes_no_later_one(tree: Path) -> None:
    expected = load_results(tree).copy(deep=True)
    forget()
    for _ in range(2):  # the frame that is remembered, and then a copy of it
        spoilt = load_results(tree)
        spoilt.loc[:, "test_accuracy"] = 0.0
        spoilt.iloc[0, spoilt.columns.get_loc("seed")] = 77
        spoilt["model"] = spoilt["model"].cat.rename_categories(str.upper)
        spoilt.index += 1
        pd.testing.assert_frame_equal(load_results(tree), expected)


@pytest.mark.parametrize("table", TABLES)
def test_a_broken_run_is_said_each_time(table: str, tree: Path) -> None:
    file = {"runs": "run.json", "epochs": "history.csv"}[table]
    flip(run_file(tree, 5, file))
    for _ in range(3):
        with pytest.warns(UserWarning, match="-s5-"):
            found = load_results(tree, table)  # type: ignore[arg-type]
        assert 5 not in set(found["seed"])


@pytest.mark.parametrize("table", TABLES)
def test_a_study_in_a_large_folder_has_its_rows_in_its_own_order(
    table: str, tree: Path, tmp_path: Path
) -> None:
    study = Store(tree).find_study("mine")
    runs = study.variants["a"]["runs"]
    some = {str(seed): runs[str(seed)] for seed in (69, 3, 41)}
    variants = {"z": {"reference": None, "runs": some}, "b": {"reference": "z", "runs": some}}
    Store(tree).save_study(replace(study, name="few", variants=variants))
    copy = shutil.copytree(tree, tmp_path / "copy", ignore=shutil.ignore_patterns(".index"))
    path = "studies/few.json"
    expected = load_results(copy / path, table)  # type: ignore[arg-type]
    found = load_results(tree / path, table)  # type: ignore[arg-type]
    pd.testing.assert_frame_equal(found, expected)
    each = 1 if table == "runs" else 2
    assert list(found["seed"])[::each] == [69, 3, 41] * 2
    assert list(found["variant"])[::each] == ["z"] * 3 + ["b"] * 3
