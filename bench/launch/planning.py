"""Estimate a study on other machines: hours, cost and energy.

Each row names which of three kinds of speed it uses: *measured* by runs in the results folder,
*given* in the machines file, and, for a device without either, an *estimate* by the roofline
(Williams et al. 2009): an image takes the longer of its arithmetic at the device's peak and
its memory traffic at the device's bandwidth, and a step at least the time in which Python
launches its operations one by one (runs that share a device, and CUDA graphs, can be faster). The
speed is multiplied by the fraction that the measured machines of the same file reach (1 without
any).
"""

from __future__ import annotations

import statistics
import tomllib
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bench.errors import BenchError, nearest
from bench.launch.learning_rates import all_runs, tuning_requests
from bench.networks.memory_traffic import Traffic, count_traffic
from bench.networks.operations import Operations, count_operations
from bench.studies.lines import explain_first
from bench.studies.run_request import RunRequest
from bench.training.setup import build_blank
from bench.training.sizes import data_size, image_macs
from bench.training.step_time import steps_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from bench.store import Store
    from bench.studies import Plan

# The backward pass takes two products per forward one: gradients of activations and of weights.
TRAINING_PASSES = 3
# GPUs by name, with the peaks of NVIDIA's data sheets and architecture papers: FLOP/s in bf16 (fp16
# for the T4) with float32 sums, and bytes/s of memory. Dense: where a sheet gives only the figure
# with sparsity, half of it.
GPUS = {
    "T4": (65e12, 320e9),  # T4 data sheet
    "L4": (121e12, 300e9),  # L4 data sheet: 242 with sparsity
    # L40S data sheet: 733 with sparsity. The 362.05 beside it does not fit its TF32 and FP8.
    "L40S": (366.5e12, 864e9),
    "RTX4090": (165.2e12, 1008e9),  # Ada GPU architecture, appendix A
    "RTX5090": (209.5e12, 1792e9),  # RTX Blackwell GPU architecture, appendix A
    "A100": (312e12, 2039e9),  # A100 data sheet: SXM, 80 GB
    "H100": (989.4e12, 3350e9),  # H100 data sheet: SXM, 1,979 with sparsity
    "H200": (989.4e12, 4800e9),  # H200 data sheet: SXM, 1,979 with sparsity
    "B200": (2250e12, 8000e9),  # DGX B200 data sheet: eight have 36e15 with sparsity, 64e12
}
DEFAULT_GPU = "A100"
# About what PyTorch needs to launch one operation of a training step on a GPU, on a fast host.
OPERATION_SECONDS = 8e-6
# Values of a recipe that do not change the time of a step.
_NO_COST = {"epochs", "learning_rate", "seed_varies"}


class Machine(BaseModel):
    """One `[[machine]]` of a machines file.

    Attributes:
        name: its name in the table.
        images_per_second: measured training speed of one worker, network → images/s.
        flops_per_second: peak of one worker's share, for the roofline.
        bytes_per_second: memory bandwidth of one worker's share, for the roofline.
        precision: in which it trains: fp32, bf16 or fp16.
        seconds_per_operation: time in which the host launches one operation, for the roofline.
        workers: runs at a time.
        cost_per_hour: of the whole machine, in any currency.
        watts: of the whole machine under load.
        cpu: processor name as runs record it; the speeds of those that it trained, as many at a
            time, and whose training steps are the same, are then taken as measured.
    """

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)
    name: str
    images_per_second: dict[str, Annotated[float, Field(gt=0)]] = Field(default_factory=dict)
    flops_per_second: float | None = Field(default=None, gt=0)
    bytes_per_second: float | None = Field(default=None, gt=0)
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    seconds_per_operation: float = Field(default=0.0, ge=0)
    workers: int = Field(default=1, ge=1)
    cost_per_hour: float | None = Field(default=None, ge=0)
    watts: float | None = Field(default=None, ge=0)
    cpu: str | None = None


@dataclass(frozen=True)
class Work:
    """The runs that a plan still has to do of one network, all with the same training step."""

    model: str
    images: float  # for training, of all runs; those evaluated are counted in part
    traffic: Traffic  # of a forward pass
    operations: Operations  # of a training step
    batch_size: int
    step: str = ""  # identifies the training step

    def bytes_per_image(self, precision: str) -> float:
        """Return what a training step moves: convolutions and products, once per pass.

        The first layer has no gradient of its input, the images.
        """
        moved = TRAINING_PASSES * (self.traffic.bytes_moved(self.batch_size, precision) or 0)
        if self.traffic.first is not None:
            moved -= self.traffic.first.bytes_moved(self.batch_size, precision) or 0
        return moved / self.batch_size


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
    return Machine(
        name=name,
        flops_per_second=flops,
        bytes_per_second=bandwidth,
        precision="bf16",
        seconds_per_operation=OPERATION_SECONDS,
    )


