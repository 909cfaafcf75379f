"""The study file: its schema, its checks, and its expansion into runs."""

from __future__ import annotations

import itertools
import json
import re
import textwrap
import tomllib
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from bench.errors import BenchError, nearest
from bench.request import Precision, RunRequest
from bench.training.recipe import RECIPES, Recipe, get_recipe

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic.fields import FieldInfo

Option = bool | int | float | str
Scalar = bool | int | float | str
Name = Annotated[str, Field(min_length=1, max_length=80)]


def _optional(field: FieldInfo) -> Any:
    """Make the same field, checks and description included, that may be left out."""
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
    """What a base or a variant may say; a variant's word goes before the base's."""

    model: str | None = Field(None, description="A name of `bench list models`.")
    options: dict[str, Option] = Field(
        default_factory=dict, description="Options of the network, such as shortcut."
    )
    dataset: str | None = Field(None, description="A name of `bench list datasets`.")
    recipe: str | None = Field(None, description="A name of `bench list recipes`.")
    input_size: int | None = Field(
        None, ge=1, strict=True, description="Side in pixels the network sees."
    )
    train_images: int | None = Field(
        None, ge=1, strict=True, description="Train on a fixed balanced subset of this many images."
    )
    precision: Precision | None = Field(None, description="fp32, or autocast on CUDA.")


class Base(Settings):
    """What all variants share."""

    seeds: list[Annotated[int, Field(strict=True)]] = Field(
        [0, 1, 2], min_length=1, description="Random seeds."
    )


class Variant(Settings):
    """One network of the comparison: the base and what differs from it."""

    name: Name = Field(description="How the tables call it.")
    reference: str | None = Field(
        None, description="The variant it is compared with, if not the study's reference."
    )


