"""`bench.gradients`: gradient norms by depth of untrained networks, and of runs as they trained."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from bench.errors import BenchError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import pandas as pd
    import torch

    from bench.store.analyses import AnalysisRecord
    from bench.studies.request import RunRequest
    from bench.training.setup import Split

LINES = 4  # between test images, for the correlation
DOCUMENT = "blocks.json"


@dataclass(frozen=True)
class _Subject:
    """One thing to measure: a run, or an untrained network."""

    name: str
    request: RunRequest
    run: str | None
    root: Path


def gradients(
    targets: Sequence[str],
    *,
    results: str | Path = "bench-runs",
    dataset: str = "fashion-mnist-mini",
    options: dict[str, Any] | None = None,
    seed: int = 0,
    device: str = "auto",
    correlation: bool = False,
    say: Callable[[str], None] = lambda _: None,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Measure how large gradients are by depth, and how alike at neighbouring inputs.

    Args:
        targets: runs (trained with `record_blocks` for what happened during training), or names
            of networks, which are measured before any training.
        results: the results folder of the runs.
        dataset: the images that untrained networks see.
        options: options of the untrained networks.
        seed: random seed of their weights and of the batch.
        device: auto, cpu, cuda, cuda:N or mps.
        correlation: also follow the gradient along lines between test images (Balduzzi et
            al. 2017, figure 1).
        say: told what is being measured.

    Returns:
        Rows of the tables `gradients` and `correlations`. Blocks: target, epoch (0 is before
        training), block, depth (from 1), gradient_norm (L2, of one batch's loss with respect to
        the branch's convolutions) and norm_ratio (median ‖F(x)‖ / ‖h(x)‖). Correlations: target,
        epoch, lag (places on the line) and correlation; no rows unless asked for. Each target's
        are recorded in the results folder, in the place of older ones of the same arguments.

    Raises:
        BenchError: a target is neither a run nor a network, or has no residual blocks.
        StorageError: the results folder cannot be written.
    """
    from bench.store.tables.frames import analysed_frame
    from bench.system.devices import resolve_device

    where = resolve_device(device)
    subjects = [_subject(t, results, dataset, options or {}, seed) for t in targets]
    records = [_record(subject, results, where, correlation, say) for subject in subjects]
    return analysed_frame(records, "gradients"), analysed_frame(records, "correlations")


def _record(
    subject: _Subject, results: str | Path, where: torch.device, correlation: bool,
    say: Callable[[str], None],
) -> AnalysisRecord:  # fmt: skip
    """Measure one subject, and record it."""
    import torch

    from bench.store.analyses import Analyses
    from bench.system.environment import describe_environment

    found, epoch = _blocks(subject, results, where)
    store = Analyses(subject.root)
    fixed = {"target": subject.name, "run": subject.name if subject.run else None}
    tables = {"gradients": [{**fixed, **row} for row in _counted(found)]}
    if correlation:
        store.prepare()
        say(f"correlation of gradients of {subject.name}")
        tables["correlations"] = [
            {**fixed, "epoch": epoch, "lag": lag, "correlation": value}
            for lag, value in enumerate(_correlation(subject, results, where))
        ]
    environment = describe_environment(where, threads=torch.get_num_threads())
    request = {**_identity(subject), "correlation": correlation}
    record = store.publish("gradients", request, tables, environment)
    say(f"recorded in {store.file(record.analysis)}")
    return record


def _identity(subject: _Subject) -> dict[str, Any]:
    """What a subject is told from others by."""
    if subject.run is not None:
        return {"run": subject.name}
    request = subject.request
    return {
        "model": request.model, "options": request.options, "dataset": request.dataset,
        "seed": request.seed,
    }  # fmt: skip


def _counted(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Blocks with their depth, from 1 in each epoch."""
    depths: Counter[int] = Counter()
    counted = []
    for row in rows:
        depths[row["epoch"]] += 1
        counted.append({**row, "depth": depths[row["epoch"]]})
    return counted


def _subject(
    target: str, results: str | Path, dataset: str, options: dict[str, Any], seed: int
) -> _Subject:
    from pathlib import Path

    from bench.models import ModelError, canonical
    from bench.studies.recipe import get_recipe
    from bench.studies.request import RunRequest

    try:
        model, values = canonical(target, options)
    except ModelError as error:
        return _run_subject(target, results, str(error))
    request = RunRequest(model, dataset, get_recipe("fast"), seed, values)
    return _Subject(target, request, None, Path(results))


def _run_subject(target: str, results: str | Path, otherwise: str) -> _Subject:
    from pathlib import Path

    from bench.targets.trained_run import load_trained

    if not (Path(results) / "runs").is_dir() and not Path(target).is_dir():
        raise BenchError(f"'{target}' is no run of {results}, and as a network: {otherwise}")
    trained = load_trained(target, results=results)
    return _Subject(trained.record.run, trained.request, str(target), trained.root)


def _blocks(
    subject: _Subject, results: str | Path, where: torch.device
) -> tuple[list[dict[str, Any]], int]:
    """A subject's rows, and the epoch that its network is of."""
    from bench.networks.gradient_norms import measure_blocks
    from bench.store import Store
    from bench.targets.trained_run import load_trained

    epochs = subject.request.recipe.epochs if subject.run else 0
    if subject.run is not None:
        trained = load_trained(subject.run, results=results)
        if DOCUMENT in trained.record.files:
            recorded: list[dict[str, Any]] = Store(trained.root).read_document(
                subject.name, DOCUMENT
            )
            return recorded, epochs
    split = _split(subject.request, where)
    model = _network(subject, results, split)
    rows = measure_blocks(model, *_batch(split), called=f"'{subject.name}'")
    return [{"epoch": epochs, **row} for row in rows], epochs


def _correlation(subject: _Subject, results: str | Path, where: torch.device) -> list[float]:
    from bench.networks.gradient_correlation import gradient_correlation, settle

    split = _split(subject.request, where)
    model = _network(subject, results, split)
    if subject.run is None:
        settle(model, _batch(split)[0])
    images, _ = next(iter(split.evaluation(split.test)))
    values = gradient_correlation(model.eval(), images[:LINES], images[LINES : 2 * LINES])
    return [float(value) for value in values]


def _split(request: RunRequest, where: torch.device) -> Split:
    from bench.training.check import check_trainable
    from bench.training.setup import Split, load_data

    data = load_data(request)
    check_trainable(request, data)
    return Split.of(data, request, where)


def _network(subject: _Subject, results: str | Path, split: Split) -> torch.nn.Module:
    """The trained network, or the untrained one with its drawn weights."""
    from bench.targets.trained_run import load_trained
    from bench.training.layout import preferred_memory_format
    from bench.training.setup import build_network

    if subject.run is not None:
        model = load_trained(subject.run, results=results).model
    else:
        model = build_network(subject.request, split.dataset)
    memory_format = preferred_memory_format(split.device)
    return model.to(split.device, memory_format=memory_format)  # type: ignore[call-overload,no-any-return]


def _batch(split: Split) -> tuple[torch.Tensor, torch.Tensor]:
    """The first batch of a training, at its full size."""
    from bench.training.layout import preferred_memory_format

    recipe = split.request.recipe.model_copy(update={"initial_size": 1.0})
    whole = replace(split, request=replace(split.request, recipe=recipe))
    return next(whole.training_batches(preferred_memory_format(split.device)).epoch(0))
