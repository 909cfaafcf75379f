"""Results: rows of the `throughput` table, from trials that have been sampled."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING, Any

from bench.measurement.configurations import BASELINE, Configuration
from bench.measurement.machine.noise import scheduler_tick, tick_warning
from bench.measurement.machine.nvml import gpu_columns, gpu_warnings
from bench.measurement.timing.percentiles import nearest_rank, upper_bound
from bench.measurement.timing.replicates import is_reached
from bench.system.intervals import FEWEST_PROCESSES, two_modes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.measurement.machine.ceiling import Ceiling
    from bench.measurement.timing.runner import RunnerReport
    from bench.measurement.timing.sampling import Goal
    from bench.measurement.timing.trial import Trial
    from bench.system.intervals import Interval

PERCENTILES = (0.5, 0.9, 0.99)
# Winograd's convolutions need fewer operations than are counted, so a little more is possible.
MOST_SHARE = 1.1


def make_rows(
    trials: Sequence[Trial],
    *,
    measurement: str,
    cpu: str,
    gpu: str | None = None,
    goal: Goal,
    ceiling: Ceiling | None,
    warnings: Sequence[str] = (),
    other_processes: float | None = None,
    pinned: bool = False,
) -> list[dict[str, Any]]:
    """Return a row for each trial that is not a twin; what is not known is None.

    A row that does not reach the *goal* is noisy. *warnings*, *other_processes*, the share of the
    processor that they used, and *pinned* are of the whole measurement.
    """
    references = {t.group: t for t in trials if t.is_reference and t.status == "complete"}
    floors = noise_floors(trials)
    best = _best_eagers(trials)
    failed_twins = {t.group for t in trials if t.configuration.twin and t.status != "complete"}
    rows = []
    for trial in trials:
        if trial.configuration.twin:
            continue
        row = {"measurement": measurement} | _requested(trial) | {"cpu": cpu, "gpu": gpu}
        row["timing"] = _timing(trial.configuration, pinned)
        row |= {"status": trial.status, "error": trial.error}
        row["processes"] = len(trial.replicates) or 1
        row["other_processes"] = other_processes
        if trial.report is not None:
            row |= _executed(trial.report)
        if trial.status == "complete" and trial.interval is not None:
            if trial.configuration.scenario == "server":
                row |= _served(trial, trial.interval)
            else:
                row |= _speed(trial, trial.interval, ceiling)
                row["noisy"] = _is_quantised(trial) or not is_reached(trial, trials, goal)
            reference = references.get(trial.group)
            if reference is not None and _are_comparable(trial, reference):
                row |= _ratio(trial, reference, floors.get(trial.group))
                row |= _ratio_to_best_eager(trial, best.get(trial.group))
        own = _own_warnings(trial)
        if trial.group in failed_twins and row.get("ratio"):
            own.append("no noise floor: the second measurement of the reference failed")
        if (share_of_peak(trial, ceiling) or 0.0) > MOST_SHARE:
            own.append("faster than this machine's measured peak, so no share of it is shown")
        row["warnings"] = "; ".join([*own, *warnings]) or None
        rows.append(row)
    return rows


def noise_floors(trials: Sequence[Trial]) -> dict[str, float | None]:
    """Return each group's relative difference between its reference and the reference's twin.

    It is None where the twin, or the reference, has no samples or has failed.
    """
    twins = {t.group: t for t in trials if t.configuration.twin and t.status == "complete"}
    floors: dict[str, float | None] = {}
    for trial in trials:
        if trial.is_reference:
            twin = twins.get(trial.group)
            ratio = twin.speedup_over(trial) if twin else None
            floors[trial.group] = abs(ratio.median - 1) if ratio else None
    return floors


def _requested(trial: Trial) -> dict[str, Any]:
    made, target = trial.configuration, trial.configuration.target
    height, width = target.image_size
    return {
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
        "input_size": height if height == width else None,
        "input_shape": "x".join(map(str, target.input_shape)),
        "input_type": target.input_type,
        "boundary": made.boundary,
        "scenario": made.scenario,
        "latency_bound_ms": made.latency_bound_ms,
        "threads": made.threads,
        "streams": made.streams,
        "macs": target.macs,
        **_accuracy(trial),
        "calibration": made.calibration,
    }


def _timing(made: Configuration, pinned: bool) -> str | None:
    """Return what times depend on that other columns do not say, as in the column."""
    special = {"pinned": pinned, "L2 cleared": made.clear_l2, "batches alone": made.alone}
    return ", ".join(name for name, applies in special.items() if applies) or None


def _accuracy(trial: Trial) -> dict[str, Any]:
    """Return what is known of the accuracy in this very runtime."""
    made, score = trial.configuration, trial.score
    if score is None or score.test_accuracy is None:
        # Recorded in training, by PyTorch, or with the export, by ONNX Runtime.
        recorded = made.backend in {BASELINE, "onnxruntime"}
        return {"test_accuracy": made.test_accuracy if recorded else None}
    return {
        "dataset": score.dataset,
        "test_accuracy": score.test_accuracy,
        "validation_accuracy": score.validation_accuracy,
        "test_images": score.test_images,
        "flipped_predictions": score.comparison.flipped if score.comparison else None,
    }


def _executed(report: RunnerReport) -> dict[str, Any]:
    images = report.images
    joules = report.energy_joules
    return {
        "provider": report.executed.provider,
        "executed_precision": report.executed.precision,
        "compile_seconds": report.executed.compile_seconds,
        "peak_memory_mib": report.peak_memory_mib,
        "energy_joules_per_image": joules / images if joules and images else None,
        **gpu_columns(report.gpu),
        "nodes_elsewhere": len(report.executed.elsewhere) if report.executed.nodes else None,
    }


def _speed(trial: Trial, seconds: Interval, ceiling: Ceiling | None) -> dict[str, Any]:
    made = trial.configuration
    images_per_second = seconds.per_second(made.batch_size)
    macs = made.target.macs
    flops = 2 * macs * images_per_second.median if macs and made.computes else None
    precision = trial.report.executed.precision if trial.report else made.precision
    ceilings = ceiling.flops_per_second if ceiling else {}
    share = share_of_peak(trial, ceiling)
    copies = ceiling.copied if ceiling else {}
    row: dict[str, Any] = {
        "images_per_second": images_per_second.median,
        "ci_low": images_per_second.low,
        "ci_high": images_per_second.high,
        "width": seconds.half_width,
        "samples": len(trial.samples),
        "flops_per_second": flops,
        "arithmetic_intensity": _intensity(made, precision) if flops else None,
        "peak_fraction": share if share is None or share <= MOST_SHARE else None,
        "ceiling_flops_per_second": ceilings.get(precision),
        "ceiling_bytes_per_second": copies.get(precision),
    }
    if trial.report is None or trial.report.repeats == 1:  # else samples are means
        for percentile in PERCENTILES:
            found = nearest_rank(trial.latencies, percentile)
            row[f"latency_p{percentile * 100:.0f}_ms"] = None if found is None else found * 1e3
        processes = trial.latencies_by_process
        bound = upper_bound(processes, 0.99)
        if bound is not None:
            row["latency_p99_high_ms"] = bound * 1e3
            new = len(processes) >= FEWEST_PROCESSES
            row["latency_p99_scope"] = "new process" if new else "these processes"
    return row


def _served(trial: Trial, seconds: Interval) -> dict[str, Any]:
    """Return the columns of the server scenario; in one process, a rate without an interval."""
    found = [one.columns for one in trial.replicates.values()] or [trial.columns]
    rate = seconds.per_second()
    row: dict[str, Any] = {
        "images_per_second": rate.median,
        "samples": sum(columns["samples"] for columns in found),
    }
    name = "latency_p99_high_ms"
    bounds = [columns[name] for columns in found if name in columns]
    if len(bounds) == len(found):
        row[name] = max(bounds)
    # Where processes failed, or none of their rates kept the bound, the others are the fast ones.
    row["noisy"] = len(bounds) < len(found) or bool(trial.failures)
    if len(found) > 1:
        row |= {"ci_low": rate.low, "ci_high": rate.high, "width": seconds.half_width}
    return row


def share_of_peak(trial: Trial, ceiling: Ceiling | None) -> float | None:
    """Return the share of the machine's ceiling that a trial reached; None if unknown.

    More than `MOST_SHARE` is a fault of the ceiling.
    """
    made = trial.configuration
    macs = made.target.macs
    if ceiling is None or trial.report is None or trial.interval is None:
        return None
    if made.scenario == "server":  # it waits for queries most of the time
        return None
    most = ceiling.flops_per_second.get(trial.report.executed.precision)
    if not macs or not most or not made.computes:
        return None
    return 2 * macs * made.batch_size / trial.interval.median / most


def _intensity(made: Configuration, precision: str) -> float | None:
    """Return FLOPs per byte that the network has to move (`bench.networks.memory_traffic`)."""
    macs, traffic = made.target.macs, made.target.traffic
    moved = traffic.bytes_moved(made.batch_size, precision) if traffic else None
    return 2 * macs * made.batch_size / moved if macs and moved else None


def _ratio(trial: Trial, reference: Trial, floor: float | None) -> dict[str, Any]:
    row: dict[str, Any] = {"reference": _way(reference.configuration), "noise_floor": floor}
    found = trial.speedup_over(reference)
    if found is None:
        return row
    row |= {"ratio": found.median, "ratio_low": found.low, "ratio_high": found.high}
    row["ratio_processes"] = len(trial.replicates.keys() & reference.replicates.keys()) or 1
    if reference is trial:
        return row | {"difference": "reference"}
    significant = (found.low > 1 or found.high < 1) and (
        floor is None or abs(found.median - 1) > floor
    )
    difference = ("faster" if found.median > 1 else "slower") if significant else "none"
    # Within one process no interval knows what the next process would find: no claim.
    claimed = found.confident and row["ratio_processes"] > 1
    return row | {"difference": difference if claimed else None}


def _ratio_to_best_eager(trial: Trial, best: Trial | None) -> dict[str, Any]:
    """Compare with what a user gets by choosing format and streams, not only with the default."""
    found = trial.speedup_over(best) if best else None
    if best is None or found is None:
        return {}
    return {
        "best_eager": _way(best.configuration),
        "best_eager_ratio": found.median,
        "best_eager_ratio_low": found.low,
        "best_eager_ratio_high": found.high,
    }


def _best_eagers(trials: Sequence[Trial]) -> dict[str, Trial]:
    """Return each group's fastest eager in fp32, where more than one way was measured."""
    groups: dict[str, list[tuple[float, Trial]]] = {}
    for trial in trials:
        made = trial.configuration
        eager = (made.backend, made.precision, trial.status) == (BASELINE, "fp32", "complete")
        if eager and trial.interval is not None and not made.twin and not made.across:
            seconds = trial.interval.median / made.batch_size
            groups.setdefault(made.group, []).append((seconds, trial))
    return {
        group: min(found, key=lambda timed: timed[0])[1]
        for group, found in groups.items()
        if len(found) > 1
    }


