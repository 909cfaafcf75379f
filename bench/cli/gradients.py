"""`bench gradients`."""

from typing import Annotated

from bench.cli import options
from bench.cli.options import argument, measurement, what
from bench.cli.output import (
    print_json,
    print_line,
    print_table,
    prove_folder,
    remarks,
    save_tables_and_picture,
)

_FORMS = {"epoch": "", "gradient_norm": ".3g", "norm_ratio": ".3g"}


def gradients(
    targets: Annotated[
        list[str],
        argument("TARGET", "Runs (IDs, hashes or folders), or names of untrained networks."),
    ],
    dataset: Annotated[
        str, what("--dataset NAME", "Dataset for untrained networks; see 'bench list datasets'.")
    ] = "fashion-mnist-mini",
    seed: Annotated[int, what("--seed N", "Random seed of the weights of untrained networks.")] = 0,
    option: options.KeyValues = None,
    correlation: Annotated[
        bool,
        measurement("--correlation", "Also measure the correlation of gradients at nearby inputs."),
    ] = False,
    device: options.Device = "auto",
    threads: options.Threads = None,
    output: options.TablesAndPicture = None,
    results: options.Results = options.DEFAULT_RESULTS,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Measure gradient norms by depth, before and during training.

    A network given by name is measured untrained. A run trained with record_blocks=true has each
    block's gradient norm and residual/shortcut norm ratio for every epoch; any other run is
    measured after training. --correlation adds the autocorrelation of the gradient along lines
    between images (Balduzzi et al. 2017). The results are recorded, and shown by
    'bench report --format html'.

    Examples:

      bench gradients plain20 resnet20 plain56 resnet56 --correlation --output gradients

      bench train resnet20 --set record_blocks=true

      bench gradients resnet20-fashion-mnist-mini-s0-0123456789ab

    """
    options.require_positive(threads=threads)
    from bench.api import gradients as measure_gradients
    from bench.store.tables.frames import rows_of

    options.use_threads(threads)
    prove_folder(output)
    say = remarks(quiet=quiet or as_json)
    blocks, correlations = measure_gradients(
        targets,
        results=results,
        dataset=dataset,
        options=options.parse_values(option),
        seed=seed,
        device=device,
        correlation=correlation,
        say=say,
    )
    if output is not None:
        from bench.report.charts.blocks import gradient_charts
        from bench.report.charts.chart import legend_entries

        names = {name: name for name in map(str, blocks["target"].unique())}
        charts = gradient_charts(blocks, correlations, legend_entries(names))
        tables = {"gradients": blocks, "correlations": correlations}
        save_tables_and_picture(tables, charts, output, say)
    rows = rows_of(blocks)
    if as_json:
        print_json([*rows, *rows_of(correlations)])
        return
    shown = ("target", "epoch", "block", "gradient_norm", "norm_ratio")
    print_table([{key: row[key] for key in shown} for row in rows], _FORMS)
    for target, values in correlations.groupby("target", sort=False):
        near = {lag: values.loc[values["lag"] == lag, "correlation"].item() for lag in (1, 4, 16)}
        listed = ", ".join(f"{value:.2f} at lag {lag}" for lag, value in near.items())
        print_line(f"{target}: correlation of gradients {listed}")
