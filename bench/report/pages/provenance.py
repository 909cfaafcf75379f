"""What a reader needs to check a report: data, machines, and what failed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from bench.report.study_data import StudyData

_GPU = ("gpu", "driver", "cuda", "cudnn")
_PACKAGES = ("bench", "torch", "numpy", "python")


@dataclass(frozen=True)
class Failure:
    """Something that did not end well, or has not ended yet.

    Attributes:
        what: what was tried.
        status: how it ended.
        why: the reason, in one line.
        run: the run that is not complete; None for an export or a measurement.
        recorded: whether the run has a record at all.
    """

    what: str
    status: str
    why: str
    run: str | None = None
    recorded: bool = True


def failures(data: StudyData) -> list[Failure]:
    """Return every training, export and measurement that did not end well, or has not ended yet.

    What a backend does not support is no failure (`unsupported`).
    """
    found = []
    for run, (variant, seed) in data.places.items():
        what, record = f"training {variant}, seed {seed}", data.records.get(run)
        if record is None:
            why = data.store.why_absent(run)
            found.append(Failure(what, "not there", why, run, recorded=False))
        elif record.status != "complete":
            found.append(_failure(what, record.status, record.error, run))
    for exported in (record.row for record in data.export_records):
        if exported["status"] != "complete":
            what = f"export of {exported['run']} in {exported['precision']}"
            found.append(_failure(what, exported["status"], exported.get("error")))
    failed = data.throughput[~data.throughput["status"].isin(["complete", "unsupported"])]
    for row in failed.to_dict("records"):
        what = f"{row['backend']} {row['precision']}, batch {row['batch_size']}, of {row['run']}"
        found.append(_failure(what, row["status"], row["error"]))
    return found


def unsupported(data: StudyData) -> list[str]:
    """Return why backends were left out of measurements of the study's networks."""
    rows = data.throughput
    return list(dict.fromkeys(rows[rows["status"] == "unsupported"]["error"].dropna()))


def _failure(what: str, status: Any, error: Any, run: str | None = None) -> Failure:
    reason = " ".join(error.split()) if isinstance(error, str) else ""
    return Failure(what, str(status).replace("_", " "), reason or "no reason recorded", run)


def provenance(data: StudyData) -> list[tuple[str, str]]:
    """Return name and text of what was recorded: data, recipe, machines, versions, commit, times.

    Where runs differ, every value is named.
    """
    finished = [r for r in data.records.values() if r.status in {"complete", "diverged"}]
    environments = [record.environment for record in finished]

    def every(text_of: Callable[[Mapping[str, Any]], str]) -> str:
        return "; ".join(dict.fromkeys(map(text_of, environments)))

    lines = [
        ("data", _data(data)),
        ("recipe", _recipe(data)),
        ("machine", every(lambda made: f"{machine(made)}, {_share(made)}")),
        ("execution", every(_execution)),
        (
            "versions",
            every(lambda made: ", ".join(filter(None, [versions(made), made.get("platform")]))),
        ),
        ("commit", _commit(environments)),
        ("started", _times(data)),
    ]
    return [(name, text) for name, text in lines if text]


def _data(data: StudyData) -> str:
    datasets = sorted({str(name) for name in data.runs["dataset"].dropna()})
    seeds = sorted({seed for _, seed in data.places.values()})
    return f"{', '.join(datasets)}; random seeds {', '.join(map(str, seeds))}" if datasets else ""


def _recipe(data: StudyData) -> str:
    recipes = dict.fromkeys(data.runs["recipe"].dropna())
    epochs = dict.fromkeys(map(str, data.runs["epochs"].dropna()))
    return f"{'; '.join(recipes)}; epochs {', '.join(epochs)}" if recipes else ""


def machine(environment: Mapping[str, Any]) -> str:
    """Name a machine: processor with its instruction sets, device, and the GPU if there is one."""
    sets = " ".join(environment.get("instruction_sets", ()))
    device = f"{environment.get('cpu')} ({sets}), device {environment.get('device')}"
    gpu = [f"{name} {environment[name]}" for name in _GPU if environment.get(name)]
    return ", ".join([device, *gpu])


def _share(environment: Mapping[str, Any]) -> str:
    """Say what a run had of its machine, on which its training time depends."""
    workers = environment.get("workers")
    together = f", {workers} run(s) at a time" if workers else ""
    return f"{environment.get('threads')} thread(s) a run{together}"


def versions(environment: Mapping[str, Any], packages: Sequence[str] = _PACKAGES) -> str:
    """Name the recorded versions of *packages*."""
    return ", ".join(f"{name} {environment[name]}" for name in packages if environment.get(name))


def _execution(environment: Mapping[str, Any]) -> str:
    names = ("memory_format", "compiled", "cuda_graph")
    return ", ".join(f"{n.replace('_', ' ')} {environment[n]}" for n in names if n in environment)


def _commit(environments: Sequence[Mapping[str, Any]]) -> str:
    known = sorted({str(c) for e in environments if (c := e.get("git_commit"))})
    missing = sum(not e.get("git_commit") for e in environments)
    named = [", ".join(known)] if known else []
    if missing:
        total = len(environments)
        named.append(f"not recorded for {missing} of {total} runs (started in no repository)")
    dirty = any(e.get("git_dirty") for e in environments)
    return f"{'; '.join(named)}{' with uncommitted changes' if dirty else ''}"


def _times(data: StudyData) -> str:
    started = data.runs["started_at"].dropna()
    if not len(started):
        return ""
    total, tuning = training_seconds(data)
    date = f"{started.min():%Y-%m-%d %H:%M} UTC"
    tuned = f", of {len(tuning)} more that only tuned {sum(tuning):.0f} s" if tuning else ""
    trained = f"; training time of all runs together {total:.0f} s{tuned}"
    return f"{date}{trained if total else ''}"


def training_seconds(data: StudyData) -> tuple[float, list[float]]:
    """Return the seconds that a study's runs trained together, and those of each run that tuned."""
    others = [data.store.read_run(run) for run in data.study.runs - set(data.places)]
    tuning = [record.seconds for record in others if record is not None]
    trained = data.runs["epochs"] > 0
    return float(data.runs.loc[trained, "seconds"].sum()), tuning
