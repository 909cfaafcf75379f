"""One interleaved comparison from request to record: what `bench throughput` does."""

from __future__ import annotations

import math
import tempfile
from collections import Counter
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from bench.errors import BenchError
from bench.measurement.backends import ProfilingBackend, load_backend
from bench.measurement.configurations import Configuration, Request, expand, references
from bench.measurement.machine.ceiling import Ceiling, measure_ceiling
from bench.measurement.machine.noise import noise_between, take_snapshot
from bench.measurement.measured_network import DEFAULT_TARGET, MeasuredNetwork, find_targets
from bench.measurement.preparation import Context, find_batch_sizes, pinned, with_files
from bench.measurement.profile.layer_time import RUNS, Share, shares
from bench.measurement.rows import make_rows, noise_floors
from bench.measurement.timing.percentiles import honest_count
from bench.measurement.timing.process_runner import ProcessRunner
from bench.measurement.timing.runner import open_runner
from bench.measurement.timing.sampling import Goal, run_plan
from bench.measurement.timing.server import find_rate
from bench.measurement.timing.trial import Trial
from bench.store.measurements import MeasurementRecord, Measurements
from bench.system.environment import describe_environment, processor, version_of
from bench.system.machine_lock import measuring_lock

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.targets.find import InputSize


# A batch whose images alone take this share of the free memory may not fit with its
# activations (about twenty times as large in a residual network), so it runs in a subprocess.
_RISKY_SHARE = 0.05


def measure_names(
    names: Sequence[str],
    request: Request,
    context: Context,
    *,
    options: dict[str, Any] | None = None,
    input_size: InputSize | None = None,
) -> MeasurementRecord:
    """Measure the networks that names stand for (default: ResNet-18), and publish the record.

    Names, options and input size are those of `bench.measure`.

    Raises:
        BenchError: a name is unknown, nothing can run here, or the results folder cannot be
            written.
    """
    found = find_targets(
        names or [DEFAULT_TARGET], results=context.results, options=options, input_size=input_size
    )
    return measure_targets(_with_unique_labels(found), request, context)


def _with_unique_labels(targets: Sequence[MeasuredNetwork]) -> list[MeasuredNetwork]:
    """Drop duplicates, and label files of equal names by their paths."""
    distinct = [t for i, t in enumerate(targets) if t not in targets[:i]]
    counts = Counter(t.label for t in distinct)
    return [
        replace(t, label=str(t.file)) if t.file is not None and counts[t.label] > 1 else t
        for t in distinct
    ]


def measure_targets(
    targets: Sequence[MeasuredNetwork], request: Request, context: Context
) -> MeasurementRecord:
    """Measure networks, and publish the record with every raw sample.

    Raises:
        BenchError: nothing can run here, or the results folder cannot be written.
    """
    store = Measurements(context.results)
    configurations = expand(request, targets, device=context.device, threads=context.threads)
    if all(made.unsupported for made in configurations):
        reasons = dict.fromkeys(str(made.unsupported) for made in configurations)
        raise BenchError(f"nothing of this can run here: {'; '.join(reasons)}")
    store.prepare()
    with ExitStack() as stack:
        stack.enter_context(measuring_lock())
        if request.pin:
            stack.enter_context(pinned(context.threads))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        trials = [
            Trial(made) for made in with_files(configurations, folder, context, request.dataset)
        ]
        find_batch_sizes(trials, request, context)
        trials += _choose_references(trials, request)
        ceiling, noise = run_trials(trials, request, context)
        if request.layers:
            _profile(trials)
    cpu, instruction_sets = processor()
    identity = store.new_id()
    record = MeasurementRecord(
        measurement=identity,
        request=asdict(request) | {"targets": [t.label for t in targets]},
        rows=make_rows(
            trials,
            measurement=identity,
            cpu=f"{cpu} ({' '.join(instruction_sets)})",
            goal=_goal(request),
            ceiling=ceiling,
            warnings=noise["warnings"],
        ),
        environment=describe_environment(context.device, threads=context.threads)
        | {name: version_of(name) for name in ("onnxruntime-gpu", "onnxruntime", "openvino")},
        ceiling=asdict(ceiling),
        noise=noise | {"floors": noise_floors(trials)},
        lanes={trial.name: _details(trial) for trial in trials},
    )
    return store.publish(record, _raw_samples(trials))


def _choose_references(trials: Sequence[Trial], request: Request) -> list[Trial]:
    """Mark each group's reference; return their twins, which give the noise floor."""
    usable = [trial.configuration for trial in trials if trial.status == "complete"]
    chosen = references(usable, request.reference)
    for trial in trials:
        trial.is_reference = trial.configuration is chosen.get(trial.group)
    if request.scenario == "server":
        return []
    return [Trial(replace(made, twin=True)) for made in chosen.values()]


