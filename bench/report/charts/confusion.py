"""Confusion matrices, and the test images that are misclassified most often."""

from __future__ import annotations

import base64
import io
from collections import defaultdict
from dataclasses import dataclass
from statistics import mode
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bench.report.findings.agreement import tested_images
from bench.studies.run_request import RunRequest

if TYPE_CHECKING:
    import numpy.typing as npt

    from bench.report.study_data import StudyData
    from bench.store import RunRecord

    Tested = tuple[RunRecord, dict[str, npt.NDArray[Any]]]  # a run and its predictions

MOST_CLASSES = 20  # a larger matrix is not readable
MOST_IMAGES = 12
_MOST_PIXELS = 96  # width and height of an image on the page


@dataclass(frozen=True)
class Matrix:
    """The confusion matrix of one variant.

    Attributes:
        variant: its name.
        runs: number of finished runs in the sum.
        classes: names of the K classes.
        counts: K×K test images: row is the true class, column the predicted one.
    """

    variant: str
    runs: int
    classes: tuple[str, ...]
    counts: npt.NDArray[np.int64]

    @property
    def rows(self) -> list[tuple[str, list[tuple[int, float]]]]:
        """For each true class, the count of each predicted class and its share of the row."""
        sums = self.counts.sum(axis=1, keepdims=True)
        shares = self.counts / np.maximum(sums, 1)
        return [
            (name, list(zip(counts.tolist(), row.tolist(), strict=True)))
            for name, counts, row in zip(self.classes, self.counts, shares, strict=True)
        ]


@dataclass(frozen=True)
class Confused:
    """A test image that many runs misclassify.

    Attributes:
        dataset: its name.
        index: of the image in the test set.
        truth: name of its class.
        taken_for: the wrong class that most of them predict.
        wrong: number of runs that misclassify it.
        runs: number of runs that were tested on it.
        picture: a PNG as a data URI; None if the images are not available.
    """

    dataset: str
    index: int
    truth: str
    taken_for: str
    wrong: int
    runs: int
    picture: str | None


@dataclass(frozen=True)
class Confusions:
    """A study's confusion matrices and misclassified images; `notes` say what is missing."""

    matrices: tuple[Matrix, ...]
    images: tuple[Confused, ...]
    notes: tuple[str, ...]

    def frame(self) -> pd.DataFrame:
        """Return the matrices as a table: one row per variant, true and predicted class."""
        rows = [
            (matrix.variant, truth, predicted, count)
            for matrix in self.matrices
            for truth, cells in matrix.rows
            for predicted, (count, _) in zip(matrix.classes, cells, strict=True)
        ]
        return pd.DataFrame(rows, columns=["variant", "true_class", "predicted_class", "images"])


def confusions(data: StudyData) -> Confusions:
    """Return the confusion matrices of a study, and its most misclassified test images."""
    predictions, problems = data.predictions
    notes = list(problems)
    seen: dict[str | None, list[Tested]] = defaultdict(list)
    images_of = tested_images(data.records)
    for run, tensors in predictions.items():
        seen[images_of[run]].append((data.records[run], tensors))
    matrices: list[Matrix] = []
    images: list[Confused] = []
    for runs in seen.values():
        counts: dict[str, list[npt.NDArray[Any]]] = defaultdict(list)
        for record, tensors in runs:
            counts[data.places[record.run][0]].append(tensors["confusion"].astype(np.int64))
        classes = tuple(map(str, runs[0][0].result["classes"]))
        matrices += [
            Matrix(variant, len(each), classes, np.sum(each, axis=0))
            for variant, each in counts.items()
        ]
        found, note = _most_confused(runs)
        images += found
        notes += [note] if note else []
    if not seen:
        notes.append("No finished run with predictions of a test set.")
    large = {m.variant: len(m.classes) for m in matrices if len(m.classes) > MOST_CLASSES}
    if large:
        notes.append(
            f"{max(large.values())} classes: a matrix of more than {MOST_CLASSES} is not readable "
            "and not shown; predictions.safetensors of each run has it."
        )
    shown = sorted(
        (m for m in matrices if m.variant not in large), key=lambda m: data.style(m.variant)
    )
    return Confusions(tuple(shown), tuple(images), tuple(dict.fromkeys(notes)))


def _most_confused(runs: list[Tested]) -> tuple[list[Confused], str | None]:
    """Return the images that most runs misclassify, and a note if they cannot be shown."""
    first = runs[0][0]
    labels = runs[0][1]["labels"]
    predictions = np.stack([tensors["predictions"] for _, tensors in runs])
    wrong = (predictions != labels).sum(axis=0)
    worst = [int(i) for i in np.argsort(-wrong, kind="stable")[:MOST_IMAGES] if wrong[i]]
    pictures, note = _pictures(first, worst)
    classes = first.result["classes"]
    return [
        Confused(
            dataset=str(first.request["dataset"]),
            index=i,
            truth=str(classes[labels[i]]),
            taken_for=str(classes[mode(p for p in predictions[:, i] if p != labels[i])]),
            wrong=int(wrong[i]),
            runs=len(runs),
            picture=pictures.get(i),
        )
        for i in worst
    ], note


def _pictures(record: RunRecord, indices: list[int]) -> tuple[dict[int, str], str | None]:
    """Return pictures of test images, from local data that is what the run was trained on."""
    from bench.data import list_datasets  # imports torch
    from bench.training.setup import load_data

    name = str(record.request["dataset"])
    if name not in {info.name for info in list_datasets() if info.available}:
        why = "a report downloads nothing and runs no code"
        return {}, f"The images of {name} are not shown: {why}."
    dataset = load_data(RunRequest.from_dict(record.request))
    if dataset.fingerprint != record.result.get("dataset_fingerprint"):
        return {}, f"The images of {name} are not shown: they differ from those of the training."
    return {i: _picture(dataset.test.images[i].numpy()) for i in indices}, None


def _picture(image: npt.NDArray[np.uint8]) -> str:
    """Return an image, C×H×W, as a data URI."""
    from PIL import Image

    planes = image[0] if len(image) == 1 else np.moveaxis(image[:3], 0, -1)
    picture = Image.fromarray(planes)
    picture.thumbnail((_MOST_PIXELS, _MOST_PIXELS))
    content = io.BytesIO()
    picture.save(content, "png")
    return "data:image/png;base64," + base64.b64encode(content.getvalue()).decode()
