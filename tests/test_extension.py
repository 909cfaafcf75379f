"""A user's own network and dataset in a study, with no edit in this repository."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from PIL import Image

import bench as bench_package
from bench.report.pages.publish import publish
from bench.report.pages.study_report import read_study_report
from bench.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

EXTENSION = Path(__file__).parent / "extension"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's folder, with a `models` package that must shadow nothing."""
    for module in [name for name in sys.modules if name.partition(".")[0] == "flowers"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setattr(sys, "path", [*sys.path])  # bench appends the current folder
    folder = shutil.copytree(EXTENSION, tmp_path / "project")
    (folder / "models").mkdir()
    (folder / "models" / "__init__.py").write_text("raise RuntimeError('not yours')\n")
    return folder


def test_a_study_trains_the_users_network_on_the_users_data(
    project: Path,
    bench: Callable[..., Any],
    bench_process: Callable[..., Any],
    entries: Callable[[Path], set[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    once = ("run-ablation", "flowers.toml", "--threads", 1, "--workers", 1)
    done = bench_process(*once, cwd=project)
    assert done.code == 0, done
    assert done.out.strip().startswith("Does a wider network see the flowers better?")
    assert "narrow seed 0: epoch 2/2" in done.err
    frame = bench_package.load_results(project / "bench-runs")
    assert set(frame["variant"]) == {"narrow", "wide"}
    assert set(frame["status"]) == {"complete"}
    assert set(frame["dataset"]) == {"flowers.data:meadow"}
    assert set(frame["input_size"]) == {12}
    narrow = frame.loc[frame["variant"] == "narrow", "parameters"].iloc[0]
    assert narrow == 36 + 8 + 4 * 4 * 9 + 4 + 15

    before = entries(project / "bench-runs")
    monkeypatch.chdir(project)
    again = bench(*once)
    assert again.err == ""
    assert again.out == done.out
    assert entries(project / "bench-runs") == before

    report = publish(read_study_report(Store(project / "bench-runs"), "flowers"), project, ["html"])
    page = report[0].read_text()
    assert "3×3 conv, 4 · BN · ReLU" in page  # recorded at training: a report runs no such code
    assert "fully connected, 3" in page

    run = next(Store(project / "bench-runs").runs()).run
    Image.new("L", (12, 12)).save(project / "flower.png")
    told = bench("predict", run, "flower.png", "--top", 3, "--json")
    assert {row["class"] for row in told.document["rows"]} == {"bare", "rows", "columns"}


REFUSALS = {
    "wrong number of classes": (
        ["flowers.networks:stubborn"],
        r"gives \(7,\) values per image, dataset 'flowers.data:meadow' has 3 classes",
    ),
    "maps that vanish": (
        ["flowers.networks:shrinking", "--set", "input_size=4"],
        "its maps vanish at an input of 1×4×4; choose a larger input_size",
    ),
    "batch norm on one value": (
        ["flowers.networks:exploding", "--set", "batch_size=53"],
        "single value per channel for batch norm to train on, .*batch_size or a larger input_size",
    ),
    "no such function": (["flowers.networks:petal"], "no 'petal' in .*; did you mean 'petals'"),
    "no such module": (["flower.networks:petals"], "no module 'flower' in "),
    "an option it does not take": (
        ["flowers.networks:petals", "--option", "widht=3"],
        "has no option 'widht'; did you mean 'width'",
    ),
}


@pytest.mark.parametrize(("words", "message"), REFUSALS.values(), ids=REFUSALS)
def test_a_network_that_does_not_fit_is_refused_before_anything_is_written(
    words: list[str],
    message: str,
    project: Path,
    bench: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(project)
    refusal = bench("train", *words, "--dataset", "flowers.data:meadow", "--device", "cpu").refusal
    assert re.search(message, refusal), refusal
    assert not (project / "bench-runs").exists()


def test_a_dataset_that_is_not_there_is_refused(bench: Callable[..., Any], tmp_path: Path) -> None:
    refusal = bench("train", "resnet8", "--dataset", "weeds.data:meadow").refusal
    assert "dataset weeds.data:meadow: no module 'weeds' in" in refusal
    assert not (tmp_path / "bench-runs").exists()
