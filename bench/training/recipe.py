"""Training recipes as data: every value that shapes how a network is trained."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from bench.errors import BenchError, nearest

Fraction = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=0, strict=True)]  # "3" and true are no numbers


class Recipe(BaseModel):
    """How a network is trained. Frozen; its values are part of a run's identity."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    epochs: Count = Field(
        10, description="Passes over the training images; 0 only for a network that is grown."
    )
    batch_size: int = Field(128, ge=1, strict=True, description="Images in one step.")
    learning_rate: float = Field(0.1, gt=0, description="Peak learning rate of SGD.")
    momentum: Fraction = Field(0.0, description="SGD momentum.")
    nesterov: bool = Field(False, description="Nesterov's momentum.")
    weight_decay: float = Field(0.0, ge=0, description="L2 penalty on convolution weights.")
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
        None, description="Decay per step of an exponential moving average of the weights."
    )
    crop_padding: Count = Field(0, description="Pixels of padding of the random crop.")
    padding_mode: Literal["reflect", "zero"] = Field("reflect", description="What is padded.")
    flip: bool = Field(False, description="Random horizontal flip.")
    cutout: Count = Field(0, description="Side in pixels of a square cut out of each image.")
    normalize: bool = Field(True, description="Subtract the mean, divide by the deviation.")
    antialias: bool = Field(True, description="Antialias when images are resized.")
    initialization: Literal["he", "xavier", "model"] = Field(
        "he", description="How random weights are drawn; `model` keeps the network's own."
    )
    validation_fraction: Fraction = Field(
        0.1, description="Share of the training images held out for choices."
    )
    test_every_epoch: bool = Field(
        False, description="Record the test accuracy of every epoch; it is used for nothing."
    )


RECIPES: dict[str, Recipe] = {
    # To the letter: SGD without momentum or decay, Xavier weights, no validation split,
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
    # A modern recipe for small images: Nesterov SGD, warm-up and linear decay to zero,
    # label smoothing, decay on convolution and linear weights only.
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
        crop_padding=2,
        flip=True,
    ),
}


def get_recipe(name: str) -> Recipe:
    """Return the recipe called *name*.

    Raises:
        BenchError: no recipe has that name.
    """
    try:
        return RECIPES[name]
    except KeyError:
        raise BenchError(
            f"unknown recipe '{name}'{nearest(name, RECIPES)} (known: {', '.join(RECIPES)})"
        ) from None


def learning_rate_at(recipe: Recipe, step: int, steps: int) -> float:
    """Learning rate of *step* (from 0) of a training of *steps* steps."""
    warmup = round(recipe.warmup_fraction * steps)
    if step < warmup:
        return recipe.learning_rate * (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    return recipe.learning_rate * _decay(recipe, progress, step / steps)


def _decay(recipe: Recipe, progress: float, share: float) -> float:
    """Factor on the peak rate; *progress* runs from 0 to 1 after the warm-up."""
    import math

    match recipe.schedule:
        case "constant":
            return 1.0
        case "one_cycle":
            return 1.0 - progress
        case "cosine":
            return 0.5 * (1.0 + math.cos(math.pi * progress))
        case "step":
            return 0.1 ** sum(share >= milestone for milestone in recipe.milestones)
