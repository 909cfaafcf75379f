"""Confusions on the page, against counting one by one."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from bench.report.charts.confusion import confusions
from bench.report.pages.html import html
from bench.report.pages.study_report import read_study_report
from bench.store import Store

if TYPE_CHECKING:
    from pathlib import Path


def test_a_matrix_adds_the_predictions_of_every_seed_up(trained: Path) -> None:
    store = Store(trained)
    found = confusions(read_study_report(store, "tiny").data)
    study = store.find_study("tiny")
    assert [m.variant for m in found.matrices] == ["residual", "plain"]
    assert found.notes == ()
    for matrix in found.matrices:
        counted = np.zeros((10, 10), int)
        for run in study.variants[matrix.variant]["runs"].values():
            tensors = store.read_tensors(run, "predictions.safetensors")
            pairs = zip(tensors["labels"].tolist(), tensors["predictions"].tolist(), strict=True)
            for truth, predicted in pairs:
                counted[truth, predicted] += 1
        assert (matrix.counts == counted).all()
        assert matrix.counts.sum() == 2 * 1000


def test_the_images_are_those_that_most_runs_get_wrong(trained: Path) -> None:
    store = Store(trained)
    images = confusions(read_study_report(store, "tiny").data).images
    runs = [store.read_tensors(r.run, "predictions.safetensors") for r in store.runs()]
    wrong = [
        sum(int(t["predictions"][i]) != int(t["labels"][i]) for t in runs) for i in range(1000)
    ]
    assert [i.wrong for i in images] == sorted(wrong, reverse=True)[:12]
    for image in images:
        assert image.wrong == wrong[image.index]
        assert image.truth != image.taken_for
        assert image.picture is not None
        assert image.picture.startswith("data:image/png;base64,")
    page = html(read_study_report(store, "tiny"))
    assert page.count("<img ") == 12
    assert page.count('<table class="confusion">') == 2


def test_what_is_damaged_or_not_at_hand_is_said(results: Path) -> None:
    store = Store(results)
    records = list(store.runs())
    (results / "runs" / records[0].run / "predictions.safetensors").write_bytes(b"damaged")
    data = read_study_report(store, "tiny").data
    others = {
        r.run: replace(r, request=r.request | {"dataset": "imagefolder:/nowhere"}) for r in records
    }
    vars(data)["records"] = others  # instead of reading them
    found = confusions(data)
    assert records[0].run in found.notes[0]
    assert "imagefolder:/nowhere are not shown" in found.notes[1]
    assert {i.picture for i in found.images} == {None}
