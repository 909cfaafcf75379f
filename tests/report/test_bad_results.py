"""Results folders as they should not be, through the real command: a report or one line."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from bench.store import RunRecord, Store
from bench.store.analyses import Analyses
from bench.store.records import seal
from builders import make_study, make_unfinished

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Bench = Callable[..., Any]
    Damage = Callable[[Path], object]

EVERYTHING = ("--format", "csv,parquet,markdown,latex,html", "--output", "out")
FILES = {"runs.csv", "runs.parquet", "README.md", "table.tex", "report.html", "study.svg"}
NAN = float("nan")


def study_file(root: Path) -> Path:
    return root / "studies" / "tiny.json"


def records(root: Path) -> list[RunRecord]:
    return list(Store(root).runs())


def resealed(path: Path, **changes: object) -> None:
    """Change a record as a newer bench would have written it."""
    values = json.loads(path.read_text())
    del values["checksum"]
    path.write_bytes(seal({**values, **changes}))


def halve(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def newer_runs(root: Path) -> None:
    for record in records(root):
        resealed(root / "runs" / record.run / "run.json", format_version=2)


def all_failed(root: Path) -> None:
    store = Store(root)
    for record in records(root):
        make_unfinished(store, record.run)


def renamed_by_hand(root: Path) -> None:
    study_file(root).rename(root / "studies" / "other.json")


REFUSED: dict[str, tuple[Damage, str]] = {
    "no folder": (shutil.rmtree, "no results folder at bench-runs; 'bench run-ablation' makes one"),
    "an empty folder": (
        lambda root: [shutil.rmtree(path) for path in root.iterdir() if path.is_dir()],
        "no study( 'tiny')? in bench-runs; 'bench run-ablation' runs one",
    ),
    "half a study": (
        lambda root: halve(study_file(root)),
        "study 'tiny' in bench-runs cannot be read: tiny.json cannot be read",
    ),
    "an empty study": (
        lambda root: study_file(root).write_text(""),
        "study 'tiny' in bench-runs cannot be read: tiny.json cannot be read",
    ),
    "a newer study": (
        lambda root: resealed(study_file(root), format_version=2),
        "tiny.json has format version 2, this bench reads up to 1; upgrade bench",
    ),
    "newer runs": (
        newer_runs,
        "study 'tiny': no run can be read .*run.json has format version 2, this bench reads up",
    ),
    "half of every run": (
        lambda root: [halve(root / "runs" / r.run / "run.json") for r in records(root)],
        r"study 'tiny': no run can be read \(resnet8.*run.json cannot be read",
    ),
    "no run": (
        lambda root: shutil.rmtree(root / "runs"),
        "study 'tiny' has no finished run yet; there is nothing to show",
    ),
    "failed runs": (all_failed, r"study 'tiny' has no finished run yet \(4 failed\); there is"),
    "a study renamed by hand": (
        renamed_by_hand,
        "study 'other' in bench-runs cannot be read: .*another study, tiny",
    ),
    "a results folder that is a file": (
        lambda root: [shutil.rmtree(root), root.write_text("")],
        "--results bench-runs is a file; give a folder",
    ),
}


@pytest.mark.filterwarnings("ignore:passing over")
@pytest.mark.parametrize("named", [False, True], ids=["last", "named"])
@pytest.mark.parametrize(("damage", "said"), REFUSED.values(), ids=REFUSED)
def test_nothing_to_report_is_one_line_and_writes_nothing(
    damage: Damage, said: str, named: bool, bench: Bench, results: Path, tmp_path: Path
) -> None:
    damage(results)
    words = ["report", *(["tiny"] if named else []), *EVERYTHING]
    if named and damage is renamed_by_hand:
        said = r"no study 'tiny' in bench-runs \(there: other\)"
    outcome = bench(*words)
    assert re.search(said, outcome.refusal), outcome.refusal
    assert outcome.out == ""
    assert {path.name for path in tmp_path.iterdir()} <= {"bench-runs"}


def one_newer_run(root: Path) -> None:
    resealed(root / "runs" / records(root)[0].run / "run.json", format_version=7)


def nan_everywhere(root: Path) -> None:
    store = Store(root)
    for record in records(root):
        numbers = {k: NAN for k, v in record.result.items() if isinstance(v, float)}
        history = "epoch,train_loss,train_accuracy,seconds\n1,nan,nan,nan\n"
        store.finish_run(replace(record, result=record.result | numbers), history=history)


def only(root: Path, *, variants: int = 2, seeds: int = 2) -> None:
    store = Store(root)
    study = store.find_study("tiny")
    kept = {
        name: {**entry, "runs": dict(list(entry["runs"].items())[:seeds])}
        for name, entry in list(study.variants.items())[:variants]
    }
    store.save_study(replace(study, variants=kept))


def failed_reference(root: Path) -> None:
    store = Store(root)
    study = store.find_study("tiny")
    for run in study.variants["residual"]["runs"].values():
        make_unfinished(store, run, "out_of_memory", "too large")


def renamed_variants(root: Path) -> None:
    store = Store(root)
    study = store.find_study("tiny")
    plain = {**study.variants["plain"], "reference": "gone"}
    store.save_study(replace(study, variants={"a|b": study.variants["residual"], "c": plain}))


def no_history(root: Path) -> None:
    for record in records(root):
        (root / "runs" / record.run / "history.csv").unlink()


def damaged_predictions(root: Path) -> None:
    for record in records(root):
        halve(root / "runs" / record.run / "predictions.safetensors")


def begun(root: Path) -> None:
    store = Store(root)
    run = records(root)[0].run
    store.folder(run).rename(store.partial(run))
    (store.partial(run) / "run.json").unlink()


REPORTED: dict[str, tuple[Damage, str]] = {
    "one newer run": (
        one_newer_run,
        "1 of 4 runs are not complete.*run.json has format version 7, this bench reads up to 1",
    ),
    "NaN everywhere": (
        nan_everywhere,
        r"residual has no accuracy \(its runs recorded no number\)",
    ),
    "one seed": (
        lambda root: only(root, seeds=1),
        "plain and residual are not compared before all of their runs have ended",
    ),
    "one variant": (lambda root: only(root, variants=1), "There is nothing to compare yet"),
    "one variant, one seed": (
        lambda root: only(root, variants=1, seeds=1),
        "There is nothing to compare yet",
    ),
    "a reference that failed": (
        failed_reference,
        r"residual has no result to compare \(2 out of memory\).*plain cannot be compared",
    ),
    "renamed variants": (renamed_variants, r"\| a\\\|b \|"),
    "no history": (no_history, "residual"),
    "damaged predictions": (damaged_predictions, "Left out: .*predictions.safetensors is missing"),
    "a run that has left nothing but its folder": (begun, "begun, and nothing recorded yet"),
}


@pytest.mark.filterwarnings("ignore:passing over", "ignore:.*history.csv is missing")
@pytest.mark.parametrize(("damage", "said"), REPORTED.values(), ids=REPORTED)
def test_what_is_left_is_reported_and_what_is_missing_said(
    damage: Damage, said: str, bench: Bench, results: Path, tmp_path: Path
) -> None:
    damage(results)
    outcome = bench("report", "tiny", *EVERYTHING)
    assert outcome.code == 0, outcome
    assert outcome.err == ""
    assert {path.name for path in (tmp_path / "out").iterdir()} >= FILES
    page = (tmp_path / "out" / "README.md").read_text()
    assert re.search(said, page, re.DOTALL), page
    for name in ("README.md", "table.tex"):
        assert not re.search(r"\bnan\b", (tmp_path / "out" / name).read_text(), re.IGNORECASE), name


@pytest.mark.slow
def test_a_process_says_each_warning_once_and_in_one_line(
    bench_process: Bench, results: Path
) -> None:
    one_newer_run(results)
    outcome = bench_process("report", "tiny", *EVERYTHING)
    assert outcome.code == 0, outcome
    (line,) = outcome.err.splitlines()
    assert re.fullmatch(
        r"bench: warning: passing over bench-runs/runs/resnet8\S+: run.json has format version 7, "
        r"this bench reads up to 1; upgrade bench",
        line,
    )


@pytest.mark.parametrize("name", ["csv", "parquet", "markdown", "latex", "html"])
@pytest.mark.parametrize("place", ["taken", "taken/below", "/proc/bench-report"])
def test_an_output_that_cannot_be_written_is_one_line(
    name: str, place: str, bench: Bench, trained: Path, tmp_path: Path
) -> None:
    (tmp_path / "taken").write_text("mine")
    words = ("report", "tiny", "--results", trained, "--format", name, "--output", place)
    refusal = bench(*words).refusal
    assert f"cannot write {place}" in refusal
    assert "choose another --output folder" in refusal
    assert (tmp_path / "taken").read_text() == "mine"


def test_figures_that_cannot_be_written_are_one_line(
    bench: Bench, trained: Path, tmp_path: Path
) -> None:
    (tmp_path / "taken").write_text("mine")
    words = ("report", "tiny", "--results", trained, "--output", "out", "--figures", "taken")
    refusal = bench(*words).refusal
    assert refusal.startswith("cannot write taken: a file stands where")
    assert refusal.endswith("choose another --figures folder")
    assert not (tmp_path / "out").exists()


def test_a_study_that_is_newer_is_passed_over_where_another_can_be_shown(
    bench: Bench, results: Path
) -> None:
    store = Store(results)
    study = store.find_study("tiny")
    store.save_study(replace(study, name="other"))
    resealed(study_file(results), format_version=2)
    with pytest.warns(UserWarning, match="tiny.json has format version 2"):
        outcome = bench("report", "--format", "markdown", "--output", "-")
    assert outcome.code == 0, outcome
    assert outcome.out.startswith("# Does the shortcut matter here?")


def test_a_study_of_no_variant_is_one_line(bench: Bench, tmp_path: Path) -> None:
    Store(tmp_path / "bench-runs").save_study(make_study({}))
    assert "study 'mine' has no finished run yet" in bench("report", *EVERYTHING).refusal


def test_half_an_analysis_is_named_on_the_page(bench: Bench, results: Path, tmp_path: Path) -> None:
    store = Analyses(results)
    run = records(results)[0].run
    row = {"run": run, "lesion": "none", "test_accuracy": 0.5, "images": 10}
    halve(store.file(store.publish("lesion", {"run": run}, {"lesions": [row]}, {}).analysis))
    with pytest.warns(UserWarning, match=r"passing over bench-runs/analyses/lesion-\w+.json"):
        outcome = bench("report", "tiny", *EVERYTHING)
    assert (outcome.code, outcome.err) == (0, ""), outcome
    assert not (tmp_path / "out" / "lesions.csv").exists()
    page = (tmp_path / "out" / "report.html").read_text()
    assert re.search(r"<p>Left out: bench-runs/analyses/lesion-\w+\.json: .*cannot be read", page)


def test_runs_on_different_images_are_not_compared(bench: Bench, results: Path) -> None:
    record = records(results)[0]
    path = results / "runs" / record.run / "run.json"
    resealed(path, result={**record.result, "dataset_fingerprint": "0" * 64})
    for words in (("--format", "markdown", "--output", "-"), EVERYTHING):
        assert re.search(
            "compares runs on different images of dataset .* with --force",
            bench("report", "tiny", "--results", results, *words).refusal,
        )
