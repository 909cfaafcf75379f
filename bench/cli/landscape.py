"""`bench landscape`."""

from typing import Annotated

from bench.cli import options
from bench.cli.options import argument, measurement
from bench.cli.output import (
    network_names,
    print_json,
    print_table,
    prove_folder,
    remarks,
    save_tables_and_picture,
)


def landscape(
    runs: Annotated[list[str], argument("RUN", "Finished runs (IDs, hashes or folders).")],
    plane: Annotated[
        bool, measurement("--plane", "Measure a plane of two directions instead of a line.")
    ] = False,
    span: Annotated[
        float, measurement("--span X", "Largest step either way, in units of each filter's norm.")
    ] = 1.0,
    points: Annotated[
        int, measurement("--points N", "Number of points along each direction.")
    ] = 21,
    split: Annotated[
        str, measurement("--split SPLIT", "Split to evaluate: train or test.")
    ] = "train",
    images: Annotated[int, measurement("--images N", "Number of images to use.")] = 1000,
    seed: Annotated[int, measurement("--seed N", "Random seed of the directions.")] = 0,
    device: options.Device = "auto",
    threads: options.Threads = None,
    output: options.TablesAndPicture = None,
    results: options.Results = options.DEFAULT_RESULTS,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Measure the loss around trained weights, along random directions.

    Each direction is normalised filter by filter (Li et al. 2018). Give several runs, such as a
    plain and a residual network, to compare them. Nothing is trained. The results are recorded,
    and shown by 'bench report --format html'.

    Examples:

      bench landscape resnet20-fashion-mnist-mini-s0-0123456789ab

      bench landscape RUN OTHER --plane --points 15 --output landscape

    """
    options.require_positive(images=images, threads=threads)
    from bench.api import landscape as measure_landscape
    from bench.store.tables.frames import rows_of

    options.use_threads(threads)
    prove_folder(output)
    say = remarks(quiet=quiet or as_json)
    frame = measure_landscape(
        runs,
        results=results,
        device=device,
        plane=plane,
        span=span,
        points=points,
        split=split,
        images=images,
        seed=seed,
        say=say,
    )
    if output is not None:
        from bench.report.charts.chart import legend_entries
        from bench.report.charts.landscape import landscape_charts

        models = dict(zip(frame["run"], frame["model"], strict=True))
        names = {str(run): f"{model} ({run[-12:]})" for run, model in models.items()}
        charts = landscape_charts(frame, legend_entries(names))
        save_tables_and_picture({"landscape": frame}, charts, output, say)
    rows = rows_of(frame)
    if as_json:
        print_json(rows)
        return
    forms = {"x": "+.2f", **({"y": "+.2f"} if plane else {}), "loss": ".4g", "accuracy_%": ".2f"}
    for row, name in zip(rows, network_names(rows, results), strict=True):
        row |= {"run": name, "accuracy_%": row["accuracy"] * 100}
    print_table([{key: row[key] for key in ("run", *forms)} for row in rows], forms)
