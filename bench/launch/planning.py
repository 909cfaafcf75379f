"""Estimate a study on other machines: hours, cost and energy.

Each row names which of three kinds of speed it uses: *measured* by runs in the results folder,
*given* in the machines file, and, for a device without either, an *estimate* by the roofline
(Williams et al. 2009): an image takes the longer of its arithmetic at the device's peak and
its memory traffic at the device's bandwidth, divided by the fraction of that roofline which
the measured machines of the same file reach (1 without any: an upper bound of the speed).
"""

from __future__ import annotations

import statistics
import tomllib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bench.errors import BenchError, nearest
from bench.networks.summary import count_macs
from bench.training.check import probe
from bench.training.setup import build_blank
from bench.training.sizes import data_size
from bench.training.step_time import steps_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from bench.store import Store
    from bench.studies import Plan
    from bench.studies.run_request import RunRequest

# The backward pass takes two products per forward one: gradients of activations and of weights.
TRAINING_PASSES = 3
FLOAT_BYTES = 4
# A few GPUs by name, with the peaks of their vendor's data sheets: dense bf16 (fp16 for the T4)
# with float32 sums, and memory bandwidth.
GPUS = {
    "T4": (65e12, 320e9),
    "RTX4090": (165.2e12, 1008e9),
    "A100": (312e12, 2039e9),  # SXM, 80 GB
    "H100": (989.4e12, 3350e9),  # SXM
}
DEFAULT_GPU = "A100"


class Machine(BaseModel):
    """One `[[machine]]` of a machines file.

    Attributes:
        name: its name in the table.
        images_per_second: measured training speed of one worker, network → images/s.
        flops_per_second: peak of one worker's share, for the roofline.
        bytes_per_second: memory bandwidth of one worker's share, for the roofline.
        workers: runs at a time.
        cost_per_hour: of the whole machine, in any currency.
        watts: of the whole machine under load.
        cpu: processor name as runs record it; their speeds are then taken as measured.
    """

    model_config = ConfigDict(extra="forbid")
    name: str
    images_per_second: dict[str, float] = Field(default_factory=dict)
    flops_per_second: float | None = Field(default=None, gt=0)
    bytes_per_second: float | None = Field(default=None, gt=0)
    workers: int = Field(default=1, ge=1)
    cost_per_hour: float | None = Field(default=None, ge=0)
    watts: float | None = Field(default=None, ge=0)
    cpu: str | None = None


@dataclass(frozen=True)
class Work:
    """The runs of one network that a plan still has to do."""

    model: str
    images: float  # for training, of all runs; those evaluated are counted in part
    macs: int  # of one image, forward
    traffic: float  # bytes a training step moves per image: activations, once per pass


def known_gpu(name: str) -> Machine:
    """Return a GPU of `GPUS` as a machine of one worker, for the roofline.

    Raises:
        BenchError: the name is not known here.
    """
    if name not in GPUS:
        raise BenchError(
            f"--gpu {name}: not known here{nearest(name, GPUS)} (known: {', '.join(GPUS)}); "
            "for another, 'bench plan --machines FILE' takes its peaks"
        )
    flops, bandwidth = GPUS[name]
    return Machine(name=name, flops_per_second=flops, bytes_per_second=bandwidth)


def read_machines(path: Path) -> list[Machine]:
    """Read a machines file.

    Raises:
        BenchError: it cannot be read, or something in it is not understood.
    """
    try:
        entries = tomllib.loads(path.read_text()).get("machine", [])
        machines = [Machine(**entry) for entry in entries]
    except OSError as error:
        raise BenchError(f"--machines {path}: {error.strerror}") from None
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise BenchError(f"--machines {path}: {place}: {first['msg'].lower()}") from None
    except (ValueError, TypeError, AttributeError) as error:
        raise BenchError(f"--machines {path}: not a valid machines file ({error})") from None
    if not machines:
        raise BenchError(f"--machines {path}: it has no [[machine]]; each needs at least a name")
    return machines


