"""What a reader needs to check a page: environment, commands, and what failed."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

from bench.report.pages.measurements import command

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bench.report.study_data import Material
    from bench.store.analyses import AnalysisRecord

_SETTINGS = (
    "cpu", "instruction_sets", "device", "gpu", "driver", "cuda", "cudnn", "threads", "bench",
    "torch", "numpy", "python", "platform", "memory_format", "compiled", "git_commit", "git_dirty",
)  # fmt: skip

_OF_SEVERAL_RUNS = ("gradients", "landscape")


def environment(material: Material) -> list[tuple[str, str]]:
    """Settings of the runs' machines; where runs differ, every value."""
    rows = []
    for key in _SETTINGS:
        values = [r.environment.get(key) for r in material.records.values()]
        shown = dict.fromkeys(_text(v) for v in values if v is not None)
        if shown:
            rows.append((key.replace("_", " "), "; ".join(shown)))
    started = material.runs["started_at"].dropna()
    if len(started):
        rows.append(
            ("runs started", f"{started.min():%Y-%m-%d %H:%M} to {started.max():%H:%M} UTC")
        )
        seconds = material.runs["seconds"].sum()
        rows.append(("training time of all runs together", f"{seconds:,.0f} s"))
    data = dict.fromkeys(map(str, material.runs["dataset"].dropna()))
    recipes = dict.fromkeys(map(str, material.runs["recipe"].dropna()))
    epochs = dict.fromkeys(map(str, material.runs["epochs"].dropna()))
    rows += [
        ("data", "; ".join(data)),
        ("recipe", "; ".join(recipes)),
        ("epochs", ", ".join(epochs)),
    ]
    return [(name, text) for name, text in rows if text]


def commands(material: Material) -> list[str]:
    """Commands that make these results again, from what is recorded."""
    seeds = sorted({seed for _, seed in material.places.values()})
    name = material.study.name
    trained = ["bench", "run-ablation", name, "--seeds", ",".join(map(str, seeds))]
    shown = ["bench", "report", name, "--format", "html"]
    return [shlex.join(trained), *further_commands(material), shlex.join(shown)]


def further_commands(material: Material) -> list[str]:
    """Commands that export, measure and look into a study's runs as was done here."""
    name = material.study.name
    exported = material.exports[material.exports["format"] == "onnx"]
    made = [
        shlex.join(["bench", "export-onnx", name, "--precision", precision])
        for precision in dict.fromkeys(map(str, exported["precision"].dropna()))
    ]
    made += [command(record) for record in material.measurements]
    analyses = [r for r in material.analyses[0] if r.request.get("run") in material.places]
    return list(dict.fromkeys([*made, *_analysing(analyses)]))


def _analysing(records: Sequence[AnalysisRecord]) -> list[str]:
    """Return the commands that make analyses again, one for all runs where it takes several."""
    runs: dict[tuple[str, str, str], list[str]] = {}
    for record in records:
        run = str(record.request["run"])
        alone = "" if record.kind in _OF_SEVERAL_RUNS else run
        runs.setdefault((record.kind, _options(record.request), alone), []).append(run)
    return [
        " ".join(filter(None, ["bench", kind, *named, options]))
        for (kind, options, _), named in runs.items()
    ]


def _options(request: Mapping[str, Any]) -> str:
    words: list[str] = []
    for name, value in request.items():
        flag = f"--{name.replace('_', '-')}"
        if value is True:
            words.append(flag)
        elif name != "run" and value is not False and value is not None:
            words += [flag, str(value)]
    return shlex.join(words)


def failures(material: Material) -> list[dict[str, str]]:
    """Everything that was tried and did not end well, or has not ended yet."""
    rows = []
    known = set(material.runs["run"])
    for _, row in material.runs[material.runs["status"] != "complete"].iterrows():
        what = f"training {row['variant']}, seed {row['seed']}"
        rows.append(_failure(what, row["status"], row["error"]))
    for run, (variant, seed) in material.places.items():
        if run not in known:
            rows.append(
                _failure(
                    f"training {variant}, seed {seed}",
                    "not there",
                    material.store.why_absent(run),
                )
            )
    exports = material.exports[material.exports["status"] != "complete"]
    for _, row in exports.iterrows():
        rows.append(
            _failure(f"export of {row['run']} in {row['precision']}", row["status"], row["error"])
        )
    measured = material.throughput[material.throughput["status"] != "complete"]
    for _, row in measured.iterrows():
        what = f"{row['backend']} {row['precision']}, batch {row['batch_size']}, of {row['run']}"
        rows.append(_failure(what, row["status"], row["error"]))
    return rows


def _failure(what: str, status: Any, error: Any) -> dict[str, str]:
    reason = error if isinstance(error, str) and error else "no reason recorded"
    return {"what": what, "status": str(status).replace("_", " "), "why": reason}


def _text(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
