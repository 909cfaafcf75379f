"""`bench train`."""

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bench.cli import options
from bench.cli.dry_run import show_dry_run
from bench.cli.options import argument, network, training, what
from bench.cli.output import print_json, print_line
from bench.cli.progress import progress_view
from bench.system.memory import enable_huge_pages

if TYPE_CHECKING:
    from bench.report.findings.time_to_accuracy import TimeToAccuracy


def train(
    model: Annotated[
        str,
        argument("MODEL", "Name of a network ('bench list models'), or your own module:function."),
    ],
    dataset: Annotated[
        str, what("--dataset NAME", "Dataset; see 'bench list datasets'.")
    ] = "fashion-mnist-mini",
    recipe: Annotated[
        str, what("--recipe NAME", "Training recipe; see 'bench list recipes'.")
    ] = "fast",
    seed: Annotated[int, what("--seed N", "Random seed.")] = 0,
    option: options.KeyValues = None,
    weights: Annotated[
        Path | None,
        network(
            "--weights FILE", "Weights to start from: safetensors or state dict (default: random)."
        ),
    ] = None,
    epochs: options.Epochs = None,
    setting: Annotated[
        list[str] | None,
        training(
            "--set KEY=VALUE", "Value of the recipe, or input_size, train_images, …; repeatable."
        ),
    ] = None,
    target_accuracy: Annotated[
        float | None,
        training(
            "--target-accuracy PERCENT",
            "Also report the time to reach this validation accuracy, in per cent.",
        ),
    ] = None,
    dry_run: options.DryRun = False,
    force: options.Force = False,
    deterministic: options.Deterministic = False,
    allow_mixed: options.AllowMixed = False,
    compiled: options.Compile = False,
    cuda_graph: options.CudaGraph = False,
    timeout: options.Timeout = None,
    device: options.Device = "auto",
    threads: options.Threads = None,
    track: options.Track = None,
    results: options.Results = options.DEFAULT_RESULTS,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Train one network and record the run.

    The run is recorded in the study 'adhoc'. A finished run is never trained again; to resume a
    stopped one, rerun the same command.

    Examples:

      bench train resnet20

      bench train resnet18 --dataset fashion-mnist --epochs 10 --option shortcut=none

      bench train resnet50 --dataset cifar10 --dry-run

      bench train resnet20 --set learning_rate=0.1 --set input_size=32

      torchrun --nproc-per-node 2 --no-python bench train resnet50 --device cuda

      bench train resnet20 --dataset fashion-mnist --target-accuracy 90

    """
    started = time.perf_counter()
    options.require_positive(epochs=epochs)
    trackers = options.parse_trackers(track)
    settings = options.parse_values(setting, "--set")
    target = options.parse_accuracy("--target-accuracy", target_accuracy)
    if target is not None:
        from bench.report.findings.time_to_accuracy import check_target_accuracy

        check_target_accuracy(target, recipe, dataset, settings)

    enable_huge_pages()
    from bench.api import run_one, train_plan
    from bench.launch.launchers import make_launcher
    from bench.launch.workers import Execution
    from bench.store.tables.frames import rows_of
    from bench.training.distributed import follows

    how = Execution(
        results=results,
        device=device,
        threads=threads,
        force=force,
        allow_mixed=allow_mixed,
        compiled=compiled,
        cuda_graph=cuda_graph,
        launcher=make_launcher("local", timeout=timeout, announce=not (quiet or as_json)),
    )
    plan = train_plan(
        model,
        how.torch_device,
        options=options.parse_values(option),
        dataset=dataset,
        recipe=recipe,
        epochs=epochs,
        seed=seed,
        settings=settings,
        weights=weights,
        deterministic=deterministic,
    )
    if dry_run:
        show_dry_run(plan, how, started=started, as_json=as_json)
        return
    with progress_view(quiet=quiet or as_json) as view:
        row = run_one(plan, replace(how, on_event=view), weights=weights, track=trackers)
    if follows():
        raise typer.Exit
    (values,) = rows_of(row)
    failed = values["status"] != "complete"
    reached = None if target is None else _reached(values, results, target)
    if reached is not None:
        values |= {
            "target_accuracy": reached.accuracy,
            "seconds_to_target": reached.seconds,
            "epochs_to_target": reached.epoch,
        }
    if as_json:
        print_json([values], [values] if failed else [])
    elif failed:
        print_line(f"{_name(values)}: {values['status']}: {values['error']}")
    else:
        print_line(_summary(values))
        if reached is not None:
            print_line(str(reached))
    raise typer.Exit(int(failed))


def _reached(values: dict[str, Any], results: Path, target: float) -> "TimeToAccuracy | None":
    """Return when the run reached an accuracy; None if it failed before it could be evaluated."""
    from bench.report.findings.time_to_accuracy import time_to_accuracy
    from bench.store.tables.frames import load_table

    folder = results / "runs" / values["run"]
    return time_to_accuracy(load_table(folder, "epochs"), target) if folder.is_dir() else None


def _summary(values: dict[str, Any]) -> str:
    if values["test_accuracy"] is None:
        speed = f"{values['images_per_second']:,.0f} images/s"
        return (
            f"{_name(values)}: {speed} (synthetic images: no accuracy), {values['seconds']:.0f} s"
        )
    return (
        f"{_name(values)}: test accuracy {values['test_accuracy'] * 100:.2f} %, train accuracy "
        f"{values['train_accuracy'] * 100:.2f} %, {values['seconds']:.0f} s"
    )


def _name(values: dict[str, Any]) -> str:
    from bench.store.runs import short_name

    return short_name(values["run"], values["variant"])
