"""`bench lesion`."""

from typing import Annotated, Any

from bench.cli import options
from bench.cli.options import argument, measurement
from bench.cli.output import (
    network_names,
    print_json,
    print_line,
    print_table,
    prove_folder,
    remarks,
    save_tables_and_picture,
    scaled,
)


def lesion(
    run: Annotated[
        str, argument("RUN", "Finished run (ID, hash or folder) of a residual or plain network.")
    ],
    test_images: Annotated[
        int | None,
        measurement("--test-images N", "Number of test images, spread evenly (default: all)."),
    ] = None,
    swaps: Annotated[
        bool, measurement("--swaps/--no-swaps", "Also swap each pair of blocks of equal shape.")
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
    prove_folder(output)
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
    (name, *_) = network_names([{**rows[0], "model": None}], results)
    print_line(f"{name}, {rows[0]['images']:,} test images")
    print_table([_shown(row) for row in rows], _FORMS, needed=3)


_FORMS = {
    "test_accuracy_%": ".2f",
    "drop (points)": "+.2f",
    "norm_ratio": ".3g",
    "initial_gradient_norm": ".3g",
}


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    place = {"none": "whole network", "drop": f"without {row['block']}"}
    return {
        "lesion": place.get(row["lesion"], f"{row['block']} ↔ {row['other']}"),
        "test_accuracy_%": scaled(row["test_accuracy"], 100),
        "drop (points)": scaled(row["accuracy_drop"], 100),
        "norm_ratio": row["norm_ratio"],
        "initial_gradient_norm": row["initial_gradient_norm"],
    }
