"""One interleaved comparison from request to record: what `bench throughput` does."""

from __future__ import annotations

import tempfile
from collections import Counter
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.errors import BenchError
from bench.measurement.configurations import Request, expand, references
from bench.measurement.machine.ceiling import Ceiling, measure_ceiling
from bench.measurement.machine.noise import compare, look
from bench.measurement.measured_network import DEFAULT_TARGET, Target, find_targets
from bench.measurement.preparation import Place, pinned, with_batch_sizes, with_files
from bench.measurement.rows import Context, Outcome, best_eagers, make_row
from bench.measurement.timing.process_runner import ProcessLane
from bench.measurement.timing.sampling import Goal, Track, run_plan, status_of
from bench.store.measurements import MeasurementRecord, Measurements
from bench.system.devices import check_count, physical_cores, resolve_device
from bench.system.environment import describe_environment, processor, version_of
from bench.system.machine_lock import measuring_lock

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    from bench.measurement.configurations import Configuration
    from bench.measurement.preparation import OnEvent
    from bench.measurement.timing.runner import Lane

# A batch whose images alone take this share of the free memory may not fit with its
# activations (about twenty times as large in a residual network), so it runs on its own.
_RISKY_SHARE = 0.05


def measure(
    targets: str | Path | Sequence[str | Path] = (),
    *,
    results: str | Path = "bench-runs",
    device: str = "auto",
    threads: int | None = None,
    options: dict[str, Any] | None = None,
    input_size: int | None = None,
    on_event: OnEvent = lambda _event: None,
    **request: Any,
) -> pd.DataFrame:
    """Measure how fast networks run, each configuration interleaved with the others.

    Args:
        targets: models, runs (id, beginning of one, folder), studies (a run of each variant)
            and `.onnx` files; ResNet-18 without.
        results: the results folder; raw samples go to its `measurements/ID/`.
        device: auto, cpu, cuda, cuda:N or mps.
        threads: CPU threads; without, the physical cores that this process may use.
        options: options of models that are named.
        input_size: side in pixels of models that are named.
        on_event: called with what happens, as dictionaries.
        **request: fields of `bench.measurement.configurations.Request`, such as `backends`.

    Returns:
        The rows of the `throughput` table (`bench.load_results`). What could not run has
        another `status` than complete, and no figure.

    Raises:
        BenchError: the request cannot be understood, or nothing of it can run here.
    """
    from bench.store.tables.frames import throughput_frame

    names = [str(t) for t in ([targets] if isinstance(targets, str | Path) else targets)]
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in request.items()}
    wanted = Request(**values)
    cores = physical_cores()
    check_count("--threads", threads, cores, "core")
    place = Place(Path(results), str(resolve_device(device)), threads or cores, on_event)
    found = find_targets(
        names or [DEFAULT_TARGET], results=results, options=options, input_size=input_size
    )
    return throughput_frame(conduct(wanted, _told_apart(found), place).rows)


def _told_apart(targets: Sequence[Target]) -> list[Target]:
    """Drop what was named twice; files of equal names are called by their paths."""
    distinct = [t for i, t in enumerate(targets) if t not in targets[:i]]
    counts = Counter(t.label for t in distinct)
    return [
        replace(t, label=str(t.file)) if t.file is not None and counts[t.label] > 1 else t
        for t in distinct
    ]


def conduct(request: Request, targets: Sequence[Target], place: Place) -> MeasurementRecord:
    """Measure, and publish the record with every raw sample.

    Raises:
        BenchError: nothing can run here, or the results folder cannot be written.
    """
    store = Measurements(place.results)
    configurations = expand(request, targets, device=place.device, threads=place.threads)
    _require_something(configurations)
    store.prepare()
    with ExitStack() as stack:
        stack.enter_context(measuring_lock())
        if request.pin:
            stack.enter_context(pinned(place.threads))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        outcomes = [Outcome(c) for c in with_files(configurations, folder, place)]
        outcomes = with_batch_sizes(outcomes, request, place)
        chosen = references([o.configuration for o in outcomes if _alive(o)], request.reference)
        twins = [Outcome(replace(c, twin=True)) for c in chosen.values()]
        everything = [*outcomes, *(twins if request.scenario != "server" else [])]
        leaders = {c.name for c in chosen.values()}
        ceiling, noise = _run(everything, request, place, leaders)
        if request.layers:
            _profile(outcomes)
    identity = store.new_id()
    by_group = {g: next(o for o in outcomes if o.configuration is c) for g, c in chosen.items()}
    cpu, sets = processor()
    context = Context(
        measurement=identity,
        cpu=f"{cpu} ({' '.join(sets)})",
        goal=_goal(request),
        ceiling=ceiling,
        references=by_group,
        twins={t.configuration.group: t for t in twins},
        warnings=tuple(noise["warnings"]),
        best_eager=best_eagers(outcomes),
    )
    record = MeasurementRecord(
        measurement=identity,
        request=asdict(request) | {"targets": [t.label for t in targets]},
        rows=[make_row(outcome, context) for outcome in outcomes],
        environment=describe_environment(place.device, threads=place.threads)
        | {name: version_of(name) for name in ("onnxruntime-gpu", "onnxruntime", "openvino")},
        ceiling=asdict(ceiling),
        noise=noise | {"floors": {g: context.noise_floor(g) for g in by_group}},
        lanes={o.configuration.name: _lane_details(o) for o in everything},
    )
    return store.publish(record, _raw_samples(everything))


