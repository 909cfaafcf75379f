"""`bench plan`."""

from pathlib import Path
from typing import Annotated

from bench.cli import options
from bench.cli.options import argument, hardware
from bench.cli.output import print_json, print_table
from bench.errors import BenchError

_FORMS = {"runs": "", "images": "", "hours": ".3g", "cost": ".3g", "kilowatt_hours": ".3g"}


def plan(
    study: Annotated[str, argument("STUDY", "Name of a shipped study, or a .toml file.")],
    seeds: options.Seeds = None,
    dataset: options.Dataset = None,
    epochs: options.Epochs = None,
    machines: Annotated[
        Path | None, hardware("--machines FILE", "TOML file that describes machines.")
    ] = None,
    gpu: options.Gpu = None,
    results: options.Results = options.DEFAULT_RESULTS,
    as_json: options.Json = False,
) -> None:
    """Estimate the time, cost and energy of a study on other machines.

    Finished runs are not counted. The file of --machines has one table [[machine]] for each
    machine: its name, and how fast it trains. That is images_per_second of each network; or
    flops_per_second and bytes_per_second, for a roofline estimate, with precision (fp32, bf16 or
    fp16) and seconds_per_operation, in which the host launches one; or cpu, to use the speed of
    recorded runs with the same training step on that processor. Optional are workers,
    cost_per_hour and watts.

    Examples:

      bench plan depth --machines machines.toml

      bench plan full-cifar10-degradation --gpu A100

    """
    options.require_positive(epochs=epochs)
    from bench.launch.carry_out import make_plan
    from bench.launch.planning import known_gpu, plan_rows, read_machines
    from bench.store import Store
    from bench.studies import Overrides
    from bench.system.devices import resolve_device

    if machines is None and gpu is None:
        raise BenchError(
            "no machine to estimate for: give --machines FILE or --gpu NAME, such as --gpu A100"
        )
    known = [*(read_machines(machines) if machines else []), *([known_gpu(gpu)] if gpu else [])]
    wanted = Overrides(seeds=options.parse_seeds(seeds), epochs=epochs, dataset=dataset)
    # The precision, and so which runs are finished, is that of this machine.
    runs = make_plan(study, resolve_device("auto"), wanted)
    rows = plan_rows(runs, Store(results), known)
    if as_json:
        print_json(rows)
        return
    print_table(rows, _FORMS)
