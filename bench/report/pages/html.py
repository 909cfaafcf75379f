"""A study's report as one self-contained HTML page that requests nothing from any network."""

from __future__ import annotations

import base64
import hashlib
import json
from datetime import UTC, datetime
from importlib import resources
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from bench.report.charts.draw_plotly import figure
from bench.report.pages.data_tables import table_values, tables
from bench.system.environment import version_of

if TYPE_CHECKING:
    from bench.report.pages.study_report import StudyReport


def html(report: StudyReport, *, live: str | None = None) -> str:
    """Return a study's report as an HTML page.

    Args:
        report: the report.
        live: the state of the study's files, which the page compares with the server's to reload
            when it changes; without, the page stands alone.
    """
    charts = {c.key: c for s in report.sections for c in s.charts if c.missing is None}
    carried = tables(report.data, charts, report.confusions)
    data = {
        "charts": {key: figure(chart) for key, chart in charts.items()},
        "tables": {name: table_values(frame) for name, frame in carried.items()},
        "study": report.study.name,
        "live": live,
    }
    scripts = {"plotly": _script("plotly/plotly-basic.min.js"), "own": _script("templates/page.js")}
    page = Environment(
        loader=PackageLoader("bench.report.pages"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    ).get_template("page.html.jinja")
    return page.render(
        report=report,
        study=report.study,
        data=Markup(_json(data)),  # noqa: S704 - no character of it can end the element
        css=Markup(_text("templates/page.css")),  # noqa: S704 - our own file
        scripts=scripts,
        hashes=" ".join(f"'sha256-{_digest(text)}'" for text in scripts.values()),
        live=live,
        made_at=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        version=version_of("resnet-bench"),
    )


def _json(values: Any) -> str:
    """Return JSON for a script element: no `<` that could end it, no NaN."""
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
