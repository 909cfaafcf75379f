"""What networks take for what: confusion matrices, and the images most often confused."""

from __future__ import annotations

import base64
import io
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.errors import BenchError

if TYPE_CHECKING:
    import numpy.typing as npt
    import pandas as pd

    from bench.report.study_data import StudyData
    from bench.store import RunRecord

MOST_CLASSES = 20  # a larger matrix cannot be read as numbers
MOST_IMAGES = 12
_SIDE = 96  # pixels of a picture on the page, at most


@dataclass(frozen=True)
class Matrix:
    """How often one variant takes a class for another.

    Attributes:
        variant: its name.
        runs: number of finished runs added up.
        classes: names of the K classes.
        counts: K×K test images: row is the true class, column the predicted one.
    """

    variant: str
    runs: int
    classes: tuple[str, ...]
    counts: npt.NDArray[np.int64]

    @property
    def rows(self) -> list[tuple[str, list[tuple[int, float]]]]:
        """True class with, for every predicted one, the count and its share of the row."""
        sums = self.counts.sum(axis=1, keepdims=True)
        shares = self.counts / np.maximum(sums, 1)
        return [
            (name, list(zip(counts.tolist(), row.tolist(), strict=True)))
            for name, counts, row in zip(self.classes, self.counts, shares, strict=True)
        ]


@dataclass(frozen=True)
class Confused:
    """A test image that many runs get wrong.

    Attributes:
        dataset: its name.
        index: of the image in the test set.
        truth: name of its class.
        taken_for: the wrong class that most of these runs predict.
        wrong: number of runs that get it wrong.
        runs: number of runs that saw it.
        picture: a PNG as a data URI; None where the images are not at hand.
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
    """Everything the page says about confusions; `notes` say what is missing, and why."""

    matrices: tuple[Matrix, ...]
    images: tuple[Confused, ...]
    notes: tuple[str, ...]

    def frame(self) -> pd.DataFrame:
        """Return the matrices as a table: a row for each variant, true class and predicted one."""
        import pandas as pd

        rows = [
            (matrix.variant, truth, predicted, count)
            for matrix in self.matrices
            for truth, cells in matrix.rows
            for predicted, (count, _) in zip(matrix.classes, cells, strict=True)
        ]
        return pd.DataFrame(rows, columns=["variant", "true_class", "predicted_class", "images"])


def confusions(material: StudyData) -> Confusions:
    """Read the predictions of every finished run of a study."""
    seen: dict[str, list[tuple[RunRecord, dict[str, npt.NDArray[Any]]]]] = defaultdict(list)
    notes = []
    for run, record in material.records.items():
        if record.status != "complete" or record.result.get("timing_only"):
            continue
        if "predictions.safetensors" not in record.files:
            continue
        try:
            tensors = material.store.read_tensors(run, "predictions.safetensors")
        except BenchError as error:
            notes.append(f"Left out: {error}")
            continue
        seen[str(record.result.get("dataset_fingerprint"))].append(
            (record, {name: tensor.numpy() for name, tensor in tensors.items()})
        )
    matrices: list[Matrix] = []
    images: list[Confused] = []
    for runs in seen.values():
        matrices += _matrices(material, runs)
        found, note = _most_confused(runs)
        images += found
        notes += [note] if note else []
    if not seen:
        notes.append("No finished run with predictions of a test set.")
    large = {m.variant: len(m.classes) for m in matrices if len(m.classes) > MOST_CLASSES}
    if large:
        notes.append(
            f"{max(large.values())} classes: a matrix of more than {MOST_CLASSES} cannot be read, "
            "so none is shown; predictions.safetensors of each run holds it."
        )
    shown = sorted(
        (m for m in matrices if m.variant not in large), key=lambda m: material.style(m.variant)
    )
    return Confusions(tuple(shown), tuple(images), tuple(dict.fromkeys(notes)))


def _matrices(
    material: StudyData, runs: list[tuple[RunRecord, dict[str, npt.NDArray[Any]]]]
) -> list[Matrix]:
    """Add the runs of each variant up."""
    by_variant: dict[str, list[npt.NDArray[Any]]] = defaultdict(list)
    for record, tensors in runs:
        if (variant := material.variant_of(record.run)) is not None:
            by_variant[variant].append(tensors["confusion"].astype(np.int64))
    classes = tuple(map(str, runs[0][0].result["classes"]))
    return [
        Matrix(variant, len(counts), classes, np.sum(counts, axis=0))
        for variant, counts in by_variant.items()
    ]


def _most_confused(
    runs: list[tuple[RunRecord, dict[str, npt.NDArray[Any]]]],
) -> tuple[list[Confused], str | None]:
    """Find the images that most runs get wrong; of equals, the first in the test set."""
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
            taken_for=str(classes[_commonest(predictions[:, i], labels[i])]),
            wrong=int(wrong[i]),
            runs=len(runs),
            picture=pictures.get(i),
        )
        for i in worst
    ], note


def _commonest(predicted: npt.NDArray[Any], label: int) -> int:
    return Counter(int(p) for p in predicted if p != label).most_common(1)[0][0]


def _pictures(record: RunRecord, indices: list[int]) -> tuple[dict[int, str], str | None]:
    """Pictures of test images: only from data that is at hand and is what was trained on."""
    from bench.data import list_datasets, load_dataset

    name = str(record.request["dataset"])
    if name not in {info.name for info in list_datasets() if info.available}:
        return (
            {},
            f"The images of {name} are not shown: a report downloads nothing, runs no code.",
        )
    dataset = load_dataset(name, train_images=record.request["train_images"], quiet=True)
    if dataset.fingerprint != record.result.get("dataset_fingerprint"):
        return {}, f"The images of {name} are not shown: they are not those that were trained on."
    return {i: _picture(dataset.test.images[i].numpy()) for i in indices}, None


def _picture(image: npt.NDArray[np.uint8]) -> str:
    """Return an image, C×H×W, as a data URI."""
    from PIL import Image

    planes = image[0] if len(image) == 1 else np.moveaxis(image[:3], 0, -1)
    picture = Image.fromarray(planes)
    picture.thumbnail((_SIDE, _SIDE))
    content = io.BytesIO()
    picture.save(content, "png")
    return "data:image/png;base64," + base64.b64encode(content.getvalue()).decode()
