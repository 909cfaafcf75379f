"""Digests of a user's `package.module:function`, to notice that its code was changed.

What counts is the text of the function and of everything that it may reach by name in the user's
own modules, without comments and blank lines: another function added to the same file, or a
comment, changes nothing. Of an installed package, its version and the checksums of its files as
they were installed count; a file that is edited in place is not noticed. Of timm and torchvision,
whose versions differ mostly in other networks, what counts is the text that the network reaches in
the module that defines it.
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import importlib
import importlib.util
import io
import os
import re
import struct
import sys
import sysconfig
import tokenize
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from bench.errors import BenchError

if TYPE_CHECKING:
    from collections.abc import Iterator

LIBRARIES = ("timm", "torchvision")
_INSTALLED = {"site-packages", "dist-packages"}
_FILES = re.compile(r", files [0-9a-f]{16}")
_PYC, _32_BITS = struct.Struct("<4x3I"), 0xFFFFFFFF  # a .pyc's flags, time and size (PEP 552)
_first: dict[tuple[str, str], dict[str, str]] = {}


def imported_code(name: str) -> dict[str, str]:
    """Return the digests of a function's code, by module, as this process first saw it.

    Call it before the function is imported. A name that is not of the user's own code gives none.

    Raises:
        BenchError: at the first look, the program itself has imported a module whose file was
            written again since, whatever changed in it.
    """
    now = _digests(name)  # makes the current folder importable, in which the source may be
    key = (name, str(_source(name.partition(":")[0])))
    if key not in _first and (earlier := [m for m in now if _was_imported_earlier(m)]):
        raise _changed(earlier)
    return _first.setdefault(key, now)


def current_code(name: str) -> dict[str, str]:
    """Return the digests of a function's code, by module, as its files are now.

    Raises:
        BenchError: this process has imported an earlier version, which it would run.
    """
    now = _digests(name)
    if changed := changes(imported_code(name), now):
        raise _changed(changed)
    return now


def _changed(modules: list[str]) -> BenchError:
    return BenchError(
        f"the code of {', '.join(sorted(modules))} changed after this process had imported it; "
        "start Python (in a notebook: the kernel) again to use the new code"
    )


def _was_imported_earlier(name: str) -> bool:
    """Return whether a module's file has changed since its import, by its bytecode's time stamp."""
    module = sys.modules.get(name)
    source, compiled = getattr(module, "__file__", None), getattr(module, "__cached__", None)
    if source is None or compiled is None or sys.dont_write_bytecode:
        return False
    try:
        flags, modified, size = _PYC.unpack_from(Path(compiled).read_bytes())
        status = Path(source).stat()
    except (OSError, struct.error):
        return False
    same = (modified, size) == (int(status.st_mtime) & _32_BITS, status.st_size & _32_BITS)
    # Bytecode that is checked by its hash has no time, and what cannot be written may be older.
    return not flags and not same and os.access(compiled, os.W_OK)


def changes(before: dict[str, str], now: dict[str, str]) -> list[str]:
    """Return the modules whose code differs.

    Earlier versions recorded of an installed package only its version.
    """
    return [
        m
        for m in sorted(before | now)
        if before.get(m) not in {now.get(m), _FILES.sub("", now.get(m, ""))}
    ]


def _digests(name: str) -> dict[str, str]:
    module, colon, path = name.partition(":")
    if not colon:
        return {}
    if module in LIBRARIES:
        return _digest_library(module, path.partition(".")[0])  # timm writes NAME.WEIGHTS
    here = str(Path.cwd())
    if here not in sys.path:  # as where the function is imported
        sys.path.append(here)
    source, top = _source(module), module.partition(".")[0]
    if source is not None and _INSTALLED & set(source.parts):
        found = metadata.packages_distributions().get(top, [])
        return {top: ", ".join(map(_digest_installed, found))}
    reached = _reach(module, path.partition(".")[0])
    texts = {m.name: "\n".join(p.text for p in m.parts if p.included) for m in reached}
    return {m: hashlib.sha256(t.encode()).hexdigest()[:16] for m, t in texts.items() if t}


def _digest_installed(distribution: str) -> str:
    """Return an installed package's version and a digest of its files, if they are listed."""
    version = metadata.version(distribution)
    listed = metadata.distribution(distribution).read_text("RECORD") or ""
    # Scripts contain the path of the environment, bytecode the time.
    files = sorted(
        line
        for line in listed.splitlines()
        if not line.startswith("..") and not re.search(r"\.pyc,|\.dist-info/", line)
    )
    digest = hashlib.sha256("\n".join(files).encode()).hexdigest()[:16]
    return f"{version}, files {digest}" if files else version


def _digest_library(library: str, network: str) -> dict[str, str]:
    """Return the digest of a network of timm or torchvision; none if there is no such network."""
    try:
        models = importlib.import_module(f"{library}.models")
        find = models.model_entrypoint if library == "timm" else models.get_model_builder
        module = str(find(network).__module__)
    except Exception:  # building it explains the error
        return {}
    found, used = _parse(module, registers=False), {network}
    while new := [p for p in found.parts if not p.included and (p.names or set()) & used]:
        for part in new:
            part.included = True
            used |= set(_identifiers(part.node))
    text = "\n".join(part.text for part in found.parts if part.included)
    return {module: hashlib.sha256(text.encode()).hexdigest()[:16]}


