"""The request for one training run, and the run's identity."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from bench.studies.recipe import Recipe, Resize

# Raised by hand when the same request would train to other weights than before;
# tests/training/test_golden.py fails if that was forgotten.
TRAINING_REVISION = 1
# Added to it where Muon trains. 1: large matrices are orthogonalised in blocks of rows.
MUON_REVISION = 1

# Raised when earlier code can no longer read a results folder.
FORMAT_VERSION = 1

# What decides how images become the input of a network that is not trained here, and how many are
# evaluated at a time: fields of a request, and of its recipe.
IMPORT_SETTINGS = (
    "input_size",
    "mean",
    "std",
    "resize",
    "normalize",
    "antialias",
    "precision",
    "batch_size",
)

Precision = Literal["fp32", "bf16", "fp16"]
Data = tuple[str, int | None, int | None, Resize, int | None]


def request_hash(values: dict[str, Any]) -> str:
    """Return twelve hexadecimal digits that identify a request, from `RunRequest.as_dict`."""
    text = json.dumps(values, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


@dataclass(frozen=True)
class RunRequest:
    """One run: a network, its data, how it is trained, one random seed.

    These fields alone decide the run's identity. Device, threads and versions are recorded with
    the result instead.

    Attributes:
        model: canonical name, as `bench.models.canonical` gives it.
        options: canonical options of the network (defaults left out).
        dataset: name of the dataset.
        train_images: size of the fixed balanced training subset (None: all images).
        input_size: height and width in pixels that the network sees (None: the data's own).
        recipe: how it is trained.
        seed: random seed of what the recipe's `seed_varies` names: by default initial weights,
            data order, augmentation and dropout.
        precision: arithmetic of the forward and backward pass.
        deterministic: allow bit-reproducible kernels only.
        initial_weights: SHA-256 of the weights it starts from (None: random weights).
        grown_from: the run that this one starts as, made larger, if any.
        mean: subtracted per channel from images scaled to 0…1 (None: the training images').
        std: what they are divided by then (None: the training images').
        evaluate_test: whether the test images are evaluated; runs of a learning-rate search do not.
    """

    model: str
    dataset: str
    recipe: Recipe
    seed: int
    options: dict[str, Any] = field(default_factory=dict)
    train_images: int | None = None
    input_size: int | None = None
    precision: Precision = "fp32"
    deterministic: bool = False
    initial_weights: str | None = None
    grown_from: str | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    evaluate_test: bool = True

    def as_dict(self) -> dict[str, Any]:
        """Return the request as plain JSON values; `from_dict` reads it back."""
        return {
            "model": self.model,
            "options": dict(sorted(self.options.items())),
            "dataset": self.dataset,
            "train_images": self.train_images,
            "input_size": self.input_size,
            "recipe": self.recipe.model_dump(mode="json"),
            "seed": self.seed,
            "precision": self.precision,
            "deterministic": self.deterministic,
            "initial_weights": self.initial_weights,
            # Left out at their defaults: runs recorded before they existed keep their identity.
            **({"grown_from": self.grown_from} if self.grown_from else {}),
            **({"mean": list(self.mean)} if self.mean else {}),
            **({"std": list(self.std)} if self.std else {}),
            **({} if self.evaluate_test else {"evaluate_test": False}),
            "training_revision": TRAINING_REVISION + (MUON_REVISION if self.uses_muon else 0),
            "format_version": 1,  # of identities: that of records may grow without new runs
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> RunRequest:
        """Read a request back from `as_dict`'s values."""
        kept = {k: v for k, v in values.items() if not k.endswith(("_revision", "_version"))}
        kept |= {k: tuple(kept[k]) for k in ("mean", "std") if kept.get(k)}
        return cls(**{**kept, "recipe": Recipe(**kept["recipe"])})

    @property
    def imported(self) -> bool:
        """Whether the network was trained elsewhere, and is only evaluated here."""
        return self.recipe.epochs == 0 and self.grown_from is None

    @property
    def data(self) -> Data:
        """What decides the images that a run loads.

        Dataset, number of training images, size, resizing, and the seed of the subset.
        """
        varies = self.train_images and self.recipe.seed_varies in {"subset", "everything"}
        subset = self.seed if varies else None
        return self.dataset, self.train_images, self.input_size, self.recipe.resize, subset

    @property
    def split_seed(self) -> int | None:
        """The seed of the validation split; None if it is the same in all runs."""
        return self.seed if self.recipe.seed_varies in {"split", "everything"} else None

    @property
    def initial_seed(self) -> int:
        """The seed of the initial weights."""
        return self._own("initialization")

    @property
    def order_seed(self) -> int:
        """The seed of data order, augmentation and dropout."""
        return self._own("order")

    def _own(self, part: str) -> int:
        return self.seed if self.recipe.seed_varies in {part, "training", "everything"} else 0

    @property
    def hash(self) -> str:
        """Twelve hexadecimal digits that identify the request."""
        return request_hash(self.as_dict())

    @property
    def seedless_hash(self) -> str:
        """The hash without random seed, determinism and revision: one network, one cost."""
        values = replace(self, seed=0, deterministic=False).as_dict()
        return request_hash({**values, "training_revision": 1})

    @property
    def uses_muon(self) -> bool:
        """Whether Muon trains a part of the network; a network is imported with no epochs."""
        return bool(self.recipe.muon_learning_rate and self.recipe.epochs)

    @property
    def run_id(self) -> str:
        """`SLUG-sSEED-HASH`: a readable slug, the seed, and the hash that is the identity."""
        slug = re.sub(r"[^A-Za-z0-9._]+", "-", f"{self.model}-{self.dataset}").strip("-.")
        return f"{slug[:60]}-s{self.seed}-{self.hash}"

    def with_recipe(self, **values: Any) -> RunRequest:
        """Return this request with some recipe values replaced."""
        return replace(self, recipe=self.recipe.model_copy(update=values))