def plan_rows(plan: Plan, store: Store, machines: Sequence[Machine]) -> list[dict[str, Any]]:
    """Estimate each machine's time for the runs of a study still to do.

    Returns:
        For each machine: machine, runs, images, hours, cost, kilowatt_hours (None where the
        file gives no price or power) and basis (where its speeds come from).

    Raises:
        BenchError: the speed of a machine for one of the networks is unknown.
    """
    left = [r for r in plan.requests if store.read_run(r.run_id) is None]
    work = [work_of(requests) for requests in _by_network(left)]
    known = {machine.name: _known_speeds(machine, store) for machine in machines}
    fraction, sources = _reached_fraction(work, machines, known)
    rows = []
    for machine in machines:
        seconds, bases = 0.0, set()
        for part in work:
            speed, basis = known[machine.name].get(part.model) or _estimate(
                part, machine, fraction, sources
            )
            seconds += part.images / speed
            bases.add(basis)
        hours = seconds / 3600 / max(1, min(machine.workers, len(left)))
        rows.append(
            {
                "machine": machine.name,
                "runs": len(left),
                "images": round(sum(part.images for part in work)),
                "hours": hours,
                "cost": None if machine.cost_per_hour is None else hours * machine.cost_per_hour,
                "kilowatt_hours": None if machine.watts is None else hours * machine.watts / 1000,
                "basis": "; ".join(sorted(bases)) or "nothing is left to do",
            }
        )
    return rows


def work_of(requests: Sequence[RunRequest]) -> Work:
    """Count images, multiply-adds and memory traffic of runs of one network."""
    first = requests[0]
    size = data_size(first)
    shape = (1, size.channels, size.side, size.side)
    model = build_blank(first, size.classes, shape[1:]).eval()
    elements = 0

    def add(_module: Any, _inputs: Any, output: Any) -> None:
        nonlocal elements
        elements += output.numel() if isinstance(output, torch.Tensor) else 0

    hooks = [m.register_forward_hook(add) for m in model.modules() if not any(m.children())]
    with torch.inference_mode():
        model(torch.zeros(shape))
    for hook in hooks:
        hook.remove()
    images = sum(steps_of(r) * r.recipe.batch_size for r in requests)
    traffic = 2 * TRAINING_PASSES * FLOAT_BYTES * elements
    return Work(first.model, images, count_macs(model, shape), traffic)


def roofline(work: Work, machine: Machine) -> float | None:
    """Return the largest possible images/s of a device; None if the file gives no peak."""
    if machine.flops_per_second is None:
        return None
    seconds = 2 * TRAINING_PASSES * work.macs / machine.flops_per_second
    if machine.bytes_per_second is not None:
        seconds = max(seconds, work.traffic / machine.bytes_per_second)
    return 1 / seconds


def _by_network(requests: Sequence[RunRequest]) -> list[list[RunRequest]]:
    groups: dict[str, list[RunRequest]] = {}
    for request in requests:
        groups.setdefault(probe(request).hash, []).append(request)
    return list(groups.values())


def _known_speeds(machine: Machine, store: Store) -> dict[str, tuple[float, str]]:
    """Return the images/s of networks that nothing has to estimate, and where they come from.

    Recorded runs of a machine's processor, of which the median counts, precede the file.
    """
    measured: dict[str, list[float]] = {}
    for record in store.runs() if machine.cpu else ():
        speed = record.result.get("images_per_second")
        if record.environment.get("cpu") == machine.cpu and speed:
            measured.setdefault(record.request["model"], []).append(speed)
    given = machine.images_per_second.items()
    return {model: (speed, "given in the file") for model, speed in given} | {
        model: (statistics.median(speeds), "measured by recorded runs")
        for model, speeds in measured.items()
    }


def _reached_fraction(
    work: Sequence[Work],
    machines: Sequence[Machine],
    known: dict[str, dict[str, tuple[float, str]]],
) -> tuple[float, list[str]]:
    """Return the median fraction of the roofline that known speeds reach, and their machines."""
    shares, sources = [], []
    for machine in machines:
        for part in work:
            speed, bound = known[machine.name].get(part.model), roofline(part, machine)
            if speed and bound:
                shares.append(speed[0] / bound)
                sources.append(machine.name)
    return (statistics.median(shares) if shares else 1.0), sorted(set(sources))


def _estimate(
    work: Work, machine: Machine, fraction: float, sources: list[str]
) -> tuple[float, str]:
    bound = roofline(work, machine)
    if bound is None:
        raise BenchError(
            f"machine '{machine.name}': nothing says how fast it trains {work.model}; give "
            f"images_per_second.{work.model}, or flops_per_second for an estimate"
        )
    if not sources:
        return bound, "ESTIMATE: roofline, the least time possible"
    return bound * fraction, f"ESTIMATE: {fraction:.2f} of the roofline, as {', '.join(sources)}"
