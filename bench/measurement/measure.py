"""One interleaved comparison from request to record: what `bench throughput` does."""

from __future__ import annotations

import tempfile
from collections import Counter
from contextlib import ExitStack
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.errors import BenchError
from bench.measurement.accuracy import as_json, recorded_score
from bench.measurement.backends import (
    ProfilingBackend,
    UnsupportedError,
    backend_names,
    load_backend,
    status_of,
)
from bench.measurement.configurations import Configuration, Request, expand, references
from bench.measurement.machine.ceiling import Ceiling, measure_ceiling
from bench.measurement.machine.noise import noise_between, take_snapshot
from bench.measurement.measured_network import MeasuredNetwork, find_targets
from bench.measurement.preparation import Context, find_batch_sizes, pinned, with_files
from bench.measurement.profile.layer_time import RUNS, layer_rows
from bench.measurement.repeats import RUNTIMES, add_repeats
from bench.measurement.rows import MOST_SHARE, make_rows, noise_floors, share_of_peak
from bench.measurement.timing.cold_start import PROCESSES, measure_cold_starts
from bench.measurement.timing.percentiles import bounding_count, honest_count
from bench.measurement.timing.process_runner import call_in_subprocess
from bench.measurement.timing.replicates import (
    Replicate,
    Replication,
    describe_trials,
    fewest_processes,
    open_trials,
    replicate,
    run_process,
    sample_trials,
    score_trials,
)
from bench.measurement.timing.runner import LocalRunner
from bench.measurement.timing.sampling import Goal
from bench.measurement.timing.trial import Trial
from bench.store.measurements import MeasurementRecord, Measurements
from bench.system.environment import describe_environment, processor, version_of
from bench.system.machine_lock import measuring_lock
from bench.targets.find import DEFAULT_MODEL

if TYPE_CHECKING:
    from collections.abc import Sequence


def measure_names(
    names: Sequence[str | Path],
    request: Request,
    context: Context,
) -> MeasurementRecord:
    """Measure the networks that names stand for (default: ResNet-18), and publish the record.

    Names are those of `bench.measure`.

    Raises:
        BenchError: a name is unknown, nothing can run here, or the results folder cannot be
            written.
    """
    found = _with_unique_labels(
        find_targets(
            names or [DEFAULT_MODEL],
            results=context.results,
            options=request.options,
            input_size=request.input_size,
        )
    )
    wanted = request.reference
    known = wanted in backend_names() or any(target.is_called(wanted) for target in found)
    if wanted in map(str, names) and not known:
        request = replace(request, reference=_one_called(request, context.results))
    return measure_targets(found, request, context)


def _one_called(request: Request, results: Path) -> str:
    """Return the label, or the file, of a reference that was named by a study, hash or folder."""
    reference = request.reference
    called = find_targets([reference], results=results, input_size=request.input_size)
    if len(called) > 1:
        raise BenchError(
            f"--reference {reference}: it stands for {len(called)} runs; name one of them, such as "
            f"{called[0].label}"
        )
    return str(called[0].file or called[0].label)


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
    configurations = expand(request, targets, device=context.device, threads=context.threads)
    if all(made.unsupported for made in configurations):
        reasons = dict.fromkeys(str(made.unsupported) for made in configurations)
        raise BenchError(f"nothing of this can run here: {'; '.join(reasons)}")
    Measurements(context.results).prepare()
    with ExitStack() as stack:
        stack.enter_context(measuring_lock())
        if request.pin:
            stack.enter_context(pinned(context.threads))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        ready = list(with_files(configurations, folder, context, request.dataset))
        return measure_configurations(ready, request, context, folder)


