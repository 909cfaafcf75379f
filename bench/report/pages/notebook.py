"""A study's report where notebooks show it: `bench.Report`."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import Environment

from bench.errors import BenchError
from bench.report.charts.draw_matplotlib import STYLE, draw_row
from bench.report.findings.agreement import agreement
from bench.report.findings.answer import answer, outlook, statements, summarise
from bench.report.pages.markdown import markdown, methods
from bench.report.pages.publish import require_finished
from bench.report.tables.study import study_cells
from bench.report.tables.tuned import tuned_lines
from bench.store import Store
from bench.store.tables.frames import study_runs

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from bench.store import StudyRecord
    from bench.store.tables.columns import Table

_HTML = """\
<section>
<h3>{{ study.question }}</h3>
{% if study.source %}<p>After {{ study.source }}.</p>{% endif %}
{% for text in statements %}<p><strong>{{ text }}</strong></p>{% endfor %}
{% if unfinished %}<p>Not complete: {{ unfinished }}.</p>{% endif %}
<table>
<thead><tr>{% for cell in headings %}<th>{{ cell }}</th>{% endfor %}</tr></thead>
<tbody>
{% for row in rows %}<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}</tbody>
</table>
<img src="data:image/svg+xml;base64,{{ picture }}" alt="Training by epoch, test accuracy of every \
seed, and differences from the reference" style="max-width: 100%; background: white">
<p>Accuracies are means over seeds ± the half-width of their 95 % t-interval; differences are paired
by seed, in points, with the 95 % interval of {{ methods }}; p-values are Holm-corrected.</p>
{% for line in tuned %}<p>{{ line }}</p>{% endfor %}
{% for sentence in same_images %}<p>{{ sentence }}</p>{% endfor %}
</section>
"""


class Report:
    """One study's results; a notebook shows it as a page with its table and picture.

    Everything is read when it is asked for, so that showing it again shows what is there then.

    Args:
        path: a results folder, or one study's file in it, `studies/NAME.json`.
        study: the study's name; the one last run without.

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
        return self._study.question

    @property
    def answer(self) -> str:
        """The sentence that answers it, and how many seeds what is undecided would take."""
        summaries = summarise(self._store, self._study)
        return " ".join([answer(summaries), *outlook(summaries)])

    @property
    def table(self) -> pd.DataFrame:
        """The study's table as it is printed: a row a variant, cells as text."""
        import pandas as pd

        headings, *rows = study_cells(summarise(self._store, self._study))
        return pd.DataFrame(rows, columns=headings).set_index(headings[0])

    def load(self, table: Table = "runs") -> pd.DataFrame:
        """Return the study's rows of a table, as `bench.load_results` does."""
        return study_runs(self._store, self.name, table)

    def figure(self) -> Figure:
        """Draw training by epoch, test accuracy of every seed, and differences."""
        from bench.report.pages.sections import overview
        from bench.report.study_data import gather

        return draw_row(overview(gather(self._store, self.name)))

    @property
    def _study(self) -> StudyRecord:
        return self._store.find_study(self.name)

    def _repr_html_(self) -> str:
        summaries = summarise(self._store, self._study)
        headings, *rows = study_cells(summaries)
        statuses = self.load()["status"].astype(str).value_counts()
        made = Environment(autoescape=True).from_string(_HTML)
        return made.render(
            study=self._study,
            statements=statements(summaries),
            unfinished=", ".join(
                f"{n} {str(status).replace('_', ' ')}"
                for status, n in statuses.items()
                if status != "complete"
            ),
            headings=headings,
            rows=rows,
            picture=_svg(self.figure()),
            methods=methods(summaries),
            tuned=tuned_lines(self._study),
            same_images=agreement(self._store, self._study).sentences,
        )

    def _repr_markdown_(self) -> str:
        try:
            runs = require_finished(self._store, self._study)
        except BenchError as error:
            return f"# {self.question}\n\n{error}\n"
        return markdown(self._store, self._study, runs)


def _svg(figure: Figure) -> str:
    """A figure as SVG in base64: as an image, its ids meet no others of the page."""
    import matplotlib as mpl

    content = io.BytesIO()
    with mpl.rc_context(STYLE):
        figure.savefig(content, format="svg", metadata={"Date": None})
    return base64.b64encode(content.getvalue()).decode()
