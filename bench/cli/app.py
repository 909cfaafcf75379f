"""The commands, put together."""

import typer

from bench.cli import (
    choose,
    compare,
    describe,
    doctor,
    export_onnx,
    export_tensorrt,
    gradients,
    grow,
    init,
    landscape,
    lesion,
    listing,
    plan,
    predict,
    report,
    results,
    run_ablation,
    throughput,
    train,
    tune,
)

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="What does a design choice in a residual network buy in accuracy, and what does it "
    "cost once deployed?",
)
app.command("run-ablation")(run_ablation.run_ablation)
app.command("train")(train.train)
app.command("grow")(grow.grow)
app.command("lesion")(lesion.lesion)
app.command("gradients")(gradients.gradients)
app.command("landscape")(landscape.landscape)
app.command("predict")(predict.predict)
app.command("report")(report.report)
app.command("describe")(describe.describe)
app.command("export-onnx")(export_onnx.export_onnx)
app.command("export-tensorrt")(export_tensorrt.export_tensorrt)
app.command("throughput")(throughput.throughput)
app.command("compare")(compare.compare)
app.command("choose")(choose.choose)
app.command("tune")(tune.tune)
app.command("list")(listing.list_things)
app.command("init")(init.init)
app.command("plan")(plan.plan)
app.command("doctor")(doctor.doctor)
app.add_typer(results.app, name="results")


@app.callback(invoke_without_command=True)
def common(
    version: bool = typer.Option(False, "--version", help="Print the version and leave."),
) -> None:
    """Hold what stands before any command."""
    if version:
        from importlib.metadata import version as version_of

        typer.echo(f"bench {version_of('resnet-bench')}")
        raise typer.Exit
