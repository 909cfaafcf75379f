"""Options that several commands share, each declared once."""

from __future__ import annotations

import re
import tomllib
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from bench.cli.output import reserve_stdout
from bench.errors import BenchError


def argument(metavar: str, text: str) -> Any:
    """Declare an argument by its name in the help, and its help text."""
    return typer.Argument(metavar=metavar, help=escape(text))


def option(declaration: str, help: str, **settings: Any) -> Any:  # noqa: A002 - as Typer names it
    """Declare an option as the help shows it, such as `--epochs N`.

    Args:
        declaration: the flag, followed by the name of its value if it takes one.
        help: one line that says what it is, its unit and its default.
        **settings: further arguments of `typer.Option`.
    """
    flag, _, metavar = declaration.partition(" ")
    # The help is plain text, in which Rich would take brackets for markup.
    return typer.Option(flag, **{"help": escape(help), "metavar": metavar or None, **settings})


# Options of a panel of the help; a command declares its options in the order of the panels.
what = partial(option, rich_help_panel="What to run")
network = partial(option, rich_help_panel="Network")
training = partial(option, rich_help_panel="Training")
export = partial(option, rich_help_panel="Export")
int8 = partial(option, rich_help_panel="int8")
measurement = partial(option, rich_help_panel="Measurement")
hardware = partial(option, rich_help_panel="Hardware")
cluster = partial(option, rich_help_panel="Cluster")
output = partial(option, rich_help_panel="Output")

Seeds = Annotated[
    str | None,
    what("--seeds LIST", "Random seeds, such as 0,1,2 or 0-4 (default: the study's)."),
]
Dataset = Annotated[
    str | None, what("--dataset NAME", "Dataset; see 'bench list datasets' (default: the study's).")
]
Gpu = Annotated[
    str | None,
    hardware("--gpu NAME", "GPU to estimate the time for, such as A100, H100, L4 or RTX4090."),
]

KeyValues = Annotated[
    list[str] | None,
    network("--option KEY=VALUE", "Option of the network, such as shortcut=none; repeatable."),
]
ImageSize = Annotated[
    str | None,
    network(
        "--input-size H[xW]",
        "Input size of a model, or of an ONNX file of any size (default: its own).",
    ),
]
FilePreprocessing = Annotated[
    list[str] | None,
    int8("--set KEY=VALUE", "Preparation of an ONNX file's images, such as std=0.5; repeatable."),
]
Int8Data = Annotated[
    str | None,
    int8(
        "--dataset NAME", "Images to calibrate int8 with: a dataset or random (default: the run's)."
    ),
]

DryRun = Annotated[
    bool, what("--dry-run", "Print the runs and the estimated time, but train nothing.")
]
Epochs = Annotated[int | None, training("--epochs N", "Number of epochs (default: the recipe's).")]
Force = Annotated[bool, training("--force", "Retrain runs that already exist.")]
Deterministic = Annotated[
    bool,
    training(
        "--deterministic", "Use bit-reproducible kernels only, and one thread per run by default."
    ),
]
AllowMixed = Annotated[
    bool, training("--allow-mixed", "Continue a study whose runs used other versions or hardware.")
]
Compile = Annotated[
    bool, training("--compile", "Train with torch.compile, which takes 15 to 40 s to start.")
]
CudaGraph = Annotated[
    bool,
    training(
        "--cuda-graph",
        "Run each training step as one CUDA graph (never tried on a GPU yet).",
    ),
]
Timeout = Annotated[
    float | None,
    training(
        "--timeout SECONDS", "End a run after this long without progress (default: 600 s or more)."
    ),
]

Device = Annotated[str, hardware("--device DEVICE", "Device: auto, cpu, cuda, cuda:N or mps.")]
Threads = Annotated[
    int | None,
    hardware(
        "--threads N", "CPU threads per run (default: cores per worker, at most OMP_NUM_THREADS)."
    ),
]

LauncherName = Annotated[
    str, cluster("--launcher NAME", "Where runs execute: local, ray or slurm.")
]
RayAddress = Annotated[
    str | None,
    cluster(
        "--ray-address ADDRESS", "HOST:PORT of a Ray cluster, or auto (default: start Ray here)."
    ),
]
ReturnBytes = Annotated[
    bool,
    cluster(
        "--return-bytes", "Send results back from Ray nodes that cannot reach the results folder."
    ),
]
SlurmMinutes = Annotated[
    int | None,
    cluster("--slurm-minutes N", "Time limit of one Slurm job, in minutes (default: 60)."),
]
SlurmOptions = Annotated[
    list[str] | None,
    cluster(
        "--slurm-option KEY=VALUE", "Further option of sbatch, such as partition=gpu; repeatable."
    ),
]

