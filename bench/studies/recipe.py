"""Training recipes as data: every value that shapes how a network is trained."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
)

from bench.errors import check_known

Fraction = Annotated[float, Field(ge=0, lt=1)]
MOST = 2**31 - 1  # the largest that C libraries below take
Count = Annotated[int, Field(ge=0, le=MOST, strict=True)]  # refuses "3" and true
Resize = Literal["crop", "squash", "pad"]
SeedVaries = Literal["training", "initialization", "order", "split", "subset", "everything"]
Rate = Annotated[float, Field(le=1e6)]  # refuses infinity


# Fields added after runs had been recorded: a recipe is written without those that it leaves at
# their default, so that the runs recorded before keep their identity.
LATER: dict[str, Any] = {
    "muon_learning_rate": 0.0,
    "branch_weight_decay": None,
    "lookahead_steps": 0,
    "whitening": "none",
    "initial_size": 1.0,
    "test_time_flip": False,
    "record_blocks": False,
    "resize": "crop",
    "seed_varies": "training",
}


class Recipe(BaseModel):
    """How a network is trained. Frozen; its values are part of a run's identity."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    epochs: Count = Field(
        10, description="Passes over the training images; 0 only for a network that is grown."
    )
    batch_size: int = Field(128, ge=1, le=MOST, strict=True, description="Images in one step.")
    learning_rate: Rate = Field(0.1, gt=0, description="Peak learning rate of SGD.")
    momentum: Fraction = Field(0.0, description="SGD momentum.")
    nesterov: bool = Field(False, description="Nesterov's momentum.")
    weight_decay: Rate = Field(
        0.0,
        ge=0,
        description="L2 penalty on convolution and linear weights; decoupled for what Muon trains.",
    )
    decay_norm_and_bias: bool = Field(
        False, description="Apply the weight decay to norm scales, shifts and biases too."
    )
    schedule: Literal["constant", "one_cycle", "cosine", "step"] = Field(
        "constant",
        description="After a linear warm-up: constant, linear to zero (one_cycle), "
        "cosine to zero, or divided by ten at each of `milestones` (step).",
    )
    warmup_fraction: Fraction = Field(0.0, description="Share of all steps spent warming up.")
    milestones: tuple[Fraction, ...] = Field(
        (0.5, 0.75),
        description="Where schedule=step divides by ten, as shares of all steps "
        "(He et al. 2016a, section 4.2: 32k and 48k of 64k).",
    )
    label_smoothing: Fraction = Field(0.0, description="Label smoothing of the training loss.")
    ema_decay: Fraction | None = Field(
        None,
        description="Decay per step of an exponential moving average of the weights, which is then "
        "evaluated and kept; 0 or none for no average.",
    )
    crop_padding: Count = Field(0, description="Pixels of padding of the random crop.")
    padding_mode: Literal["reflect", "zero"] = Field(
        "reflect", description="How the crop is padded."
    )
    flip: Literal[True, False, "alternating"] = Field(
        False,
        description="Horizontal flips: at random, or `alternating` with every epoch after a random "
        "first one, so that two epochs show both sides of each image (Jordan 2024).",
    )
    cutout: Count = Field(0, description="Side in pixels of a square cut out of each image.")
    normalize: bool = Field(
        True, description="Subtract the mean, divide by the standard deviation."
    )
    antialias: bool = Field(True, description="Antialias when images are resized.")
    initialization: Literal["he", "xavier", "model"] = Field(
        "he",
        description="How initial weights are drawn; `model` keeps the network's own, and is the "
        "default of networks from elsewhere (`timm:`, `torchvision:`, your own).",
    )
    validation_fraction: Fraction = Field(
        0.1, description="Share of the training images held out for choices."
    )
    test_every_epoch: bool = Field(
        False, description="Record the test accuracy after every epoch; nothing is chosen by it."
    )
    muon_learning_rate: Rate = Field(
        LATER["muon_learning_rate"],
        ge=0,
        description="Peak learning rate of Muon (Jordan et al. 2024), which then trains all "
        "matrices and kernels but the first and the last, with the momentum and (decoupled) "
        "weight decay of the rest; 0: SGD trains all.",
    )
    branch_weight_decay: Rate | None = Field(
        LATER["branch_weight_decay"],
        ge=0,
        description="L2 penalty on everything in the residual branches, norm scales and shifts "
        "included, instead of `weight_decay`.",
    )
    lookahead_steps: Count = Field(
        LATER["lookahead_steps"],
        description="Every this many steps, move the weights half-way back to where they were "
        "this many steps before (Lookahead, Zhang et al. 2019); 0: never.",
    )
    whitening: Literal["none", "initial", "frozen"] = Field(
        LATER["whitening"],
        description="Start the first convolution as filters that whiten the patches of the "
        "training images (Jordan 2024); `frozen` does not train it.",
    )
    initial_size: float = Field(
        LATER["initial_size"],
        gt=0,
        le=1,
        description="Height and width of the first epoch's images, as a fraction of the input "
        "size; they grow by epoch, and the last third of the epochs has the full size "
        "(progressive resizing).",
    )
    test_time_flip: bool = Field(
        LATER["test_time_flip"],
        description="Also score the test set with the logits of each image and its mirror image "
        "averaged, as a separate figure.",
    )
    record_blocks: bool = Field(
        LATER["record_blocks"],
        description="Record each block's gradient norm, and the norm of its branch against its "
        "shortcut, before training and after every epoch; nothing is chosen by it.",
    )

    resize: Resize = Field(
        LATER["resize"],
        description="How image files of another size become square: crop the longer side at the "
        "centre, squash both sides, or pad the shorter one with black.",
    )

    seed_varies: SeedVaries = Field(
        LATER["seed_varies"],
        description="What the random seed varies. `training`: initial weights, and the order of "
        "the data with augmentation and dropout. `initialization`, `order`, `split` (which images "
        "are held out) or `subset` (which `train_images` are taken): this alone, the rest is that "
        "of seed 0. `everything`: all four.",
    )

    @field_validator("ema_decay")
    @classmethod
    def _no_average_is_one_thing(cls, value: float | None) -> float | None:
        return value or None  # with 0 a variant switches its base's average off

    @model_serializer(mode="wrap")
    def _without_later_defaults(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        values: dict[str, Any] = write(self)
        return {k: v for k, v in values.items() if k not in LATER or v != LATER[k]}


RECIPES: dict[str, Recipe] = {
    # The book's training: SGD without momentum or decay, Xavier weights, no validation split,
    # values in 0…1, bilinear resizing without antialiasing (Dive into Deep Learning, ResNet).
    "book": Recipe(
        epochs=10,
        batch_size=256,
        learning_rate=0.05,
        normalize=False,
        antialias=False,
        initialization="xavier",
        validation_fraction=0.0,
        test_every_epoch=True,
    ),
    # A modern recipe for small images and few epochs: Muon, Nesterov SGD for what Muon does not
    # train, warm-up and linear decay to zero, label smoothing, weight decay on convolution and
    # linear weights only. Muon and no crops had the better means in `results/fast-recipe`, where
    # three seeds decide none of the comparisons.
    "fast": Recipe(
        epochs=5,
        batch_size=128,
        learning_rate=0.3,
        momentum=0.9,
        nesterov=True,
        weight_decay=5e-4,
        schedule="one_cycle",
        warmup_fraction=0.2,
        label_smoothing=0.1,
        flip=True,
        muon_learning_rate=0.05,
    ),
}


def get_recipe(name: str) -> Recipe:
    """Return the recipe called *name*.

    Raises:
        BenchError: no recipe has that name.
    """
    check_known("recipe", name, RECIPES)
    return RECIPES[name]


def recipe_name(values: dict[str, Any]) -> str:
    """Name the recipe that has *values*, with what was changed: `fast learning_rate=0.1`."""
    closest, changes = closest_recipe(values)
    return " ".join([closest, *(f"{k}={v}" for k, v in changes.items())])


def closest_recipe(values: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return the recipe that needs the fewest changes to have *values*, and the changes.

    Epochs are left out, as they have a column and an option of their own.
    """
    return _closest_recipe(json.dumps(values))  # hashable: most runs share a recipe


@lru_cache(maxsize=1024)
def _closest_recipe(text: str) -> tuple[str, dict[str, Any]]:
    # A recipe is written without the `LATER` values that it leaves at their default.
    values = json.loads(text)
    values |= {k: v for k, v in LATER.items() if k not in values}

    def changes(name: str) -> dict[str, Any]:
        own = {**LATER, **RECIPES[name].model_dump(mode="json")}
        return {k: v for k, v in values.items() if k != "epochs" and own.get(k) != v}

    closest = min(RECIPES, key=lambda name: len(changes(name)))
    return closest, changes(closest)
