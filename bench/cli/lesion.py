"""`bench lesion`."""

from typing import Annotated, Any

import typer

from bench.cli import options
from bench.cli.output import print_json, remarks, save_tables_and_picture, simple_table, stdout


def lesion(
    run: Annotated[
        str, typer.Argument(help="Finished run of a residual or plain network.", metavar="RUN")
    ],
    test_images: Annotated[
        int | None,
        options.measurement(
            "--test-images",
            help="Number of test images, from the first (default: all).",
            metavar="N",
        ),
    ] = None,
    swaps: Annotated[
        bool,
        options.measurement(
            "--swaps/--no-swaps", help="Also swap each pair of blocks of equal shape."
        ),
    ] = True,
    device: options.Device = "auto",
    threads: options.Threads = None,
    output: options.TablesAndPicture = None,
    results: options.Results = options.DEFAULT_RESULTS,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Measure the accuracy without each block, and with pairs of blocks swapped.

    The method of Veit et al. 2016. Also measures each block's residual/shortcut norm ratio and its
    gradient norm before training. Nothing is trained. The results are recorded, and shown by
    'bench report --format html'.

    Examples:

      bench lesion resnet20-fashion-mnist-mini-s0-0123456789ab

      bench lesion RUN --no-swaps --output lesions

    """
    options.require_positive(test_images=test_images, threads=threads)
    from bench.api import lesion as measure_lesions
    from bench.store.tables.frames import rows_of

    options.use_threads(threads)
    say = remarks(quiet=quiet or as_json)
    frame = measure_lesions(
        run, results=results, device=device, test_images=test_images, swaps=swaps, say=say
    )
    if output is not None:
        from bench.report.charts.blocks import lesion_charts
        from bench.report.charts.chart import legend_entries

        name = str(frame["run"].iloc[0])
        charts = lesion_charts(frame, legend_entries({name: name}))
        save_tables_and_picture({"lesion": frame}, charts, output, say)
    rows = rows_of(frame)
    if as_json:
        print_json(rows)
        return
    console = stdout()
    console.print(f"{rows[0]['run']}, {rows[0]['images']:,} test images", markup=False)
    console.print(simple_table([_shown(row) for row in rows], right=_NUMBERS))


_NUMBERS = ("test_accuracy", "drop", "norm_ratio", "initial_gradient_norm")


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    def number(key: str, form: str) -> str | None:
        return None if row[key] is None else format(row[key], form)

    place = {"none": "whole network", "drop": f"without {row['block']}"}
    return {
        "lesion": place.get(row["lesion"], f"{row['block']} ↔ {row['other']}"),
        "test_accuracy": number("test_accuracy", ".4f"),
        "drop": number("accuracy_drop", "+.4f"),
        "norm_ratio": number("norm_ratio", ".3g"),
        "initial_gradient_norm": number("initial_gradient_norm", ".3g"),
    }
