"""What the report of a study says; the terminal, Markdown, HTML and notebook lay it out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from bench.report.charts.confusion import Confusions, confusions
from bench.report.findings.answer import answer, outlook, statements
from bench.report.findings.wording import counted_statuses, first_named
from bench.report.pages.architecture import Architecture, architectures
from bench.report.pages.commands import analysing_commands, study_file, training_commands
from bench.report.pages.provenance import (
    Failure,
    failures,
    provenance,
    training_seconds,
    unsupported,
)
from bench.report.pages.sections import further, overview, sections
from bench.report.study_data import StudyData
from bench.report.tables.durations import duration
from bench.report.tables.study import (
    comparisons_table,
    published_table,
    runs_table,
    same_images_table,
    settings_table,
    spread_table,
    study_table,
    tuned_table,
)

if TYPE_CHECKING:
    from bench.report.charts.chart import Chart, Section
    from bench.report.tables.text_table import TextTable
    from bench.store import Store, StudyRecord


@dataclass(frozen=True)
class StudyReport:
    """The parts of a study's report; each is computed at its first use.

    Attributes:
        data: the study's records and tables.
    """

    data: StudyData

    @property
    def study(self) -> StudyRecord:
        """The study: question, source, discussion, the setting of the paper's figures."""
        return self.data.study

    @cached_property
    def answer(self) -> str:
        """The sentence that answers the question."""
        return answer(self.data.summaries, self.data.contrasts)

    @cached_property
    def outlook(self) -> list[str]:
        """Which differences the undecided comparisons could have found."""
        return outlook(self.data.summaries, self.data.contrasts)

    @cached_property
    def statements(self) -> list[str]:
        """Answer and outlook: one paragraph, or the items of a list if that would be long."""
        return statements(self.data.summaries, self.data.contrasts)

    @cached_property
    def table(self) -> TextTable:
        """A row per variant."""
        return study_table(self.data.summaries, self.study)

    @cached_property
    def comparisons(self) -> TextTable:
        """A row per comparison and contrast; no row if nothing is compared."""
        return comparisons_table(self.data.summaries, self.data.contrasts)

    @cached_property
    def spreads(self) -> TextTable:
        """How far seeds lie apart, by what they vary; no row where all vary the same."""
        return spread_table(self.data.summaries, self.study, self.data.records)

    @cached_property
    def published(self) -> TextTable:
        """The paper's figures beside the study's; no row if the study quotes none."""
        return published_table(self.study, self.data.summaries)

    @cached_property
    def tuned(self) -> TextTable:
        """What was tried for each variant; no row if nothing was tuned."""
        return tuned_table(self.study)

    @cached_property
    def settings(self) -> TextTable:
        """What differs between the variants; no row if nothing does, or nothing is known."""
        return settings_table(self.study, self.data.records)

    @property
    def equal_weights(self) -> str | None:
        """How many initial tensors are equal to the reference's; None if that is not known."""
        counts = [
            f"{variant} {shared['equal']} of {shared['tensors']}"
            for variant, shared in self.study.shared_tensors.items()
        ]
        named = ", ".join(first_named(counts, "more"))
        return f"Initial tensors equal to the reference's, same seed: {named}" if counts else None

    @cached_property
    def failures(self) -> list[Failure]:
        """Whatever did not end well, or has not ended yet; trainings first."""
        return failures(self.data)

    @property
    def progress(self) -> tuple[int, int]:
        """The number of complete runs, and of all."""
        complete = sum(record.status == "complete" for record in self.data.records.values())
        return complete, len(self.data.places)

    @property
    def incomplete(self) -> str:
        """How many runs are not complete, such as `2 failed, 1 out of memory`; empty if none."""
        statuses = (record.status for record in self.data.records.values())
        return counted_statuses(status for status in statuses if status != "complete")

    @property
    def training_time(self) -> str | None:
        """How long all runs together trained, those of a search too; None without training."""
        total, tuning = training_seconds(self.data)
        return duration(total + sum(tuning)) if total else None

    @cached_property
    def same_images(self) -> TextTable:
        """A row per two networks that are compared on the same test images."""
        return same_images_table(self.data.agreement)

    @cached_property
    def runs(self) -> TextTable:
        """A row per run."""
        return runs_table(self.study, self.data.records)

    @cached_property
    def overview(self) -> tuple[Chart, ...]:
        """The charts that show training, every seed and the differences at a glance."""
        return overview(self.data)

    @cached_property
    def sections(self) -> list[Section]:
        """Every chart; one that has nothing to show says why."""
        return sections(self.data)

    @cached_property
    def picture(self) -> Chart | None:
        """The chart that answers the question: differences, else accuracies; None without both."""
        charts = self.sections[0].charts
        return next((chart for chart in charts if chart.missing is None), None)

    @cached_property
    def shown(self) -> list[Section]:
        """The sections with the charts that have something to show, besides `picture`."""
        found = [
            replace(s, charts=tuple(c for c in s.charts if c.missing is None and c != self.picture))
            for s in self.sections
        ]
        return [section for section in found if section.charts or section.notes]

    @property
    def _empty(self) -> list[Chart]:
        """The charts that have nothing to show, of which a reader should know."""
        charts = [c for s in self.sections for c in s.charts if c.missing is not None]
        if not self.progress[0]:  # no command helps before a run is complete
            return charts
        return [c for c in charts if c.command is not None or c.key == "test-accuracy"]

    @property
    def missing(self) -> list[str]:
        """Why charts have nothing to show, each reason once."""
        return list(dict.fromkeys(str(chart.missing) for chart in self._empty))

    @property
    def missing_commands(self) -> list[str]:
        """Commands that would fill the charts that have nothing to show, ready to be pasted."""
        commands = [c.command for c in self._empty if c.command and self.progress[0]]
        return list(dict.fromkeys(commands))

    @cached_property
    def unsupported(self) -> list[str]:
        """Why backends were left out of the measurements."""
        return unsupported(self.data)

    @cached_property
    def further(self) -> list[Section]:
        """The charts beyond training and outcome that have something to show."""
        return further(self.data)

    @cached_property
    def confusions(self) -> Confusions:
        """Confusion matrices, and the images most often confused."""
        return confusions(self.data)

    @cached_property
    def architectures(self) -> list[Architecture]:
        """A drawing per network."""
        return architectures(self.data)

    @property
    def file(self) -> str | None:
        """Name of the study's own file, if a command names it."""
        name = str(study_file(self.study))
        named = name.endswith(".toml") and any(name in c for c in self.training_commands)
        return name if named else None

    @cached_property
    def training_commands(self) -> list[str]:
        """Commands that train the study's runs again, or import them; none if that is not known."""
        return training_commands(self.data)

    @cached_property
    def commands(self) -> list[str]:
        """Commands that train, export, measure and analyse the study's runs again."""
        return [*self.training_commands, *analysing_commands(self.data)]

    @cached_property
    def provenance(self) -> list[tuple[str, str]]:
        """What was recorded of data, machines, versions, commit and times."""
        return provenance(self.data)


def read_study_report(store: Store, name: str | None) -> StudyReport:
    """Return the report of a study of a results folder.

    Args:
        store: the results folder.
        name: of the study; the last one run if None.

    Raises:
        BenchError: there is no such study, or its record cannot be read.
    """
    return StudyReport(StudyData(store, store.find_study(name)))
