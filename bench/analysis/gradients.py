"""Gradient norms by depth of untrained networks and of runs as they trained (`bench gradients`)."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from bench.errors import BenchError
from bench.networks.gradient_correlation import gradient_correlation, settle
from bench.networks.gradient_norms import measure_blocks
from bench.store import Store
from bench.store.analyses import Analyses
from bench.studies.recipe import get_recipe
from bench.studies.run_request import RunRequest
from bench.system.devices import resolve_device
from bench.system.environment import describe_environment
from bench.targets.find import find_networks
from bench.training.check import check_trainable
from bench.training.layout import lay_out
from bench.training.setup import Split, build_network, load_data

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bench.store.analyses import AnalysisRecord
    from bench.targets.network import NamedNetwork

    Say = Callable[[str], None]

LINES = 4  # between test images, for the correlation
DOCUMENT = "blocks.json"


@dataclass(frozen=True)
class _Subject:
    """A run or an untrained network, and the request that its images and weights follow from."""

    network: NamedNetwork
    request: RunRequest


def measure_gradients(
    targets: str | Path | Sequence[str | Path],
    *,
    results: str | Path,
    dataset: str,
    options: dict[str, Any] | None,
    seed: int,
    device: str,
    correlation: bool,
    say: Say,
) -> list[AnalysisRecord]:
    """Measure what `bench.gradients` returns, whose arguments these are, and record it.

    Raises:
        BenchError: a target is no run, study or model, or has no residual blocks.
        StorageError: the results folder cannot be written.
    """
    where = resolve_device(device)
    found = find_networks(targets, results=results, options=options, takes=("model", "run"))
    subjects = [_subject(network, dataset, seed) for network in found]
    return [_record(subject, Path(results), where, correlation, say) for subject in subjects]


def _record(
    subject: _Subject, results: Path, where: torch.device, correlation: bool, say: Say
) -> AnalysisRecord:
    """Measure one subject, and record it."""
    found, epoch = _blocks(subject, where)
    run = subject.network.run
    store = Analyses(results if run is None else subject.network.results)
    fixed = {"target": subject.network.name, "run": run}
    tables = {"gradients": [{**fixed, **row} for row in _with_depth(found)]}
    if correlation:
        store.prepare()
        say(f"correlation of gradients of {subject.network.name}")
        tables["correlations"] = [
            {**fixed, "epoch": epoch, "lag": lag, "correlation": value}
            for lag, value in enumerate(_correlation(subject, where))
        ]
    environment = describe_environment(where, threads=torch.get_num_threads())
    if run is not None:
        record = subject.network.load_run().record
        request: dict[str, Any] = {"run": run, "weights": record.files["model.safetensors"]}
    else:
        made = subject.request
        request = {"model": made.model, "options": made.options}
        request |= {"dataset": made.dataset, "seed": made.seed}
    request |= {"correlation": correlation}
    made_of_it = store.publish("gradients", request, tables, environment)
    say(f"recorded in {store.file(made_of_it.analysis)}")
    return made_of_it


def _with_depth(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Number the blocks of each epoch from 1."""
    depths: Counter[int] = Counter()
    counted = []
    for row in rows:
        depths[row["epoch"]] += 1
        counted.append({**row, "depth": depths[row["epoch"]]})
    return counted


def _subject(network: NamedNetwork, dataset: str, seed: int) -> _Subject:
    if network.run is not None:
        return _Subject(network, network.load_run().request)
    assert network.model is not None  # noqa: S101 - files are not taken
    recipe = get_recipe("fast")
    return _Subject(network, RunRequest(network.model, dataset, recipe, seed, network.options))


def _blocks(subject: _Subject, where: torch.device) -> tuple[list[dict[str, Any]], int]:
    """Return a subject's rows, and the epoch that its network is of."""
    if subject.network.run is None:
        epoch = 0
    else:
        epoch, trained = subject.request.recipe.epochs, subject.network.load_run()
        if DOCUMENT in trained.record.files:
            store = Store(trained.root)
            recorded: list[dict[str, Any]] = store.read_document(trained.record.run, DOCUMENT)
            return recorded, epoch
    split = _split(subject, where)
    rows = measure_blocks(
        _network(subject, split), *_batch(split), called=f"'{subject.network.name}'"
    )
    return [{"epoch": epoch, **row} for row in rows], epoch


def _correlation(subject: _Subject, where: torch.device) -> list[float]:
    split = _split(subject, where)
    model = _network(subject, split)
    if subject.network.run is None:
        settle(model, _batch(split)[0])
    lines = min(LINES, len(split.test) // 2)
    if not lines:
        raise BenchError("--correlation needs 2 test images at least; the dataset has 1")
    some = split.test.subset(torch.arange(2 * lines))
    batches = split.evaluation(some, torch.contiguous_format)
    images = torch.cat([images for images, _ in batches])
    values = gradient_correlation(model.eval(), images[:lines], images[lines:])
    return [float(value) for value in values]


def _split(subject: _Subject, where: torch.device) -> Split:
    request, network = subject.request, subject.network
    data = load_data(request) if network.run is None else network.load_run().dataset()
    check_trainable(request, data)
    return Split.of(data, request, where)


def _network(subject: _Subject, split: Split) -> torch.nn.Module:
    """Return the trained network, or the untrained one with its initial weights."""
    if subject.network.run is not None:
        model = subject.network.load_run().model
    else:
        model = build_network(subject.request, split.dataset)
    lay_out(model, split.device, split.input_shape)
    return model


def _batch(split: Split) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the first batch of a training, at its full size."""
    recipe = split.request.recipe.model_copy(update={"initial_size": 1.0})
    whole = replace(split, request=replace(split.request, recipe=recipe))
    return next(whole.training_batches(torch.contiguous_format).epoch(0))
