"""The site as a reader gets it: whole, complete, and asking nothing of a network."""

from __future__ import annotations

import html
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import pytest

pytest.importorskip("mkdocs", reason="needs the extra 'docs'")

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow

# Addresses that a browser fetches by itself, unlike those of links.
_FETCHED = re.compile(
    r"""<(?:script|img|iframe|source|link)\b[^>]*?\b(?:src|href)\s*=\s*["']?([^"'\s>]+)"""
)
# Each sentence that answers the question of a published page has one of these.
_ANSWERS = (
    "points of test accuracy", "no significant difference", "No difference can be tested",
    "are not compared before all of their runs have ended", "times the images/s of",
)  # fmt: skip
_STYLED = re.compile(r"""url\(\s*["']?([^"')]+)|@import\s+["']([^"']+)""")


def words(page: Path) -> str:
    """The page's text without its tags, single-spaced, without Markdown's marks."""
    text = re.sub(r"<(script|style).*?</\1>", " ", page.read_text(), flags=re.DOTALL)
    text = re.sub(r"</?(code|a|em|span)\b[^>]*>", "", text)
    return plain(html.unescape(re.sub(r"<[^>]+>", " ", text)))


def plain(text: str) -> str:
    """One spacing, one kind of quotation mark."""
    return " ".join(text.replace("`", "").split())


def test_nothing_is_fetched_from_elsewhere(site: Path) -> None:
    fetched = set()
    for page in site.rglob("*.html"):
        fetched |= set(_FETCHED.findall(page.read_text()))
    for sheet in site.rglob("*.css"):
        fetched |= {one or other for one, other in _STYLED.findall(sheet.read_text())}
    assert fetched
    foreign = {address for address in fetched if urlsplit(address).netloc}
    assert not foreign


def test_every_link_and_picture_leads_somewhere(site: Path) -> None:
    broken = []
    for page in site.rglob("*.html"):
        if page.name == "404.html":  # its addresses are those of the server's root
            continue
        for address in re.findall(r"""\b(?:href|src)="([^"]*)\"""", page.read_text()):
            parts = urlsplit(unquote(address))
            if parts.scheme or parts.netloc or not parts.path:
                continue
            target = (page.parent / parts.path).resolve()
            if not (target / "index.html" if target.is_dir() else target).is_file():
                broken.append((str(page.relative_to(site)), address))
    assert not broken


def test_every_command_and_option_is_there(site: Path) -> None:
    from typer.main import get_command

    from bench.cli.app import app

    shown = words(site / "reference/commands/index.html")
    leaves = list(commands(get_command(app), "bench"))
    assert len(leaves) > 15
    for name, command in leaves:
        section = shown.split(f"{name} [OPTIONS]", 1)[1].split(" [OPTIONS]", 1)[0]
        for parameter in command.params:
            if parameter.opts[0].startswith("-"):
                assert parameter.opts[0] in section, (name, parameter.opts)
            assert plain(parameter.help) in section, (name, parameter.opts)


def commands(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Name and command of everything that can be called."""
    children = getattr(command, "commands", None)
    if children is None:
        yield name, command
    for child, inner in (children or {}).items():
        yield from commands(inner, f"{name} {child}")


def test_every_study_key_is_there(site: Path) -> None:
    from dataclasses import fields

    from bench.models import ResNetConfig
    from bench.studies import Study
    from bench.studies.schema import Base, Contrast, Primary, Published, Tune, Variant

    shown = words(site / "reference/study/index.html")
    options = {field.name for field in fields(ResNetConfig)} - {"stages", "resize"}
    for model in (Study, Base, Variant, Tune, Primary, Contrast, Published):
        for key, field in model.model_fields.items():
            assert re.search(rf"\b{key}\b", shown), key
            if field.description:
                assert plain(field.description) in shown, key
    for option in options:
        assert re.search(rf"\b{option}\b", shown), option


def test_every_column_is_there(site: Path) -> None:
    from bench.store.tables.columns import COLUMNS

    page = (site / "reference/tables/index.html").read_text()
    for table, columns in COLUMNS.items():
        section = page.split(f'<h2 id="{table}"', 1)[1].split("<h2", 1)[0]
        assert re.findall(r"<tr>\s*<td><code>(\w+)</code>", section) == list(columns)
        meanings = re.findall(r"<td>(.*?)</td>\s*</tr>", section)
        assert all(len(plain(text)) > 3 for text in meanings)
        assert len(meanings) == len(columns)


def test_every_published_result_is_there(site: Path) -> None:
    published = [page.parent for page in (ROOT / "results").glob("*/README.md")]
    assert published
    listing = words(site / "results/index.html")
    for folder in published:
        text = (folder / "README.md").read_text()
        question = text.splitlines()[0].removeprefix("# ")
        assert question in listing
        above = text.split("\n| ")[0].split("\n![")[0]  # the table, the picture
        answers = [
            line.removeprefix("- ")
            for line in above.splitlines()
            if any(known in line for known in _ANSWERS)
        ]
        assert answers, folder
        assert not [answer for answer in answers if plain(answer) not in listing]
        assert question in words(site / "results" / folder.name / "index.html")
