"""Options that several commands share, each defined once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from bench.errors import BenchError

Results = Annotated[Path, typer.Option("--results", help="The results folder.", metavar="DIR")]
Device = Annotated[
    str, typer.Option("--device", help="auto, cpu, cuda, cuda:N or mps.", metavar="DEVICE")
]
Threads = Annotated[
    int | None, typer.Option("--threads", help="CPU threads of one run.", metavar="N")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout and nothing else.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Show no progress.")]
Seeds = Annotated[
    str | None, typer.Option("--seeds", help="Random seeds, such as 0,1,2.", metavar="LIST")
]
Epochs = Annotated[
    int | None, typer.Option("--epochs", help="Passes over the training images.", metavar="N")
]
Dataset = Annotated[
    str | None,
    typer.Option("--dataset", help="A name of 'bench list datasets'.", metavar="NAME"),
]
Deterministic = Annotated[
    bool,
    typer.Option("--deterministic", help="Bit-reproducible kernels only, one thread a run."),
]
Force = Annotated[bool, typer.Option("--force", help="Train again what is already there.")]
AllowMixed = Annotated[
    bool,
    typer.Option("--allow-mixed", help="Add runs to a study begun with other versions."),
]
Compile = Annotated[
    bool, typer.Option("--compile", help="Train through torch.compile (15 to 40 s to start).")
]
LauncherName = Annotated[
    str, typer.Option("--launcher", help="local, ray or slurm.", metavar="NAME")
]
RayAddress = Annotated[
    str | None,
    typer.Option("--ray-address", help="HOST:PORT of a Ray cluster, or auto.", metavar="ADDRESS"),
]
ReturnBytes = Annotated[
    bool,
    typer.Option(
        "--return-bytes", help="Ray nodes do not reach the results folder: send results back."
    ),
]
SlurmMinutes = Annotated[
    int | None, typer.Option("--slurm-minutes", help="Time limit of one job.", metavar="N")
]
SlurmOptions = Annotated[
    list[str] | None,
    typer.Option("--slurm-option", help="An option of sbatch; repeatable.", metavar="KEY=VALUE"),
]
Gpu = Annotated[
    str | None,
    typer.Option("--gpu", help="Estimate for this GPU: T4, RTX4090, A100 or H100.", metavar="NAME"),
]
Timeout = Annotated[
    float | None,
    typer.Option(
        "--timeout", help="End a run after so many seconds without progress.", metavar="SECONDS"
    ),
]
Track = Annotated[
    str | None,
    typer.Option(
        "--track",
        help="Log to these as well: tensorboard, mlflow (extra 'tracking').",
        metavar="LIST",
    ),
]
TablesAndPicture = Annotated[
    Path | None,
    typer.Option("--output", help="Write tables (CSV) and picture (SVG, PNG).", metavar="DIR"),
]
KeyValues = Annotated[
    list[str] | None,
    typer.Option("--option", help="An option of the network; repeatable.", metavar="KEY=VALUE"),
]

DEFAULT_RESULTS = Path("bench-runs")
_MOST = 2**31 - 1  # as `bench.studies.recipe.MOST`, which is heavy to import


def parse_seeds(text: str | None) -> list[int] | None:
    """Parse `0,1,2`.

    Raises:
        BenchError: something in it is no integer.
    """
    if text is None:
        return None
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise BenchError(
            f"--seeds {text}: random seeds are integers separated by commas, such as 0,1,2"
        ) from None


def parse_values(pairs: list[str] | None, flag: str = "--option") -> dict[str, Any]:
    """Parse repeated `key=value` options; values are read as TOML, bare words as text.

    Args:
        pairs: what was given.
        flag: the option's name, for errors.

    Raises:
        BenchError: one has no `=`.
    """
    import tomllib

    values: dict[str, Any] = {}
    for pair in pairs or []:
        key, separator, text = pair.partition("=")
        if not separator or not key:
            examples = {"--option": "shortcut=none", "--slurm-option": "partition=gpu"}
            example = examples.get(flag, "learning_rate=0.1")
            raise BenchError(f"{flag} {pair}: write it as key=value, such as {example}")
        try:
            values[key] = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            values[key] = text
    return values


def use_threads(threads: int | None) -> None:
    """Let PyTorch use so many CPU threads; its own choice without."""
    if threads is not None:
        import torch

        torch.set_num_threads(threads)


def parse_trackers(text: str | None) -> tuple[str, ...]:
    """Parse `tensorboard,mlflow`.

    Raises:
        BenchError: a name is unknown, or its library is not installed.
    """
    if text is None:
        return ()
    from bench.report.tracking.names import check_trackers

    return check_trackers(text.split(","))


def require_positive(**values: int | None) -> None:
    """Refuse counts below 1, and those that no library below would take.

    Raises:
        BenchError: naming the option.
    """
    for name, value in values.items():
        if value is None:
            continue
        flag = f"--{name.replace('_', '-')} {value}"
        if value < 1:
            raise BenchError(f"{flag}: it must be at least 1")
        if value > _MOST:
            raise BenchError(f"{flag}: it must be at most {_MOST:,}")