@dataclass
class _Part:
    """A top-level statement; one without names always counts."""

    text: str
    names: set[str] | None
    node: ast.stmt
    included: bool = False


@dataclass
class _Module:
    name: str
    parts: list[_Part]
    imports: list[str] = field(default_factory=list)


def _reach(entry: str, function: str) -> list[_Module]:
    """Return the user's modules that *function* may reach, with the parts that count included."""
    source = _source(entry)
    if source is None:
        return []
    root = source.parents[entry.count(".") + (source.name == "__init__.py")]
    modules: dict[str, _Module] = {}
    waiting, used = [entry], {function}
    while True:
        while waiting:
            name = waiting.pop()
            if name not in modules and _is_own(name, entry, root):
                modules[name] = found = _parse(name)
                waiting += found.imports
        new = [
            part
            for module in modules.values()
            for part in module.parts
            if not part.included and (part.names is None or part.names & used)
        ]
        if not new:
            return list(modules.values())
        for part in new:
            part.included = True
            used |= set(_identifiers(part.node))


def _is_own(name: str, entry: str, root: Path) -> bool:
    source = _source(name)
    if source is None:
        return False
    if name.partition(".")[0] == entry.partition(".")[0]:
        return True
    installed = _INSTALLED & set(source.parts)
    standard = Path(sysconfig.get_path("stdlib"))
    return not installed and source.is_relative_to(root) and not source.is_relative_to(standard)


def _source(module: str) -> Path | None:
    """Return the file of a module's source, None if there is none."""
    file = getattr(sys.modules.get(module), "__file__", None)
    if file is None:
        with contextlib.suppress(Exception, SystemExit):  # it imports the packages above it
            spec = importlib.util.find_spec(module)
            file = spec.origin if spec else None
    path = Path(file).resolve() if file else None
    return path if path is not None and path.suffix == ".py" and path.is_file() else None


def _parse(name: str, *, registers: bool = True) -> _Module:
    """Split a module into parts; *registers*: a decorator or a call may do more than it names."""
    source = _source(name)
    content = source.read_text(encoding="utf-8", errors="replace") if source else ""
    try:
        tree = ast.parse(content)
    except (SyntaxError, ValueError):  # importing it explains the error
        return _Module(name, [])
    lines = _without_comments(content)
    parts = [
        _Part(_text(node, lines), _names(node, registers=registers), node)
        for node in tree.body
        if not _is_guard(node)
    ]
    package = name if source and source.name == "__init__.py" else name.rpartition(".")[0]
    imports = [m for node in ast.walk(tree) for m in _imported(node, package)]
    above = [name.rsplit(".", depth)[0] for depth in range(1, name.count(".") + 1)]
    return _Module(name, parts, [*above, *imports])


def _without_comments(content: str) -> list[str]:
    lines = content.split("\n")  # as Python counts them; splitlines() splits at a form feed, too
    with contextlib.suppress(tokenize.TokenError, SyntaxError):
        for token in tokenize.generate_tokens(io.StringIO(content).readline):
            if token.type == tokenize.COMMENT:
                row, column = token.start
                lines[row - 1] = lines[row - 1][:column]
    return [line.rstrip() for line in lines]


def _text(node: ast.stmt, lines: list[str]) -> str:
    decorators = [d.lineno for d in getattr(node, "decorator_list", [])]
    first = min([node.lineno, *decorators])
    return "\n".join(line for line in lines[first - 1 : node.end_lineno] if line)


def _names(node: ast.stmt, *, registers: bool) -> set[str] | None:
    """Return the names that a statement binds, None if it may do more than that."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return None if node.decorator_list and registers else {node.name}
    if isinstance(node, ast.Import | ast.ImportFrom):
        bound = {(a.asname or a.name).partition(".")[0] for a in node.names}
        return None if "*" in bound else bound
    if isinstance(node, ast.Assign | ast.AnnAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        plain = all(isinstance(t, ast.Name) for t in targets)
        calls = any(isinstance(n, ast.Call) for n in ast.walk(node))
        if plain and not (calls and registers):
            return {t.id for t in targets if isinstance(t, ast.Name)}
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return set()  # a docstring
    return None


def _is_guard(node: ast.stmt) -> bool:
    """Return whether a statement is the part of a script that an import does not run."""
    return isinstance(node, ast.If) and "__name__" in _identifiers(node.test)


def _identifiers(node: ast.AST) -> Iterator[str]:
    """Yield every name in a piece of code, also those in strings and imports."""
    for part in ast.walk(node):
        if isinstance(part, ast.Name):
            yield part.id
        elif isinstance(part, ast.Attribute):
            yield part.attr
        elif isinstance(part, ast.alias):
            yield from part.name.split(".")
        elif isinstance(part, ast.Constant) and isinstance(part.value, str):
            yield part.value


def _imported(node: ast.AST, package: str) -> list[str]:
    """Return the modules that a statement may import."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if not isinstance(node, ast.ImportFrom):
        return []
    base = node.module or ""
    if node.level:
        above = package.split(".")[: len(package.split(".")) - node.level + 1]
        base = ".".join([*above, *([base] if base else [])])
    return [base, *(f"{base}.{alias.name}" for alias in node.names)] if base else []
