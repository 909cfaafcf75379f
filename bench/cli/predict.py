"""`bench predict`."""

from pathlib import Path
from typing import Annotated

from bench.cli import options
from bench.cli.options import argument, output
from bench.cli.output import print_json, print_table


def predict(
    run: Annotated[
        str,
        argument("RUN", "Finished run (ID, hash or folder), or export (.onnx file or SHA-256)."),
    ],
    images: Annotated[list[Path], argument("IMAGE", "Image files.")],
    top: Annotated[int, output("--top N", "Number of classes to show per image.")] = 1,
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
    print_table(rows, {"rank": "", "probability": ".3f"})
