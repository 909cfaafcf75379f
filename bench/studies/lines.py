"""Errors in a study file: the line of a key in a TOML text, and pydantic's error in one line."""

from __future__ import annotations

import json
import re
import textwrap
from typing import TYPE_CHECKING

from bench.errors import nearest
from bench.studies.schema import Base, Contrast, Primary, Published, Study, Tune, Variant

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pydantic import BaseModel, ValidationError

_COLOUR = "give a number from 0 to 1, or a list of one per channel, such as [0.5, 0.5, 0.5]"
_TABLES: dict[str, type[BaseModel]] = {
    "base": Base,
    "variant": Variant,
    "tune": Tune,
    "contrast": Contrast,
    "primary": Primary,
    "published": Published,
}

# What to give where pydantic's words would name a type, and only one of several.
_EXPECTED = {
    "input_size": "give one side in pixels, such as 224: the input of a run is square; for a "
    "network that takes H×W, use the ONNX file that torch.onnx.export writes "
    "(docs/how-to/own-file.md)",
    "options": "an option is a number, a word or true/false",
    "mean": _COLOUR,
    "std": _COLOUR,
}


def explain(
    error: ValidationError, content: str, path: Path, table: list[str] | None = None
) -> str:
    """Describe the first error in one line: file, line, key, value, and the fix."""
    line = line_of(content, [*(table or []), *_location(error)])
    return f"{path}{line}: {explain_first(error)}"


def explain_first(
    error: ValidationError, within: list[str] | None = None, schema: type[BaseModel] = Study
) -> str:
    """Describe the first error in values of *schema*; the table *within* need not be named."""
    first, location = error.errors()[0], _location(error)
    key = next((p for p in reversed(location) if not p.isdigit()), "")
    named = location[len(within) :] if within and location[: len(within)] == within else location
    where = _spell(named)
    if first["type"] == "extra_forbidden":
        table = _TABLES[location[0]] if len(location) > 1 else schema
        known = list(table.model_fields)
        return f"{where} is unknown{nearest(key, known)} (known: {', '.join(known)})"
    if first["type"] == "missing":
        return f"{where} is missing"
    value = textwrap.shorten(json.dumps(first["input"], default=str), 60, placeholder="…")
    expected = next((_EXPECTED[part] for part in named if part in _EXPECTED), None)
    if expected and first["type"].endswith(("_type", "_parsing")):
        return f"{where} = {value}: {expected}"
    message = f"{where} = {value}: {first['msg'][0].lower()}{first['msg'][1:]}"
    if first["type"] == "less_than_equal" and key == "target_accuracy":
        message += f" (a fraction; per cent divided by 100: {float(first['input']) / 100:g})"
    return message


def _location(error: ValidationError) -> list[str]:
    return [str(part) for part in error.errors()[0]["loc"] if not _is_type_tag(part)]


def _is_type_tag(part: int | str) -> bool:
    """Return whether pydantic added this to the location for a member of a union, not a key."""
    tag = r"[\[(]|^(constrained-)?(bool|int|float|str)$"
    return isinstance(part, str) and bool(re.search(tag, part))


def _spell(location: list[str]) -> str:
    """Write a location for people: `variant.1.model` → `[[variant]] 2, model`."""
    if len(location) > 1 and location[0] in {"variant", "contrast"}:
        table, rest = f"[[{location[0]}]]", ".".join(location[2:])
        return f"{table} {int(location[1]) + 1}, {rest}" if rest else table
    return ".".join(location)


def line_of(content: str, location: list[str], *, exactly: bool = False) -> str:
    """Return `:N` for the line that sets *location*, or else its table's; empty if neither exists.

    *location* is as pydantic gives it, with the index in a list of tables as a number:
    `["variant", "1", "epochs"]`. With *exactly*, only a line that sets it counts.
    """
    found, depth = 0, 0
    for number, place in _places(content):
        if len(place) > depth and place == location[: len(place)]:
            found, depth = number, len(place)
    return f":{found}" if found and (depth == len(location) or not exactly) else ""


def _places(content: str) -> Iterator[tuple[int, list[str]]]:
    """Yield number and location of each line of a TOML text that starts a table or sets a key."""
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
