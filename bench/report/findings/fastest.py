"""Which measured configuration is fastest here, and whether int8 pays, in sentences."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

from bench.export.settings import is_noise
from bench.measurement.repeats import counts
from bench.store.runs import short_name
from bench.system.intervals import FEWEST_PROCESSES
from bench.system.processor_use import too_busy

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    Row = dict[str, Any]

_CASE = ("measurement", "batch_size", "boundary", "scenario")
_NETWORK = ("model", "options", "run", *_CASE)
# Of repeated measurements, what they have in common besides the network and its case.
_REPEATED = ("input_shape", "latency_bound_ms", "reference", "device", "cpu", "gpu", "threads")
_UNCORRECTED = (
    "No interval is corrected for the choice of the fastest: of ten configurations that equal the "
    "reference, one is called faster in about one of twenty measurements."
)


def network_name(row: Mapping[Any, Any]) -> str:
    """Name a measured network: its run, else the model with the options that make it another one.

    Args:
        row: of the `throughput` table; a run is named by its `variant`, if the row has one.
    """
    if isinstance(row["run"], str):
        variant = row.get("variant")
        return short_name(row["run"], variant if isinstance(variant, str) else row["model"])
    named = [row["model"], row["options"]]
    return " ".join(part for part in named if isinstance(part, str) and part)


def layout(row: Mapping[Any, Any]) -> str:
    """Return a row's memory format after a space; nothing for the usual one, `contiguous`."""
    return "" if row["memory_format"] == "contiguous" else f" {row['memory_format']}"


def layout_and_streams(row: Mapping[Any, Any]) -> str:
    """Return `layout`, and the number of streams if there are several."""
    streams = f" with {row['streams']} streams" if row["streams"] > 1 else ""
    return f"{layout(row)}{streams}"


def way(row: Mapping[Any, Any]) -> str:
    """Name how a network was run, such as `eager fp32 channels_last`."""
    return f"{row['backend']} {row['precision']}{layout_and_streams(row)}"


def case(row: Mapping[Any, Any]) -> str:
    """Name what compared rows have in common: batch size, boundary and scenario if unusual."""
    named = [name for name in (row["boundary"], row["scenario"]) if isinstance(name, str)]
    unusual = [name for name in named if name not in {"compute", "offline"}]
    batch = f"batch {row['batch_size']}" if row["batch_size"] else "largest batch"
    return ", ".join([batch, *unusual])


def rounded(value: float, digits: int = 4) -> str:
    """Write a positive figure with so many significant digits, never with an exponent of ten."""
    whole = len(str(int(value)))
    return f"{value:,.0f}" if whole >= digits else f"{Decimal(f'{value:.{digits}g}'):f}"


def closing_lines(rows: Iterable[Row]) -> list[str]:
    """Return what `bench throughput` ends with; nothing for a single configuration."""
    compared = [row for row in rows if row["status"] == "complete" and _has_processes(row)]
    return [*fastest(compared), *int8_pays(compared)] if len(compared) > 1 else []


def fastest(rows: Iterable[Row]) -> list[str]:
    """Name the fastest configuration of each network and batch size.

    A configuration is faster only if the interval of its ratio, over six processes or more, lies
    above one and its difference exceeds the noise floor. The interval is not corrected for the
    choice of the fastest. Of repeated measurements of a network on one machine, the last in which
    something is faster speaks.

    Args:
        rows: of the `throughput` table, measurement by measurement, the oldest first.
    """
    compared = [r for r in rows if r["status"] == "complete" and r["ratio"] is not None]
    reliable = [row for row in compared if _is_reliable(row)]
    sentences: dict[tuple[str, ...], tuple[str, bool]] = {}
    for found in _grouped(reliable, _NETWORK).values():
        best = max(found, key=lambda row: row["ratio"])
        if best["ratio_low"] > 1 and best["difference"] == "faster":
            names = [name for name in (*_NETWORK, *_REPEATED) if name != "measurement"]
            text = (
                f"{network_name(best)}, {case(best)}: {way(best)} gives "
                f"{best['ratio']:.2f} [{best['ratio_low']:.2f}, "
                f"{best['ratio_high']:.2f}] times the images/s of {best['reference']}."
            )
            chosen = sum(row["difference"] != "reference" for row in found) > 1
            sentences[tuple(str(best.get(name)) for name in names)] = text, chosen
    if sentences:
        told = [text for text, _ in sentences.values()]
        return [*told, _UNCORRECTED] if any(c for _, c in sentences.values()) else told
    others = [row for row in compared if row["difference"] != "reference"]
    if not others:
        return ["No verdict: nothing was measured beside its reference."]
    busy = next(filter(None, (too_busy(row.get("other_processes")) for row in others)), None)
    if busy is not None:
        return [f"No verdict: {busy}. Measure while nothing else runs."]
    if not any(map(_has_processes, others)):
        return ["No verdict: fewer than six processes. Measure with --processes auto."]
    return ["No configuration is significantly faster than its reference."]


def int8_pays(rows: Iterable[Row]) -> list[str]:
    """Say of each network measured in int8 and otherwise whether int8 is worth it here.

    The fastest int8 configuration is compared with the fastest other one of the same network and
    batch size. A file in int8 whose network was measured in nothing else is compared with the one
    other network there is. A verdict goes by the intervals of both.
    """
    reliable = [row for row in rows if _is_reliable(row)]
    int8 = [row for row in reliable if row["precision"] == "int8"]
    by_case = _grouped((row for row in reliable if row["precision"] != "int8"), _CASE)
    sentences = []
    for key, found in _grouped(int8, _NETWORK).items():
        others = by_case.get(key[-len(_CASE) :], [])
        networks = _grouped(others, _NETWORK)
        own = networks.get(key) or (others if len(networks) == 1 else [])
        if own:
            best, other = max(found, key=_speed), max(own, key=_speed)
            sentences.append(_int8_sentence(best, other))
    return sentences


def _is_reliable(row: Row) -> bool:
    """Return whether a row's intervals hold: over six processes, on a machine left alone.

    A noisy row's interval of the ratio does, too.
    """
    has_ratio = row["scenario"] != "server" and row["ratio"] is not None
    return counts(row) and (has_ratio or not row["noisy"])


def _has_processes(row: Row) -> bool:
    return (row["processes"] or 1) >= FEWEST_PROCESSES


def _int8_sentence(int8: Row, other: Row) -> str:
    """Compare int8 with the fastest other configuration, by their 95 % intervals."""
    pays = "the times do not show whether int8 pays"
    if (int8["ci_low"] or 0) > (other["ci_high"] or float("inf")):
        pays = "int8 pays"
    elif (int8["ci_high"] or float("inf")) < (other["ci_low"] or 0):
        pays = "int8 does not pay"
    cost = "accuracy unknown"
    if int8["test_accuracy"] is not None and other["test_accuracy"] is not None:
        change = (int8["test_accuracy"] - other["test_accuracy"]) * 100
        cost = f"accuracy {change:+z.2f} points"
    if is_noise(int8["calibration"]):
        cost += ", ranges from random images"
    return (
        f"{pays} here for {network_name(int8)}, {case(int8)}: {way(int8)} gives "
        f"{_speed(int8) / _speed(other):.2f} times the images/s of {way(other)}, {cost}."
    )


def _grouped(rows: Iterable[Row], names: tuple[str, ...]) -> dict[tuple[Any, ...], list[Row]]:
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row.get(name) for name in names), []).append(row)
    return groups


def _speed(row: Row) -> float:
    return float(row["images_per_second"])
