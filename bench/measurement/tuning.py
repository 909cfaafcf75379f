"""Search for the fastest configuration within bounds, by successive halving: `bench tune`.

Backends that take long to prepare (`torch.compile`) enter last, and only with the batch sizes and
thread counts that are still in the race: compiling every combination would take most of the time.
"""

from __future__ import annotations

import functools
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.errors import BenchError
from bench.export.examine import spell_size
from bench.measurement.backends import MEMORY_FORMATS, PRECISIONS, load_backend, loaded_backends
from bench.measurement.configurations import (
    BASELINE,
    Configuration,
    Request,
    check_above_zero,
    expand,
)
from bench.measurement.examples import find_examples
from bench.measurement.machine.noise import is_tick_warning
from bench.measurement.measure import measure_configurations
from bench.measurement.preparation import Context, with_files
from bench.measurement.ranking import fastest_of
from bench.measurement.timing.percentiles import bounding_count
from bench.measurement.timing.runner import LocalRunner, Runner
from bench.measurement.timing.sampling import Goal, run_plan
from bench.measurement.timing.trial import Trial
from bench.store import Store
from bench.store.measurements import Measurements
from bench.system.intervals import FEWEST_PROCESSES
from bench.system.machine_lock import measuring_lock
from bench.system.processor_use import too_busy
from bench.targets.network import spell_values

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.measurement.measured_network import MeasuredNetwork
    from bench.store.measurements import MeasurementRecord
    from bench.training.run import OnEvent

OpenRunner = Callable[[Configuration], Runner]

# Halving (Jamieson and Talwalkar 2016): each rung gives half as many configurations twice the time.
_FIRST_SECONDS = 0.5
_LAST = 3
_FINAL_SECONDS = 12.0  # for each finalist, in all processes
MINUTES = 10.0


class UnreachedError(BenchError):
    """No configuration keeps the bounds."""


@dataclass
class Budget:
    """Wall time for the search; a configuration that was begun is finished.

    `begun` and `skipped` name the candidates that were begun and those without time.
    """

    minutes: float = MINUTES
    begun: set[str] = field(default_factory=set)
    skipped: set[str] = field(default_factory=set)
    now: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        check_above_zero("--max-minutes", self.minutes)
        self.until = self.now() + 60 * self.minutes

    @property
    def spent(self) -> bool:
        """Whether nothing new may begin."""
        return self.now() >= self.until

    def admit(self, configuration: Configuration) -> bool:
        """Return whether there is time to measure it, and record the answer."""
        name = f"{configuration.name} / {configuration.threads} threads"
        if not self.spent:
            self.begun.add(name)
        elif name not in self.begun:
            self.skipped.add(name)
        return not self.spent


@dataclass(frozen=True)
class Bounds:
    """Bounds that the fastest configuration has to keep.

    Attributes:
        latency_ms: of a batch: p99 stays below it, at 95 % confidence of each finalist alone; the
            search itself, with few samples, goes by the median.
        accuracy: lower bound of the top-1 accuracy of exactly that network or file in that
            backend, 0…1; on the validation split, or the test split of those without one.

    Raises:
        BenchError: a value is out of range.
    """

    latency_ms: float | None = None
    accuracy: float | None = None

    def __post_init__(self) -> None:
        check_above_zero("--max-latency-ms", self.latency_ms)
        if self.accuracy is not None and not 0 <= self.accuracy <= 1:
            raise BenchError(
                f"--min-accuracy {self.accuracy * 100:g}: it must be at least 0 and at most 100 "
                "(per cent)"
            )