def run_trials(
    trials: Sequence[Trial], request: Request, context: Context
) -> tuple[Ceiling, dict[str, Any]]:
    """Open, sample, describe and close every trial, all in this process.

    Returns:
        The machine's ceiling, and its noise with `warnings`.
    """
    try:
        for trial in trials:
            _open(trial, request, context)
        if all(trial.status == "unsupported" for trial in trials):
            reasons = dict.fromkeys(str(trial.error) for trial in trials)
            raise BenchError(f"nothing of this can run here: {'; '.join(reasons)}")
        precisions = {t.configuration.precision for t in trials if t.status == "complete"}
        before = take_snapshot(context.device)
        context.on_event({"event": "ceiling"})
        budget = min(1.0, request.max_seconds / 10)
        ceiling = measure_ceiling(context.device, context.threads, precisions, seconds=budget)
        _sample(trials, request, context)
        warnings, noise = noise_between(before, take_snapshot(context.device))
        for trial in trials:
            _describe(trial)
        again = measure_ceiling(context.device, context.threads, precisions, seconds=budget)
        ceiling = ceiling.merge(again)
    finally:
        for trial in trials:
            trial.close()
    return ceiling, noise | {"warnings": warnings}


def _open(trial: Trial, request: Request, context: Context) -> None:
    if trial.status != "complete":
        return
    made = trial.configuration
    context.on_event({"event": "prepare", "what": made.name})
    isolate = request.isolate or _is_risky(made)
    try:
        trial.runner = (
            ProcessRunner(made, timeout=request.timeout) if isolate else open_runner(made)
        )
    except Exception as error:  # a backend's failure is its row
        trial.fail(error)


def _sample(trials: Sequence[Trial], request: Request, context: Context) -> None:
    opened = [trial for trial in trials if trial.runner is not None]
    if request.scenario != "server":
        run_plan(opened, _goal(request), seed=request.seed, on_event=context.on_event)
        return
    for trial in opened:
        try:
            find_rate(trial, request, context.on_event)
        except Exception as error:  # its row says so, and the others continue
            trial.fail(error)


def _describe(trial: Trial) -> None:
    if trial.is_running:
        try:
            trial.report = trial.opened().describe()
        except Exception as error:  # what ran is unknown, so there is no figure
            trial.fail(error)


def _profile(trials: Sequence[Trial]) -> None:
    """Profile each configuration, after all samples: a profiler slows down what it watches."""
    for trial in trials:
        if trial.status == "complete" and not trial.configuration.twin:
            try:
                trial.layers = [asdict(share) for share in profile_layers(trial.configuration)]
            except Exception as error:  # the samples are kept whatever a profiler does
                trial.layers = [{"error": str(error)}]


def profile_layers(configuration: Configuration) -> list[Share]:
    """Profile a configuration in this process.

    Returns:
        Layers in the network's order, then operators, slowest first.

    Raises:
        BenchError: its backend has no profiler, or it cannot be opened.
    """
    backend = load_backend(configuration.backend)
    if not isinstance(backend, ProfilingBackend):
        raise BenchError(f"--layers: the backend '{configuration.backend}' has no profile by layer")
    runner = open_runner(configuration)
    try:
        return shares(*backend.profile(runner.prepared, runner.step, RUNS))
    finally:
        runner.close()


def _goal(request: Request) -> Goal:
    fewest = honest_count(0.99) if request.scenario == "single-stream" else 0
    return Goal(request.target_width, request.max_seconds, fewest)


def _is_risky(made: Configuration) -> bool:
    images = 4 * made.batch_size * math.prod(made.target.input_shape)
    return made.device == "cpu" and images > _RISKY_SHARE * psutil.virtual_memory().available


def _details(trial: Trial) -> dict[str, Any]:
    report = trial.report
    return {
        "status": trial.status,
        "error": trial.error,
        "executed": asdict(report.executed) if report else None,
        "repeats": report.repeats if report else None,
        "blocks": len(trial.blocks),
        "seconds_spent": trial.seconds_spent if trial.warm_up or trial.blocks else None,
        "steady": trial.warm_up.steady if trial.warm_up else None,
        **({"layers": trial.layers} if trial.layers else {}),
        **trial.configuration.details,
    }


def _raw_samples(trials: Sequence[Trial]) -> list[tuple[Any, ...]]:
    """Return rows of `bench.store.measurements.SAMPLE_COLUMNS`."""
    rows: list[tuple[Any, ...]] = []
    for trial in trials:
        warm_up = trial.warm_up.seconds if trial.warm_up else ()
        rows += [(trial.name, "warm-up", -1, 0, repr(seconds)) for seconds in warm_up]
        rows += [
            (trial.name, "sample", number, trial.positions[number], repr(seconds))
            for number, block in trial.blocks.items()
            for seconds in block
        ]
    return rows
