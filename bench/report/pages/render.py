"""From a study's material to the text of a page."""

from __future__ import annotations

import base64
import hashlib
import json
from datetime import UTC, datetime
from importlib import resources
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from bench.report.charts.confusion import confusions
from bench.report.charts.draw_matplotlib import PALETTE
from bench.report.charts.draw_plotly import SYMBOLS, figure
from bench.report.findings.agreement import HEADINGS, READING, agreement
from bench.report.findings.answer import statements
from bench.report.pages.architecture import architectures
from bench.report.pages.data_tables import table_values, tables
from bench.report.pages.markdown import methods
from bench.report.pages.provenance import commands, environment, failures
from bench.report.pages.sections import sections
from bench.report.study_data import Material, gather
from bench.report.tables.published import NOTE, published_cells
from bench.report.tables.study import study_cells
from bench.report.tables.tuned import NOTE as TUNED
from bench.report.tables.tuned import tuned_cells
from bench.store.files import write_atomically
from bench.system.environment import version_of

if TYPE_CHECKING:
    from pathlib import Path

    from bench.store import Store


def write_page(store: Store, study_name: str, path: Path) -> Path:
    """Write a study's page to the file *path*; returns it.

    Raises:
        BenchError: there is no such study.
        StorageError: the file cannot be written.
    """
    write_atomically(path, render_page(store, study_name).encode())
    return path


def render_page(store: Store, study_name: str, *, live: str | None = None) -> str:
    """Return a study's page as HTML.

    Args:
        store: the results folder.
        study_name: of a study there.
        live: the server's word for what is shown; the page asks for another one and reloads.

    Raises:
        BenchError: there is no such study.
    """
    return _page(gather(store, study_name), live)


def _page(material: Material, live: str | None) -> str:
    parts = sections(material)
    charts = {c.key: c for s in parts for c in s.charts if c.missing is None}
    confused = confusions(material)
    carried = tables(material, charts, confused)
    data = {
        "charts": {key: figure(chart) for key, chart in charts.items()},
        "tables": {name: table_values(frame) for name, frame in carried.items()},
        "palette": PALETTE,
        "symbols": SYMBOLS,
        "study": material.study.name,
        "live": live,
    }
    scripts = {"plotly": _script("plotly/plotly-basic.min.js"), "own": _script("templates/page.js")}
    made = Environment(
        loader=PackageLoader("bench.report.pages"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    ).get_template("page.html.jinja")  # fmt: skip
    headings, *rows = study_cells(material.summaries)
    return made.render(
        study=material.study,
        statements=statements(material.summaries),
        headings=headings,
        rows=rows,
        sections=parts,
        charts=charts,
        published=published_cells(material.study, material.summaries),
        published_note=NOTE,
        tuned=tuned_cells(material.study),
        tuned_note=TUNED,
        failures=failures(material),
        architectures=architectures(material),
        agreement=agreement(material.store, material.study),
        agreement_headings=HEADINGS,
        reading=READING,
        confusions=confused,
        counts=(len(material.places), int((material.runs["status"] == "complete").sum())),
        environment=environment(material),
        commands=commands(material),
        methods=methods(material.summaries),
        data=Markup(_json(data)),  # noqa: S704 - no character of it can end the element
        css=Markup(_text("templates/page.css")),  # noqa: S704 - our own file
        scripts=scripts,
        hashes=" ".join(f"'sha256-{_digest(text)}'" for text in scripts.values()),
        live=live,
        made_at=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        version=version_of("resnet-bench"),
    )


def _json(values: Any) -> str:
    """JSON for a script element: no `<` that could end it, no NaN."""
    text = json.dumps(values, allow_nan=False, separators=(",", ":"), ensure_ascii=False)
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _script(name: str) -> Markup:
    text = _text(name)
    if "</script" in text.lower():
        raise AssertionError(f"{name} would end its own element")
    return Markup(text)  # noqa: S704 - our own files


def _text(name: str) -> str:
    return resources.files("bench.report.pages").joinpath(name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