def _way(made: Configuration) -> str:
    network = f"{made.target.label} " if made.across else ""
    streams = f" {made.streams} streams" if made.streams > 1 else ""
    return f"{network}{made.backend} {made.precision} {made.memory_format}{streams}"


def _are_comparable(trial: Trial, reference: Trial) -> bool:
    """Return whether the ratio says something of both, rather than of the scheduler."""
    if trial.configuration.scenario == "server" and len(trial.replicates) < 2:  # noqa: PLR2004
        return False
    quantised = _is_quantised(trial) or _is_quantised(reference)
    return trial.configuration.computes and not quantised


def _is_quantised(trial: Trial) -> bool:
    return scheduler_tick(trial.latencies) is not None


def _own_warnings(trial: Trial) -> list[str]:
    report = trial.report
    warnings = [*report.executed.warnings, *gpu_warnings(report.gpu)] if report else []
    if trial.warm_up is not None and not trial.warm_up.steady:
        warnings.append("warm-up was cut short before the times were shown to be steady")
    medians = [one.interval.median for one in trial.replicates.values() if one.interval]
    if (modes := two_modes(medians)) is not None:
        made = trial.configuration
        shown = [f"{made.batch_size / median(m):.4g} in {len(m)} processes" for m in modes]
        warnings.append(f"two speeds (images/s): {' and '.join(shown)}")
    if (tick := scheduler_tick(trial.latencies)) is not None:
        warnings.append(tick_warning(tick))
    if 0 < (ran := len(trial.replicates)) < trial.attempts:
        warnings.append(f"{ran} of {trial.attempts} processes complete")
    if trial.score is not None and trial.score.unknown:
        warnings.append(trial.score.unknown)
    executed = report.executed.precision if report else None
    requested = trial.configuration.precision
    if executed not in {None, "none", requested}:
        warnings.append(f"{requested} was computed in {executed}")
    return warnings
