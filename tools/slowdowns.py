"""How many slowdowns does a measurement find?

    python tools/slowdowns.py --output results/throughput/slowdowns.json -- resnet20 --batch-size 32

Everything after `--` goes to `bench throughput`, which measures ONNX Runtime beside backends that
do the same and then sleep: not at all, for a twentieth, or for a tenth of the time that it took.
Each of them is a trial, judged by its ratio to ONNX Runtime as `bench compare MEASUREMENT` does.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from repetitions import made_by

from bench.measurement.backends.onnxruntime import OnnxRuntime
from bench.measurement.compared_speeds import speeds_of
from bench.measurement.speed_changes import judge
from bench.report.tables.text_table import TextTable
from bench.system.environment import describe_environment

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.measurement.backends.protocol import Executed, Needs, Prepared, Support, Workload

THRESHOLDS = (0.01, 0.02, 0.05)
SLOWDOWNS = {"same": 0.0, "by5": 0.05, "by10": 0.1}
COPIES = 8


class Sleeping:
    """ONNX Runtime on a CPU, which sleeps after each batch for a share of its time."""

    name = ""
    needs: Needs = OnnxRuntime.needs
    memory_formats = OnnxRuntime.memory_formats
    share = 0.0

    def support(self) -> list[Support]:
        """Return what ONNX Runtime supports on a CPU."""
        return [one for one in OnnxRuntime().support() if one.device == "cpu"]

    def prepare(self, workload: Workload) -> SleepingPrepared:
        """Open the file."""
        return SleepingPrepared(OnnxRuntime().prepare(workload), self.share)


@dataclass
class SleepingPrepared:
    """A session that sleeps after each batch."""

    inner: Prepared
    share: float

    def upload(self, images: Any) -> Any:
        """Return what the session reads."""
        return self.inner.upload(images)

    def infer(self, batch: Any) -> Any:
        """Run one batch, then sleep; the last 0.2 ms are polled, since a sleep can be longer."""
        begun = time.perf_counter()
        output = self.inner.infer(batch)
        end = begun + (time.perf_counter() - begun) * (1 + self.share)
        while (left := end - time.perf_counter()) > 0:
            time.sleep(max(0.0, left - 2e-4))
        return output

    def download(self, output: Any) -> Any:
        """Return the logits."""
        return self.inner.download(output)

    def synchronize(self) -> None:
        """Return at once."""
        self.inner.synchronize()

    def describe(self) -> Executed:
        """Return what the session says."""
        return self.inner.describe()


def backends() -> dict[str, type[Sleeping]]:
    """Return the copies of each slowdown by their names."""
    names = {f"{kind}x{copy}": s for kind, s in SLOWDOWNS.items() for copy in range(COPIES)}
    return {name: type(name, (Sleeping,), {"name": name, "share": s}) for name, s in names.items()}


globals().update(backends())  # where their entry points find them


def install(site: Path) -> None:
    """Write what an installed package with these backends would have."""
    package = site / "slowdowns-1.0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: slowdowns\nVersion: 1.0\n")
    lines = [f"{name} = slowdowns:{name}" for name in backends()]
    (package / "entry_points.txt").write_text("[bench.backends]\n" + "\n".join(lines) + "\n")


def measure(words: Sequence[str], site: Path) -> list[dict[str, Any]]:
    """Run `bench throughput` once; returns its rows."""
    names = ["onnxruntime", *backends()]
    given = [*words, *(part for name in names for part in ("--backend", name))]
    more = ["--reference", "onnxruntime", "--results", str(site / "results"), "--json", "--quiet"]
    program = [sys.executable, "-c", "import bench.cli; bench.cli.main()", "throughput"]
    paths = (str(site), str(Path(__file__).parent), os.environ.get("PYTHONPATH", ""))
    done = subprocess.run(
        [*program, *given, *more], capture_output=True, text=True, check=False,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))},
    )  # fmt: skip
    if done.returncode:
        sys.exit(f"{shlex.join(given)}: exit code {done.returncode}: {done.stderr.strip()}")
    rows: list[dict[str, Any]] = json.loads(done.stdout)["rows"]
    return rows


def verdicts(rows: list[dict[str, Any]]) -> dict[str, dict[str, list[str]]]:
    """Judge a measurement: threshold → kind of slowdown → the verdict of each copy."""
    found: dict[str, dict[str, list[str]]] = {}
    for threshold in THRESHOLDS:
        kinds = found.setdefault(f"{threshold:g}", {kind: [] for kind in SLOWDOWNS})
        for change in judge(speeds_of("measured", rows), threshold)[0]:
            for name in backends().keys() & set(change.configuration.split(" / ")):
                kinds[name.partition("x")[0]].append(change.verdict)
    return found


def page(document: dict[str, Any]) -> str:
    """Return the measured slowdowns and the counts as Markdown, with what made them."""
    rows = [("more time (median)", *(_more_time(document, kind) for kind in SLOWDOWNS))]
    for threshold in THRESHOLDS:
        found = [one["verdicts"][f"{threshold:g}"] for one in document["measurements"]]
        cells = []
        for kind, share in SLOWDOWNS.items():
            counts = Counter(verdict for one in found for verdict in one[kind])
            alarms = counts["slower"] + (0 if share else counts["faster"])
            cells.append(f"{alarms} of {counts.total() - counts['not judged']}")
        rows.append((f"{threshold:g}", *cells))
    heads = ("threshold", "no sleep", "sleep of 5 %", "sleep of 10 %")
    lines = [
        "# Injected slowdowns", "",
        "How much more time than ONNX Runtime the backends beside it take, and how many of those",
        "that are judged are called slower at each threshold (without sleep: slower or faster).",
        "The time is measured: it is more than the sleep alone adds.", "",
        *TextTable(heads, tuple(rows)).to_markdown(), "",
        f"- measurements: {len(document['measurements'])}, {COPIES} backends of each kind in each",
        f"- command: `{document['command']}`",
        *made_by(document),
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def _more_time(document: dict[str, Any], kind: str) -> str:
    """Return the median over all copies, in % of ONNX Runtime's time."""
    ratios = [
        row["ratio"]
        for one in document["measurements"]
        for row in one["ratios"]
        if row["backend"].partition("x")[0] == kind and row["ratio"] is not None
    ]
    return f"{100 * (1 / statistics.median(ratios) - 1):z.1f} %" if ratios else ""


def main() -> None:
    """Measure, and write the verdicts as JSON and Markdown after each measurement."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--measurements", type=int, default=6)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("arguments", nargs="+", help="of bench throughput, after --")
    given = parser.parse_args()
    found = []
    for _ in range(given.measurements):
        with tempfile.TemporaryDirectory() as folder:
            install(Path(folder))
            rows = measure(given.arguments, Path(folder))
        ends = ("backend", "batch_size", "ratio", "ratio_low", "ratio_high", "processes")
        ratios = [{end: row[end] for end in ends} for row in rows]
        found.append({"verdicts": verdicts(rows), "ratios": ratios})
        document = {
            "command": f"python tools/slowdowns.py -- {shlex.join(given.arguments)}",
            "measurements": found,
            "environment": describe_environment("cpu", threads=rows[0]["threads"]),
            "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        given.output.write_text(json.dumps(document, indent=1) + "\n")
        given.output.with_suffix(".md").write_text(page(document))
        print(page(document), flush=True)


if __name__ == "__main__":
    main()
