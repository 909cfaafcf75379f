"""From what a person names to networks: a run, a study, a model, or what was done last."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from bench.errors import BenchError, nearest
from bench.models import ModelError, build_model, canonical, default_shape, list_models
from bench.store import RunRecord, Store
from bench.targets.network import Source

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

DEFAULT_MODEL = "resnet18"


def find_sources(
    targets: Sequence[str],
    store: Store,
    *,
    options: dict[str, Any] | None = None,
    input_size: int | None = None,
    force: bool = False,
) -> Iterator[Source | RunRecord]:
    """Find the networks that *targets* name.

    Args:
        targets: each a run (id, unambiguous beginning or hash of one, folder), a study, or a
            model; without any, the runs of the study last changed, or ResNet-18.
        store: where runs are looked for.
        options: options of models that are named; runs have their own.
        input_size: side in pixels for models that are named; the family's own without.
        force: take a diverged run if it has weights.

    Yields:
        Networks, loaded when their turn comes; for a run of a *study* that has none, its
        record, so that the others go on.

    Raises:
        BenchError: nothing is called so, or a run that was named cannot be exported.
    """
    for target in targets or _last(store):
        study = store.read_study(target) if _plain(target) else None
        refusal = _why_no_model(target, options or {})
        if _is_run(target, store) or (study is None and refusal):
            yield _from_run(_find_run(target, store, refusal), store, force=force)
        elif study is not None:
            wanted = {run for v in study.variants.values() for run in v["runs"].values()}
            for run in sorted(wanted):
                record = _record(run, store)
                ready = record is not None and record.status == "complete"
                yield _from_run(run, store, force=force) if ready else _missing(run, record)
        else:
            yield from_model(target, options or {}, input_size)


def from_model(name: str, options: dict[str, Any], input_size: int | None = None) -> Source:
    """Build a model with the weights of a fixed seed, at its family's input size.

    Raises:
        BenchError: the name or an option is unknown.
    """
    own_name, own_options = canonical(name, options)
    channels, size, _ = default_shape(own_name, own_options)
    size = input_size or size
    torch.manual_seed(0)  # the same weights, and so the same file, every time
    model = build_model(own_name, **own_options).eval()
    label = "-".join([name, *(f"{k}-{v}" for k, v in sorted(own_options.items()))])
    return Source(label, model, own_name, own_options, (channels, size, size))


def _from_run(run: str, store: Store, *, force: bool) -> Source:
    from bench.targets.trained_run import load_trained

    record = _record(run, store)
    if record is None or record.status != "complete":
        raise _refusal(run, record, force=force)
    trained = load_trained(run, results=store.root)
    return Source(
        name=run,
        model=trained.model,
        model_name=trained.request.model,
        options=dict(trained.request.options),
        input_shape=trained.input_shape,
        trained=trained,
        weights=record.files["model.safetensors"],
    )


def _refusal(run: str, record: RunRecord | None, *, force: bool) -> BenchError:
    status = record.status if record else "unreadable"
    if status != "diverged":
        return BenchError(
            f"run {run} is {status}, and only a complete run can be exported: "
            "finish it by repeating the command that began it"
        )
    if force:
        return BenchError(
            f"run {run} diverged and kept no weights, so that even --force has nothing to "
            "export: train it again with a lower learning rate"
        )
    return BenchError(
        f"run {run} diverged ({record.error if record else ''}): train it again with a lower "
        "learning rate, or give --force to export what it may have left"
    )


def _find_run(target: str, store: Store, refusal: str | None) -> str:
    unfinished = {record.run for record in store.unfinished()}
    if Path(target).name.removesuffix(".partial") in unfinished:
        return Path(target).name.removesuffix(".partial")
    try:
        return store.find_run(target)
    except BenchError as error:
        if "fits" in str(error):
            raise
        if refusal and not refusal.startswith("unknown model"):
            raise BenchError(refusal) from None  # a model's name, but not one that can be built
        raise BenchError(
            f"no run, study or model '{target}'{nearest(target, list_models())} ('bench results "
            "ls' lists runs, 'bench list models' and 'bench list studies' the others)"
        ) from None


def _record(run: str, store: Store) -> RunRecord | None:
    unfinished = {record.run: record for record in store.unfinished()}
    return store.read_run(run) or unfinished.get(run)


def _missing(run: str, record: RunRecord | None) -> RunRecord:
    """Return the record of a study's run without weights, also of one not yet begun."""
    if record is not None:
        return record
    return RunRecord(run, {"model": None}, "interrupted", {}, "", 0.0, "not trained yet")


def _last(store: Store) -> list[str]:
    studies = [
        study
        for study in store.studies()
        if any((record := store.read_run(r)) and record.status == "complete" for r in study.runs)
    ]
    return [max(studies, key=lambda study: study.updated_at).name] if studies else [DEFAULT_MODEL]


def _plain(target: str) -> bool:
    return "/" not in target and "\\" not in target and ":" not in target


def _is_run(target: str, store: Store) -> bool:
    path = Path(target)
    return (path.parent.name == "runs" and path.is_dir()) or (
        _plain(target) and store.folder(target).is_dir()
    )


def _why_no_model(target: str, options: dict[str, Any]) -> str | None:
    """Return why no model is called so, None if one is."""
    try:
        canonical(target, options)
    except ModelError as error:
        return str(error)
    return None
