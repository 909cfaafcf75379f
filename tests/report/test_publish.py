"""A study's folder for readers."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from typing import TYPE_CHECKING

import pandas as pd
import pytest

import bench
from bench.errors import BenchError
from bench.report.pages.publish import publish
from bench.report.pages.study_report import read_study_report
from bench.store import Store
from builders import make_study

if TYPE_CHECKING:
    from pathlib import Path


def test_a_page_says_what_was_asked_answered_and_how(trained: Path, tmp_path: Path) -> None:
    files = publish(read_study_report(Store(trained), "tiny"), tmp_path / "page")
    assert {f.name for f in files} == {
        "README.md",
        "study.svg",
        "study.png",
        "accuracy-images-per-second.svg",  # one network's cost, with and without shortcuts
        "accuracy-images-per-second.png",
        "runs.csv",
        "epochs.csv",
        "comparisons.csv",
    }
    assert all(f.stat().st_size > 0 for f in files)
    page = (tmp_path / "page" / "README.md").read_text()
    assert page.startswith("# Does the shortcut matter here?\n\nAfter He et al. 2016a, Table 2.\n")
    assert "\n| residual | " in page
    assert "bench run-ablation tiny" in page
    assert "random seeds 0, 1" in page
    assert "1 thread(s) a run, 1 run(s) at a time" in page
    assert len(pd.read_csv(tmp_path / "page" / "runs.csv")) == 4
    texts = {e.text for e in ET.parse(tmp_path / "page" / "study.svg").iter() if e.text}
    assert {"residual", "plain", "Training error", "Difference from the reference"} <= texts


def test_a_page_names_every_machine_that_its_runs_had(tmp_path: Path) -> None:
    for threads in (1, 2):
        bench.train(
            "resnet8", options={"width": 4}, epochs=1, settings={"train_images": 100},
            seed=threads, results=tmp_path, device="cpu", threads=threads,
        )  # fmt: skip
    machine = dict(read_study_report(Store(tmp_path), "adhoc").provenance)["machine"]
    assert re.findall(r"(\d+) thread\(s\) a run", machine) == ["1", "2"]


def test_a_study_without_a_finished_run_has_no_page(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.save_study(make_study({"a": []}))
    with pytest.raises(BenchError, match="study 'mine' has no finished run yet"):
        publish(read_study_report(store, "mine"), tmp_path / "page")
    assert not (tmp_path / "page").exists()