TablesAndPicture = Annotated[
    Path | None, output("--output DIR", "Write tables (CSV) and charts (SVG, PNG) to this folder.")
]
Track = Annotated[
    str | None,
    output("--track LIST", "Also log to: tensorboard, mlflow or both (extra 'tracking')."),
]
Results = Annotated[Path, output("--results DIR", "Folder of runs, exports and measurements.")]
Json = Annotated[
    bool,
    output(
        "--json",
        "Print one JSON document on stdout, and nothing else.",
        callback=reserve_stdout,
    ),
]
Quiet = Annotated[bool, output("--quiet", "Show no progress.")]

DEFAULT_RESULTS = Path("bench-runs")
# A seed, or the first and last of a range; of thousands of digits Python makes no number.
_SEEDS = re.compile(r"(-?\d{1,99})(?:-(-?\d{1,99}))?")
_MOST_SEEDS = 10_000  # of one range
_MOST = 2**31 - 1  # as `bench.studies.recipe.MOST`, which is heavy to import


def parse_seeds(text: str | None) -> list[int] | None:
    """Parse a list of random seeds, such as `0,1,2` or `0-4`.

    Raises:
        BenchError: part of it is neither an integer nor a range of integers.
    """
    if text is None:
        return None
    seeds: list[int] = []
    for part in text.split(","):
        found = _SEEDS.fullmatch(part.strip())
        first, last = (int(end or found[1]) for end in found.groups()) if found else (0, -1)
        if not 0 <= last - first < _MOST_SEEDS:
            raise BenchError(
                f"--seeds {text}: random seeds are integers or ranges, separated by commas, such "
                "as 0,1,2 or 0-4"
            )
        seeds += range(first, last + 1)
    return seeds


def parse_accuracy(flag: str, percent: float | None) -> float | None:
    """Return an accuracy that was given in per cent as a fraction, 0…1; None for None.

    Args:
        flag: the option's name, for errors.
        percent: its value.

    Raises:
        BenchError: it is no accuracy in per cent; a fraction such as 0.94 is refused, too.
    """
    if percent is None:
        return None
    if 0 < percent <= 1:
        raise BenchError(
            f"{flag} {percent:g}: an accuracy is given in per cent; write {flag} {percent * 100:g}"
        )
    if not 0 < percent <= 100:  # noqa: PLR2004 - per cent
        raise BenchError(f"{flag} {percent:g}: it must be above 0 and at most 100 (per cent)")
    return percent / 100


def parse_size(text: str | None) -> int | tuple[int, int] | None:
    """Parse `--input-size`: a side in pixels, or height and width such as 64x256.

    Raises:
        BenchError: it is neither, or out of range.
    """
    if text is None:
        return None
    try:
        sides = [int(part) for part in text.lower().split("x")]
    except ValueError:
        sides = []
    if len(sides) not in {1, 2}:
        raise BenchError(f"--input-size {text}: write a side in pixels, or HxW, such as 64x256")
    for side in sides:
        require_positive(input_size=side)
    return sides[0] if len(set(sides)) == 1 else (sides[0], sides[1])


def parse_values(pairs: list[str] | None, flag: str = "--option") -> dict[str, Any]:
    """Parse repeated `key=value` options; values are read as TOML, bare words as text.

    Args:
        pairs: the options' values.
        flag: the option's name, for errors.

    Raises:
        BenchError: a value has no `=`.
    """
    values: dict[str, Any] = {}
    for pair in pairs or []:
        key, separator, text = pair.partition("=")
        if not separator or not key:
            examples = {"--option": "shortcut=none", "--slurm-option": "partition=gpu"}
            example = examples.get(flag, "learning_rate=0.1")
            raise BenchError(f"{flag} {pair}: write it as key=value, such as {example}")
        try:
            values[key] = tomllib.loads(f"value = {text}")["value"]
        except (ValueError, RecursionError):  # thousands of digits or brackets are not TOML either
            values[key] = text
    return values


def use_threads(threads: int | None) -> None:
    """Set the number of CPU threads of PyTorch, unless it is None."""
    if threads is not None:
        import torch

        torch.set_num_threads(threads)


def parse_trackers(text: str | None) -> tuple[str, ...]:
    """Parse a list of trackers, such as `tensorboard,mlflow`.

    Raises:
        BenchError: a name is unknown, or its library is not installed.
    """
    if text is None:
        return ()
    from bench.report.tracking import check_trackers

    return check_trackers(text.split(","))


def require_positive(**values: int | None) -> None:
    """Check that counts are at least 1, and not more than the C libraries below accept.

    Args:
        **values: option name (with underscores) to value; None is not checked.

    Raises:
        BenchError: a count is out of range; the message names the option.
    """
    for name, value in values.items():
        if value is None:
            continue
        flag = f"--{name.replace('_', '-')} {value}"
        if value < 1:
            raise BenchError(f"{flag}: it must be at least 1")
        if value > _MOST:
            raise BenchError(f"{flag}: it must be at most {_MOST:,}")
