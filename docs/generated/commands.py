"""The reference page of the command line, generated from the command functions."""

from __future__ import annotations

import inspect
import re
import textwrap
import typing
from dataclasses import dataclass
from enum import Enum
from types import UnionType
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

from typer.models import ArgumentInfo, OptionInfo

from generated.markdown import code, table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import typer

_HEAD = """# Commands

Generated from the program. `bench COMMAND --help` prints the same.

Every command exits with one of these codes:

| code | meaning |
| --- | --- |
| 0 | done |
| 1 | the work ran, and something failed or became slower |
| 2 | the request could not be understood or met; one line on stderr says why and what to do |
| 3 | `compare`: nothing became slower, but something is undecided or could not be judged |
| 130 | interrupted by Ctrl-C |
| 75 | stopped by a scheduler's signal; rerun the same command to resume |
| 128 + N | ended by signal N (139: a fault in native code); one line on stderr says where |

With `--json`, stdout holds one document, `{"schema": 1, "rows": […], "errors": […]}`, and nothing
else: what your own code prints goes to stderr. Numbers that are not finite are null. `run-ablation`
adds `study`, `question`, `answer` and `comparisons`, `compare` adds `remarks`.
`bench --install-completion` installs completion for your shell.
"""


@dataclass(frozen=True)
class Parameter:
    """One argument or option of a command."""

    spelling: str
    metavar: str
    kind: str
    default: str
    meaning: str
    required: bool
    repeatable: bool
    panel: str

    @property
    def is_option(self) -> bool:
        """Return whether the parameter is an option (its name starts with dashes)."""
        return self.spelling.startswith("-")


def pages() -> dict[str, str]:
    """Return the page of every command."""
    from bench.cli.app import app

    sections = [_section(f"bench {name}", function) for name, function in walk(app)]
    return {"reference/commands.md": "\n".join([_HEAD, *sections])}


def walk(app: typer.Typer, prefix: str = "") -> Iterator[tuple[str, Callable[..., Any]]]:
    """Yield the name and function of every command; subcommands include their group's name."""
    for command in app.registered_commands:
        assert command.callback is not None  # noqa: S101 - Typer's own registration
        yield f"{prefix}{command.name}", command.callback
    for group in app.registered_groups:
        assert group.typer_instance is not None  # noqa: S101 - Typer's own registration
        yield from walk(group.typer_instance, f"{prefix}{group.name} ")


def parameters(function: Callable[..., Any]) -> list[Parameter]:
    """Read a command's arguments and options from its signature."""
    hints = typing.get_type_hints(function, include_extras=True)
    return [
        _parameter(name, hints[name], parameter.default)
        for name, parameter in inspect.signature(function).parameters.items()
        if not getattr(get_args(hints[name])[1], "hidden", False)
    ]


def _parameter(name: str, annotated: Any, default: Any) -> Parameter:
    annotation, info = get_args(annotated)
    assert isinstance(info, ArgumentInfo | OptionInfo)  # noqa: S101 - how commands declare parameters
    required = default is inspect.Parameter.empty
    plain, repeatable = _innermost(annotation)
    is_option = isinstance(info, OptionInfo)
    spelling = _spelling(name, info) if is_option else name
    flag = plain is bool and is_option
    choices = _choices(plain)
    kind = ", ".join(map(code, choices)) if choices else ("" if flag else _type_name(plain))
    shown = "" if required or flag or default is None else code(_shown(default))
    metavar = info.metavar or ("" if flag else plain.__name__.upper() if is_class(plain) else "")
    panel = info.rich_help_panel or ""
    return Parameter(spelling, metavar, kind, shown, info.help or "", required, repeatable, panel)


def _spelling(name: str, info: OptionInfo) -> str:
    # Inside `Annotated`, Typer stores the first spelling in the field for the default.
    declared = (info.default, *(info.param_decls or ()))
    return next((d for d in declared if isinstance(d, str)), f"--{name.replace('_', '-')}")


def is_class(kind: Any) -> bool:
    """Return whether *kind* is a class with a short name to show."""
    return inspect.isclass(kind) and not issubclass(kind, Enum)


def _innermost(annotation: Any) -> tuple[Any, bool]:
    """Strip `list[…]` and `… | None` from a type; return it and whether it was a list."""
    repeatable = False
    while get_origin(annotation) in {list, UnionType, typing.Union}:
        repeatable |= get_origin(annotation) is list
        annotation = next(a for a in get_args(annotation) if a is not type(None))
    return annotation, repeatable


def _choices(kind: Any) -> tuple[str, ...]:
    if get_origin(kind) is Literal:
        return tuple(map(str, get_args(kind)))
    if inspect.isclass(kind) and issubclass(kind, Enum):
        return tuple(str(member.value) for member in kind)
    return ()


def _type_name(kind: Any) -> str:
    return {"str": "text", "int": "integer", "float": "number", "Path": "path"}[kind.__name__]


def _shown(default: Any) -> str:
    return str(default.value if isinstance(default, Enum) else default)


def _section(name: str, function: Callable[..., Any]) -> str:
    found = parameters(function)
    arguments = [p for p in found if not p.is_option]
    # As in the help, options without a panel come first.
    panels = {name: [p for p in found if p.is_option and p.panel == name]
              for name in dict.fromkeys(["", *(p.panel for p in found)])}  # fmt: skip
    usage = " ".join([name, "[OPTIONS]", *map(_usage, arguments)])
    text, examples = split_examples(inspect.getdoc(function) or "")
    parts = [f"## {name}", "", text, "", "```text", usage, "```", ""]
    if arguments:
        parts.append(_table("argument", arguments))
    for panel, options in panels.items():
        if options:
            parts += [f"**{panel}**", ""] * bool(panel)
            parts.append(_table("option", options))
    if examples:
        parts += ["```bash", *examples, "```", ""]
    return "\n".join(parts)


def _usage(argument: Parameter) -> str:
    name = argument.metavar if argument.required else f"[{argument.metavar}]"
    return name + "..." * argument.repeatable


def _table(heading: str, found: list[Parameter]) -> str:
    rows = [
        (
            code(f"{p.spelling} {p.metavar}".strip()) if p.is_option else code(_usage(p)),
            p.kind
            + (", repeatable" if p.repeatable else "")
            + (", required" if p.required else ""),
            p.default,
            p.meaning,
        )
        for p in found
    ]
    return table((heading, "values", "default", "meaning"), rows)


def split_examples(doc: str) -> tuple[str, list[str]]:
    """Split a command's docstring into its text and its example commands."""
    text, *rest = re.split(r"^Examples?:\s*$", doc, maxsplit=1, flags=re.MULTILINE)
    examples = "".join(rest)
    lines = [line for line in textwrap.dedent(examples).splitlines() if line.strip()]
    return text.strip(), lines
