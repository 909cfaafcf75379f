"""How many intervals of one real command cover what all its repetitions find together?

    python tools/repetitions.py --output r.json -- resnet20 --batch-size 32

Everything after `--` goes to `bench throughput`. Of intervals at 95 % that only had to cover
the noise within one process, nineteen of twenty would; what differs between processes (where
memory lies, what else the machine does) comes on top, and this shows how much it is.
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
from typing import Any

from bench.report.tables.text_table import TextTable
from bench.system.environment import describe_environment


def repeat(arguments: list[str], folder: str) -> list[dict[str, Any]]:
    """Run the command once; returns its complete rows."""
    words = ["-c", "import bench.cli; bench.cli.main()", "throughput", *arguments]
    command = [sys.executable, *words, "--results", folder, "--json", "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    document = json.loads(done.stdout)
    rows = document["rows"] if isinstance(document, dict) else document
    return [row for row in rows if row["status"] == "complete"]


def coverage(repetitions: list[dict[str, Any]]) -> dict[str, Any]:
    """Compare one configuration's intervals with the median of all repetitions.

    Those of its images/s, and those of its ratio to the reference, which drift less.
    """
    rates = [row["images_per_second"] for row in repetitions]
    grand = statistics.median(rates)
    covered = [row["ci_low"] <= grand <= row["ci_high"] for row in repetitions]
    return _ratios(repetitions) | {
        "configuration": "{backend} {precision} {memory_format} batch {batch_size}".format_map(
            repetitions[0]
        ),
        "grand_median_images_per_second": grand,
        "intervals": len(covered),
        "covering": sum(covered),
        "noisy": sum(row["noisy"] for row in repetitions),
        "half_width_median": statistics.median(row["width"] for row in repetitions),
        "spread_of_medians": (max(rates) - min(rates)) / grand,
        "images_per_second": rates,
        "ci": [[row["ci_low"], row["ci_high"]] for row in repetitions],
    }


def _ratios(repetitions: list[dict[str, Any]]) -> dict[str, Any]:
    if any(row["ratio"] is None or row["difference"] == "reference" for row in repetitions):
        return {}
    ratios = [row["ratio"] for row in repetitions]
    grand = statistics.median(ratios)
    return {
        "grand_median_ratio": grand,
        "ratios_covering": sum(r["ratio_low"] <= grand <= r["ratio_high"] for r in repetitions),
        "spread_of_ratios": (max(ratios) - min(ratios)) / grand,
        "ratios": [[r["ratio"], r["ratio_low"], r["ratio_high"]] for r in repetitions],
    }


def page(document: dict[str, Any]) -> str:
    """Return the counts as Markdown, with what made them."""
    cells = [["configuration", "intervals that cover the grand median", "median half-width",
              "spread of the medians", "noisy",
              "ratios that cover their grand median", "spread of the ratios"]]  # fmt: skip
    cells += [
        [
            row["configuration"], f"{row['covering']} of {row['intervals']}",
            f"{row['half_width_median']:.1%}", f"{row['spread_of_medians']:.1%}", str(row["noisy"]),
            f"{row['ratios_covering']} of {row['intervals']}" if "ratios" in row else "reference",
            f"{row['spread_of_ratios']:.1%}" if "ratios" in row else "",
        ]
        for row in document["results"]
    ]  # fmt: skip
    made = document["environment"]
    table = TextTable(tuple(cells[0]), tuple(map(tuple, cells[1:])))
    lines = [
        "# One command, repeated", "", *table.to_markdown(), "",
        f"- command, repeated: `{document['command']}`",
        f"- machine: {made['cpu']} ({' '.join(made['instruction_sets'])})",
        f"- commit: {made['git_commit']}; {document['created_at']}",
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def main() -> None:
    """Repeat, count, write a JSON file."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--repetitions", type=int, default=20)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("arguments", nargs="+", help="of bench throughput, after --")
    given = parser.parse_args()
    found: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(given.repetitions):
            for row in repeat(given.arguments, folder):
                key = (row["model"], row["backend"], row["precision"], row["memory_format"],
                       row["batch_size"])  # fmt: skip
                found.setdefault(key, []).append(row)
            print(f"{number + 1} of {given.repetitions}", file=sys.stderr)
    results = [coverage(rows) for rows in found.values()]
    for result in results:
        show = {k: v for k, v in result.items() if k not in {"images_per_second", "ci", "ratios"}}
        print(json.dumps(show), file=sys.stderr)
    document = {
        "command": f"bench throughput {shlex.join(given.arguments)}",
        "results": results,
        "environment": describe_environment("cpu", threads=0),
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    given.output.write_text(json.dumps(document, indent=1) + "\n")
    given.output.with_suffix(".md").write_text(page(document))


if __name__ == "__main__":
    main()
