"""The commands, put together."""

from typing import Any

import typer
from rich.markup import escape
from typer.core import TyperGroup

from bench.cli import (
    choose,
    compare,
    describe,
    doctor,
    export_onnx,
    export_tensorrt,
    gradients,
    grow,
    import_model,
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

# Panel of the help → commands, in the order of a user's day.
_PANELS: dict[str, dict[str, Any]] = {
    "Study": {
        "init": init.init,
        "run-ablation": run_ablation.run_ablation,
        "train": train.train,
        "import": import_model.import_model,
    },
    "Results": {
        "report": report.report,
        "choose": choose.choose,
        "predict": predict.predict,
    },
    "Export": {
        "export-onnx": export_onnx.export_onnx,
        "export-tensorrt": export_tensorrt.export_tensorrt,
    },
    "Speed": {
        "throughput": throughput.throughput,
        "tune": tune.tune,
        "compare": compare.compare,
    },
    "Inspect": {
        "describe": describe.describe,
        "lesion": lesion.lesion,
        "gradients": gradients.gradients,
        "landscape": landscape.landscape,
        "grow": grow.grow,
    },
    "Manage": {
        "results": results.app,
        "list": listing.list_things,
        "doctor": doctor.doctor,
        "plan": plan.plan,
    },
}


class _InOrder(TyperGroup):
    """Lists commands in the order of `_PANELS`; Typer lists groups after all commands."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 - Typer's interface
        return [name for commands in _PANELS.values() for name in commands]


app = typer.Typer(
    cls=_InOrder,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="""What does a design choice in a residual network buy in accuracy, and what does it
    cost once deployed?

    Examples:

      bench run-ablation

      bench COMMAND --help

    Every command takes the short hash of a run, which tables and 'bench results ls' show.

    """,
)
for _panel, _commands in _PANELS.items():
    for _name, _command in _commands.items():
        if isinstance(_command, typer.Typer):
            app.add_typer(_command, name=_name, rich_help_panel=_panel)
        else:
            # Docstrings are plain text, in which Rich would take [[machine]] for markup.
            _help = escape(_command.__doc__ or "")
            app.command(_name, help=_help, rich_help_panel=_panel)(_command)


@app.callback(invoke_without_command=True)
def common(
    ctx: typer.Context,
    version: bool = typer.Option(False, "--version", help="Print the version and exit."),
) -> None:
    """Global options."""
    if version:
        from importlib.metadata import version as version_of

        typer.echo(f"bench {version_of('resnet-bench')}")
        raise typer.Exit
    from bench.cli import refuse
    from bench.system.native_crash import report_native_crash

    ctx.with_resource(report_native_crash(refuse))