@dataclass(frozen=True)
class Tuned:
    """The result of a search.

    Attributes:
        best: the configuration within the bounds with the highest ratio or images/s.
        record: the final, interleaved measurement: the finalists, default eager and channels-last
            eager.
        command: measures it again.
        tried: number of configurations that were measured.
        skipped: number of those for which there was no time.
        left_out: precisions whose file could not be made, and finalists that did not keep the
            bounds, with the reason.
        again: number of configurations within the bounds, eager ones included, that were measured
            again.
        as_fast: names of those of them whose intervals overlap with that of `best`.
        no_verdict: why the times do not show which is fastest, and what helps; None if they do.
        bounds: that were to be kept.
    """

    best: Configuration
    record: MeasurementRecord
    command: str
    tried: int
    skipped: int = 0
    left_out: tuple[str, ...] = ()
    again: int = 1
    as_fast: tuple[str, ...] = ()
    no_verdict: str | None = None
    bounds: Bounds = field(default_factory=Bounds)

    def outcome(self, row: dict[str, Any]) -> dict[str, bool]:
        """Say whether a row of the record keeps the bounds (`fits`), and is `best` (`chosen`)."""
        fits = _why_not_within(row, self.bounds)[0] is None
        return {"fits": fits, "chosen": _is_row_of(row, self.best)}


@dataclass(frozen=True)
class LeftOut:
    """A finalist that did not keep the bounds when it was measured again.

    `by_answers` says whether all that answer as it does are left out with it.
    """

    made: Configuration
    reason: str
    by_answers: bool


def candidates(
    target: MeasuredNetwork,
    *,
    device: str,
    threads: Sequence[int],
    batch_sizes: Sequence[int],
    streams: Sequence[int] = (1,),
) -> list[Configuration]:
    """Return all that can run here: backends, precisions, formats, threads, batches, streams."""
    request = Request(
        backends=tuple(n for n, backend in loaded_backends().items() if backend.needs != "nothing"),
        precisions=PRECISIONS,
        batch_sizes=tuple(batch_sizes),
        memory_formats=MEMORY_FORMATS,
        streams=tuple(streams),
    )
    found = [
        one for count in threads for one in expand(request, [target], device=device, threads=count)
    ]
    return [one for one in found if one.unsupported is None]


def axes(device: str, threads: int) -> tuple[list[int], Sequence[int]]:
    """Return the thread counts and batch sizes to try: a GPU has no use for CPU threads."""
    if device.startswith("cuda"):
        return [threads], (1, 8, 32, 256)
    return sorted({1, threads}, reverse=True), (1, 8, 32)


