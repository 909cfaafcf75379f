"""The records and tables of one study, each read once; tables of whole results folders."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.errors import BenchError, check_known, warn
from bench.report.findings.agreement import Agreement, agreement
from bench.report.findings.comparisons import comparison_rows
from bench.report.findings.summaries import (
    ContrastSummary,
    Outcomes,
    VariantSummary,
    summarise,
    summarise_contrasts,
)
from bench.store.analyses import Analyses, AnalysisRecord
from bench.store.exports import ExportRecord, Exports, outdated_files
from bench.store.measurements import MeasurementRecord, Measurements
from bench.store.records import is_of_weights
from bench.store.tables.columns import COLUMNS, Table, typed_frame
from bench.store.tables.frames import (
    ANALYSED,
    analysed_frame,
    cold_start_frame,
    exports_frame,
    load_table,
    locate,
    newest,
    throughput_frame,
)
from bench.store.tables.runs import run_table
from bench.studies.run_request import RunRequest

if TYPE_CHECKING:
    import numpy.typing as npt
    import pandas as pd

    from bench.store import RunRecord, Store, StudyRecord
    from bench.studies.run_request import Data


@dataclass(frozen=True)
class StudyData:
    """One study's records and tables; each is read at its first use, and only then.

    Attributes:
        store: the results folder.
        study: the study's record.
    """

    store: Store
    study: StudyRecord

    @cached_property
    def places(self) -> dict[str, tuple[str, int]]:
        """Run → its variant and seed."""
        return {
            run: (name, int(seed))
            for name, entry in self.study.variants.items()
            for seed, run in entry["runs"].items()
        }

    @cached_property
    def variants(self) -> list[str]:
        """Names in the study's order."""
        return list(self.study.variants)

    def variant_of(self, run: str) -> str | None:
        """Return the variant that a run belongs to; None for a run of no variant."""
        return self.places.get(run, (None, None))[0]

    def style(self, variant: str) -> int:
        """Return the number of a variant's colour and symbol, the same in every chart."""
        return self.variants.index(variant)

    @cached_property
    def records(self) -> dict[str, RunRecord]:
        """Run → its record, of every run that has a readable one, finished or not."""
        found = {run: self.store.read(run) for run in self.places}
        return {run: record for run, record in found.items() if record is not None}

    @cached_property
    def summaries(self) -> list[VariantSummary]:
        """One row per variant.

        Raises:
            BenchError: a variant and its reference were trained on different images of one dataset.
        """
        for entry in self.study.variants.values():
            self._refuse_other_images(entry, self.study.variants.get(entry["reference"] or ""))
        epochs = None if self.study.target_accuracy is None else self.epochs
        return summarise(self.outcomes, epochs)

    @cached_property
    def outcomes(self) -> Outcomes:
        """The accuracies that are compared, in which a run that diverged counts as chance."""
        return Outcomes(self.study, self.records)

    @cached_property
    def contrasts(self) -> list[ContrastSummary]:
        """The weighted sums of variants that the study declares."""
        return summarise_contrasts(self.outcomes)

    @cached_property
    def comparison_rows(self) -> list[dict[str, Any]]:
        """The rows of `comparisons`, without dtypes."""
        return comparison_rows(self.study, self.summaries, self.contrasts, self.agreement)

    @cached_property
    def comparisons(self) -> pd.DataFrame:
        """The study's rows of the `comparisons` table."""
        return typed_frame(self.comparison_rows, COLUMNS["comparisons"])

    def _refuse_other_images(self, entry: dict[str, Any], reference: dict[str, Any] | None) -> None:
        found: dict[Data, tuple[str, str]] = {}
        for run in (run for e in (reference, entry) if e for run in e["runs"].values()):
            record = self.records.get(run)
            images = record.result.get("dataset_fingerprint") if record else None
            if record is None or images is None:
                continue
            data = RunRequest.from_dict(record.request).data
            other, first = found.setdefault(data, (images, run))
            if other != images:
                raise BenchError(
                    f"study '{self.study.name}' compares runs on different images of dataset "
                    f"'{data[0]}' ({first}, {run}): train it again with --force"
                )

    @cached_property
    def runs(self) -> pd.DataFrame:
        """The study's rows of the `runs` table."""
        return run_table(self.store, "runs", self.study, read=self.records.get)

    @cached_property
    def epochs(self) -> pd.DataFrame:
        """The study's rows of the `epochs` table."""
        return run_table(self.store, "epochs", self.study, read=self.records.get)

    @cached_property
    def predictions(self) -> tuple[dict[str, dict[str, npt.NDArray[Any]]], list[str]]:
        """Predictions of the test images of each complete run, and which cannot be read, and why.

        Runs on synthetic images, which have no right answer, are left out.
        """
        found, notes = {}, []
        for run, record in self.records.items():
            file = "predictions.safetensors"
            timing_only = record.result.get("timing_only")
            if record.status != "complete" or timing_only or file not in record.files:
                continue
            try:
                tensors = self.store.read_tensors(run, file)
            except BenchError as error:
                notes.append(f"Left out: {error}")
                continue
            found[run] = {name: tensor.numpy() for name, tensor in tensors.items()}
        return found, notes

    @cached_property
    def agreement(self) -> Agreement:
        """The networks compared on the same test images."""
        tested = {summary.name: summary.difference for summary in self.summaries}
        tested |= {contrast.name: contrast.difference for contrast in self.contrasts}
        return agreement(self.study, self.records, *self.predictions, tested)

    @cached_property
    def export_records(self) -> list[ExportRecord]:
        """Exports of the study's runs, those that tuned included."""
        runs, records = self.study.runs, Exports(self.store.root).records()
        return [
            record
            for record in records
            if record.run in runs and record.row["sha256"] not in self._outdated_files
        ]

    @cached_property
    def _outdated_files(self) -> set[str]:
        return outdated_files(self.store, self.study.runs)

    @cached_property
    def exports(self) -> pd.DataFrame:
        """The study's rows of the `exports` table."""
        return exports_frame(record.row for record in self.export_records)

    @cached_property
    def _measured(self) -> list[MeasurementRecord]:
        """Measurements with rows of the study's runs."""
        runs, records = self.study.runs, Measurements(self.store.root).records()
        return [r for r in records if any(row.get("run") in runs for row in r.rows + r.cold_starts)]

    @cached_property
    def measurements(self) -> list[MeasurementRecord]:
        """Measurements of the study's runs, oldest first."""
        return [
            record
            for record in self._measured
            if any(self.variant_of(str(row["run"])) for row in record.rows)
        ]

    @cached_property
    def throughput(self) -> pd.DataFrame:
        """The study's rows of the `throughput` table."""
        runs, rows = self.study.runs, (row for record in self._measured for row in record.rows)
        old = self._outdated_files
        return throughput_frame(
            row for row in rows if row["run"] in runs and row.get("file_sha256") not in old
        )

    @cached_property
    def cold_starts(self) -> pd.DataFrame:
        """The study's rows of the `cold_starts` table."""
        runs, rows = self.study.runs, (row for r in self._measured for row in r.cold_starts)
        return cold_start_frame(row for row in rows if row["run"] in runs)

    @cached_property
    def analyses(self) -> tuple[list[AnalysisRecord], list[str]]:
        """Every analysis in the results folder, oldest first, and which cannot be read, and why."""
        return Analyses(self.store.root).read()

    @cached_property
    def analysed(self) -> dict[str, pd.DataFrame]:
        """Tables of the last analyses of the study's runs."""
        return {t: newest(analysed_frame(self.own_analyses, t, self.places)) for t in ANALYSED}

    @cached_property
    def own_analyses(self) -> list[AnalysisRecord]:
        """Analyses, without those of weights that a run no longer has."""
        return [
            record
            for record in self.analyses[0]
            if is_of_weights(record.request, self.records.get(str(record.request.get("run"))))
        ]

    def table(self, name: Table) -> pd.DataFrame:
        """Return the study's rows of a table, as `bench.load_results` does."""
        check_known("table", name, COLUMNS)
        if name in ANALYSED:
            return analysed_frame(self.own_analyses, name, self.study.runs)
        frame: pd.DataFrame = getattr(self, name)  # the other tables' names are the attributes'
        return frame


