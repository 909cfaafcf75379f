"""A study's report as one self-contained HTML page that requests nothing from any network."""

from __future__ import annotations

import base64
import hashlib
import json
from datetime import UTC, datetime
from importlib import resources
from typing import TYPE_CHECKING, Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from bench.report.charts.draw_plotly import figure
from bench.system.environment import version_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.report.charts.chart import Chart
    from bench.report.pages.study_report import StudyReport


_EPOCH_COLUMNS = [
    "variant",
    "seed",
    "epoch",
    "train_loss",
    "train_accuracy",
    "validation_loss",
    "validation_accuracy",
    "test_accuracy",
    "learning_rate",
    "seconds",
]


def html(report: StudyReport, *, live: str | None = None) -> str:
    """Return a study's report as an HTML page.

    Args:
        report: the report.
        live: the state of the study's files, which the page compares with the server's to reload
            when it changes; without, the page stands alone.
    """
    charts = {c.key: c for s in report.sections for c in s.charts if c.missing is None}
    return render(
        "study.html.jinja",
        charts=charts,
        tables=_tables(report, charts),
        names=report.data.variants,
        live=live,
        title=f"{report.study.name}: {report.study.question}",
        report=report,
        study=report.study,
        failed=[(f.what, f.status, f.why) for f in report.failures],
    )


def render(
    template: str,
    *,
    charts: dict[str, Chart],
    tables: dict[str, pd.DataFrame],
    names: Sequence[str],
    live: str | None = None,
    **values: Any,
) -> str:
    """Return a page that needs nothing beside it.

    Args:
        template: file name of the template.
        charts: key → chart, of those that are drawn.
        tables: name → data that a reader can look at and save; those without a row are left out.
        names: what can be shown and hidden in all charts together.
        live: the state that the page compares with the server's; None without a server.
        **values: what else the template needs.
    """
    data = {
        "charts": {key: figure(chart) for key, chart in charts.items()},
        "tables": {name: _values(frame) for name, frame in tables.items() if len(frame)},
        "names": list(names) if len(names) > 1 else [],
        "live": live,
    }
    page = templates().get_template(template)
    scripts = {"plotly": _script("plotly/plotly-basic.min.js"), "own": _script("templates/page.js")}
    return page.render(
        **values,
        data=data,
        css=Markup(_text("templates/page.css")),  # noqa: S704 - our own file
        scripts=scripts,
        hashes=" ".join(f"'sha256-{_digest(text)}'" for text in scripts.values()),
        live=live,
        made_at=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        version=version_of("resnet-bench"),
    )


def templates() -> Environment:
    """Return the pages' templates; what they show is escaped."""
    pages = Environment(
        loader=PackageLoader("bench.report.pages"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    pages.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}
    return pages


def _tables(report: StudyReport, charts: dict[str, Chart]) -> dict[str, pd.DataFrame]:
    """Return the tables that a reader can look at and save: the study's, and those of charts."""
    data = report.data
    found = {
        "runs": data.runs.drop(columns=["study"]),
        "comparisons": data.comparisons.drop(columns=["study"]).dropna(axis=1, how="all"),
        "epochs": data.epochs[_EPOCH_COLUMNS].dropna(axis=1, how="all"),
        "exports": data.exports,
        "throughput": data.throughput,
        "confusions": report.confusions.frame(),
    }
    for name, frame in data.analysed.items():
        variants = frame["run"].map(data.variant_of)
        found[name] = pd.concat([variants.rename("variant"), frame], axis=1)
    return found | {key: chart.data for key, chart in charts.items() if chart.data is not None}


def _values(frame: pd.DataFrame) -> dict[str, Any]:
    """Return a frame as JSON values: `columns`, and `rows` with null for what is missing.

    Numbers keep seven significant digits, more than single precision has.
    """
    rounded = frame.select_dtypes("float").map(lambda value: float(f"{value:.7g}"))
    text = frame.assign(**rounded).to_json(
        orient="split", index=False, double_precision=15, date_format="iso", date_unit="s"
    )
    found = json.loads(text)
    return {"columns": found["columns"], "rows": found["data"]}


def _script(name: str) -> Markup:
    text = _text(name)
    if "</script" in text.lower():
        raise AssertionError(f"{name} would end its own element")
    return Markup(text)  # noqa: S704 - our own files


def _text(name: str) -> str:
    return resources.files("bench.report.pages").joinpath(name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