def halve(
    configurations: Sequence[Configuration],
    bounds: Bounds,
    open_runner: OpenRunner,
    *,
    budget: Budget | None = None,
    on_event: OnEvent = lambda _event: None,
) -> list[Configuration]:
    """Measure all for a short time, keep the faster half for twice the time, and so on.

    Once the *budget* is spent, the ranking so far is the answer.

    Returns:
        At most three configurations, fastest first, all within the latency bound.

    Raises:
        UnreachedError: none keeps the latency bound; the message names the best latency.
        BenchError: none could run.
    """
    budget = budget or Budget()
    left, seconds = list(configurations), _FIRST_SECONDS
    limit = float("inf") if bounds.latency_ms is None else bounds.latency_ms / 1e3
    ranked: list[Configuration] = []
    while True:
        timed = _rung(left, seconds, open_runner, budget)
        if ranked and len(timed) < min(len(left), _LAST):
            return ranked[:_LAST]  # the budget ended within this rung
        if not timed:
            raise BenchError("none of the configurations could run here")
        # With several streams, a batch takes as many times the time from one batch to the next.
        within = [(one, median) for one, median in timed if median * one.streams <= limit]
        if not within:
            best = min(median * one.streams for one, median in timed) * 1e3
            raise UnreachedError(
                f"--max-latency-ms {bounds.latency_ms:g}: nothing here reaches it; the best is "
                f"{best:.3g} ms a batch"
            )
        within.sort(key=lambda pair: pair[1] / pair[0].batch_size)
        ranked = [one for one, _ in within]
        on_event({"event": "rung", "left": len(ranked), "seconds": seconds})
        if len(ranked) <= _LAST or budget.spent:
            return ranked[:_LAST]
        left = ranked[: max(_LAST, len(ranked) // 2)]
        seconds *= 2


def halve_by_preparation(
    configurations: Sequence[Configuration],
    bounds: Bounds,
    open_runner: OpenRunner,
    *,
    budget: Budget,
    on_event: OnEvent = lambda _event: None,
) -> list[Configuration]:
    """Halve what is quick to prepare, then the finalists together with what is slow to prepare.

    Slow ones enter with the batch sizes and thread counts of the finalists; with all, if none of
    the quick ones keeps the latency bound.

    Returns:
        As `halve`.

    Raises:
        BenchError: as `halve`.
    """
    race = functools.partial(
        halve, bounds=bounds, open_runner=open_runner, budget=budget, on_event=on_event
    )
    quick: list[Configuration] = []
    slow: list[Configuration] = []
    for one in configurations:
        late = getattr(load_backend(one.backend), "slow_to_prepare", False)
        (slow if late else quick).append(one)
    if not quick or not slow:
        return race(configurations)
    try:
        left = race(quick)
    except UnreachedError:
        return race([*quick, *slow])
    sizes = {(one.threads, one.batch_size) for one in left}
    matching = [one for one in slow if (one.threads, one.batch_size) in sizes]
    admitted = [one for one in matching if budget.admit(one)]
    return race([*left, *admitted]) if admitted else left


def tune(
    target: MeasuredNetwork,
    context: Context,
    bounds: Bounds,
    *,
    batch_sizes: Sequence[int] | None = None,
    streams: Sequence[int] | None = None,
    minutes: float = MINUTES,
    dataset: str | None = None,
) -> Tuned:
    """Find the fastest configuration within the bounds.

    The finalists of the search are measured again beside eager, in fresh processes and on fresh
    samples, where each answers the test set in its own runtime: the fastest is a lucky one more
    often than others. If none keeps the bounds there, the search goes on among the rest.

    Args:
        target: the network.
        context: where it is measured.
        bounds: what the configuration has to keep.
        batch_sizes: to try (default: 1, 8 and 32, and 256 on a GPU, or a file's only one).
        streams: batches in flight to try (default: 1, and as many as there are threads).
        minutes: after which no further configuration is begun.
        dataset: images to calibrate int8 with, as `bench export-onnx --dataset` takes them.

    Raises:
        BenchError: nothing keeps the bounds.
        KeyboardInterrupt: Ctrl-C while the finalists were measured; their record is kept.
    """
    budget = Budget(minutes)
    threads, sizes = axes(context.device, context.threads)
    if target.static_batch is not None:
        sizes = (target.static_batch,)
    given = candidates(
        target,
        device=context.device,
        threads=threads,
        batch_sizes=sorted(batch_sizes or sizes, reverse=True),
        streams=tuple(dict.fromkeys(streams or (1, context.threads))),
    )
    if bounds.accuracy is not None and find_examples(target) is None:
        raise BenchError(
            "--min-accuracy needs a trained run, or a file whose images are known: a model that is "
            "only named has random weights"
        )
    if dataset is not None and target.file is not None:
        raise BenchError(
            f"--dataset {dataset}: it calibrates int8, and {target.label} is measured as it is; "
            "leave it out"
        )
    Measurements(context.results).prepare()
    with measuring_lock(), tempfile.TemporaryDirectory(prefix="bench-") as folder:
        made = list(with_files(given, Path(folder), context, dataset))
        left = [one for one in made if not one.unsupported]
        # Those whose file could not be made.
        refused = {
            f"left out: {one.backend} {one.precision} of {one.target.label}: {one.unsupported}"
            for one, before in zip(made, given, strict=True)
            if one.unsupported and not before.unsupported
        }
        eager = [one for one in left if _is_reference(one, context)]
        left_out: list[LeftOut] = []
        while True:
            finalists = halve_by_preparation(
                left, bounds, LocalRunner, budget=budget, on_event=context.on_event
            )
            record = _measured_again(finalists, eager, bounds, context, Path(folder), dataset)
            if record.noise.get("interrupted"):  # what was complete is stored
                raise KeyboardInterrupt
            out = _left_out(finalists, record, bounds)
            left_out += out
            if len(out) < len(finalists):
                break
            left = [one for one in left if not any(_is_like(one, other) for other in out)]
            if not left or budget.spent:
                raise UnreachedError(_nothing_keeps(left_out, bounds))
    keeping = _within([*finalists, *eager], record, bounds)
    row, as_fast = fastest_of([row for row, _ in keeping], record.rows)
    mixed = len({one.threads for _, one in keeping}) > 1  # then names say how many
    best, *ties = (
        replace(next(one for other, one in keeping if other is found), mixed_threads=mixed)
        for found in (row, *as_fast)
    )
    return Tuned(
        best,
        record,
        command_for(best, dataset),
        len(budget.begun),
        len(budget.skipped),
        (
            *sorted(refused),
            *(f"left out: {one.made.name}: {one.reason}" for one in left_out),
        ),
        len(keeping),
        tuple(one.name for one in ties),
        _no_verdict([row for row, _ in keeping]),
        bounds,
    )


def _is_reference(made: Configuration, context: Context) -> bool:
    plain = (BASELINE, "fp32", context.threads, 1)
    return (made.backend, made.precision, made.threads, made.streams) == plain


def _measured_again(
    finalists: Sequence[Configuration],
    eager: Sequence[Configuration],
    bounds: Bounds,
    context: Context,
    folder: Path,
    dataset: str | None,
) -> MeasurementRecord:
    """Measure the finalists and eager at their batch sizes, interleaved, in fresh processes."""
    sizes = {one.batch_size for one in finalists}
    beside = [one for one in eager if one.batch_size in sizes]
    bounded = bounds.latency_ms is not None
    # The last reference of its kind counts, whatever its number of threads.
    all_of_them = [*(one for one in finalists if one not in beside), *beside]
    mixed = len({one.threads for one in all_of_them}) > 1
    target = all_of_them[0].target
    # A ratio is one of times that were taken in the same way; only the finalists' p99 matters.
    made = [
        replace(one, mixed_threads=mixed, alone=bounded, bounded=bounded and one in finalists)
        for one in all_of_them
    ]
    seconds = _FINAL_SECONDS
    if bounds.latency_ms is not None:  # enough batches to bound p99, if they keep the bound
        seconds = max(seconds, 1.5 * bounding_count(0.99) * bounds.latency_ms / 1e3)
    request = Request(
        backends=tuple(dict.fromkeys(one.backend for one in made)),
        precisions=tuple(dict.fromkeys(one.precision for one in made)),
        memory_formats=tuple(dict.fromkeys(one.memory_format for one in made)),
        batch_sizes=tuple(sorted(sizes)),
        streams=tuple(sorted({one.streams for one in made})),
        max_seconds=seconds,
        bounded=bounded,
        options=target.options if target.kind == "model" else None,
        input_size=target.image_size if target.run is None else None,
        dataset=dataset if any(one.precision == "int8" for one in made) else None,
    )
    return measure_configurations(made, request, context, folder)


def _within(
    measured: Sequence[Configuration], record: MeasurementRecord, bounds: Bounds
) -> list[tuple[dict[str, Any], Configuration]]:
    """Return the row of each configuration that was measured again and keeps the bounds."""
    return [
        (row, next(one for one in measured if _is_row_of(row, one)))
        for row in record.rows
        if _why_not_within(row, bounds)[0] is None
    ]


def _left_out(
    finalists: Sequence[Configuration], record: MeasurementRecord, bounds: Bounds
) -> list[LeftOut]:
    """Return the finalists that do not keep the bounds."""
    out = []
    for one in finalists:
        row = next(row for row in record.rows if _is_row_of(row, one))
        reason, alike = _why_not_within(row, bounds)
        if reason is not None:
            out.append(LeftOut(one, reason, alike))
    return out


def _no_verdict(rows: Sequence[dict[str, Any]]) -> str | None:
    """Return why the times of rows do not show which is fastest, and what helps."""
    for row in rows:
        if busy := too_busy(row.get("other_processes")):
            return f"{busy}; tune while nothing else runs"
        for warning in (row.get("warnings") or "").split("; "):
            if is_tick_warning(warning):
                return f"{warning}; tune while nothing else runs"
        if (count := row.get("processes") or 1) < FEWEST_PROCESSES:
            return (
                f"only {count} of the {FEWEST_PROCESSES} processes that a verdict needs are "
                "complete; try smaller --batch-size, and let it end"
            )
    return None


def _is_row_of(row: dict[str, Any], made: Configuration) -> bool:
    same = ("backend", "precision", "memory_format", "batch_size", "threads", "streams")
    return all(row[name] == getattr(made, name) for name in same)


def _why_not_within(row: dict[str, Any], bounds: Bounds) -> tuple[str | None, bool]:
    """Return why a row does not keep the bounds, and whether that is due to its answers."""
    if row["status"] != "complete":
        return str(row["error"]), False
    if bounds.latency_ms is not None:
        high = row.get("latency_p99_high_ms")
        if high is None:
            return f"too few batches ({row['samples']}) to bound p99", False
        if high > bounds.latency_ms:
            return f"p99 is only known to be at most {high:.3g} ms (95 %)", False
    if bounds.accuracy is not None:
        split = "validation" if row.get("validation_accuracy") is not None else "test"
        found = row.get(f"{split}_accuracy")
        if found is None:
            return "its accuracy is unknown", True
        if found < bounds.accuracy:
            return f"its {split} accuracy is {found * 100:.2f} %", True
    return None, False


def _is_like(one: Configuration, out: LeftOut) -> bool:
    """Return whether what was left out is this, or answers as it does."""
    same = ["backend", "precision", "memory_format"]
    if not out.by_answers:
        same += ["batch_size", "threads", "streams"]
    return all(getattr(one, name) == getattr(out.made, name) for name in same)


def _nothing_keeps(left_out: Sequence[LeftOut], bounds: Bounds) -> str:
    options = [
        f"--max-latency-ms {bounds.latency_ms:g}" if bounds.latency_ms is not None else "",
        f"--min-accuracy {bounds.accuracy * 100:g}" if bounds.accuracy is not None else "",
    ]
    found = "; ".join(f"{one.made.name}: {one.reason}" for one in left_out[:_LAST])
    return f"{' '.join(filter(None, options))}: nothing measured again keeps it ({found})"


def command_for(made: Configuration, dataset: str | None = None) -> str:
    """Return the command that measures a configuration again; *dataset* is that of `tune`."""
    target = made.target
    words = ["throughput", str(target.file or target.run or target.name)]
    if target.kind != "run":
        words += [word for o in spell_values(target.options) for word in ("--option", o)]
        words += ["--input-size", spell_size(target.image_size)]
    words += ["--backend", made.backend, "--precision", made.precision]
    words += ["--memory-format", made.memory_format, "--batch-size", str(made.batch_size)]
    words += ["--threads", str(made.threads)]
    words += ["--streams", str(made.streams)] if made.streams > 1 else []
    words += ["--device", made.device]
    words += ["--dataset", dataset] if dataset and made.precision == "int8" else []
    return Store(target.results).command(*words)


def _rung(
    configurations: Sequence[Configuration],
    seconds: float,
    open_runner: OpenRunner,
    budget: Budget,
) -> list[tuple[Configuration, float]]:
    """Measure a rung: interleaved within each group of equal thread count and batch size."""
    groups: dict[tuple[int, int], list[Configuration]] = {}
    for one in configurations:
        groups.setdefault((one.threads, one.batch_size), []).append(one)
    timed = []
    for members in groups.values():
        trials = []
        for one in filter(budget.admit, members):
            trials.append(Trial(one))
            with trials[-1].recording_failure():  # what cannot be prepared is no candidate
                trials[-1].runner = open_runner(one)
        opened = [trial for trial in trials if trial.runner is not None]
        run_plan(opened, Goal(max_seconds=seconds, block_seconds=seconds / 8))
        for trial in opened:
            if trial.status == "complete" and trial.interval is not None:
                timed.append((trial.configuration, trial.interval.median))
            trial.close()
    return timed
