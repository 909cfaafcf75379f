"""The schema of study files: the keys of a base, a variant and a study."""

from __future__ import annotations

import itertools
import json
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, create_model
from pydantic_core import PydanticCustomError

from bench.studies.recipe import MOST, Rate, Recipe
from bench.studies.run_request import Precision  # noqa: TC001 - pydantic reads it

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

T = TypeVar("T")
Scalar = bool | int | float | str
_Fraction = Annotated[float, Field(ge=0, le=1)]
_Positive = Annotated[float, Field(gt=0, le=1)]
Name = Annotated[str, Field(min_length=1, max_length=80)]


def _differ(values: list[Any]) -> list[Any]:
    for value in values:
        if values.count(value) > 1:
            raise PydanticCustomError("repeated", "give {value} once", {"value": value})
    return values


_Differ = Annotated[
    list[T], AfterValidator(_differ), Field(min_length=2, json_schema_extra={"uniqueItems": True})
]


def _optional(field: FieldInfo) -> Any:
    """Return the field as an optional one, with its checks and description."""
    checked: Any = field.annotation
    for check in field.metadata:
        checked = Annotated[checked, check]
    return (checked | None, Field(None, description=field.description))


# Every recipe value can be overridden in a study: the same fields, each optional.
_OVERRIDES: dict[str, Any] = {name: _optional(f) for name, f in Recipe.model_fields.items()}
RecipeOverrides: Any = create_model(
    "RecipeOverrides", __config__=ConfigDict(extra="forbid", frozen=True), **_OVERRIDES
)


class Settings(RecipeOverrides):  # its fields are made above
    """Settings of a base or a variant; a variant's replace the base's."""

    epochs: int | None = Field(
        None, ge=1, le=MOST, strict=True, description=Recipe.model_fields["epochs"].description
    )
    model: str | None = Field(None, description="A name of `bench list models`.")
    options: dict[str, Scalar] = Field(
        default_factory=dict, description="Options of the network, such as shortcut."
    )
    dataset: str | None = Field(None, description="A name of `bench list datasets`.")
    recipe: str | None = Field(None, description="A name of `bench list recipes`.")
    input_size: int | None = Field(
        None, ge=1, le=MOST, strict=True, description="Side in pixels the network sees."
    )
    train_images: int | None = Field(
        None,
        ge=1,
        le=MOST,
        strict=True,
        description="Train on a fixed balanced subset of this many images.",
    )
    mean: _Fraction | Annotated[list[_Fraction], Field(min_length=1)] | None = Field(
        None,
        description="Mean that normalisation subtracts, of images scaled to 0…1: one number for "
        "all channels, or a list with one per channel (default: the training images').",
    )
    std: _Positive | Annotated[list[_Positive], Field(min_length=1)] | None = Field(
        None,
        description="What normalisation divides by then, likewise (default: the training images' "
        "standard deviation).",
    )
    precision: Precision | None = Field(None, description="fp32, or autocast to bf16 or fp16.")


class Base(Settings):
    """What all variants share."""

    seeds: list[Annotated[int, Field(strict=True)]] = Field(
        [0, 1, 2], min_length=1, description="Random seeds."
    )


class Variant(Settings):
    """One network of the comparison: the base and what differs from it."""

    name: Name = Field(description="Its name in the tables.")
    reference: str | None = Field(
        None, description="The variant it is compared with, if not the study's reference."
    )
    grow_from: str | None = Field(
        None,
        description="An earlier variant, whose trained network of the same seed this one starts "
        "as, made larger (`bench grow`).",
    )


class Tune(BaseModel):
    """Values tried for every variant with seeds of their own, and chosen on validation accuracy.

    Of the values at which most seeds learn, the smallest is used whose mean is within one standard
    error of the best one's.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    learning_rate: _Differ[Annotated[Rate, Field(gt=0)]] = Field(
        description="Peak learning rates to try."
    )
    seeds: _Differ[Annotated[int, Field(strict=True)]] = Field(
        [1000, 1001],
        description="Random seeds of the search: two or more, none of which is evaluated.",
    )


class Contrast(BaseModel):
    """A weighted sum of variants, tested with the comparisons: a difference of differences, say."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Name = Field(description="Its name in the tables.")
    weights: dict[Name, float] = Field(
        min_length=2,
        description="Variant: its weight; the weights add up to 0. The sum is taken seed by seed.",
    )


