"""`bench describe`."""

from typing import Annotated

import typer

from bench.cli import options
from bench.cli.output import print_json, stdout


def describe(
    model: Annotated[
        str,
        typer.Argument(
            help="Name of a network ('bench list models'), or your own module:function.",
            metavar="MODEL",
        ),
    ],
    input_shape: Annotated[
        str | None,
        options.network(
            "--input",
            help="Input shape N x C x H x W (default: the family's).",
            metavar="1x3x224x224",
        ),
    ] = None,
    classes: Annotated[
        int | None,
        options.network(
            "--classes", help="Number of classes (default: the family's).", metavar="N"
        ),
    ] = None,
    option: options.KeyValues = None,
    as_json: options.Json = False,
) -> None:
    """Print a network's layers: output shapes, parameters, multiply-adds.

    Examples:

      bench describe resnet18

      bench describe d2l_resnet18 --input 1x1x224x224

      bench describe resnet56 --option shortcut=none

    """
    options.require_positive(classes=classes)
    from rich.table import Table

    from bench.errors import BenchError
    from bench.models import build_model, default_shape
    from bench.networks.summary import describe as describe_model

    chosen = options.parse_values(option)
    channels, size, _ = default_shape(model, chosen)
    shape = _parse_shape(input_shape) if input_shape is not None else (1, channels, size, size)
    network = build_model(model, num_classes=classes, in_channels=shape[1], **chosen)
    try:
        described = describe_model(network, shape)
    except ValueError as error:
        raise BenchError(f"{model}: {error}") from None
    rows = [
        {
            "layer": row.layer,
            "kind": row.kind,
            "output_shape": list(row.output_shape),
            "parameters": row.parameters,
            "macs": row.macs,
        }
        for row in described.rows
    ]
    total = {"layer": "total", "parameters": described.parameters, "macs": described.macs}
    if as_json:
        print_json([*rows, total])
        return
    table = Table(box=None, pad_edge=False, header_style="bold", show_footer=True)
    table.add_column("layer", footer="total")
    table.add_column("kind")
    table.add_column("output shape")
    table.add_column("parameters", justify="right", footer=f"{described.parameters:,}")
    table.add_column("multiply-adds", justify="right", footer=f"{described.macs:,}")
    for row in described.rows:
        shown = "×".join(map(str, row.output_shape))
        table.add_row(row.layer, row.kind, shown, f"{row.parameters:,}", f"{row.macs:,}")
    stdout().print(table)


def _parse_shape(text: str) -> tuple[int, ...]:
    from bench.errors import BenchError

    parts = text.lower().replace("×", "x").split("x")
    if len(parts) != 4 or not all(part.isdigit() and int(part) > 0 for part in parts):  # noqa: PLR2004 - N, C, H, W
        raise BenchError(f"--input {text}: write it as N x C x H x W, such as 1x3x224x224")
    return tuple(int(part) for part in parts)
