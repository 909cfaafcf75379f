"""`bench import`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli import options
from bench.cli.options import argument, network, output, what
from bench.cli.output import print_json, print_line
from bench.cli.progress import progress_view
from bench.errors import RunsFailedError

if TYPE_CHECKING:
    from bench.data import Preprocessing

_UNEQUAL = 1.5  # times its equal share, from which the largest class is worth a word


def import_model(
    model: Annotated[
        str,
        argument(
            "MODEL",
            "Your own module:function, timm:NAME, torchvision:NAME, or 'bench list models'.",
        ),
    ],
    dataset: Annotated[
        str,
        what(
            "--dataset NAME",
            "imagefolder:PATH, module:function, or a name of 'bench list datasets'.",
        ),
    ],
    weights: Annotated[
        Path | None,
        network(
            "--weights FILE",
            "Trained weights: safetensors or state dict (default: the network's own).",
        ),
    ] = None,
    option: options.KeyValues = None,
    setting: Annotated[
        list[str] | None,
        network(
            "--set KEY=VALUE", "input_size, resize, mean, std, normalize, antialias, …; repeatable."
        ),
    ] = None,
    name: Annotated[
        str | None,
        output(
            "--name NAME",
            "Study to record the run in, which names it in commands (default: adhoc).",
        ),
    ] = None,
    force: Annotated[
        bool, output("--force", "Import again what exists, or take over the name.")
    ] = False,
    device: options.Device = "auto",
    threads: options.Threads = None,
    results: options.Results = options.DEFAULT_RESULTS,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Make a run of a network that was trained elsewhere.

    The network is evaluated once on the test images; nothing is trained. Every command that takes
    a run then takes it. The usual wrappers and prefixes of checkpoints are recognised.

    Examples:

      bench import my_networks:net --weights best.pt --dataset imagefolder:pets --name pets

      bench import timm:resnet18 --option pretrained=true --dataset imagefolder:imagenet

    """
    from bench.api import import_model as import_trained
    from bench.store.tables.frames import rows_of

    with progress_view(quiet=quiet or as_json) as view:
        try:
            row = import_trained(
                model,
                dataset=dataset,
                weights=weights,
                options=options.parse_values(option),
                settings=options.parse_values(setting, "--set"),
                name=name,
                force=force,
                results=results,
                device=device,
                threads=threads,
                on_event=view,
            )
        except RunsFailedError as error:
            row = error.rows
    (values,) = rows_of(row)
    failed = values["status"] != "complete"
    if as_json:
        print_json([values], [values] if failed else [])
    elif failed:
        print_line(f"{values['run']}: {values['status']}: {values['error']}")
    else:
        _show(values["run"], name or values["run"], results)
    raise typer.Exit(int(failed))


def _show(run: str, target: str, results: Path) -> None:
    """Print what was imported, and the commands that may follow."""
    from bench.store import Store
    from bench.store.runs import short_name
    from bench.targets.find import load_trained

    trained = load_trained(run, results=results)
    classes = len(trained.classes)
    name = short_name(run, target if target != run else trained.record.request["model"])
    result = trained.record.result
    images, accuracy = (result[f"test_{what}"] for what in ("images", "accuracy"))
    largest = result.get("largest_class", 0)  # which older runs did not record
    unequal = f"; the largest has {largest * 100:.1f} %" if largest > _UNEQUAL / classes else ""
    print_line(
        f"{name}: test accuracy {accuracy * 100:.2f} % "
        f"({images:,} images, {classes} classes{unequal})"
    )
    print_line(_input(trained.preprocessing))
    for words in (
        ("export-onnx", target, "--precision", "int8"),
        ("throughput", target, "--precision", "fp32", "--precision", "int8"),
    ):
        print_line(f"  {Store(results).command(*words)}")


def _input(preprocessing: "Preprocessing") -> str:
    size = preprocessing.input_size
    text = f"input {size}x{size}"
    if not preprocessing.normalize:
        return f"{text}, values 0 to 1"
    numbers = [
        ", ".join(f"{value:.3f}" for value in values)
        for values in (preprocessing.mean, preprocessing.std)
    ]
    return f"{text}, normalised with mean {numbers[0]} and standard deviation {numbers[1]}"
