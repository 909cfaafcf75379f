"""The page of the study file, read from its schema, the recipes and the networks' options."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import griffe

from generated.markdown import code, table

if TYPE_CHECKING:
    from collections.abc import Iterable

_HEAD = """# Study files

A study is one question, a base, and variants, as a TOML file; `bench init my-study.toml` writes a
commented one to start from. Made from the schema that checks the file: an unknown key, an
impossible value or a misspelt name is refused with its line and the nearest spelling.
"""
_SETTINGS = """## `[base]` and `[[variant]]`

What a base or a variant may say; a variant's word goes before the base's.
"""
_RECIPE = """## Recipe values

Each may stand in `[base]` or a `[[variant]]`; what is not said is the recipe's.
"""
_OPTIONS = """## Options of the residual families

`options = { … }` of a base or a variant; also `--option KEY=VALUE` of `bench train`,
`bench describe`, `bench export-onnx` and `bench throughput`. Networks from elsewhere take the
options of their own function.
"""

_WORDS = {
    "boolean": "`true`, `false`",
    "integer": "integer",
    "number": "number",
    "string": "text",
}


def pages() -> dict[str, str]:
    """Return the page of every key of a study file."""
    from bench.studies import Study

    schema = Study.model_json_schema()
    parts = [_HEAD, "## At the top", "", keys(schema, schema)]
    shared, base, variant = settings(schema)
    parts += [_SETTINGS, "Both:", "", shared, "`[base]` alone:", "", base]
    parts += ["`[[variant]]` alone:", "", variant]
    for name, part in (("tune", "Tune"), ("published", "Published")):
        parts += [f"## `[{name}]`", "", schema["$defs"][part]["description"], ""]
        parts += [keys(schema, schema["$defs"][part])]
    parts += [_RECIPE, recipe(schema), _OPTIONS, network_options()]
    return {"reference/study.md": "\n".join(parts)}


def keys(schema: dict[str, Any], part: dict[str, Any], only: Iterable[str] | None = None) -> str:
    """Return a table of a schema's keys: type, default, meaning."""
    needed = set(part.get("required", ()))
    rows = [
        (code(name), kind(schema, key), default(key, needed=name in needed), meaning(schema, key))
        for name, key in part["properties"].items()
        if only is None or name in only
    ]
    return table(("key", "values", "default", "meaning"), rows)


def settings(schema: dict[str, Any]) -> tuple[str, str, str]:
    """Return the tables of what base and variant share, and of what only one of them has."""
    from bench.studies.recipe import Recipe

    base, variant = schema["$defs"]["Base"], schema["$defs"]["Variant"]
    here, there = (set(part["properties"]) - set(Recipe.model_fields) for part in (base, variant))
    return (
        keys(schema, base, here & there),
        keys(schema, base, here - there),
        keys(schema, variant, there - here),
    )


def recipe(schema: dict[str, Any]) -> str:
    """Return a table of every recipe value, with what each recipe sets it to."""
    from bench.studies.recipe import RECIPES, Recipe

    properties = schema["$defs"]["Base"]["properties"]
    values = {name: dict(made) for name, made in RECIPES.items()}
    rows = [
        (
            code(key),
            kind(schema, properties[key]),
            *(toml(values[name][key]) for name in RECIPES),
            field.description or "",
        )
        for key, field in Recipe.model_fields.items()
    ]
    return table(("key", "values", *map(code, RECIPES), "meaning"), rows)


def network_options() -> str:
    """Return a table of the residual networks' options, from the dataclass's docstring."""
    from bench.models import CHOICES, ResNetConfig

    sections = griffe.Docstring(ResNetConfig.__doc__ or "", parser="google").parse()
    attributes = next(s for s in sections if s.kind is griffe.DocstringSectionKind.attributes)
    rows = [
        (
            code(attribute.name),
            ", ".join(map(code, CHOICES.get(attribute.name, ()))),
            attribute.description,
        )
        for attribute in attributes.value
        if attribute.name not in {"stages", "resize"}  # the depth and the family say these
    ]
    return table(("option", "values", "meaning"), rows)


def kind(schema: dict[str, Any], key: dict[str, Any]) -> str:
    """Say in words what a key of a JSON schema may hold."""
    if "anyOf" in key:
        alternatives = [kind(schema, part) for part in key["anyOf"] if part.get("type") != "null"]
        return " or ".join(dict.fromkeys(alternatives))
    if "enum" in key:
        return ", ".join(toml(v) if isinstance(v, bool) else code(v) for v in key["enum"])
    if key.get("type") == "array":
        inside = key.get("items") or key["prefixItems"][0]
        return "tables" if "$ref" in inside else f"list of {kind(schema, inside)}"
    if "$ref" in key or key["type"] == "object":
        return "a table"
    return _WORDS[key["type"]] + _bounds(key)


def _bounds(key: dict[str, Any]) -> str:
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    found = [f"{sign} {key[name]:g}" for name, sign in signs.items() if name in key]
    return " " + " and ".join(found) if found else ""


def default(key: dict[str, Any], *, needed: bool) -> str:
    """Return a key's default as TOML."""
    if needed:
        return "needed"
    value = key.get("default")
    return "" if value in (None, {}, []) else toml(value)


def toml(value: Any) -> str:
    """Return a value as TOML writes it; nothing for none."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return code(str(value).lower())
    if isinstance(value, list | tuple):
        return code("[" + ", ".join(map(str, value)) + "]")
    return code(f'"{value}"' if isinstance(value, str) else value)


def meaning(schema: dict[str, Any], key: dict[str, Any]) -> str:
    """Return a key's description, or that of the table it refers to; none is an error."""
    if "description" in key:
        return str(key["description"])
    return str(schema["$defs"][key["$ref"].rsplit("/", 1)[-1]]["description"])