def read_machines(path: Path) -> list[Machine]:
    """Read a machines file.

    Raises:
        BenchError: it cannot be read, or something in it is not understood.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")  # Notepad writes a byte-order mark
        entries = tomllib.loads(text).get("machine", [])
        machines = [Machine(**entry) for entry in entries]
    except OSError as error:
        raise BenchError(f"--machines {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise BenchError(f"--machines {path}: it is not UTF-8 text; save it as UTF-8") from None
    except ValidationError as error:
        raise BenchError(f"--machines {path}: {explain_first(error, schema=Machine)}") from None
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise BenchError(f"--machines {path}: not a valid machines file ({error})") from None
    if not machines:
        raise BenchError(f"--machines {path}: it has no [[machine]]; each needs at least a name")
    return machines


def plan_rows(plan: Plan, store: Store, machines: Sequence[Machine]) -> list[dict[str, Any]]:
    """Estimate each machine's time for the runs of a study still to do, its search included.

    Returns:
        For each machine: machine, runs, images, hours, cost, kilowatt_hours (None where the
        file gives no price or power) and basis (where its speeds come from).

    Raises:
        BenchError: the speed of a machine for one of the networks is unknown, or two machines have
            one name.
    """
    for name, count in Counter(machine.name for machine in machines).items():
        if count > 1:
            raise BenchError(f"{count} machines are called '{name}': give each a name of its own")
    left = [r for run, r in all_runs(plan, store).items() if store.read_run(run) is None]
    work = [work_of(requests) for requests in _by_step(left)]
    known = {machine.name: _known_speeds(machine, store) for machine in machines}
    fraction, sources = _reached_fraction(work, machines, known)
    rows = []
    for machine in machines:
        seconds, bases = 0.0, set()
        for part in work:
            speed, basis = _known(part, known[machine.name]) or _estimate(
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
    """Count images, multiply-adds, memory traffic and operations of runs with the same step."""
    first = requests[0]
    size = data_size(first)
    model = build_blank(first, size.classes, size.shape).eval()
    images = sum(steps_of(r) * r.recipe.batch_size for r in requests)
    return Work(
        first.model,
        images,
        count_traffic(model, size.shape),
        count_operations(model, size.shape),
        first.recipe.batch_size,
        _step(first, size.classes, size.shape),
    )


def roofline(work: Work, machine: Machine) -> tuple[float, str] | None:
    """Return the images/s that a device cannot exceed, and what limits them.

    Where launching operations does, they are the images/s of one run whose operations are launched
    one by one.

    Returns:
        None if the file gives no peak.
    """
    if machine.flops_per_second is None:
        return None
    seconds = 2 * work.operations.macs / machine.flops_per_second
    if machine.bytes_per_second is not None:
        moved = work.bytes_per_image(machine.precision)
        seconds = max(seconds, moved / machine.bytes_per_second)
    operations = work.operations.count(machine.precision)
    launching = operations * machine.seconds_per_operation / work.batch_size
    if launching > seconds:
        each = f"{machine.seconds_per_operation * 1e6:.3g} µs each"
        how = f"launching {operations} operations per step one by one, about {each}"
        runs = "one run" if machine.workers == 1 else f"{machine.workers} runs"
        return 1 / launching, f"{how}, {runs} at a time"
    return 1 / seconds, "roofline, the least time possible"


def training_macs(plan: Plan) -> int:
    """Return the multiply-adds of all trainings of a plan, forward and backward.

    Those of a search for learning rates are included, and so are evaluations, as a third.
    """
    total, known = 0.0, dict[str, int]()
    for request in (*plan.requests, *tuning_requests(plan)):
        size = data_size(request)
        network = repr((request.model, request.options, size))
        if network not in known:
            known[network] = image_macs(request, size)
        images = steps_of(request) * request.recipe.batch_size
        total += TRAINING_PASSES * known[network] * images
    return round(total)


def _by_step(requests: Sequence[RunRequest]) -> list[list[RunRequest]]:
    groups: dict[str, list[RunRequest]] = {}
    for request in requests:
        size = data_size(request)
        groups.setdefault(_step(request, size.classes, size.shape), []).append(request)
    return list(groups.values())


def _step(request: RunRequest, classes: int, shape: Sequence[int]) -> str:
    """Identify what decides the time of a training step on a machine, in the precision it has."""
    recipe = request.recipe.model_dump(mode="json", exclude=_NO_COST)
    return repr((request.model, sorted(request.options.items()), classes, list(shape), recipe))


def _known_speeds(machine: Machine, store: Store) -> dict[str, tuple[float, str]]:
    """Return the images/s that nothing has to estimate, and where they come from.

    The median of recorded runs of a machine's processor is that of a training step; the file's are
    those of networks.
    """
    measured: dict[str, list[float]] = {}
    for record in store.runs() if machine.cpu else ():
        speed, result = record.result.get("images_per_second"), record.result
        request = RunRequest.from_dict(record.request)
        made = record.environment
        # Of older runs, which do not say how many there were at a time, it is not known.
        here = made.get("cpu") == machine.cpu and made.get("device", "cpu") == "cpu"
        here &= made.get("workers", machine.workers) == machine.workers
        if speed and here and request.precision == machine.precision:
            step = _step(request, len(result["classes"]), result["input_shape"])
            measured.setdefault(step, []).append(speed)
    given = machine.images_per_second.items()
    return {model: (speed, "given in the file") for model, speed in given} | {
        step: (statistics.median(speeds), "measured by recorded runs")
        for step, speeds in measured.items()
    }


def _known(work: Work, known: dict[str, tuple[float, str]]) -> tuple[float, str] | None:
    """Return the measured speed, or else the one that the file gives."""
    return known.get(work.step) or known.get(work.model)


def _reached_fraction(
    work: Sequence[Work],
    machines: Sequence[Machine],
    known: dict[str, dict[str, tuple[float, str]]],
) -> tuple[float, list[str]]:
    """Return the median fraction of the roofline that known speeds reach, and their machines."""
    shares, sources = [], []
    for machine in machines:
        for part in work:
            speed, bound = _known(part, known[machine.name]), roofline(part, machine)
            if speed and bound:
                shares.append(speed[0] / bound[0])
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
    speed, limit = bound
    if not sources:
        return speed, f"ESTIMATE: {limit}"
    return speed * fraction, f"ESTIMATE: {fraction:.2f} of the roofline, as {', '.join(sources)}"
