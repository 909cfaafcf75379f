"""A study's report in a notebook: `bench.Report`."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from bench.errors import BenchError
from bench.report.charts.draw_matplotlib import draw_row, style
from bench.report.pages.html import templates
from bench.report.pages.markdown import markdown
from bench.report.pages.publish import require_finished
from bench.report.pages.study_report import StudyReport, read_study_report
from bench.store import Store

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from bench.report.findings.statistics import Estimate
    from bench.store.tables.columns import Table


class Report:
    """One study's results; a notebook shows it as a page with its tables and picture.

    Everything is read again at each use, so that it shows the current state.

    Args:
        path: a results folder, or one study's file in it, `studies/NAME.json`.
        study: the study's name (default: the most recent).

    Raises:
        BenchError: *path* holds no such study, or it cannot be read.
    """

    def __init__(self, path: str | Path = "bench-runs", study: str | None = None) -> None:
        path = Path(path)
        if path.suffix == ".json" and path.parent.name == "studies":
            path, study = path.parent.parent, study or path.stem
        self._store = Store(path)
        self.name = self._store.find_study(study).name

    def __repr__(self) -> str:
        return f"Report({str(self._store.root)!r}, {self.name!r})"

    @property
    def question(self) -> str:
        """The question that the study asks."""
        return self._report().study.question

    @property
    def answer(self) -> str:
        """The sentence that answers it, and how many seeds undecided comparisons would need."""
        report = self._report()
        return " ".join([report.answer, *report.outlook])

    @property
    def table(self) -> pd.DataFrame:
        """The study's table as it is printed: a row per variant, cells as text."""
        table = self._report().table
        return pd.DataFrame(table.rows, columns=table.columns).set_index(table.columns[0])

    @property
    def comparisons(self) -> pd.DataFrame:
        """The study's rows of the table `comparisons`: differences and their tests as numbers."""
        return self.load("comparisons")

    @property
    def numbers(self) -> pd.DataFrame:
        """The study's table as numbers: a row per variant.

        Accuracies are means over seeds with the ends of their 95 % intervals, 0…1.
        """
        rows = []
        for s in self._report().data.summaries:
            row: dict[str, Any] = {"variant": s.name, "reference": s.reference}
            row["parameters"] = s.parameters
            row |= {"macs": s.macs, "seeds": s.test_accuracy.seeds if s.test_accuracy else 0}
            for name in ("test_accuracy", "train_accuracy"):
                found: Estimate | None = getattr(s, name)
                row[name] = found and found.mean
                row[name + "_low"], row[name + "_high"] = (found and found.possible) or (None, None)
            rows.append({**row, "images_per_second": s.images_per_second})
        return pd.DataFrame(rows).convert_dtypes().set_index("variant")

    def load(self, table: Table = "runs") -> pd.DataFrame:
        """Return the study's rows of a table, as `bench.load_results` does."""
        return self._report().data.table(table)

    def figure(self) -> Figure:
        """Draw training by epoch, test accuracy of every seed, and differences."""
        return draw_row(self._report().overview)

    def _report(self) -> StudyReport:
        return read_study_report(self._store, self.name)

    def _repr_html_(self) -> str:
        report = self._report()
        template = templates().get_template("notebook.html.jinja")
        return template.render(report=report, picture=_svg(draw_row(report.overview)))

    def _repr_markdown_(self) -> str:
        report = self._report()
        try:
            require_finished(report)
        except BenchError as error:
            return f"# {report.study.question}\n\n{error}\n"
        return markdown(report)


def _svg(figure: Figure) -> str:
    """Return a figure as SVG in base64: as an image, its ids meet no others of the page."""
    content = io.BytesIO()
    with style():
        figure.savefig(content, format="svg", metadata={"Date": None})
    return base64.b64encode(content.getvalue()).decode()