class Tune(BaseModel):
    """Values that every variant tries with one seed, chosen on validation accuracy."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    learning_rate: list[Annotated[float, Field(gt=0)]] = Field(min_length=2)


class Study(BaseModel):
    """A study: one question, a base, and the variants that answer it."""

    model_config = ConfigDict(extra="forbid", frozen=True, title="A bench study")

    question: str = Field(min_length=1, description="The question in one sentence.")
    source: str | None = Field(None, description="The paper's table or figure, if there is one.")
    reference: str | None = Field(
        None, description="Name of the variant that the others are compared with."
    )
    base: Base = Field(default_factory=Base)
    variant: list[Variant] = Field(default_factory=list, description="The networks compared.")
    grid: dict[str, list[Scalar] | dict[str, list[Scalar]]] = Field(
        default_factory=dict,
        description="Instead of variants: values of settings, multiplied out.",
    )
    tune: Tune | None = Field(None, description="The same search for every variant.")


@dataclass(frozen=True)
class PlannedVariant:
    """One variant with its requests.

    Attributes:
        name: how the tables call it.
        reference: the variant it is compared with, None for the reference itself.
        requests: random seed → what to train.
    """

    name: str
    reference: str | None
    requests: dict[int, RunRequest]


@dataclass(frozen=True)
class Plan:
    """A study expanded: variants × random seeds."""

    name: str
    question: str
    source: str | None
    variants: tuple[PlannedVariant, ...]
    tune: Tune | None
    only: tuple[str, ...] = ()

    @property
    def selected(self) -> list[PlannedVariant]:
        """The variants that are to be trained: all, or those that `only` names."""
        return [v for v in self.variants if not self.only or v.name in self.only]

    @property
    def requests(self) -> list[RunRequest]:
        """Every distinct run to do, seed by seed, so that an early stop leaves whole pairs."""
        seeds = dict.fromkeys(s for v in self.selected for s in v.requests)
        ordered = (v.requests[s] for s in seeds for v in self.selected if s in v.requests)
        return list({request.run_id: request for request in ordered}.values())


@dataclass(frozen=True)
class Overrides:
    """What the command line says in the place of the study file; None leaves it as it is."""

    seeds: list[int] | None = None
    epochs: int | None = None
    dataset: str | None = None
    only: tuple[str, ...] = ()
    deterministic: bool = False
    default_precision: Precision = "fp32"


def shipped_studies() -> dict[str, Path]:
    """Name → file of the studies that ship with bench."""
    folder = Path(str(resources.files("bench.ablations")))
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def load_study(name_or_path: str | Path) -> tuple[str, Study]:
    """Read a shipped study by name, or a study file by path; returns its name and content.

    Raises:
        BenchError: there is no such study, or its file is not valid; the message names
            the file, the line, the key, and the nearest valid spelling.
    """
    text = str(name_or_path)
    path = Path(text)
    shipped = shipped_studies()
    if text in shipped:
        path = shipped[text]
    elif path.suffix != ".toml" and not path.is_file():
        raise BenchError(
            f"unknown study '{text}'{nearest(text, shipped)} "
            f"(shipped: {', '.join(shipped)}; or give the path of a .toml file)"
        )
    try:
        content = path.read_text(encoding="utf-8-sig")  # Notepad writes a mark
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise BenchError(f"cannot read the study {path}: {reason}") from None
    return path.stem, parse_study(content, path)


def parse_study(content: str, path: Path) -> Study:
    """Parse and check a study file's text; *path* is named in errors.

    Raises:
        BenchError: as `load_study`.
    """
    try:
        values = tomllib.loads(content)
    except tomllib.TOMLDecodeError as error:
        raise BenchError(f"{path}: not valid TOML: {error}") from None
    if not values:
        raise BenchError(f"{path} is empty; 'bench init {path.name}' writes a commented starter")
    try:
        study = Study.model_validate(values)
    except ValidationError as error:
        raise BenchError(_explain(error, content, path)) from None
    _check_names(study, path, content)
    return study


def adhoc_study(question: str, variant: dict[str, Any], seed: int) -> Study:
    """Make a study of one variant and one seed, from the command line's words.

    Raises:
        BenchError: a setting is unknown or impossible.
    """
    values = {"question": question, "base": {"seeds": [seed]}, "variant": [variant]}
    try:
        return Study.model_validate(values)
    except ValidationError as error:
        raise BenchError(_explain_first(error, ["variant", "0"])) from None


def expand(name: str, study: Study, overrides: Overrides | None = None) -> Plan:
    """Expand a study into its runs, with the command line's *overrides* applied.

    Raises:
        BenchError: a model, option, dataset or recipe is unknown or does not fit, or
            `only` names no variant.
    """
    overrides = overrides or Overrides()
    variants = study.variant or _grid_variants(study)
    reference = study.reference or variants[0].name
    seeds = overrides.seeds if overrides.seeds is not None else study.base.seeds
    _check_seeds(seeds)
    _check_only(variants, overrides.only)
    planned = []
    for variant in variants:
        template = _request(study, variant, overrides)
        planned.append(
            PlannedVariant(
                variant.name,
                _reference_of(variant, reference),
                {seed: RunRequest(**{**template, "seed": seed}) for seed in dict.fromkeys(seeds)},
            )
        )
    if study.tune and any(not v.requests[seeds[0]].recipe.validation_fraction for v in planned):
        raise BenchError(
            f"study '{name}': tune chooses on validation accuracy, but the recipe has no "
            "validation split; set validation_fraction, or leave tune out"
        )
    return Plan(
        name, study.question, study.source, tuple(planned), study.tune, tuple(overrides.only)
    )


def json_schema() -> str:
    """JSON Schema of the study file, as shipped in `ablations/study.schema.json`."""
    return json.dumps(Study.model_json_schema(), indent=2) + "\n"


def _reference_of(variant: Variant, default: str) -> str | None:
    reference = variant.reference or default
    return reference if reference != variant.name else None


def _check_seeds(seeds: list[int]) -> None:
    if not seeds:
        raise BenchError("no random seeds; give at least one, such as 0,1,2")
    for seed in seeds:
        if abs(seed) >= 2**63:
            raise BenchError(f"random seed {seed} has more than 64 bits; give a smaller one")


def _check_only(variants: list[Variant], only: tuple[str, ...]) -> None:
    names = [v.name for v in variants]
    for name in only:
        if name not in names:
            raise BenchError(
                f"--only {name}: no such variant{nearest(name, names)} (known: {', '.join(names)})"
            )


def _grid_variants(study: Study) -> list[Variant]:
    """Multiply the grid out; a variant is named by its values."""
    axes: list[tuple[str, str, list[Scalar]]] = []
    for key, values in study.grid.items():
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


def _request(study: Study, variant: Variant, overrides: Overrides) -> dict[str, Any]:
    """Every value of a variant's requests but the seed."""
    from bench.data import list_datasets
    from bench.models import ModelError, canonical

    base, own = study.base.model_dump(exclude_unset=True), variant.model_dump(exclude_unset=True)
    said = {**base, **own, "options": {**base.get("options", {}), **own.get("options", {})}}
    model = said.get("model")
    if model is None:
        raise BenchError(f"variant '{variant.name}' has no model; set it there or in [base]")
    try:
        model, options = canonical(model, said["options"])
    except ModelError as error:
        raise BenchError(f"variant '{variant.name}': {error}") from None
    recipe = get_recipe(said.get("recipe") or "fast")
    values = {k: said[k] for k in Recipe.model_fields if said.get(k) is not None}
    if overrides.epochs is not None:
        values["epochs"] = overrides.epochs
    dataset = overrides.dataset or said.get("dataset") or "fashion-mnist-mini"
    known = {info.name: info for info in list_datasets()}
    _check_dataset(dataset, list(known))
    native = known[dataset].size if dataset in known else None
    return {
        "model": model,
        "options": options,
        "dataset": dataset,
        "recipe": Recipe.model_validate({**recipe.model_dump(), **values}),
        "train_images": said.get("train_images"),
        "input_size": said.get("input_size") or native,
        "precision": said.get("precision") or overrides.default_precision,
        "deterministic": overrides.deterministic,
    }


