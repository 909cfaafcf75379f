"""The reference page of study files, generated from schema, recipes and network options."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import griffe

from generated.markdown import code, table

if TYPE_CHECKING:
    from collections.abc import Iterable

_HEAD = """# Study files

A study consists of one question, a base, and variants. It is a TOML file;
`bench init my-study.toml` writes a commented example. The file's name, here `my-study`, is the
study's in results and commands; it cannot be that of a model or of a study that ships.

This page is generated from the schema that validates the file. An unknown key, an impossible value
or a misspelt name is refused with its line number and the closest valid name.
"""
_SETTINGS = """## `[base]` and `[[variant]]`

Keys of the base and of the variants. A variant's value overrides the base's.
"""
_RECIPE = """## Recipe values

Each key may be set in `[base]` or in a `[[variant]]`. The default is the recipe's value.
"""
_OPTIONS = """## Options of the residual families

Set them with `options = { … }` in a base or a variant, or with `--option KEY=VALUE` in
`bench train`, `bench describe`, `bench export-onnx` and `bench throughput`. Your own networks, and
those of timm and torchvision, take the arguments of their function as options.
"""

_WORDS = {
    "boolean": "`true`, `false`",
    "integer": "integer",
    "number": "number",
    "string": "text",
}


def pages() -> dict[str, str]:
    """Return the page that lists every key of a study file."""
    from bench.studies import Study

    schema = Study.model_json_schema()
    parts = [_HEAD, "## Top level", "", keys(schema, schema)]
    shared, base, variant = settings(schema)
    parts += [_SETTINGS, "In both:", "", shared, "Only in `[base]`:", "", base]
    parts += ["Only in `[[variant]]`:", "", variant]
    for name, part in (
        ("[tune]", "Tune"),
        ("[primary]", "Primary"),
        ("[[contrast]]", "Contrast"),
        ("[published]", "Published"),
    ):
        parts += [f"## `{name}`", "", schema["$defs"][part]["description"], ""]
        parts += [keys(schema, schema["$defs"][part])]
    parts += [_RECIPE, recipe(schema), _OPTIONS, network_options()]
    return {"reference/study.md": "\n".join(parts)}


def keys(schema: dict[str, Any], part: dict[str, Any], only: Iterable[str] | None = None) -> str:
    """Return a table of the schema's keys with type, default and meaning."""
    required = set(part.get("required", ()))
    rows = [
        (
            code(name),
            kind(schema, key),
            default(key, required=name in required),
            meaning(schema, key),
        )
        for name, key in part["properties"].items()
        if only is None or name in only
    ]
    return table(("key", "values", "default", "meaning"), rows)


def settings(schema: dict[str, Any]) -> tuple[str, str, str]:
    """Return the tables of keys in both base and variant, only in base, and only in variant."""
    from bench.studies.recipe import Recipe

    base, variant = schema["$defs"]["Base"], schema["$defs"]["Variant"]
    here, there = (set(part["properties"]) - set(Recipe.model_fields) for part in (base, variant))
    return (
        keys(schema, base, here & there),
        keys(schema, base, here - there),
        keys(schema, variant, there - here),
    )


def recipe(schema: dict[str, Any]) -> str:
    """Return a table of every recipe key with its value in each recipe."""
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
    """Return a table of the residual networks' options, read from the dataclass's docstring."""
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
        if attribute.name not in {"stages", "resize"}  # set by depth and family
    ]
    return table(("option", "values", "meaning"), rows)


def kind(schema: dict[str, Any], key: dict[str, Any]) -> str:
    """Describe in words the values that a key of a JSON schema accepts."""
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


def default(key: dict[str, Any], *, required: bool) -> str:
    """Return a key's default as TOML."""
    if required:
        return "required"
    value = key.get("default")
    return "" if value in (None, {}, []) else toml(value)


def toml(value: Any) -> str:
    """Return a value in TOML notation, or an empty string for None."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return code(str(value).lower())
    if isinstance(value, list | tuple):
        return code("[" + ", ".join(map(str, value)) + "]")
    return code(f'"{value}"' if isinstance(value, str) else value)


def meaning(schema: dict[str, Any], key: dict[str, Any]) -> str:
    """Return a key's description, or that of the table it refers to.

    Raises:
        KeyError: neither has a description.
    """
    if "description" in key:
        return str(key["description"])
    return str(schema["$defs"][key["$ref"].rsplit("/", 1)[-1]]["description"])
