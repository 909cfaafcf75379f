"""From what a person names to networks: the one place where commands look a network up.

A name is looked up in this order: a file (`.onnx`, `.engine`), a run's or an export's folder, the
whole id of a run, a model, a study, the beginning or hash of a run's id, the beginning of an
export's SHA-256. So the name of a model means that model, whatever a results folder holds.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.errors import AmbiguousNameError, BenchError, nearest
from bench.models import ModelError, UnknownModelError, canonical, default_shape, list_models
from bench.models.errors import function_suggestion
from bench.store import Store
from bench.store.exports import Exports
from bench.system.caller_state import caller_state
from bench.targets.network import Kind, NamedNetwork
from bench.training.setup import why_untrained

if TYPE_CHECKING:
    from torch import nn

    from bench.store import RunRecord, StudyRecord
    from bench.targets.trained_run import TrainedRun

InputSize = int | tuple[int, int]  # side in pixels, or height and width

DEFAULT_MODEL = "resnet18"
EVERYTHING: tuple[Kind, ...] = ("model", "run", "onnx", "engine")
_NAMES = {"model": "model", "run": "run", "onnx": ".onnx file", "engine": ".engine file"}
_SHOWN = 4  # names that a message lists
_SHA256 = re.compile(r"[0-9a-f]{8,64}")


@dataclass(frozen=True)
class _Search:
    """What every name of one call is looked up with; the arguments of `find_networks`."""

    store: Store
    takes: tuple[Kind, ...]
    options: dict[str, Any] = field(default_factory=dict)
    input_size: InputSize | None = None
    every_seed: bool = True
    unfinished: bool = False


def as_tuple(values: Any) -> tuple[Any, ...]:
    """Return values as a tuple; a single one, such as a name, a path or a number, as its only."""
    one = isinstance(values, str | Path) or not isinstance(values, Iterable)
    return (values,) if one else tuple(values)


def find_networks(
    names: str | Path | Iterable[str | Path],
    *,
    results: str | Path = "bench-runs",
    options: dict[str, Any] | None = None,
    input_size: InputSize | None = None,
    takes: tuple[Kind, ...] = EVERYTHING,
    every_seed: bool = True,
    unfinished: bool = False,
) -> list[NamedNetwork]:
    """Find the networks that *names* name, each once.

    Args:
        names: one or several, each a model, a run (id, unambiguous beginning or hash of one,
            folder), a study, an `.onnx` or `.engine` file, or an export (folder, beginning of its
            SHA-256).
        results: the results folder that runs, studies and exports are looked for in.
        options: options of models; runs have their own.
        input_size: side in pixels for models (default: the family's).
        takes: the kinds of network that the caller can use. A study stands for its runs.
        every_seed: take all finished runs of a study; False: for each variant, the finished run
            of its lowest random seed.
        unfinished: take also the other runs of a study, with the `error` that loading them raises.

    Raises:
        AmbiguousNameError: a name fits several runs.
        BenchError: nothing is called so, the caller cannot use it, or it is not finished.
    """
    search = _Search(Store(results), takes, options or {}, input_size, every_seed, unfinished)
    distinct = dict.fromkeys(map(str, as_tuple(names)))
    found = [network for name in distinct for network in _resolve(name, search)]
    if options and all(network.kind != "model" for network in found):
        raise BenchError(
            f"--option {next(iter(options))}: runs and files have options of their own; leave it "
            f"out, or name a model instead of {', '.join(distinct)}"
        )
    return [network for place, network in enumerate(found) if network not in found[:place]]


def find_network(
    name: str,
    *,
    results: str | Path = "bench-runs",
    options: dict[str, Any] | None = None,
    input_size: InputSize | None = None,
    takes: tuple[Kind, ...] = EVERYTHING,
) -> NamedNetwork:
    """Find the one network that *name* names; the arguments are those of `find_networks`.

    Raises:
        AmbiguousNameError: it fits several runs, or is a study of several.
        BenchError: nothing is called so, the caller cannot use it, or it is not finished.
    """
    found = find_networks(
        [name], results=results, options=options, input_size=input_size, takes=takes
    )
    if len(found) > 1:
        shown = ", ".join(network.label for network in found[:_SHOWN])
        raise AmbiguousNameError(
            f"'{name}' is a study of {len(found)} finished runs, and one network is needed: name "
            f"one of them ({shown}{' …' if len(found) > _SHOWN else ''})"
        )
    return found[0]


def default_names(results: str | Path) -> list[str]:
    """Return what is meant where nothing is named: the last study with a finished run, or a model.

    Returns:
        The name of that study, or `DEFAULT_MODEL` if there is none.
    """
    store = Store(results)
    studies = [s for s in store.studies() if any(_is_complete(run, store) for run in s.runs)]
    return [max(studies, key=lambda study: study.updated_at).name] if studies else [DEFAULT_MODEL]


def load_trained(run: str | Path, *, results: str | Path = "bench-runs") -> TrainedRun:
    """Load a finished run.

    Args:
        run: its id, unambiguous beginning or hash of one, its folder, or a study of one run.
        results: the results folder, unless *run* is a folder.

    Raises:
        BenchError: there is no such run, it did not finish, or its files are damaged.
    """
    return find_network(str(run), results=results, takes=("run",)).load_run()


@caller_state()
def load_model(run: str | Path, *, results: str | Path = "bench-runs") -> nn.Module:
    """Load a run's trained network, in evaluation mode on the CPU.

    Args:
        run: id, unambiguous beginning of one, or folder of a finished run.
        results: the results folder, unless *run* is a folder.

    Returns:
        The network: float images N×C×H×W (as `bench predict` prepares them) to logits
        N×classes.

    Raises:
        BenchError: there is no such run, it did not finish, or its files are damaged.
    """
    return load_trained(run, results=results).model


def _resolve(name: str, search: _Search) -> list[NamedNetwork]:
    store, path = search.store, Path(name)
    if path.suffix.lower() in {".onnx", ".engine"}:
        return [_from_file(name, path, search)]
    if path.is_dir() and path.parent.name == "exports":
        return [_from_export(name, path.name, Exports(path.resolve().parent.parent), search)]
    run = path.name.removesuffix(".partial")
    in_folder = path.is_dir() and path.parent.name == "runs"
    if in_folder or (
        _is_plain(name) and (store.folder(run).is_dir() or store.partial(run).is_dir())
    ):
        other = Store(path.resolve().parent.parent) if in_folder else store
        return [_finished(run, other, search)]
    refusal = _why_no_model(name, search.options)
    if refusal is None and "model" in search.takes:
        return [from_model(name, search.options, search.input_size)]
    if "model" in search.takes and _why_no_model(name, {}) is None:
        raise BenchError(str(refusal))  # not of a run whose name begins with the model's
    study = store.read_study(name) if _is_plain(name) and "run" in search.takes else None
    return [_from_part(name, search, refusal)] if study is None else _from_study(study, search)


def _from_part(name: str, search: _Search, refusal: ModelError | None) -> NamedNetwork:
    """Find a run by the beginning or hash of its id, or an export by that of its SHA-256."""
    missing: BenchError | None = None
    if "run" in search.takes:
        try:
            run = search.store.find_run(name)
        except AmbiguousNameError:
            raise
        except BenchError as error:
            missing = error
        else:
            return _finished(run, search.store, search)
    if _SHA256.fullmatch(name) and {"onnx", "engine"} & set(search.takes):
        exports = Exports(search.store.root)
        if exports.named(name) is not None:
            return _from_export(name, name, exports, search)
    models = "model" in search.takes
    if models and refusal is not None and not isinstance(refusal, UnknownModelError):
        raise BenchError(str(refusal)) from None  # the name of a model that cannot be built
    if missing is not None and not models:
        raise missing
    nouns = {"model": ["model"], "run": ["run", "study"]}
    kinds = list(dict.fromkeys(n for kind in search.takes for n in nouns.get(kind, ["file"])))
    known = [*list_models(), *(study.name for study in search.store.studies())]
    raise BenchError(
        f"no {', '.join(kinds[:-1])} or {kinds[-1]} '{name}'"
        f"{function_suggestion(name) or nearest(name, known)} "
        "('bench list models' lists models, 'bench results ls' runs and studies)"
    )


def from_model(
    name: str, options: dict[str, Any] | None = None, input_size: InputSize | None = None
) -> NamedNetwork:
    """Name a model at its family's input size, unless another is given.

    Raises:
        ModelError: the name or an option is unknown.
    """
    model, own = canonical(name, options)
    channels, size, _ = default_shape(model, own)
    label = " ".join([name, *(f"{k}={v}" for k, v in (options or {}).items())])
    height, width = sides_of(input_size) or (size, size)
    return NamedNetwork(label, "model", (channels, height, width), model, own)


def sides_of(size: InputSize | None) -> tuple[int, int] | None:
    """Return height and width of an input size; None for None."""
    return (size, size) if isinstance(size, int) else size


def _from_study(study: StudyRecord, search: _Search) -> list[NamedNetwork]:
    store, runs = search.store, []
    for entry in study.variants.values():
        by_seed = [run for _, run in sorted(entry["runs"].items(), key=lambda item: int(item[0]))]
        finished = [run for run in by_seed if _is_complete(run, store)]
        runs += finished[:1] if not search.every_seed else finished
        runs += [run for run in by_seed if run not in finished] if search.unfinished else []
    if not runs:
        raise BenchError(
            f"study '{study.name}' has no finished run; the command that began it continues it"
        )
    return [_checked(_from_run(run, store), search) for run in dict.fromkeys(runs)]


def _finished(run: str, store: Store, search: _Search) -> NamedNetwork:
    """Name a run.

    Raises:
        BenchError: it is not complete, the caller cannot use runs, or it has another input size.
    """
    found = _from_run(run, store)
    _check_taken(run, found.kind, search)
    if found.error is not None:
        raise BenchError(found.error)
    return _checked(found, search)


def _checked(found: NamedNetwork, search: _Search) -> NamedNetwork:
    """Refuse an input size that a run was not trained at."""
    wanted = sides_of(search.input_size)
    if wanted is not None and found.input_shape and found.input_shape[1:] != wanted:
        text = "x".join(map(str, dict.fromkeys(wanted)))
        raise BenchError(
            f"--input-size {text}: run {found.run} was trained at {found.input_shape[-1]}"
        )
    return found


def _from_run(run: str, store: Store) -> NamedNetwork:
    record = store.read(run)
    complete = record is not None and record.status == "complete"
    request = record.request if record else {}
    return NamedNetwork(
        label=run,
        kind="run",
        input_shape=_shape(record) if record and complete else None,
        model=request.get("model"),
        options=dict(request.get("options") or {}),
        run=run,
        results=str(store.root),
        error=None if complete else why_untrained(run, record, store),
    )


def _shape(record: RunRecord) -> tuple[int, int, int]:
    channels, height, width = record.result["input_shape"]
    return channels, height, width


def _from_file(name: str, path: Path, search: _Search) -> NamedNetwork:
    kind: Kind = "onnx" if path.suffix.lower() == ".onnx" else "engine"
    _check_taken(name, kind, search)
    return NamedNetwork(path.name, kind, results=str(search.store.root), file=path)


def _from_export(name: str, export: str, exports: Exports, search: _Search) -> NamedNetwork:
    record = exports.named(export)
    if record is None:
        raise BenchError(f"{name} holds no export that can be read; export it again")
    return _from_file(name, exports.checked_file(record), search)


def _check_taken(name: str, kind: Kind, search: _Search) -> None:
    if kind not in search.takes:
        wanted = " or ".join(_NAMES[taken] for taken in search.takes)
        raise BenchError(f"'{name}' is a {_NAMES[kind]}; what is needed is a {wanted}")


def _is_complete(run: str, store: Store) -> bool:
    record = store.read_run(run)
    return record is not None and record.status == "complete"


def _is_plain(name: str) -> bool:
    """Return whether it may name something in the results folder, not a path or a foreign model."""
    return bool(name) and not set(name) & set("/\\:")


def _why_no_model(name: str, options: dict[str, Any]) -> ModelError | None:
    """Return why no model is called so, None if one is."""
    try:
        canonical(name, options)
    except ModelError as error:
        return error
    return None