def _check_dataset(name: str, known: list[str]) -> None:
    if name not in known and ":" not in name:
        raise BenchError(
            f"unknown dataset '{name}'{nearest(name, known)} "
            f"(known: {', '.join(known)}, imagefolder:PATH, package.module:function)"
        )


def _check_names(study: Study, path: Path, content: str) -> None:
    """Check what pydantic cannot: names that must be unique, or must exist."""
    if bool(study.variant) == bool(study.grid):
        raise BenchError(f"{path}: give either [[variant]] entries or one [grid], not both or none")
    if study.grid:
        _check_grid(study, path, content)
    variants = study.variant or _grid_variants(study)
    names = [v.name for v in variants]
    for name in names:
        if names.count(name) > 1:
            last = len(names) - 1 - names[::-1].index(name)
            line = _line_of(content, ["variant", str(last), "name"])
            raise BenchError(f"{path}{line}: two variants are called '{name}'; rename one")
    places = [["variant", str(i)] for i in range(len(study.variant))] or [["grid"]] * len(names)
    for place, wanted in [([], study.reference), *zip(places, _references(variants), strict=True)]:
        if wanted is not None and wanted not in names:
            line = _line_of(content, [*place, "reference"])
            raise BenchError(
                f"{path}{line}: reference '{wanted}' is no variant"
                f"{nearest(wanted, names)} (variants: {', '.join(names)})"
            )
    for place, settings in zip([["base"], *places], [study.base, *variants], strict=True):
        if settings.recipe is not None and settings.recipe not in RECIPES:
            raise BenchError(
                f"{path}{_line_of(content, [*place, 'recipe'])}: unknown recipe '{settings.recipe}'"
                f"{nearest(settings.recipe, RECIPES)} (known: {', '.join(RECIPES)})"
            )


def _references(variants: list[Variant]) -> list[str | None]:
    return [variant.reference for variant in variants]


