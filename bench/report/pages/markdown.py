"""A study's page in Markdown: for a repository, a pull request, a CI summary."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench.report.findings.agreement import HEADINGS, READING, agreement
from bench.report.findings.answer import statements, summarise
from bench.report.tables.published import NOTE, published_cells
from bench.report.tables.study import study_cells
from bench.report.tables.tuned import NOTE as TUNED
from bench.report.tables.tuned import tuned_cells

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    from bench.report.charts.chart import Section
    from bench.report.findings.agreement import Agreement
    from bench.report.findings.answer import VariantSummary
    from bench.store import Store, StudyRecord

DETAILED_ROWS = 200  # a GitHub summary takes 1 MiB


@dataclass(frozen=True)
class Pictured:
    """What a page with pictures beside it shows, besides `study.svg`.

    Attributes:
        sections: their charts lie beside the page, under their keys.
        commands: what measured or analysed the study's runs.
    """

    sections: Sequence[Section]
    commands: Sequence[str]


def markdown(
    store: Store, study: StudyRecord, runs: pd.DataFrame, pictured: Pictured | None = None
) -> str:
    """Return a study's page in Markdown: question, answer, table, and how it was made.

    Args:
        store: the results folder.
        study: the study.
        runs: its rows of the `runs` table.
        pictured: refer to these pictures; without, the page stands alone, as a CI summary must.
    """
    summaries = summarise(store, study)
    lines = [f"# {study.question}", ""]
    if study.source:
        lines += [f"After {study.source}.", ""]
    lines += [*_listed(statements(summaries)), ""]
    lines += [*markdown_table(study_cells(summaries)), ""]
    lines += [
        "Accuracies are means over seeds ± the half-width of their 95 % t-interval; differences",
        f"are paired by seed, in points, with the 95 % interval of {methods(summaries)}; p-values",
        "are Holm-corrected. Images/s is training, median over seeds.",
        "",
    ]
    if pictured:
        lines += ["![Training, test accuracy by seed, and differences](study.svg)", ""]
    lines += _published(study, summaries)
    if cells := tuned_cells(study):
        lines += ["## What was tuned", "", *markdown_table(cells), "", TUNED, ""]
    if study.paragraphs:
        lines += ["## Discussion", "", *(line for text in study.paragraphs for line in (text, ""))]
    lines += _failures(store, study, runs)
    lines += [
        *_same_images(agreement(store, study)),
        *_every_run(runs),
        *(_charts(pictured.sections) if pictured else ()),
        "## How it was made",
        "",
    ]
    made, *settings = provenance(store, study, runs)
    then = [f"then `{command}`" for command in pictured.commands] if pictured else []
    lines += [f"- {line}" for line in (made, *then, *settings)]
    return "\n".join(lines) + "\n"


def _listed(texts: list[str]) -> list[str]:
    """One text as it is, several as a list."""
    return texts if len(texts) == 1 else [f"- {text}" for text in texts]


def _published(study: StudyRecord, summaries: list[VariantSummary]) -> list[str]:
    """The paper's own figures beside these, with what differs in the setting."""
    cells = published_cells(study, summaries)
    if not cells or study.published is None:
        return []
    return [
        "## What the paper found", "",
        f"There: {study.published['setting']}", "", f"Here: {study.published['differs']}", "",
        *markdown_table(cells), "", NOTE, "",
    ]  # fmt: skip


def _charts(sections: Sequence[Section]) -> list[str]:
    lines = []
    for section in sections:
        lines += [
            f"## {section.title}",
            "",
            *(line for note in section.notes for line in (note, "")),
        ]
        for chart in section.charts:
            lines += [f"![{chart.title}]({chart.key}.svg)", ""]
            lines += [f"**{chart.title}.** {chart.caption}", ""]
    return lines


def methods(summaries: list[VariantSummary]) -> str:
    """Name the tests behind the intervals of differences."""
    names = {
        "t": "the paired t-test",
        "bootstrap": "the BCa bootstrap (p-values of the sign-flip permutation test)",
    }
    used = {s.difference.method for s in summaries if s.difference}
    return " or ".join(words for name, words in names.items() if name in (used or {"t"}))


def _failures(store: Store, study: StudyRecord, runs: pd.DataFrame) -> list[str]:
    """Lines that name every run that is not complete or cannot be read, with its reason."""
    failed = runs[runs["status"] != "complete"]
    told = [
        (row["variant"], row["seed"], f"{row['status']}: `{' '.join(str(row['error']).split())}`")
        for row in failed.to_dict("records")
    ]
    wanted = [
        (name, seed, run)
        for name, entry in study.variants.items()
        for seed, run in entry["runs"].items()
    ]
    known = set(runs["run"])
    told += [(name, seed, store.why_absent(run)) for name, seed, run in wanted if run not in known]
    if not told:
        return []
    lines = [f"**{len(told)} of {len(wanted)} runs are not complete:**", ""]
    lines += [f"- {name} seed {seed}: {why}" for name, seed, why in told[:DETAILED_ROWS]]
    left = len(told) - DETAILED_ROWS
    return [*lines, *([f"- … and {left} more"] if left > 0 else []), ""]


