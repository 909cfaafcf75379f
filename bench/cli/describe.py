"""`bench describe`."""

import re
from contextlib import nullcontext
from dataclasses import asdict
from typing import Annotated

from bench.cli import options
from bench.cli.options import argument, network
from bench.cli.output import print_json, print_line, print_table
from bench.errors import BenchError

_SHAPE = re.compile("x".join([r"([1-9]\d{0,8})"] * 4))  # N, C, H, W


def describe(
    model: Annotated[
        str, argument("MODEL", "A model ('bench list models'), your own module:function, or a run.")
    ],
    input_shape: Annotated[
        str | None,
        network("--input 1x3x224x224", "Input shape N x C x H x W (default: the family's)."),
    ] = None,
    classes: Annotated[
        int | None, network("--classes N", "Number of classes (default: the family's).")
    ] = None,
    option: options.KeyValues = None,
    results: options.Results = options.DEFAULT_RESULTS,
    as_json: options.Json = False,
) -> None:
    """Print a network's layers: output shapes, parameters, multiply-adds (of the whole batch).

    Examples:

      bench describe resnet18

      bench describe d2l_resnet18 --input 1x1x224x224

      bench describe resnet56 --option shortcut=none

    """
    options.require_positive(classes=classes)
    import torch

    from bench.models import build_model
    from bench.networks.summary import Row
    from bench.networks.summary import describe as describe_model
    from bench.targets.find import find_network

    given = None if input_shape is None else _parse_shape(input_shape)
    chosen = options.parse_values(option)
    for key, instead in (("num_classes", "--classes N"), ("in_channels", "--input 1xCxHxW")):
        if key in chosen:
            raise BenchError(f"--option {key}: give {instead} instead")
    found = find_network(model, results=results, options=chosen, takes=("model", "run"))
    assert found.model is not None  # noqa: S101 - neither is a file
    assert found.input_shape is not None  # noqa: S101
    shape = given or (1, *found.input_shape)
    if classes is None and found.kind == "run":
        classes = len(found.load_run().classes)
    # Drawing the values of a shipped network takes longer than counting its operations.
    shipped = ":" not in found.model
    with torch.device("meta") if shipped else nullcontext():
        network = build_model(
            found.model, num_classes=classes, in_channels=shape[1], **found.options
        )
    try:
        described = describe_model(network, shape)
    except ValueError as error:
        raise BenchError(f"{model}: {error}") from None
    if as_json:
        total = {"layer": "total", "parameters": described.parameters, "macs": described.macs}
        print_json([*map(asdict, described.rows), total])
        return
    layers = [*described.rows, Row("total", "", (), described.parameters, described.macs)]
    cells = [
        {
            "layer": row.layer,
            "kind": row.kind,
            "output shape": "×".join(map(str, row.output_shape)),
            "parameters": row.parameters,
            "multiply-adds": row.macs,
        }
        for row in layers
    ]
    print_table(cells, {"parameters": ",", "multiply-adds": ","}, needed=5)
    if shape[0] > 1:
        print_line(
            "Multiply-adds are those of the whole batch: "
            f"{described.macs / shape[0]:,.0f} for each of its {shape[0]} images."
        )


def _parse_shape(text: str) -> tuple[int, ...]:
    found = _SHAPE.fullmatch(text.lower().replace("×", "x"))
    if found is None:
        raise BenchError(f"--input {text}: write it as N x C x H x W, such as 1x3x224x224")
    return tuple(map(int, found.groups()))
