"""Rows of the `throughput` table, from tracks that have been sampled."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bench.measurement.machine.nvml import Watched
from bench.measurement.timing.percentiles import nearest_rank
from bench.system.intervals import ratio_interval

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.measurement.configurations import Configuration
    from bench.measurement.machine.ceiling import Ceiling
    from bench.measurement.timing.runner import RunnerReport
    from bench.measurement.timing.sampling import Goal, Track
    from bench.system.intervals import Interval

PERCENTILES = (0.5, 0.9, 0.99)


@dataclass
class Outcome:
    """A configuration and what became of it.

    Attributes:
        configuration: what was asked for.
        status: complete, unsupported, out_of_memory or failed.
        error: one line where it is not complete.
        track: its samples; None where it never ran.
        report: what ran; None where it never ran.
        extra: columns that a scenario adds.
        layers: where the time goes, if that was asked for.
    """

    configuration: Configuration
    status: str = "complete"
    error: str | None = None
    track: Track | None = None
    report: RunnerReport | None = None
    extra: dict[str, Any] = field(default_factory=dict)
    layers: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Context:
    """What all rows of a measurement share.

    Attributes:
        measurement: its id.
        cpu: the processor with its instruction sets.
        goal: when a row is no longer noisy.
        ceiling: the machine's own.
        references: group → its reference.
        twins: group → the reference entered a second time.
        warnings: of the whole measurement.
        best_eager: group → its fastest eager in fp32, where several formats were measured.
    """

    measurement: str
    cpu: str
    goal: Goal
    ceiling: Ceiling | None
    references: dict[str, Outcome]
    twins: dict[str, Outcome]
    warnings: tuple[str, ...] = ()
    best_eager: dict[str, Outcome] = field(default_factory=dict)

    def noise_floor(self, group: str) -> float | None:
        """Relative difference between the twins of a group; None without twins."""
        pair = self.references.get(group), self.twins.get(group)
        ratio = _ratio(*pair) if pair[0] and pair[1] else None  # type: ignore[arg-type]
        return abs(ratio.median - 1) if ratio else None


def make_row(outcome: Outcome, context: Context) -> dict[str, Any]:
    """Make a row; what is not known is None."""
    made, target = outcome.configuration, outcome.configuration.target
    row: dict[str, Any] = {
        "measurement": context.measurement,
        "configuration": made.name,  # which of the samples are its own; no column
        "model": target.model or target.label,
        "options": " ".join(f"{k}={v}" for k, v in target.options.items()),
        "run": target.run,
        "file_sha256": made.file_sha256,
        "backend": made.backend,
        "device": made.device,
        "precision": made.precision,
        "memory_format": made.memory_format,
        "batch_size": made.batch_size or None,
        "input_size": target.input_shape[-1],
        "boundary": made.boundary,
        "scenario": made.scenario,
        "threads": made.threads,
        "macs": target.macs,
        "test_accuracy": made.test_accuracy,
        "cpu": context.cpu,
        "status": outcome.status,
        "error": outcome.error,
    }
    report, track = outcome.report, outcome.track
    if report is not None:
        row |= _executed(report)
    if outcome.status == "complete" and track is not None and track.interval is not None:
        row |= _speed(outcome, track, track.interval, context)
        row |= _comparison(outcome, context)
    row |= outcome.extra
    row["warnings"] = "; ".join([*_own_warnings(outcome), *context.warnings]) or None
    return row


def _executed(report: RunnerReport) -> dict[str, Any]:
    images = report.images
    joules = report.energy_joules
    gpu = report.gpu or Watched()
    return {
        "provider": report.executed.provider,
        "executed_precision": report.executed.precision,
        "compile_seconds": report.executed.compile_seconds,
        "peak_memory_mib": report.peak_memory_mib,
        "energy_joules_per_image": joules / images if joules and images else None,
        "gpu_sm_clock_mhz": gpu.sm_clock_mhz,
        "gpu_memory_clock_mhz": gpu.memory_clock_mhz,
        "gpu_temperature_c": gpu.temperature_c,
        "gpu_slowed_by": ", ".join(gpu.slowed_by) or None,
        "peak_gpu_memory_mib": gpu.memory_used_mib,
        "nodes_elsewhere": len(report.executed.elsewhere) if report.executed.nodes else None,
    }


def _speed(outcome: Outcome, track: Track, interval: Interval, context: Context) -> dict[str, Any]:
    made = outcome.configuration
    images = made.batch_size
    macs = made.target.macs
    flops = 2 * macs * images / interval.median if macs and made.backend != "null" else None
    precision = outcome.report.executed.precision if outcome.report else made.precision
    ceilings = context.ceiling.flops_per_second if context.ceiling else {}
    copies = context.ceiling.copied if context.ceiling else {}
    row = {
        "images_per_second": images / interval.median,
        "ci_low": images / interval.high,
        "ci_high": images / interval.low,
        "width": interval.half_width,
        "samples": len(track.seconds),
        "flops_per_second": flops,
        "arithmetic_intensity": _intensity(made, precision) if flops else None,
        "peak_fraction": flops / ceilings[precision] if flops and precision in ceilings else None,
        "ceiling_flops_per_second": ceilings.get(precision),
        "ceiling_bytes_per_second": copies.get(precision),
        "noisy": not track.reached(context.goal),
    }
    if outcome.report is None or outcome.report.repeats == 1:  # else samples are means
        for percentile in PERCENTILES:
            found = nearest_rank(track.seconds, percentile)
            row[f"latency_p{percentile * 100:.0f}_ms"] = None if found is None else found * 1e3
    return row


def _intensity(made: Configuration, precision: str) -> float | None:
    """FLOPs for each byte that the network has to move (`bench.networks.memory_traffic`)."""
    macs, traffic = made.target.macs, made.target.traffic
    moved = traffic.bytes_moved(made.batch_size, precision) if traffic else None
    return 2 * macs * made.batch_size / moved if macs and moved else None


def _comparison(outcome: Outcome, context: Context) -> dict[str, Any]:
    group = outcome.configuration.group
    reference = context.references.get(group)
    if reference is None or outcome.configuration.backend == "null":
        return {}
    floor = context.noise_floor(group)
    row: dict[str, Any] = {"reference": _short(reference.configuration), "noise_floor": floor}
    row |= _beside_best_eager(outcome, context.best_eager.get(group))
    if reference is outcome:
        return row | {"ratio": 1.0, "ratio_low": 1.0, "ratio_high": 1.0, "difference": "reference"}
    ratio = _ratio(reference, outcome)
    if ratio is None:
        return row
    # Seconds against images: another batch size may stand in a group (`auto`).
    scale = outcome.configuration.batch_size / reference.configuration.batch_size
    low, middle, high = (v * scale for v in (ratio.low, ratio.median, ratio.high))
    told_apart = (low > 1 or high < 1) and (floor is None or abs(middle - 1) > floor)
    difference = ("faster" if middle > 1 else "slower") if told_apart else "none"
    noisy = not ratio.confident
    return row | {
        "ratio": middle,
        "ratio_low": low,
        "ratio_high": high,
        "difference": None if noisy else difference,
    }


def _beside_best_eager(outcome: Outcome, best: Outcome | None) -> dict[str, Any]:
    """Compare with what a user gets by hand, not only with PyTorch's default."""
    if best is None:
        return {}
    values = (1.0, 1.0, 1.0)
    if best is not outcome:
        found = _ratio(best, outcome)
        if found is None:
            return {}
        scale = outcome.configuration.batch_size / best.configuration.batch_size
        values = (found.median * scale, found.low * scale, found.high * scale)
    names = ("best_eager_ratio", "best_eager_ratio_low", "best_eager_ratio_high")
    return {"best_eager": _short(best.configuration), **dict(zip(names, values, strict=True))}


