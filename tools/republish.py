"""Write the answer, tables and figure of published pages again, from the data beside them.

    python tools/republish.py [STUDY …]

Everything that is derived from the CSV files alone is rewritten: the answer, the tables of variants
and comparisons (also as `comparisons.csv`), the paper's table, the discussion of the study file,
and the charts. What the stored predictions said is in the page (counts, from which p-values follow)
and in `comparisons.csv` (shares, and intervals for new test images, which are left out where the
decision rule is another one since). What needs the results folder (rooflines, latencies,
provenance) stays as it is.
"""

from __future__ import annotations

import argparse
import math
import re
from pathlib import Path
from typing import Any

import pandas as pd

from bench.report.charts.draw_matplotlib import draw_row, save_charts, save_figure
from bench.report.findings.agreement import Agreement, Discordance, SeedComparison
from bench.report.findings.wording import DOUBTS, formula
from bench.report.pages.markdown import markdown, picture
from bench.report.pages.sections import further
from bench.report.pages.study_report import StudyReport
from bench.report.study_data import StudyData
from bench.store import RunRecord, Store, StudyRecord
from bench.store.tables.columns import COLUMNS, Table, typed_frame
from bench.store.tables.frames import ANALYSED, newest
from bench.studies import load_study

RESULTS = Path(__file__).parents[1] / "results"
FIGURES = (
    "test_accuracy",
    "train_accuracy",
    "validation_accuracy",
    "parameters",
    "macs",
    "images_per_second",
)
_PAIR = re.compile(r"^\| (\S+) \| (\S+) \| (\d+) \| ([\d,]+) \| (\d+) \| (\d+) \| \S+ \|$", re.M)
_BEGIN_LATER = "\n## How it was made\n"


def read(folder: Path) -> StudyData:
    """Read a published study back, as far as its CSV files and its study file have it."""
    file = load_study(folder.name)
    frame = pd.read_csv(folder / "runs.csv")
    variants, varied = {}, {}
    for variant in file.expand().variants:
        rows = frame[frame["variant"] == variant.name]
        runs = {str(s): run for s, run in zip(rows["seed"], rows["run"], strict=True)}
        variants[variant.name] = {"reference": variant.reference, "runs": runs}
        recipe = next(iter(variant.requests.values())).recipe
        varied[variant.name] = {"recipe": {"seed_varies": recipe.seed_varies}}
    records = {row["run"]: _record(row, varied[row["variant"]]) for row in frame.to_dict("records")}
    study = StudyRecord(
        folder.name,
        file.study.question,
        variants,
        source=file.study.source,
        compare_training=file.study.compare_training,
        published=file.study.published.model_dump() if file.study.published else None,
        discussion=file.study.discussion,
        declared_seeds=file.study.base.seeds,
        earlier_looks=file.study.earlier_looks,
        primary=file.study.primary.model_dump() if file.study.primary else None,
        margin=file.study.margin,
        contrasts={contrast.name: contrast.weights for contrast in file.study.contrast},
        test=file.study.test,
    )
    data = StudyData(Store(folder / "no-results-folder"), study)
    # Instead of reading the results folder that the study was published from.
    vars(data)["records"] = records
    vars(data)["runs"] = typed_frame(frame.to_dict("records"), COLUMNS["runs"])
    vars(data)["epochs"] = _table(folder, "epochs")
    vars(data)["throughput"] = _table(folder, "throughput")
    vars(data)["analysed"] = {name: newest(_table(folder, name)) for name in ANALYSED}
    vars(data)["agreement"] = _agreement(folder, data)
    return data


