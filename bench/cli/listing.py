"""`bench list`."""

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, get_args

from bench.cli import options
from bench.cli.options import argument
from bench.cli.output import print_json, print_line, print_table, print_text

Thing = Literal["models", "options", "studies", "datasets", "recipes", "backends"]


def list_things(
    what: Annotated[Thing | None, argument("WHAT", "What to list (default: everything).")] = None,
    as_json: options.Json = False,
) -> None:
    """List models, their options, studies, datasets, recipes and backends.

    'options' are those of the residual networks (--option KEY=VALUE), and the values of 'recipes'
    can be changed with --set KEY=VALUE and in study files.

    Example:

      bench list models

    """
    wanted: tuple[Thing, ...] = (what,) if what else get_args(Thing)
    if as_json:
        print_json({"kind": thing, **row} for thing in wanted for row in _LISTS[thing].rows())
        return
    for thing in wanted:
        if len(wanted) > 1:
            print_line(thing, style="bold")
        listed = _LISTS[thing]
        rows = listed.shown()
        print_table(rows, listed.forms, prose=listed.prose, needed=len(rows[0]))
        if listed.note:
            print_text(f"\n{listed.note}")
        if len(wanted) > 1:
            print_line("")


def _models() -> list[dict[str, Any]]:
    from bench.models import default_shape, list_models

    rows = []
    for name in list_models():
        channels, size, classes = default_shape(name)
        rows.append({"name": name, "input": f"{channels}×{size}×{size}", "classes": classes})
    others = ("timm:NAME", "torchvision:NAME", "package.module:function")
    return rows + [{"name": name, "input": None, "classes": None} for name in others]


def _options() -> list[dict[str, Any]]:
    """Return the residual networks' options, as the docstring of their dataclass has them."""
    from bench.models import CHOICES, ResNetConfig
    from bench.models.families import OPTIONS

    text = inspect.cleandoc(ResNetConfig.__doc__ or "")
    described = dict(re.findall(r"^    (\w+): (.*(?:\n {8}.*)*)", text, re.MULTILINE))
    return [
        {
            "name": name,
            "values": ", ".join(CHOICES.get(name, ())) or None,
            "meaning": " ".join(described[name].split()),
        }
        for name in OPTIONS
    ]


def _shown_options() -> list[dict[str, Any]]:
    return [{key: row[key] for key in ("name", "meaning", "values")} for row in _options()]


def _studies() -> list[dict[str, Any]]:
    from bench.studies import load_study, shipped_costs, shipped_studies

    costs = shipped_costs()
    rows = []
    for name in shipped_studies():
        study = load_study(name).study
        search = len(study.tune.learning_rate) * len(study.tune.seeds) if study.tune else 0
        rows.append(
            {
                "name": name,
                "runs": len(study.variants) * (len(study.base.seeds) + search),
                "training_macs": costs.get(name),
                "question": study.question,
                "source": study.source,
            }
        )
    return rows


def _shown_studies() -> list[dict[str, Any]]:
    rows = _studies()
    unit = next(row["training_macs"] for row in rows if row["name"] == "quickstart")
    return [
        {
            "name": row["name"],
            "runs": row["runs"],
            "cost": _multiple(row["training_macs"], unit),
            "question": row["question"],
            "source": row["source"],
        }
        for row in rows
    ]


def _multiple(value: int | None, unit: int) -> str | None:
    if value is None:
        return None
    times = value / unit
    return f"{times:,.0f}" if times >= 10 else f"{times:.2g}"  # noqa: PLR2004 - two digits


def _datasets() -> list[dict[str, Any]]:
    from bench.data import list_datasets

    rows = [
        {
            "name": info.name,
            "images": f"{info.channels}×{info.size}×{info.size}",
            "classes": info.classes,
            "train": info.train,
            "test": info.test,
            "where": info.where,
        }
        for info in list_datasets()
    ]
    own = ("imagefolder:PATH", "package.module:function")
    return rows + [{**dict.fromkeys(rows[0]), "name": name, "where": "yours"} for name in own]


def _backends() -> list[dict[str, Any]]:
    from bench.measurement.backends import backend_rows

    return list(backend_rows())


def _shown_backends() -> list[dict[str, Any]]:
    """Return a row for each backend and device: precisions that run here, and what others lack."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in _backends():
        groups.setdefault((row["name"], row["device"]), []).append(row)
    shown = []
    for (name, device), rows in groups.items():
        missing: dict[str, list[str]] = {}
        for row in rows:
            if not row["runs_here"]:
                missing.setdefault(row["missing"], []).append(row["precision"])
        shown.append(
            {
                "name": name,
                "device": device,
                "runs here": ", ".join(r["precision"] for r in rows if r["runs_here"]) or None,
                "missing": "; ".join(f"{', '.join(p)}: {why}" for why, p in missing.items()),
            }
        )
    return shown


def _recipes() -> list[dict[str, Any]]:
    from bench.studies.recipe import RECIPES, Recipe

    return [
        {"name": name, **{field: getattr(recipe, field) for field in Recipe.model_fields}}
        for name, recipe in RECIPES.items()
    ]


def _shown_recipes() -> list[dict[str, Any]]:
    """Return a row for each value of the recipes, with its meaning."""
    from bench.studies.recipe import RECIPES, Recipe

    return [
        {
            "key": key,
            **{name: _as_toml(getattr(recipe, key)) for name, recipe in RECIPES.items()},
            "meaning": field.description,
        }
        for key, field in Recipe.model_fields.items()
    ]


def _as_toml(value: Any) -> str | None:
    """Return a value as a study file has it; None for none."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return str(list(value))
    return None if value is None else str(value)


@dataclass(frozen=True)
class _List:
    """What is listed of one kind.

    Attributes:
        rows: makes the rows for programs.
        shown: makes the rows for people.
        forms: columns of numbers, as of `print_table`.
        prose: columns of text.
        note: what to know about them.
    """

    rows: Callable[[], list[dict[str, Any]]]
    shown: Callable[[], list[dict[str, Any]]]
    forms: Mapping[str, str] = field(default_factory=dict)
    prose: tuple[str, ...] = ()
    note: str = ""


_LISTS: dict[Thing, _List] = {
    "models": _List(
        _models,
        _models,
        {"classes": ""},
        note="Any other depth of the CIFAR networks works as well, such as resnet14. Options of "
        "the residual networks: bench list options.",
    ),
    "options": _List(
        _options,
        _shown_options,
        prose=("meaning", "values"),
        note="Give them as --option KEY=VALUE, or as options of a study's variant.",
    ),
    "studies": _List(
        _studies,
        _shown_studies,
        {"runs": "", "cost": ""},
        ("question", "source"),
        note="cost: multiply-adds of all trainings, as a multiple of quickstart's; large networks "
        "need less time for each. Time and disk space that a study needs here, and what is left of "
        "it: bench run-ablation STUDY --dry-run. On another machine: bench plan STUDY --gpu NAME.",
    ),
    "datasets": _List(_datasets, _datasets, {"train": "", "test": ""}),
    "recipes": _List(
        _recipes,
        _shown_recipes,
        prose=("meaning",),
        note="Change a value with --set KEY=VALUE in bench train, or in a study file; - is none.",
    ),
    "backends": _List(
        _backends,
        _shown_backends,
        prose=("runs here", "missing"),
        note="'null' computes nothing: its figure is the cost of measuring itself.",
    ),
}
