"""Everything a page shows of one study, read once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from bench.report.findings.answer import summarise
from bench.store.analyses import Analyses
from bench.store.measurements import Measurements
from bench.store.tables.frames import ANALYSED, analysed_frame, newest, study_runs

if TYPE_CHECKING:
    import pandas as pd

    from bench.report.findings.answer import VariantSummary
    from bench.store import RunRecord, Store, StudyRecord
    from bench.store.analyses import AnalysisRecord
    from bench.store.measurements import MeasurementRecord


@dataclass(frozen=True)
class Material:
    """One study's records and tables.

    Attributes:
        store: where they lie.
        study: its record.
        summaries: a row a variant.
        runs: table of the study's runs.
        epochs: table of their epochs.
        exports: table of what was exported of them.
        throughput: table of what was measured of them.
        records: run → record of every finished run.
    """

    store: Store
    study: StudyRecord
    summaries: list[VariantSummary]
    runs: pd.DataFrame
    epochs: pd.DataFrame
    exports: pd.DataFrame
    throughput: pd.DataFrame
    records: dict[str, RunRecord]

    @cached_property
    def variants(self) -> list[str]:
        """Names in the study's order."""
        return list(self.study.variants)

    def style(self, variant: str) -> int:
        """Number of a variant's colour and symbol."""
        return self.variants.index(variant)

    def variant_of(self, run: str) -> str | None:
        """The variant that a run stands for."""
        return self.places.get(run, (None, None))[0]

    @cached_property
    def measurements(self) -> list[MeasurementRecord]:
        """Measurements of the study's runs, oldest first."""
        records = Measurements(self.store.root).records()
        return [r for r in records if any(self.variant_of(str(row["run"])) for row in r.rows)]

    @cached_property
    def analyses(self) -> tuple[list[AnalysisRecord], list[str]]:
        """Every analysis in the results folder, oldest first, and which cannot be read, and why."""
        return Analyses(self.store.root).read()

    @cached_property
    def analysed(self) -> dict[str, pd.DataFrame]:
        """Tables of the last analyses of the study's runs."""
        records, _ = self.analyses
        return {t: newest(analysed_frame(records, t, self.places)) for t in ANALYSED}

    @cached_property
    def places(self) -> dict[str, tuple[str, int]]:
        """Run → its variant and seed."""
        return {
            run: (name, int(seed))
            for name, entry in self.study.variants.items()
            for seed, run in entry["runs"].items()
        }


def gather(store: Store, name: str) -> Material:
    """Read a study.

    Raises:
        BenchError: there is no such study, or its record cannot be read.
    """
    study = store.find_study(name)
    summaries = summarise(store, study)
    runs = study_runs(store, name)
    records = {run: store.read_run(run) for run in runs["run"]}
    return Material(
        store=store,
        study=study,
        summaries=summaries,
        runs=runs,
        epochs=study_runs(store, name, "epochs"),
        exports=study_runs(store, name, "exports"),
        throughput=study_runs(store, name, "throughput"),
        records={run: record for run, record in records.items() if record is not None},
    )