def _same_images(found: Agreement) -> list[str]:
    """What McNemar's test says of each seed, with a collapsed row a seed."""
    if not found.comparisons:
        return list(found.notes)
    rows = [list(HEADINGS), *(c.cells for c in found.comparisons[:DETAILED_ROWS])]
    left = len(found.comparisons) - DETAILED_ROWS
    return [
        "## The same test images",
        "",
        *_listed(found.sentences),
        "",
        "<details>",
        f"<summary>The same test images, seed by seed ({len(found.comparisons)})</summary>",
        "",
        READING,
        "",
        *markdown_table(rows),
        *([f"\n… and {left} more."] if left > 0 else []),
        *found.notes,
        "",
        "</details>",
        "",
    ]


def _every_run(runs: pd.DataFrame) -> list[str]:
    """One collapsed table with a row a run."""
    columns = ["variant", "seed", "status", "test_accuracy", "train_accuracy", "seconds", "run"]
    shown = runs[columns].head(DETAILED_ROWS)
    cells = [
        ["-" if _is_missing(v) else f"{v:.4g}" if isinstance(v, float) else str(v) for v in row]
        for row in shown.itertuples(index=False)
    ]
    left = len(runs) - len(shown)
    return [
        "<details>",
        f"<summary>Every run ({len(runs)})</summary>",
        "",
        *markdown_table([columns, *cells]),
        *([f"\n… and {left} more, in the CSV."] if left else []),
        "",
        "</details>",
        "",
    ]


def _is_missing(value: object) -> bool:
    """Whether one cell holds nothing."""
    import pandas as pd

    return bool(pd.isna(value))  # type: ignore[call-overload]


def provenance(store: Store, study: StudyRecord, runs: pd.DataFrame) -> list[str]:
    """Return what a reader needs to check the figures: command, data, machine, commit, date."""
    records = [store.read_run(run) for run in runs["run"].unique()]
    known = [record for record in records if record is not None]
    environments = [r.environment for r in known]
    commits = [e.get("git_commit") for e in environments]
    missing = commits.count(None)
    named = [", ".join(sorted({str(c) for c in commits if c}))] if missing < len(known) else []
    if missing:
        named.append(f"not recorded for {missing} of {len(known)} runs (started in no repository)")
    dirty = any(e.get("git_dirty") for e in environments)
    seeds = ", ".join(str(s) for s in sorted(runs["seed"].unique()))
    return [
        f"command: `bench run-ablation {study.name}`",
        f"data: {', '.join(sorted(set(runs['dataset'])))}; random seeds {seeds}",
        f"machine: {'; '.join(dict.fromkeys(map(_machine, environments)))}",
        f"versions: {'; '.join(dict.fromkeys(map(_versions, environments)))}",
        f"commit: {'; '.join(named)}{' with uncommitted changes' if dirty else ''}",
        (
            f"started: {runs['started_at'].min():%Y-%m-%d %H:%M} UTC; training time of all runs "
            f"together {runs['seconds'].sum():.0f} s{_tuning_time(store, study, runs)}"
        ),
    ]


def _tuning_time(store: Store, study: StudyRecord, runs: pd.DataFrame) -> str:
    """What the runs took that only tuned, and are not among the study's own."""
    records = [store.read_run(run) for run in study.runs - set(runs["run"])]
    seconds = [record.seconds for record in records if record is not None]
    return f", of {len(seconds)} more that only tuned {sum(seconds):.0f} s" if seconds else ""


def _machine(environment: dict[str, Any]) -> str:
    sets = " ".join(environment.get("instruction_sets", ()))
    return (
        f"{environment.get('cpu')} ({sets}), device {environment.get('device')}, "
        f"{environment.get('threads')} thread(s) a run"
    )


def _versions(environment: dict[str, Any]) -> str:
    return ", ".join(f"{name} {environment.get(name)}" for name in ("bench", "torch", "python"))


def markdown_table(rows: list[list[str]]) -> list[str]:
    """Return rows, the first of them headings, as lines of a Markdown table."""
    shown = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    rule = ["---", *["---:"] * (len(rows[0]) - 1)]
    return ["| " + " | ".join(row) + " |" for row in (shown[0], rule, *shown[1:])]
