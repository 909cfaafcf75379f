"""Commands that train, import, export, measure and analyse a study's runs again."""

from __future__ import annotations

import dataclasses
import re
import shlex
from typing import TYPE_CHECKING, Any

from bench.data import list_datasets
from bench.export.settings import Settings
from bench.measurement.configurations import Request
from bench.studies.file import ADHOC, shipped_studies
from bench.studies.recipe import closest_recipe, get_recipe
from bench.studies.run_request import IMPORT_SETTINGS, RunRequest
from bench.targets.network import spell_values

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bench.report.study_data import StudyData
    from bench.store import RunRecord, StudyRecord
    from bench.store.analyses import AnalysisRecord
    from bench.store.exports import ExportRecord
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


def training_commands(data: StudyData) -> list[str]:
    """Return the commands that train a study's runs again, or import them.

    Those of single runs, in the study `adhoc`, are one per run. There is no command for a study
    that was made in Python or started from given weights, nor for a single run that was grown or
    whose file of initial weights is not known.
    """
    records = list(data.records.values())
    imported = sum(record.imported for record in records)
    if data.study.name == ADHOC or imported == len(data.places) == 1:
        made = [_importing(r, data.study.name) if r.imported else _training(r) for r in records]
        return [command for command in made if command is not None]
    file = study_file(data.study)
    if file is None or any(record.request.get("initial_weights") for record in records):
        return []
    seeds = sorted({seed for _, seed in data.places.values()})
    given = {"seeds": ",".join(map(str, seeds)), **data.study.overrides} | _execution(records)
    together = {record.environment.get("workers") for record in records}
    if given.get("threads") != 1 and len(together) == 1:  # by default, as many as there are cores
        given["workers"] = together.pop()
    return [shlex.join(["bench", "run-ablation", file, *_options(given)])]


def study_file(study: StudyRecord) -> str | None:
    """Return the name of a shipped study, or of a study's file; None if it has neither."""
    file = f"{study.name}.toml" if study.file is None else study.file
    stem = file.removesuffix(".toml")
    return (stem if stem in shipped_studies() else file) or None


def _execution(records: Sequence[RunRecord]) -> dict[str, Any]:
    """Return the options of how runs were executed, where it was the same for all of them."""
    names = {"threads": "threads", "compile": "compiled", "cuda_graph": "cuda_graph"}
    found = {
        option: {record.environment.get(name) for record in records}
        for option, name in names.items()
    }
    return {option: values.pop() for option, values in found.items() if len(values) == 1}


def _training(record: RunRecord) -> str | None:
    """Return the command that trains a single run again; None if it cannot be known."""
    request, environment = RunRequest.from_dict(record.request), record.environment
    weights = environment.get("weights_file")
    if request.grown_from or (request.initial_weights and not weights):
        return None
    recipe, changes = closest_recipe(record.request["recipe"])
    settings = {key: getattr(request, key) for key in ("train_images", "mean", "std")}
    native = {info.name: info.size for info in list_datasets()}.get(request.dataset)
    if request.input_size != native:
        settings["input_size"] = request.input_size
    if request.precision != "fp32" or str(environment.get("device")).startswith("cuda"):
        settings["precision"] = request.precision  # the default is that of the device
    given = {
        "dataset": request.dataset,
        "recipe": recipe,
        "seed": request.seed,
        "option": request.options,
        "weights": weights,
        "epochs": request.recipe.epochs,
        "set": {k: v for k, v in (changes | settings).items() if v is not None},
        "deterministic": request.deterministic,
    }
    return shlex.join(["bench", "train", request.model, *_options(given | _execution([record]))])


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
    words += _options({"name": None if name == ADHOC else name})
    return shlex.join(words)


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
        shlex.join(["bench", "export-onnx", data.study.name, *_export_options(record)])
        for record in data.export_records
        if record.row["format"] == "onnx" and record.row["precision"] is not None
    ]
    made += [measuring_command(record) for record in data.measurements]
    analyses = [r for r in data.own_analyses if r.request.get("run") in data.places]
    return list(dict.fromkeys([*made, *_analysing(analyses)]))


def _export_options(record: ExportRecord) -> list[str]:
    """Return the options of an export that are not the default; its precision always."""
    settings, precision = record.request.get("settings", {}), record.row["precision"]
    default = dataclasses.asdict(Settings()) | Settings(precision=precision).as_dict()
    given = {name: v for name, v in settings.items() if name in default and v != default[name]}
    return _options({"precision": precision, **given})


def _analysing(records: Sequence[AnalysisRecord]) -> list[str]:
    """Return the commands that make analyses again, one for all runs where it takes several."""
    runs: dict[tuple[str, tuple[str, ...], str], list[str]] = {}
    for record in records:
        run = str(record.request["run"])
        alone = "" if record.kind in _OF_SEVERAL_RUNS else run
        options = _options({k: v for k, v in record.request.items() if k not in {"run", "weights"}})
        runs.setdefault((record.kind, tuple(options), alone), []).append(run)
    return [
        shlex.join(["bench", kind, *dict.fromkeys(named), *options])
        for (kind, options, _), named in runs.items()
    ]
