"""`bench list`."""

from collections.abc import Callable
from typing import Annotated, Any, Literal, get_args

from bench.cli import options
from bench.cli.options import argument
from bench.cli.output import print_json, print_line, print_table

Thing = Literal["models", "studies", "datasets", "recipes", "backends"]


def list_things(
    what: Annotated[Thing | None, argument("WHAT", "What to list (default: everything).")] = None,
    as_json: options.Json = False,
) -> None:
    """List models, studies, datasets, recipes and backends.

    Example:

      bench list models

    """
    wanted: tuple[Thing, ...] = (what,) if what else get_args(Thing)
    if as_json:
        print_json({"kind": thing, **row} for thing in wanted for row in _LISTS[thing]())
        return
    for thing in wanted:
        if len(wanted) > 1:
            print_line(thing, style="bold")
        print_table(_LISTS[thing](), {"train": "", "test": ""})
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


def _studies() -> list[dict[str, Any]]:
    from bench.studies import load_study, shipped_studies

    loaded = {name: load_study(name).study for name in shipped_studies()}
    return [
        {"name": name, "question": study.question, "source": study.source}
        for name, study in loaded.items()
    ]


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


def _recipes() -> list[dict[str, Any]]:
    from bench.studies.recipe import RECIPES, Recipe

    default = Recipe()
    shown = [
        field
        for field in Recipe.model_fields
        if any(getattr(recipe, field) != getattr(default, field) for recipe in RECIPES.values())
    ]
    return [
        {"name": name, **{field: getattr(recipe, field) for field in shown}}
        for name, recipe in RECIPES.items()
    ]


_LISTS: dict[Thing, Callable[[], list[dict[str, Any]]]] = {
    "models": _models,
    "studies": _studies,
    "datasets": _datasets,
    "recipes": _recipes,
    "backends": _backends,
}
