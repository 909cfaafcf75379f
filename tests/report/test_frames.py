"""Results as frames: always the same columns and types, and never an invented accuracy."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest

import bench
from bench.report.study_data import load_results
from bench.store import Store
from bench.store.analyses import Analyses
from bench.store.measurements import MeasurementRecord, Measurements
from bench.store.tables.columns import COLUMNS
from builders import make_row, make_unfinished

if TYPE_CHECKING:
    from pathlib import Path

TABLES = pytest.mark.parametrize("table", ["runs", "epochs"])


def assert_typed(frame: pd.DataFrame, table: str) -> None:
    assert {name: str(dtype) for name, dtype in frame.dtypes.items()} == COLUMNS[table]
    assert list(frame.columns) == list(COLUMNS[table])


@pytest.fixture(scope="module")
def noise(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results folder with one run on made-up images."""
    results = tmp_path_factory.mktemp("noise") / "bench-runs"
    bench.train(
        "resnet8", dataset="synthetic", options={"width": 4}, epochs=1, results=results,
        settings={"train_images": 200, "batch_size": 50, "muon_learning_rate": 0.0},
        device="cpu", threads=1,
    )  # fmt: skip
    return results


@pytest.mark.parametrize("table", COLUMNS)
def test_nothing_is_an_empty_frame_with_all_columns(table: str, tmp_path: Path) -> None:
    frame = load_results(tmp_path, table)  # type: ignore[arg-type]
    assert frame.empty
    assert_typed(frame, table)


@TABLES
@pytest.mark.parametrize("what", ["folder", "study", "run"])
def test_a_folder_a_study_and_a_run_have_the_same_columns(
    what: str, table: str, trained: Path
) -> None:
    run = next(Store(trained).runs()).run
    path, rows = {
        "folder": (trained, 4),
        "study": (trained / "studies" / "tiny.json", 4),
        "run": (trained / "runs" / run, 1),
    }[what]
    frame = load_results(path, table)  # type: ignore[arg-type]
    assert len(frame) == rows
    assert_typed(frame, table)
    assert set(frame["study"]) == {"tiny"}
    assert set(frame["variant"]) <= {"residual", "plain"}
    if what == "run":
        assert set(frame["run"]) == {run}


def test_a_row_says_what_was_trained(trained: Path) -> None:
    frame = load_results(trained / "studies" / "tiny.json")
    assert list(frame["variant"]) == ["residual", "residual", "plain", "plain"]
    assert list(frame["seed"]) == [0, 1, 0, 1]
    row = frame.iloc[2]
    assert row["options"] == "shortcut=none width=4"
    assert (row["model"], row["dataset"], row["input_size"]) == (
        "resnet8",
        "fashion-mnist-mini",
        28,
    )
    assert (row["recipe"], row["epochs"]) == ("fast batch_size=50", 1)
    assert (row["status"], row["device"], row["threads"]) == ("complete", "cpu", 1)
    for column in ("train_accuracy", "validation_accuracy", "test_accuracy"):
        assert frame[column].between(0, 1).all()
    gap = frame["train_accuracy"] - frame["test_accuracy"]
    assert frame["generalization_gap"].to_list() == pytest.approx(gap.to_list())
    epochs = load_results(trained, "epochs")
    assert list(epochs["epoch"]) == [1] * 4
    assert epochs["train_loss"].notna().all()
    assert epochs["test_accuracy"].isna().all()  # the test set is scored once, at the end


def test_a_recipe_is_told_by_what_it_changes_also_back_to_a_default(noise: Path) -> None:
    """SGD alone is no recipe's default, but that of a key which old records do not have."""
    (recipe,) = load_results(noise)["recipe"]
    assert recipe == "fast batch_size=50 muon_learning_rate=0.0"


@TABLES
def test_made_up_images_show_no_accuracy(table: str, noise: Path) -> None:
    frame = load_results(noise, table)  # type: ignore[arg-type]
    assert len(frame) == 1
    assert_typed(frame, table)
    hidden = [c for c in frame.columns if any(w in c for w in ("accuracy", "loss", "gap"))]
    assert len(hidden) >= 4
    assert frame[hidden].isna().all(axis=None)
    assert frame["images_per_second"].gt(0).all()


def test_a_run_of_two_studies_has_a_row_in_each(results: Path) -> None:
    store = Store(results)
    tiny = store.find_study("tiny")
    store.save_study(replace(tiny, name="other", variants={"twin": tiny.variants["plain"]}))
    frame = load_results(results)
    assert frame.groupby("run", observed=True).size().sort_values().to_list() == [1, 1, 2, 2]
    assert set(frame.loc[frame["study"] == "other", "variant"]) == {"twin"}
    for name in ("tiny", "other"):
        (results / "studies" / f"{name}.json").unlink()
    frame = load_results(results)
    assert len(frame) == 4
    assert frame["study"].isna().all()
    assert_typed(frame, "runs")