class Primary(BaseModel):
    """The one comparison that a study is made for; declare it before the first run."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Name = Field(description="A contrast, or a variant that is compared with its reference.")
    accuracy: Literal["test", "train"] = Field(
        "test", description="Of the test images, or of the training images (`compare_training`)."
    )


class Published(BaseModel):
    """The paper's figures, shown beside the measured ones."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    setting: str = Field(
        min_length=1,
        description="Data and training behind the paper's figures, and what the figures are.",
    )
    differs: str = Field(min_length=1, description="What is different here.")
    top1_error: dict[Name, Annotated[float, Field(ge=0, le=100)]] = Field(
        min_length=1, description="Variant: the paper's top-1 error in per cent."
    )


class Study(BaseModel):
    """A study: one question, a base, and the variants that answer it."""

    model_config = ConfigDict(extra="forbid", frozen=True, title="A bench study")

    question: str = Field(min_length=1, description="The question in one sentence.")
    source: str | None = Field(None, description="The paper's table or figure, if there is one.")
    reference: str | None = Field(
        None, description="Name of the variant that the others are compared with."
    )
    target_accuracy: float | None = Field(
        None,
        gt=0,
        le=1,
        description="Validation accuracy, 0…1: the table shows how long each variant took to reach "
        "it.",
    )
    compare_training: bool = Field(
        False,
        description="Also compare accuracies on the training images, in a column and a sentence "
        "of their own. They are tested in one family with those on the test images.",
    )
    sequential: bool = Field(
        False,
        description="Whether seeds may be added after a look at the results. Look j is tested at "
        "0.05·6/(π²j²), so that all looks together make an error in at most 5 % of studies. If "
        "false, the base's seeds are a declaration: they are tested once, when all their runs "
        "have ended, and seeds added later count in the means only. Fixed when the study is first "
        "run.",
    )
    earlier_looks: int = Field(
        0,
        ge=0,
        le=100,
        strict=True,
        description="How often results of these comparisons were looked at before the present "
        "seeds or settings were decided. Such looks are paid for: with 1, the next one is tested "
        "as the second (0.05·6/(π²·2²)).",
    )
    primary: Primary | None = Field(
        None,
        description="The primary comparison, tested alone at 0.05. Of all others, training "
        "accuracies included, nothing is claimed unless it is significant; with a `margin`, they "
        "are tested at 0.025. Declare it before the "
        "first run: a later change counts as a look.",
    )
    test: Literal["paired", "welch"] = Field(
        "paired",
        description="`paired` tests the differences by seed. `welch` treats the seeds of two "
        "variants as independent, which has more power if their accuracies hardly correlate. "
        "Decide before the first run: a later change counts as a look.",
    )
    margin: float | None = Field(
        None,
        gt=0,
        lt=100,
        description="Largest difference that counts as none, in percentage points of accuracy: "
        "variants whose interval lies within ±margin are called equivalent, if neither lacks a "
        "result that the other has.",
    )
    contrast: list[Contrast] = Field(
        default_factory=list, description="Weighted sums of variants, tested with the comparisons."
    )
    base: Base = Field(default_factory=Base)
    variant: list[Variant] = Field(default_factory=list, description="The networks compared.")
    grid: dict[str, list[Scalar] | dict[str, list[Scalar]]] = Field(
        default_factory=dict,
        description="Instead of variants: values of settings, multiplied out.",
    )
    tune: Tune | None = Field(None, description="The same search for every variant.")
    published: Published | None = Field(
        None, description="The paper's own figures, shown beside the measured ones."
    )
    discussion: str | None = Field(
        None,
        min_length=1,
        description="The author's discussion of the result, shown below it on the page; blank "
        "lines separate paragraphs. It can be added after the runs.",
    )

    @property
    def variants(self) -> list[Variant]:
        """The variants as written, or every combination of the grid."""
        return self.variant or _multiply_out(self.grid)


def json_schema() -> str:
    """Return the JSON Schema of the study file, as shipped in `ablations/study.schema.json`."""
    return json.dumps(Study.model_json_schema(), indent=2) + "\n"


def _multiply_out(grid: dict[str, list[Scalar] | dict[str, list[Scalar]]]) -> list[Variant]:
    """Return a variant, named by its values, for every combination of a grid's values."""
    axes: list[tuple[str, str, list[Scalar]]] = []
    for key, values in grid.items():
        if isinstance(values, dict):
            axes += [(key, option, choices) for option, choices in values.items()]
        else:
            axes.append(("", key, values))
    variants = []
    for choice in itertools.product(*(axis[2] for axis in axes)):
        settings: dict[str, Any] = {}
        for (table, key, _), value in zip(axes, choice, strict=True):
            (settings.setdefault(table, {}) if table else settings)[key] = value
        variants.append(Variant(name="-".join(str(c) for c in choice), **settings))
    return variants
