"""How many intervals of one real command cover the mean of many processes?

    python tools/repetitions.py --output results/throughput/repetitions.json -- resnet20

Everything after `--` goes to `bench throughput`. The command is repeated twenty times. After each
repetition two more processes measure the same, so that forty in all are spread over the same time;
the geometric mean over them stands for the truth.
"""

from __future__ import annotations

import argparse
import json
import shlex
import statistics
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.measurement.configurations import Request
from bench.report.tables.text_table import TextTable
from bench.system.environment import describe_environment
from bench.system.intervals import FEWEST_PROCESSES

if TYPE_CHECKING:
    from collections.abc import Sequence

# Columns by which `bench compare` judges a row, so that it can be replayed.
JUDGED = (
    *("images_per_second", "ci_low", "ci_high", "repeat_low", "repeat_high", "processes"),
    *("ratio", "ratio_low", "ratio_high", "reference", "difference"),
    *("noisy", "other_processes", "warnings"),
)


def measure(arguments: Sequence[str], folder: str) -> dict[str, dict[str, Any]]:
    """Run `bench throughput` once; returns its complete rows by configuration."""
    words = ["-c", "import bench.cli; bench.cli.main()", "throughput", *arguments]
    command = [sys.executable, *words, "--results", folder, "--json", "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{shlex.join(command)}: exit code {done.returncode}: {done.stderr.strip()}")
    rows = json.loads(done.stdout)["rows"]
    names = "{model} {backend} {precision} {memory_format} batch {batch_size}"
    return {names.format_map(row): row for row in rows if row["status"] == "complete"}


def coverage(
    name: str, repetitions: Sequence[dict[str, Any]], others: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """Count one configuration's intervals that cover the mean of other processes.

    Args:
        name: of the configuration.
        repetitions: its row in each repetition.
        others: its rows of the other processes, each the mean of equally many.
    """
    rates = [row["images_per_second"] for row in repetitions]
    grand = statistics.geometric_mean(row["images_per_second"] for row in others)
    ends = [
        (row.get("repeat_low") or row["ci_low"], row.get("repeat_high") or row["ci_high"])
        for row in repetitions
    ]
    return _ratios(repetitions, others) | {
        "configuration": name,
        "grand_images_per_second": grand,
        "processes_of_grand": sum(row["processes"] for row in others),
        "processes": [row["processes"] for row in repetitions],
        "intervals": len(repetitions),
        "covering": sum(low <= grand <= high for low, high in ends),
        "noisy": sum(row["noisy"] for row in repetitions),
        "half_width_median": statistics.median(
            (high - low) / 2 / rate for (low, high), rate in zip(ends, rates, strict=True)
        ),
        "spread": (max(rates) - min(rates)) / grand,
        "images_per_second": rates,
        "ci": ends,
        "rows": [{name: row.get(name) for name in JUDGED} for row in repetitions],
    }


def _ratios(
    repetitions: Sequence[dict[str, Any]], others: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    rows = [*repetitions, *others]
    if any(row["ratio"] is None or row["difference"] == "reference" for row in rows):
        return {}
    ratios = [row["ratio"] for row in repetitions]
    grand = statistics.geometric_mean(row["ratio"] for row in others)
    return {
        "grand_ratio": grand,
        "ratios_covering": sum(r["ratio_low"] <= grand <= r["ratio_high"] for r in repetitions),
        "spread_of_ratios": (max(ratios) - min(ratios)) / grand,
        "ratios": [[r["ratio"], r["ratio_low"], r["ratio_high"]] for r in repetitions],
    }


def page(document: dict[str, Any]) -> str:
    """Return the counts as Markdown, with what made them."""
    heads = ("configuration", "ratios that cover the mean", "spread of the ratios",
             "images/s that cover the mean", "median half-width", "spread of images/s",
             "processes (median)", "noisy")  # fmt: skip
    rows = [
        (
            row["configuration"],
            f"{row['ratios_covering']} of {row['intervals']}" if "ratios" in row else "reference",
            f"{row['spread_of_ratios']:.1%}" if "ratios" in row else "",
            f"{row['covering']} of {row['intervals']}",
            f"{row['half_width_median']:.1%}",
            f"{row['spread']:.1%}",
            f"{statistics.median(row['processes']):g}",
            str(row["noisy"]),
        )
        for row in document["results"]
    ]
    grand = max((row["processes_of_grand"] for row in document["results"]), default=0)
    lines = [
        "# One command, repeated", "", *TextTable(heads, tuple(rows)).to_markdown(), "",
        f"The mean is the geometric one of {grand} other processes, spread over the same time.", "",
        f"- command, repeated: `{document['command']}`",
        *made_by(document),
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def made_by(document: dict[str, Any]) -> list[str]:
    """Return the machine, the commit and the time of what a program of this folder published."""
    made = document["environment"]
    return [
        f"- machine: {made['cpu']} ({' '.join(made['instruction_sets'])})",
        f"- commit: {made['git_commit']}; {document['created_at']}",
    ]


def main() -> None:
    """Repeat the command, and write the counts as JSON and Markdown after each repetition."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--repetitions", type=int, default=20)
    parser.add_argument("--others", type=int, default=2, help="processes after each repetition")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("arguments", nargs="+", help="of bench throughput, after --")
    given = parser.parse_args()
    if any(word.partition("=")[0] == "--max-seconds" for word in given.arguments):
        parser.error("--max-seconds: it is the default, so that all processes take equally long")
    found: dict[str, list[dict[str, Any]]] = {}
    others: dict[str, list[dict[str, Any]]] = {}
    # As long in each process as in a repetition: a longer warm-up would be another quantity.
    seconds = Request().max_seconds * given.others / FEWEST_PROCESSES
    more = ["--max-seconds", f"{seconds:g}", *given.arguments, "--processes", str(given.others)]
    with tempfile.TemporaryDirectory() as folder:
        for number in range(given.repetitions):
            for name, row in measure(given.arguments, folder).items():
                found.setdefault(name, []).append(row)
            for name, row in measure(more, folder).items():
                others.setdefault(name, []).append(row)
            document = {
                "command": f"bench throughput {shlex.join(given.arguments)}",
                "results": [coverage(name, found[name], others[name]) for name in others],
                "environment": describe_environment("cpu", threads=0),
                "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
            }
            given.output.write_text(json.dumps(document, indent=1) + "\n")
            given.output.with_suffix(".md").write_text(page(document))
            print(f"{number + 1} of {given.repetitions}", file=sys.stderr)


if __name__ == "__main__":
    main()