def load_results(path: str | Path = "bench-runs", table: Table = "runs") -> pd.DataFrame:
    """Load one table of a results folder, of one study, or of one run.

    Args:
        path: a results folder, its `studies/NAME.json`, or one `runs/ID` folder.
        table: `runs` (one row per run and variant that refers to it), `epochs`, `exports`,
            `throughput`, `cold_starts`, `lesions`, `gradients`, `correlations`, `landscapes`, or
            `comparisons` (one row per variant that a study compares with its reference, and per
            contrast), which is computed from the runs.

    Returns:
        A frame with the columns and dtypes of `COLUMNS[table]`, also when it has no row. Units
        and meanings are in `bench.store.tables.columns.TABLES`: accuracies and their differences
        are 0…1, times are wall-clock seconds, `macs` are multiply-adds for one image.

    Raises:
        BenchError: the table is unknown or *path* does not exist.

    Broken records are skipped with a warning that names them, on every load. So is a study that
    compares runs on different images, in `comparisons`.
    """
    check_known("table", table, COLUMNS)
    return _comparisons(Path(path)) if table == "comparisons" else load_table(path, table)


def _comparisons(path: Path) -> pd.DataFrame:
    store, name, run = locate(path)
    studies = store.studies() if name is None else [store.read_study(name)]
    rows = []
    for study in studies if run is None else ():
        if study is None:
            continue
        data = StudyData(store, study)
        try:
            rows += data.comparison_rows
        except BenchError as error:
            warn(str(error))
            continue
        for note in data.agreement.notes:
            warn(note)
    return typed_frame(rows, COLUMNS["comparisons"])