@TABLES
@pytest.mark.parametrize("damage", ["garbled", "one bit", "missing"])
def test_a_broken_run_is_passed_over_with_a_warning_on_every_load(
    damage: str, table: str, results: Path
) -> None:
    load_results(results, table)  # type: ignore[arg-type]
    broken = next(Store(results).runs()).run
    path = results / "runs" / broken / {"runs": "run.json", "epochs": "history.csv"}[table]
    if damage == "missing":
        path.unlink()
    elif damage == "garbled":
        path.write_text("epoch\n")
    else:
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    for _ in range(2):
        with pytest.warns(UserWarning, match=broken):
            frame = load_results(results, table)  # type: ignore[arg-type]
        assert len(frame) == 3
        assert broken not in set(frame["run"])
        assert_typed(frame, table)


@pytest.mark.parametrize("table", [name for name in COLUMNS if name != "comparisons"])
def test_a_broken_study_has_no_rows(table: str, results: Path) -> None:
    run = next(Store(results).runs()).run
    Analyses(results).publish("lesion", {"run": run}, {"lesions": [{"run": run}]}, {})
    Measurements(results).publish(MeasurementRecord("m", {}, [make_row(run=run)]), [])
    path = results / "studies" / "tiny.json"
    path.write_text(path.read_text()[:-9])
    with pytest.warns(UserWarning, match=r"passing over .*tiny.json"):
        frame = load_results(path, table)  # type: ignore[arg-type]
    assert frame.empty
    assert_typed(frame, table)


def test_the_next_load_sees_what_has_changed(results: Path) -> None:
    """Also a record of the same size whose times were put back."""
    store = Store(results)
    first, second, *_ = store.runs()
    load_results(results)
    path = store.folder(first.run) / "run.json"
    before = path.stat()
    cpu = first.environment["cpu"][::-1]  # as many characters
    changed = replace(first, environment={**first.environment, "cpu": cpu})
    path.write_bytes(changed.to_json())
    assert path.stat().st_size == before.st_size
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert load_results(results).set_index("run").loc[first.run, "cpu"] == cpu
    store.remove_run(second.run)
    assert set(load_results(results)["run"]) == {record.run for record in store.runs()}


@TABLES
def test_a_changed_frame_changes_no_later_one(table: str, trained: Path) -> None:
    expected = load_results(trained, table)  # type: ignore[arg-type]
    spoilt = load_results(trained, table)  # type: ignore[arg-type]
    spoilt.loc[:, "seconds"] = 0.0
    spoilt["variant"] = spoilt["variant"].cat.rename_categories(str.upper)
    pd.testing.assert_frame_equal(load_results(trained, table), expected)  # type: ignore[arg-type]


@TABLES
def test_a_study_has_its_rows_in_its_own_order(table: str, results: Path) -> None:
    """A run to which two variants refer has its rows in both."""
    store = Store(results)
    tiny = store.read_study("tiny")
    assert tiny is not None
    runs = {seed: tiny.variants["residual"]["runs"][seed] for seed in ("1", "0")}
    variants: dict[str, dict[str, Any]] = {
        "z": {"reference": None, "runs": runs},
        "b": {"reference": "z", "runs": runs},
    }
    store.save_study(replace(tiny, name="few", variants=variants))
    frame = load_results(results / "studies" / "few.json", table)  # type: ignore[arg-type]
    assert list(frame["seed"]) == [1, 0] * 2
    assert list(frame["variant"]) == ["z", "z", "b", "b"]


def test_an_unfinished_run_is_a_row_with_its_reason(results: Path) -> None:
    run = make_unfinished(Store(results))
    frame = load_results(results / "studies" / "tiny.json").set_index("run")
    assert len(frame) == 4
    assert frame.loc[run, "error"] == "why"
    assert pd.isna(frame.loc[run, "test_accuracy"])
    assert_typed(frame.reset_index()[list(COLUMNS["runs"])], "runs")


def test_a_results_folder_may_lie_in_one_called_runs(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "speed"
    Measurements(folder).publish(MeasurementRecord("m", {}, [make_row()]), [])
    assert len(load_results(folder, "throughput")) == 1
    (tmp_path / "runs" / "notes.txt").touch()
    with pytest.raises(bench.BenchError, match=r"notes.txt is a file; give a folder"):
        load_results(tmp_path / "runs" / "notes.txt")


@pytest.mark.parametrize("path", ["nowhere", "studies/typo.json", "runs/typo"])
def test_what_is_not_there_is_refused(path: str, trained: Path) -> None:
    with pytest.raises(bench.BenchError, match=f"no results folder at .*{path}"):
        load_results(trained / path)


def test_an_unknown_table_is_refused(trained: Path) -> None:
    with pytest.raises(bench.BenchError, match="table epoch is unknown; did you mean 'epochs'"):
        load_results(trained, "epoch")  # type: ignore[arg-type]