def _check_grid(study: Study, path: Path, content: str) -> None:
    for key, values in study.grid.items():
        line = _line_of(content, ["grid", key])
        if key not in Settings.model_fields or (isinstance(values, dict) != (key == "options")):
            known = [f"options.{key}", *(k for k in Settings.model_fields if k != "options")]
            raise BenchError(
                f"{path}{line}: grid key '{key}' is no setting"
                f"{nearest(key, known)}; an option of the network is written options.{key}"
            )
        if not values or (isinstance(values, dict) and not all(values.values())):
            raise BenchError(f"{path}{line}: grid key '{key}' has no values")
    try:
        _grid_variants(study)
    except ValidationError as error:
        raise BenchError(_explain(error, content, path, ["grid"])) from None


def _explain(
    error: ValidationError, content: str, path: Path, table: list[str] | None = None
) -> str:
    """One line for the first thing that is wrong: file, line, key, value, and the fix."""
    line = _line_of(content, [*(table or []), *_location(error)])
    return f"{path}{line}: {_explain_first(error)}"


def _explain_first(error: ValidationError, within: list[str] | None = None) -> str:
    """Say what is wrong first; *within* is a table that need not be named."""
    first, location = error.errors()[0], _location(error)
    key = next((p for p in reversed(location) if not p.isdigit()), "")
    named = location[len(within) :] if within and location[: len(within)] == within else location
    where = _spell(named)
    if first["type"] == "extra_forbidden":
        known = _fields_at(location)
        return f"{where} is unknown{nearest(key, known)} (known: {', '.join(known)})"
    if first["type"] == "missing":
        return f"{where} is missing"
    value = textwrap.shorten(json.dumps(first["input"], default=str), 60, placeholder="…")
    return f"{where} = {value}: {first['msg'][0].lower()}{first['msg'][1:]}"


def _location(error: ValidationError) -> list[str]:
    return [str(part) for part in error.errors()[0]["loc"] if not _is_type_tag(part)]


def _is_type_tag(part: int | str) -> bool:
    """Whether pydantic put this in the location for a member of a union, not for a key."""
    return isinstance(part, str) and bool(re.search(r"[\[(]|^(bool|int|float|str)$", part))


def _spell(location: list[str]) -> str:
    """`variant.1.model` → `[[variant]] 2, model`."""
    if len(location) > 1 and location[0] == "variant":
        rest = ".".join(location[2:])
        return f"[[variant]] {int(location[1]) + 1}, {rest}" if rest else "[[variant]]"
    return ".".join(location)


def _fields_at(location: list[str]) -> list[str]:
    tables: dict[str, type[BaseModel]] = {"base": Base, "variant": Variant, "tune": Tune}
    table = tables.get(location[0], Study) if len(location) > 1 else Study
    return list(table.model_fields)


def _line_of(content: str, location: list[str]) -> str:
    """`:N` for the line that sets *location*, or else for the table that should; `` if none does.

    *location* is as pydantic gives it, with the place in a list of tables as a number:
    `["variant", "1", "epochs"]`.
    """
    found, depth = 0, 0
    for number, place in _places(content):
        if len(place) > depth and place == location[: len(place)]:
            found, depth = number, len(place)
    return f":{found}" if found else ""


def _places(content: str) -> Iterator[tuple[int, list[str]]]:
    """Line number → location, for every line of a TOML text that begins a table or sets a key."""
    table: list[str] = []
    counts: dict[str, int] = {}
    for number, line in enumerate(content.splitlines(), 1):
        if header := re.match(r"\s*(\[\[?)\s*([^\[\]#]+?)\s*\]", line):
            table = _keys(header[2])
            if header[1] == "[[":
                yield number, table[:1]
                counts[table[0]] = counts.get(table[0], -1) + 1
            if table[0] in counts:
                table.insert(1, str(counts[table[0]]))
            yield number, table
        elif key := re.match(r"\s*([\w.\"'\s-]+?)\s*=", line):
            yield number, [*table, *_keys(key[1])]


def _keys(dotted: str) -> list[str]:
    return [part.strip(" \t\"'") for part in dotted.split(".")]