def best_eagers(outcomes: Sequence[Outcome]) -> dict[str, Outcome]:
    """Return each group's fastest eager in fp32, where more than one format was measured."""
    groups: dict[str, list[tuple[float, Outcome]]] = {}
    for outcome in outcomes:
        made = outcome.configuration
        interval = outcome.track.interval if outcome.track else None
        eager = (made.backend, made.precision, outcome.status) == ("eager", "fp32", "complete")
        if eager and interval is not None:
            groups.setdefault(made.group, []).append((interval.median / made.batch_size, outcome))
    return {
        group: min(found, key=lambda timed: timed[0])[1]
        for group, found in groups.items()
        if len(found) > 1
    }


def _ratio(reference: Outcome, other: Outcome) -> Interval | None:
    if reference.track is None or other.track is None:
        return None
    return ratio_interval(reference.track.blocks, other.track.blocks)  # type: ignore[arg-type]


def _short(made: Configuration) -> str:
    return f"{made.backend} {made.precision} {made.memory_format}"


def _own_warnings(outcome: Outcome) -> list[str]:
    warnings = list(outcome.report.executed.warnings) if outcome.report else []
    if outcome.report and outcome.report.gpu:
        warnings += outcome.report.gpu.warnings
    track = outcome.track
    if track is not None and track.warm_up is not None and not track.warm_up.steady:
        warnings.append("warm-up was cut short before the times were shown to be steady")
    executed = outcome.report.executed.precision if outcome.report else None
    asked = outcome.configuration.precision
    if executed not in {None, "none", asked}:
        warnings.append(f"{asked} was computed in {executed}")
    return warnings
