"""Commands that train, import, export, measure and analyse a study's runs again."""

from __future__ import annotations

import dataclasses
import re
import shlex
from typing import TYPE_CHECKING, Any

from bench.measurement.configurations import Request
from bench.studies.file import shipped_studies
from bench.studies.recipe import get_recipe
from bench.studies.run_request import IMPORT_SETTINGS
from bench.targets.network import spell_values

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bench.report.study_data import StudyData
    from bench.store import RunRecord
    from bench.store.analyses import AnalysisRecord
    from bench.store.measurements import MeasurementRecord

_OF_SEVERAL_RUNS = ("gradients", "landscape")
# What fields of a measurement's request are called on the command line.
_RENAMED = {
    "backends": "backend",
    "precisions": "precision",
    "batch_sizes": "batch-size",
    "memory_formats": "memory-format",
    "boundaries": "boundary",
    "latency_bound_ms": "max-latency-ms",
    "options": "option",
}
_NO_OPTION = {"seed", "bounded"}  # fields that no option sets: `bench tune` asks for bounds


def training_command(data: StudyData) -> str:
    """Return the command that trains a study's runs again, or imports its one run.

    A study that is not shipped is named by its file.
    """
    imported = [record for record in data.records.values() if record.imported]
    if len(imported) == len(data.places) == 1:
        return _importing(imported[0], data.study.name)
    seeds = sorted({seed for _, seed in data.places.values()})
    name = data.study.name
    study = name if name in shipped_studies() else f"{name}.toml"
    return shlex.join(["bench", "run-ablation", study, "--seeds", ",".join(map(str, seeds))])


def _importing(record: RunRecord, name: str) -> str:
    """Return the command that imports a run's network again."""
    request, weights = record.request, record.environment.get("weights_file")
    words = ["bench", "import", request["model"], "--dataset", request["dataset"]]
    words += ["--weights", weights] if weights else []
    words += _options({"option": request["options"]})
    # Those of `IMPORT_SETTINGS` that differ from an import's defaults.
    defaults = {**get_recipe("fast").model_dump(mode="json"), "precision": "fp32"}
    given = {key: ({**request["recipe"], **request}).get(key) for key in IMPORT_SETTINGS}
    words += _options({"set": {k: v for k, v in given.items() if v not in (None, defaults.get(k))}})
    return shlex.join([*words, "--name", name])


def measuring_command(record: MeasurementRecord) -> str:
    """Return the command that measures this again, where the same targets are found."""
    # Records from before there were several processes do not name their number.
    request = {"processes": 1} | _named(record.request) | record.request
    if isinstance(request.get("input_size"), list):
        request["input_size"] = "x".join(map(str, request["input_size"]))
    defaults = {field.name: field.default for field in dataclasses.fields(Request)}
    changed = {
        _RENAMED.get(name, name): request[name]
        for name, default in defaults.items()
        if name not in _NO_OPTION and request.get(name, default) not in (default, _listed(default))
    }
    words = _options({**changed, "threads": record.environment.get("threads")})
    return shlex.join(["bench", "throughput", *request["names"], *words])


def _named(request: Mapping[str, Any]) -> dict[str, Any]:
    """Return names and options of targets from their labels, for records that lack them."""
    parts = [
        [label] if label.lower().endswith((".onnx", ".engine")) else label.split(" ")
        for label in request.get("targets", [])
    ]
    words = dict.fromkeys(word for _, *options in parts for word in options)
    as_toml = [re.sub(r"=(True|False)$", lambda found: found[0].lower(), word) for word in words]
    return {"names": [name for name, *_ in parts], "options": as_toml}


def _listed(value: Any) -> Any:
    """Return a tuple as JSON has it."""
    return list(value) if isinstance(value, tuple) else value


def _options(values: Mapping[str, Any]) -> list[str]:
    """Return values as a command's options; of a list, one per value, of a table, one per key."""
    words: list[str] = []
    for name, value in values.items():
        option = f"--{name.replace('_', '-')}"
        if value is True:
            words.append(option)
        elif value is not False and value is not None:
            several = spell_values(value) if isinstance(value, dict) else value
            several = several if isinstance(several, list | tuple) else [several]
            words += [word for one in several for word in (option, str(one))]
    return words


def analysing_commands(data: StudyData) -> list[str]:
    """Return the commands that export, measure and analyse a study's runs again."""
    made = [
        shlex.join(["bench", "export-onnx", data.study.name, "--precision", str(row["precision"])])
        for row in (record.row for record in data.export_records)
        if row["format"] == "onnx" and row["precision"] is not None
    ]
    made += [measuring_command(record) for record in data.measurements]
    analyses = [r for r in data.analyses[0] if r.request.get("run") in data.places]
    return list(dict.fromkeys([*made, *_analysing(analyses)]))


def _analysing(records: Sequence[AnalysisRecord]) -> list[str]:
    """Return the commands that make analyses again, one for all runs where it takes several."""
    runs: dict[tuple[str, tuple[str, ...], str], list[str]] = {}
    for record in records:
        run = str(record.request["run"])
        alone = "" if record.kind in _OF_SEVERAL_RUNS else run
        options = _options({k: v for k, v in record.request.items() if k != "run"})
        runs.setdefault((record.kind, tuple(options), alone), []).append(run)
    return [
        shlex.join(["bench", kind, *dict.fromkeys(named), *options])
        for (kind, options, _), named in runs.items()
    ]