def _require_something(configurations: Sequence[Configuration]) -> None:
    if any(c.unsupported is None for c in configurations):
        return
    reasons = dict.fromkeys(str(c.unsupported) for c in configurations)
    raise BenchError(f"nothing of this can run here: {'; '.join(reasons)}")


def _run(
    outcomes: Sequence[Outcome], request: Request, place: Place, leaders: set[str]
) -> tuple[Ceiling, dict[str, Any]]:
    """Open every lane, sample them, ask what ran, close them."""
    try:
        for outcome in outcomes:
            _open(outcome, request, place, leaders)
        precisions = {o.configuration.precision for o in outcomes if _alive(o)}
        before = look(place.device)
        place.on_event({"event": "ceiling"})
        budget = min(1.0, request.max_seconds / 10)
        ceiling = measure_ceiling(place.device, place.threads, precisions, seconds=budget)
        _sample(outcomes, request, place)
        after = look(place.device)
        warnings, noise = compare(before, after)
        for outcome in outcomes:
            _report(outcome)
        again = measure_ceiling(place.device, place.threads, precisions, seconds=budget)
        ceiling = ceiling.merge(again)
    finally:
        for outcome in outcomes:
            if outcome.track is not None:
                outcome.track.lane.close()
    return ceiling, noise | {"warnings": warnings}


def _open(outcome: Outcome, request: Request, place: Place, leaders: set[str]) -> None:
    made = outcome.configuration
    if made.unsupported is not None:
        outcome.status, outcome.error = "unsupported", made.unsupported
    if not _alive(outcome):
        return
    place.on_event({"event": "prepare", "what": made.name})
    isolate = request.isolate or _is_risky(made)
    try:
        lane: Lane = ProcessLane(made, timeout=request.timeout) if isolate else made.open()
    except Exception as error:  # a backend's failure is its row
        outcome.status, outcome.error = status_of(error)
        return
    outcome.track = Track(made.name, lane, made.group, made.name in leaders)


def _sample(outcomes: Sequence[Outcome], request: Request, place: Place) -> None:
    alive = [o for o in outcomes if o.track is not None]
    if request.scenario == "server":
        from bench.measurement.timing.server import find_rate

        for outcome in alive:
            try:
                find_rate(outcome, request, place.on_event)
            except Exception as error:  # its row says so, and the others go on
                outcome.status, outcome.error = status_of(error)
        return
    tracks = [o.track for o in alive if o.track is not None]
    run_plan(tracks, _goal(request), seed=request.seed, on_event=place.on_event)
    for outcome in alive:
        if outcome.track is not None and outcome.track.status != "complete":
            outcome.status, outcome.error = outcome.track.status, outcome.track.error


def _report(outcome: Outcome) -> None:
    if outcome.track is None or not _alive(outcome):
        return
    try:
        outcome.report = outcome.track.lane.describe()
    except Exception as error:  # without it nobody knows what ran, so there is no figure
        outcome.status, outcome.error = status_of(error)


def _profile(outcomes: Sequence[Outcome]) -> None:
    """Add where the time goes, after all samples: a profiler slows down what it watches."""
    from bench.measurement.profile.profile import profile

    for outcome in outcomes:
        if _alive(outcome):
            try:
                shares = [asdict(share) for share in profile(outcome.configuration)]
                outcome.layers = shares
            except BenchError as error:
                outcome.layers = [{"error": str(error)}]


def _goal(request: Request) -> Goal:
    from bench.measurement.timing.percentiles import honest_count

    fewest = honest_count(0.99) if request.scenario == "single-stream" else 0
    return Goal(request.target_width, request.max_seconds, fewest)


def _alive(outcome: Outcome) -> bool:
    return outcome.status == "complete" and outcome.configuration.unsupported is None


def _is_risky(made: Configuration) -> bool:
    import math

    import psutil

    images = 4 * made.batch_size * math.prod(made.target.input_shape)
    return made.device == "cpu" and images > _RISKY_SHARE * psutil.virtual_memory().available


def _lane_details(outcome: Outcome) -> dict[str, Any]:
    track, report = outcome.track, outcome.report
    return {
        "status": outcome.status,
        "error": outcome.error,
        "executed": asdict(report.executed) if report else None,
        "repeats": report.repeats if report else None,
        "blocks": len(track.blocks) if track else 0,
        "seconds_spent": track.spent if track else None,
        "steady": track.warm_up.steady if track and track.warm_up else None,
        **({"layers": outcome.layers} if outcome.layers else {}),
        **outcome.configuration.details,
    }


def _raw_samples(outcomes: Sequence[Outcome]) -> list[tuple[Any, ...]]:
    rows: list[tuple[Any, ...]] = []
    for outcome in outcomes:
        name, track = outcome.configuration.name, outcome.track
        if track is None:
            continue
        warm = track.warm_up.seconds if track.warm_up else ()
        rows += [(name, "warm-up", -1, 0, repr(seconds)) for seconds in warm]
        rows += [
            (name, "sample", number, track.positions[number], repr(seconds))
            for number, block in track.blocks.items()
            for seconds in block
        ]
    return rows