def measure_configurations(
    configurations: Sequence[Configuration], request: Request, context: Context, folder: Path
) -> MeasurementRecord:
    """Measure configurations whose files are made, and publish the record.

    The caller holds the machine's lock; *folder* is for files that are not needed afterwards.

    Raises:
        BenchError: nothing can run here, or the results folder cannot be written.
    """
    store = Measurements(context.results)
    trials = [Trial(made) for made in configurations]
    find_batch_sizes(trials, request, context)
    trials += _choose_references(trials, request)
    _take_recorded_scores(trials, store)
    ceiling = _measure_ceiling(trials, request, context)
    cold_starts: list[dict[str, Any]] = []
    noise, processes = run_trials(trials, request, context)
    try:
        if not noise["interrupted"]:
            ceiling = ceiling.merge(_measure_ceiling(trials, request, context))
            if any((share_of_peak(trial, ceiling) or 0.0) > MOST_SHARE for trial in trials):
                ceiling = ceiling.merge(_measure_ceiling(trials, request, context, longer=3))
            if request.layers:
                _profile(trials)
            if request.cold_start:
                cold_starts = _cold_starts(trials, request, folder, context)
    except KeyboardInterrupt:  # the samples are complete, and are kept
        noise["interrupted"] = True
        noise["warnings"].append("interrupted after the samples were complete")
    cpu, instruction_sets = processor()
    identity = store.new_id()
    targets = {made.target.label: made.target.name for made in configurations}
    environment = describe_environment(context.device, threads=context.threads)
    environment |= {name: version_of(name) for name in RUNTIMES}
    rows = make_rows(
        trials,
        measurement=identity,
        cpu=f"{cpu} ({' '.join(instruction_sets)})",
        gpu=environment.get("gpu"),
        goal=_row_goal(request),
        ceiling=ceiling,
        warnings=noise["warnings"],
        other_processes=noise["others"],
        pinned=request.pin,
    )
    add_repeats(rows, environment, store.records())
    record = MeasurementRecord(
        measurement=identity,
        request=asdict(request)
        | {"targets": list(targets), "names": list(dict.fromkeys(targets.values()))},
        rows=rows,
        environment=environment,
        ceiling=asdict(ceiling),
        noise=noise | {"floors": noise_floors(trials)},
        lanes={trial.name: _details(trial) for trial in trials},
        processes=[asdict(one) for one in processes],
        cold_starts=[{"measurement": identity, **row} for row in cold_starts],
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


def _take_recorded_scores(trials: Sequence[Trial], store: Measurements) -> None:
    """Spare the trials that an earlier measurement scored in the same runtime on this machine."""
    lanes = (lane for record in store.records() for lane in record.lanes.values())
    known = [lane["score"] for lane in lanes if "score" in lane][::-1]
    for trial in trials if known else ():
        trial.score = recorded_score(trial.configuration, known)


def run_trials(
    trials: Sequence[Trial], request: Request, context: Context
) -> tuple[dict[str, Any], list[Replicate]]:
    """Measure every trial, in this process or in several fresh ones.

    Returns:
        The machine's noise meanwhile, with `warnings` and `interrupted`, and the processes.

    Raises:
        BenchError: no trial is supported here.
    """
    before = take_snapshot(context.device)
    found = Replication([], [])
    goal = _goal(request)
    if request.processes == 1:
        try:
            open_trials(trials, request, context.on_event)
            sample_trials(trials, goal, seed=request.seed, on_event=context.on_event)
            describe_trials(trials)
            score_trials(trials, context.on_event)
        finally:
            for trial in trials:
                trial.close()
    else:
        run = partial(
            run_process,
            request=request,
            goal=goal,
            device=context.device,
            on_event=context.on_event,
        )
        found = replicate(trials, request, goal, run, context.on_event)
    noisy, noise = noise_between(before, take_snapshot(context.device))
    if all(trial.status == "unsupported" for trial in trials):
        reasons = dict.fromkeys(str(trial.error) for trial in trials)
        raise BenchError(f"nothing of this can run here: {'; '.join(reasons)}")
    # A process without a context on the GPU may not tell its own from others' there.
    gpu = [warning for one in found.processes for warning in one.noise.get("gpu", ())]
    warnings = list(dict.fromkeys([*found.warnings, *noisy, *gpu]))
    noise |= {"warnings": warnings, "interrupted": found.interrupted}
    return noise, found.processes


def _measure_ceiling(
    trials: Sequence[Trial], request: Request, context: Context, longer: int = 1
) -> Ceiling:
    context.on_event({"event": "ceiling"})
    precisions = {t.configuration.precision for t in trials if t.status == "complete"}
    measure = partial(measure_ceiling, seconds=longer * min(1.0, request.max_seconds / 10))
    where = (context.device, context.threads, precisions)
    if context.device == "cpu":  # where nothing stays, and a subprocess takes seconds to start
        return measure(*where)
    try:  # the context and the blocks of a GPU would stay in this process while others measure
        found: Ceiling = call_in_subprocess(measure, *where, timeout=request.timeout)
    except (RuntimeError, BenchError) as error:
        raise BenchError(f"the ceiling of {context.device} was not measured: {error}") from None
    return found


def _profile(trials: Sequence[Trial]) -> None:
    """Profile each configuration, after all samples: a profiler slows down what it watches."""
    for trial in trials:
        if trial.status == "complete" and not trial.configuration.twin:
            try:
                trial.layers = profile_layers(trial.configuration)
            except Exception as error:  # the samples are kept whatever a profiler does
                status, reason = status_of(error)
                trial.layers = [{"status": status, "error": reason}]


def _cold_starts(
    trials: Sequence[Trial], request: Request, folder: Path, context: Context
) -> list[dict[str, Any]]:
    """Measure the cold start of each configuration that ran."""
    made = [t.configuration for t in trials if t.status == "complete"]
    count = PROCESSES if request.processes == "auto" else int(request.processes)
    return measure_cold_starts(
        [one for one in made if not one.twin],
        folder,
        processes=count,
        timeout=request.timeout,
        seed=request.seed,
        on_event=context.on_event,
    )


def profile_layers(configuration: Configuration) -> list[dict[str, Any]]:
    """Profile a configuration in this process.

    Returns:
        Layers in the network's order, then operators, slowest first, as `layer_rows`.

    Raises:
        UnsupportedError: its backend has no profiler, or it has several streams.
        BenchError: it cannot be opened.
    """
    backend = load_backend(configuration.backend)
    if not isinstance(backend, ProfilingBackend):
        name = configuration.backend
        raise UnsupportedError(f"--layers: the backend '{name}' has no profile by layer")
    if configuration.streams > 1:
        raise UnsupportedError("--layers: only --streams 1 is profiled")
    runner = LocalRunner(configuration)
    try:
        return layer_rows(*backend.profile(runner.prepared, runner.step, RUNS))
    finally:
        runner.close()


def _goal(request: Request) -> Goal:
    """Return the goal of the samples; latency matters with several streams, too."""
    if request.scenario == "server":  # a search is as long in each process as in one
        return Goal(request.target_width, request.max_seconds * fewest_processes(request))
    latency = request.scenario == "single-stream" or max(request.streams) > 1
    fewest = honest_count(0.99) if latency else 0
    if request.bounded:
        fewest = bounding_count(0.99)
    return Goal(request.target_width, request.max_seconds, fewest, only_bounded=request.bounded)


def _row_goal(request: Request) -> Goal:
    """Return what a row must reach: offline, not a p99, which it may lack."""
    goal = _goal(request)
    return replace(goal, min_samples=0) if request.scenario == "offline" else goal


def _details(trial: Trial) -> dict[str, Any]:
    report = trial.report
    # Of the server scenario, the interval is of a rate of single images.
    batch = trial.interval if trial.configuration.scenario != "server" else None
    return {
        "status": trial.status,
        "error": trial.error,
        "executed": asdict(report.executed) if report else None,
        "repeats": report.repeats if report else None,
        "blocks": sum(len(one.blocks) for one in (trial, *trial.replicates.values())),
        "failures": [error for _, error in trial.failures],
        "seconds_spent": trial.seconds_spent if trial.warm_up or trial.blocks else None,
        "steady": trial.warm_up.steady if trial.warm_up else None,
        **({"layers": trial.layers} if trial.layers else {}),
        **({"measured_milliseconds": batch.median * 1e3} if batch else {}),
        **as_json(trial.configuration, trial.score),
        **trial.configuration.details,
    }


def _raw_samples(trials: Sequence[Trial]) -> list[tuple[Any, ...]]:
    """Return rows of `bench.store.measurements.SAMPLE_COLUMNS`."""
    rows: list[tuple[Any, ...]] = []
    for trial in trials:
        for process, one in trial.replicates.items() or ((0, trial),):
            head = (trial.name, process)
            warm_up = one.warm_up.seconds if one.warm_up else ()
            rows += [(*head, "warm-up", -1, 0, repr(seconds)) for seconds in warm_up]
            rows += [
                (*head, "sample", number, one.positions[number], repr(seconds))
                for number, block in one.blocks.items()
                for seconds in block
            ]
            if trial.configuration.streams > 1:
                rows += [(*head, "latency", -1, 0, repr(seconds)) for seconds in one.latencies]
    return rows
