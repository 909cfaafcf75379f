"""`bench grow`."""

from typing import Annotated

import typer

from bench.cli import options
from bench.cli.options import argument, network, training
from bench.cli.output import print_json, print_line
from bench.cli.progress import progress_view
from bench.system.memory import enable_huge_pages


def grow(
    run: Annotated[
        str, argument("RUN", "Finished run (ID, hash or folder) of a residual network.")
    ],
    to: Annotated[str, network("--to MODEL", "Name of the larger network.")],
    width: Annotated[
        int | None,
        network("--width N", "Its width; channels are copied as in Net2Net (default: the run's)."),
    ] = None,
    epochs: Annotated[
        int | None,
        training(
            "--epochs N",
            "Epochs of further training (0: only grow and verify; default: the run's).",
        ),
    ] = None,
    setting: Annotated[
        list[str] | None,
        training("--set KEY=VALUE", "Value of the recipe for further training; repeatable."),
    ] = None,
    force: options.Force = False,
    allow_mixed: options.AllowMixed = False,
    timeout: options.Timeout = None,
    device: options.Device = "auto",
    threads: options.Threads = None,
    results: options.Results = options.DEFAULT_RESULTS,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Grow a trained network without changing its outputs, then train it further.

    New blocks start as the identity: the last scale and shift of their branch are zero. The
    outputs are compared before training starts. If a block cannot be the identity, the error
    names the layer that prevents it.

    Examples:

      bench grow resnet20-fashion-mnist-mini-s0-0123456789ab --to resnet32

      bench grow RUN --to resnet20 --width 32 --epochs 0

    """
    options.require_positive(width=width, threads=threads)

    enable_huge_pages()
    from bench.api import grow_with_proof
    from bench.launch.launchers import make_launcher
    from bench.store.runs import short_name
    from bench.store.tables.frames import rows_of
    from bench.training.distributed import follows

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
            launcher=make_launcher("local", timeout=timeout, announce=not (quiet or as_json)),
            on_event=view,
        )
    if follows():
        raise typer.Exit
    (values,) = rows_of(row)
    name = short_name(values["run"], values["variant"])
    failed = values["status"] != "complete"
    if as_json:
        print_json([{**values, "proof": proof}], [values] if failed else [])
    elif proof is None:
        print_line(f"{name}: {values['status']}: {values['error']}")
    else:
        from bench.networks.same_function import Proof

        accuracy = values["test_accuracy"]
        shown = "unknown (synthetic images)" if accuracy is None else f"{accuracy * 100:.2f} %"
        print_line(f"Grown from {values['parent']}")
        print_line(f"Proof: {Proof.of(proof)}")
        print_line(f"{name}: test accuracy {shown} after {values['epochs']} more epochs")
    raise typer.Exit(int(failed))
