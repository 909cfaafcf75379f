"""`bench grow`."""

from __future__ import annotations

from typing import Annotated

import typer

from bench.cli import options
from bench.cli.output import print_json, stdout
from bench.cli.progress import progress_view


def grow(
    run: Annotated[str, typer.Argument(help="A finished run of a residual network.")],
    to: Annotated[str, typer.Option("--to", help="The larger network.", metavar="MODEL")],
    width: Annotated[
        int | None,
        typer.Option("--width", help="Its width, by copying channels (Net2Net).", metavar="W"),
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(
            "--epochs", help="To train on; 0 grows and proves only. The run's own without."
        ),
    ] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", help="A recipe value to train on with.", metavar="KEY=VALUE"),
    ] = None,
    timeout: options.Timeout = None,
    force: options.Force = False,
    allow_mixed: options.AllowMixed = False,
    results: options.Results = options.DEFAULT_RESULTS,
    device: options.Device = "auto",
    threads: options.Threads = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Make a trained network larger without changing what it computes, prove it, train on.

    New blocks start as the identity: the last scale and shift of their branch are zero. Where
    a block cannot be the identity, the layer that breaks the nesting is named.

    Examples:

      bench grow resnet20-fashion-mnist-mini-s0-0123456789ab --to resnet32

      bench grow RUN --to resnet20 --width 32 --epochs 0

    """
    options.require_positive(width=width, threads=threads)
    from bench.system.memory import enable_huge_pages

    enable_huge_pages()
    from bench.api import grow_with_proof
    from bench.launch.launchers import make_launcher
    from bench.store.tables.frames import rows_of

    with progress_view(quiet=quiet or as_json) as view:
        row, proof = grow_with_proof(
            run,
            to,
            width=width,
            epochs=epochs,
            settings=options.parse_values(setting, "--set"),
            force=force,
            allow_mixed=allow_mixed,
            results=results,
            device=device,
            threads=threads,
            quiet=quiet or as_json,
            launcher=make_launcher("local", timeout=timeout),
            on_event=view,
        )
    (values,) = rows_of(row)
    failed = values["status"] != "complete"
    if as_json:
        print_json([{**values, "proof": proof}], [values] if failed else [])
    elif proof is None:
        stdout().print(f"{values['run']}: {values['status']}: {values['error']}", markup=False)
    else:
        from bench.networks.same_function import Proof

        accuracy = values["test_accuracy"]
        shown = "no accuracy (made-up images)" if accuracy is None else f"{accuracy:.4f}"
        console = stdout()
        console.print(f"Grown from {values['parent']}", markup=False, soft_wrap=True)
        console.print(f"Proof: {Proof.of(proof)}", markup=False, soft_wrap=True)
        console.print(
            f"{values['run']}: test accuracy {shown} after {values['epochs']} more epochs",
            markup=False,
            soft_wrap=True,
        )
    raise typer.Exit(int(failed))
