"""`bench predict`."""

from pathlib import Path
from typing import Annotated

import typer

from bench.cli import options
from bench.cli.output import print_json, simple_table, stdout


def predict(
    run: Annotated[
        str,
        typer.Argument(help="Finished run, or an export (.onnx file or SHA-256).", metavar="RUN"),
    ],
    images: Annotated[list[Path], typer.Argument(help="Image files.", metavar="IMAGE")],
    top: Annotated[
        int, options.output("--top", help="Number of classes to show per image.", metavar="N")
    ] = 1,
    results: options.Results = options.DEFAULT_RESULTS,
    as_json: options.Json = False,
) -> None:
    """Classify image files with a trained or exported network.

    Images are preprocessed as they were for training.

    Examples:

      bench predict bench-runs/runs/resnet20-fashion-mnist-mini-s0-0123456789ab boot.png --top 3

      bench predict model.onnx boot.png

    """
    options.require_positive(top=top)
    from bench.export.classifier import ExportedClassifier
    from bench.targets.classify import predict as classify
    from bench.targets.find import find_network

    found = find_network(run, results=results, takes=("run", "onnx"))
    network = ExportedClassifier(found.file) if found.file else found.load_run()
    rows = classify(network, images, top=top)
    if as_json:
        print_json(rows)
        return
    shown = [{**row, "probability": f"{row['probability']:.3f}"} for row in rows]
    stdout().print(simple_table(shown, right=("rank", "probability")))