def _agreement(folder: Path, data: StudyData) -> Agreement:
    """Return what the stored predictions said, of the comparisons as they are tested today."""
    pairs = [
        SeedComparison(
            v, r, int(seed), Discordance(int(n.replace(",", "")), int(ours), int(theirs))
        )
        for v, r, seed, n, ours, theirs in _PAIR.findall((folder / "README.md").read_text())
    ]
    tested = {one.name: one.difference for one in (*data.summaries, *data.contrasts)}
    new_images, not_given, among_seeds = {}, {}, {}
    rows = pd.read_csv(folder / "comparisons.csv").to_dict("records")
    published = pd.DataFrame(rows, columns=list(COLUMNS["comparisons"]))
    for row in published[published["accuracy"] == "test"].to_dict("records") if pairs else ():
        name = row["variant"] if isinstance(row["variant"], str) else row["contrast"]
        if not math.isnan(row["discordant_seeds"]):
            among_seeds[row["reference"]] = row["discordant_seeds"]
        now = tested.get(name)
        if now is None or now.low is None or now.high is None:
            continue
        before = (row["level"], row["ci_low"], row["ci_high"])
        same_rule = all(map(math.isclose, before, (now.level, *(now.possible or ()))))
        if now.doubt is not None:
            not_given[name] = DOUBTS[now.doubt]
        elif same_rule and not math.isnan(row["new_images_low"]):
            new_images[name] = (now.mean, row["new_images_low"], row["new_images_high"])
    return Agreement(
        tuple(pairs),
        among_seeds,
        (),
        new_images,
        not_given,
        {name: formula(weights) for name, weights in data.study.contrasts.items()},
        next((name for name, one in tested.items() if one and one.alone), None),
    )


def _table(folder: Path, name: Table) -> pd.DataFrame:
    path = folder / f"{name}.csv"
    rows = pd.read_csv(path).to_dict("records") if path.is_file() else []
    return typed_frame(rows, COLUMNS[name])


def _record(row: dict[Any, Any], request: dict[str, Any]) -> RunRecord:
    result = {**{name: row[name] for name in FIGURES}, "classes": [None] * 10}
    run, status = str(row["run"]), str(row["status"])
    error = row["error"] if isinstance(row["error"], str) else None
    return RunRecord(
        run, request, status, {}, row["started_at"], row["seconds"], result=result, error=error
    )


def republish(folder: Path) -> None:
    """Write the derived parts of one page again."""
    page = folder / "README.md"
    text = page.read_text(encoding="utf-8")
    report = StudyReport(read(folder))
    vars(report)["commands"] = []
    vars(report)["provenance"] = []
    vars(report)["further"] = []
    new = markdown(report, pictures=True).split(_BEGIN_LATER)[0]
    text = _joined(text, new)
    for chart in (chart for section in further(report.data) for chart in section.charts):
        shown = re.compile(rf"!\[[^\n]*\]\({chart.key}\.svg\)\n\n[^\n]*\n")
        if shown.search(text):
            text = shown.sub(lambda _, c=chart: "\n".join(picture(c)), text)
            save_charts([chart], folder)
    page.write_text(text, encoding="utf-8")
    save_figure(draw_row(report.overview), folder, "study")
    (folder / "comparisons.csv").write_text(report.data.comparisons.to_csv(index=False))


def _joined(old: str, new: str) -> str:
    """Take the new head and detail tables; keep the old page's tuning, charts and provenance."""
    runs = "</details>\n"
    tail = old[old.index("<summary>Every run") :]
    tail = tail[tail.index(runs) + len(runs) :]
    if tuned := re.search(r"## What was tuned\n.*?(?=\n(## [^\n]*))", old, re.S):
        place = new.index("## Discussion" if "\n## Discussion\n" in new else tuned[1])
        new = f"{new[:place]}{tuned[0]}\n{new[place:]}"
    end = new.rindex(runs) + len(runs)
    return new[:end] + tail


if __name__ == "__main__":
    published = sorted(path.parent.name for path in RESULTS.glob("*/epochs.csv"))
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("study", nargs="*", metavar="STUDY", help=f"of {', '.join(published)}")
    wanted = parser.parse_args().study
    if unknown := set(wanted) - set(published):
        parser.error(f"not published: {', '.join(sorted(unknown))}")
    for name in wanted or published:
        republish(RESULTS / name)
        print(RESULTS / name)
