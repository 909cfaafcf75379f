"""What the commands do, as Python functions that return pandas frames.

Each public function leaves the calling process as it was (`caller_state`).
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Collection, Sequence
from contextlib import nullcontext
from dataclasses import fields, replace
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.analysis.gradients import measure_gradients
from bench.analysis.landscape import measure_landscapes
from bench.analysis.lesion import measure_lesions
from bench.errors import BenchError, RunsFailedError, nearest, warn
from bench.launch.carry_out import carry_out, make_plan
from bench.launch.workers import Execution
from bench.measurement.configurations import Request
from bench.report.charts.draw_matplotlib import save_charts
from bench.report.charts.sensitivity import sensitivity_chart
from bench.store import Store
from bench.store.tables.frames import analysed_frame, exports_frame, study_runs, throughput_frame
from bench.studies import (
    ADHOC,
    Overrides,
    Plan,
    PlannedVariant,
    Study,
    adhoc_study,
    check_study,
    check_study_name,
    shipped_studies,
)
from bench.studies.growth import grown_request
from bench.studies.recipe import Recipe
from bench.studies.run_request import IMPORT_SETTINGS
from bench.studies.schema import Settings
from bench.system.caller_state import caller_state
from bench.targets.find import as_tuple, load_trained
from bench.training.grown_start import DOCUMENT

if TYPE_CHECKING:
    import pandas as pd
    import torch

    from bench.export.settings import Flavor, Precision
    from bench.export.tensorrt import Profile, Toolkit
    from bench.store import StudyRecord
    from bench.store.exports import ExportRecord
    from bench.training.run import OnEvent

Say = Callable[[str], None]


def _silent(_text: str) -> None:
    """Say nothing."""


@caller_state()
def run_study(
    study: str | Path | Study,
    *,
    name: str | None = None,
    seeds: Sequence[int] | None = None,
    epochs: int | None = None,
    dataset: str | None = None,
    only: str | Sequence[str] = (),
    deterministic: bool = False,
    weights: str | Path | None = None,
    track: str | Sequence[str] = (),
    **execution: Any,
) -> pd.DataFrame:
    """Train every run of a study that is missing, and return the study's rows.

    Args:
        study: name of a shipped study, path of a study file, or a `Study`.
        name: the study's name in the results (default: the file's; a `Study` needs one); that of
            no model or other study.
        seeds: random seeds (default: the file's).
        epochs: number of epochs (default: the file's, or the recipe's).
        dataset: name of the dataset (default: the file's).
        only: names of the variants to run (default: all).
        deterministic: allow bit-reproducible kernels only.
        weights: file of weights that every run starts from.
        track: trackers to log the runs to as well, of `tensorboard` and `mlflow`.
        **execution: fields of `bench.launch.workers.Execution`.

    Returns:
        This study's rows of the `runs` table of `bench.load_results`. If some of its runs failed,
        a warning says how many and why the first did.

    Raises:
        BenchError: the request cannot be understood or met.
        RunsFailedError: every run failed; `rows` of the error has what would be returned.
        StopRequestedError: a signal asked to stop; the same call resumes.
    """
    _check_arguments(run_study, execution, Execution)
    if isinstance(study, Study):
        if name is None:
            raise BenchError("a Study made in Python has no name for its results: give name='mine'")
        check_study(study, name)
    if name is not None and (name != study or name not in shipped_studies()):
        check_study_name(name, f"name={name!r}")
    how = Execution(**execution)
    overrides = Overrides(
        seeds=None if seeds is None else [_whole("seeds", seed) for seed in as_tuple(seeds)],
        epochs=None if epochs is None else _whole("epochs", epochs),
        dataset=dataset,
        only=as_tuple(only),
        deterministic=deterministic,
    )
    start = None if weights is None else Path(weights)
    plan = make_plan(study, how.torch_device, overrides, name=name, weights=start)
    record = run_plan(plan, how, weights=start, track=as_tuple(track))
    rows = study_runs(Store(how.results), plan.name)
    _report_failures(rows[rows["run"].isin(selected_runs(plan, record))], rows)
    return rows


def _whole(argument: str, value: Any) -> int:
    """Return a whole number of any library's type, such as NumPy's."""
    try:
        return operator.index(value)
    except TypeError:
        raise BenchError(
            f"{argument}: {value!r} is no whole number; give numbers such as 3"
        ) from None


def selected_runs(plan: Plan, record: StudyRecord) -> set[str]:
    """Return the runs of a study's record that its plan was to train: all, or those of `only`."""
    return {record.variants[v.name]["runs"][str(s)] for v in plan.selected for s in v.requests}


def _check_arguments(
    function: Callable[..., Any],
    given: dict[str, Any],
    kind: type[Any],
    settings: Collection[str] = (),
) -> None:
    """Check the keyword arguments of a function that takes the fields of a dataclass.

    Args:
        function: the function.
        given: its arguments that are none of its own parameters.
        kind: the dataclass.
        settings: keys of the function's argument `settings`.

    Raises:
        BenchError: an argument is unknown; the known ones are named.
    """
    own = [name for name, p in signature(function).parameters.items() if p.kind != p.VAR_KEYWORD]
    known = [*own, *(field.name for field in fields(kind))]
    for key, value in given.items():
        if key not in known:
            hint = nearest(key, known)
            if key in settings:
                hint = f'; it is a setting: settings={{"{key}": {value!r}}}'
            raise BenchError(
                f"bench.{function.__name__} has no argument '{key}'{hint} "
                f"(known: {', '.join(known)})"
            )


def _report_failures(requested: pd.DataFrame, rows: pd.DataFrame) -> None:
    """Warn if some of the requested runs failed; raise an error with *rows* if all did."""
    failed = requested[~requested["status"].isin(["complete", "diverged"])]
    failed = failed.drop_duplicates("run")
    if failed.empty:
        return
    count, total = len(failed), requested["run"].nunique()
    first = failed.iloc[0]
    text = f"{count} of {total} runs failed; {first['run']} is {first['status']}: {first['error']}"
    if count == total:
        raise RunsFailedError(text, rows)
    warn(text)


def run_plan(
    plan: Plan, how: Execution, *, weights: Path | None = None, track: Sequence[str] = ()
) -> StudyRecord:
    """Carry out a plan as `bench.launch.carry_out.carry_out` does, and log its runs to trackers."""
    logged: Any = nullcontext(how.on_event)
    if track:
        from bench.report.tracking import tracked

        logged = tracked(track, Store(how.results), plan.name, how.on_event)
    with logged as on_event:
        return carry_out(plan, replace(how, on_event=on_event), weights=weights)


@caller_state()
def train(
    model: str,
    *,
    options: dict[str, Any] | None = None,
    dataset: str = "fashion-mnist-mini",
    recipe: str = "fast",
    epochs: int | None = None,
    seed: int = 0,
    settings: dict[str, Any] | None = None,
    weights: str | Path | None = None,
    deterministic: bool = False,
    track: str | Sequence[str] = (),
    **execution: Any,
) -> pd.DataFrame:
    """Train one network; it is recorded in the study `adhoc`, as a variant named like the model.

    Args:
        model: a name of `bench.models.list_models`, `timm:NAME`, `torchvision:NAME`, or
            `package.module:function`.
        options: options of the network, such as ``{"shortcut": "none"}``.
        dataset: a name of `bench list datasets`.
        recipe: `fast` or `book`.
        epochs: number of epochs (default: the recipe's).
        seed: random seed.
        settings: further keys of a study's variant (`input_size`, `learning_rate`, …).
        weights: file of weights to start from.
        deterministic: allow bit-reproducible kernels only.
        track: trackers to log the run to as well, of `tensorboard` and `mlflow`.
        **execution: fields of `bench.launch.workers.Execution`.

    Returns:
        The run's row of the `runs` table.

    Raises:
        BenchError: the request cannot be understood or met.
        RunsFailedError: the run failed; `rows` of the error has its row.
        StopRequestedError: a signal asked to stop; the same call resumes.
    """
    _check_arguments(train, execution, Execution, Settings.model_fields)
    how = Execution(**execution)
    start = None if weights is None else Path(weights)
    plan = train_plan(
        model,
        how.torch_device,
        options=options,
        dataset=dataset,
        recipe=recipe,
        epochs=None if epochs is None else _whole("epochs", epochs),
        seed=_whole("seed", seed),
        settings=settings,
        weights=start,
        deterministic=deterministic,
    )
    row = run_one(plan, how, weights=start, track=as_tuple(track))
    _report_failures(row, row)
    return row


def train_plan(
    model: str,
    device: torch.device,
    *,
    options: dict[str, Any] | None,
    dataset: str,
    recipe: str,
    epochs: int | None,
    seed: int,
    settings: dict[str, Any] | None,
    weights: Path | None,
    deterministic: bool,
) -> Plan:
    """Return the plan that `train` carries out on *device*; the arguments are `train`'s.

    Raises:
        BenchError: the request cannot be understood.
    """
    variant = {"name": model, "model": model, "options": options or {}, "dataset": dataset}
    for key in variant.keys() & (settings or {}).keys():
        raise BenchError(f"--set {key}: it has an argument or option of its own; use that")
    values = {"recipe": recipe, **variant, **(settings or {})}
    study = adhoc_study(f"What does {model} reach?", values, seed)
    overrides = Overrides(epochs=epochs, deterministic=deterministic)
    return make_plan(study, device, overrides, name=ADHOC, weights=weights)


@caller_state()
def import_model(
    model: str,
    *,
    dataset: str,
    weights: str | Path | None = None,
    options: dict[str, Any] | None = None,
    settings: dict[str, Any] | None = None,
    name: str | None = None,
    **execution: Any,
) -> pd.DataFrame:
    """Make a run of a network that was trained elsewhere; nothing is trained here.

    The network is evaluated once on the test images. Its run is then used like any other: exported,
    measured, analysed, grown. The SHA-256 of the weights file is part of the run's identity.

    Args:
        model: as in `train`.
        dataset: `imagefolder:PATH`, `package.module:function`, or a name of
            `bench list datasets`; the classes are in the order that the network was trained with.
        weights: safetensors file or state dict (`.pt`, `.pth`, `.ckpt`); default: the weights that
            the network comes with, such as with `options={"pretrained": True}` of timm.
        options: options of the network.
        settings: `input_size`, `mean`, `std` (a number, or a list of one per channel),
            `normalize`, `resize`, `antialias`, `precision`, `batch_size`. By default, networks of
            timm and torchvision take images as their published weights do; others in the images'
            own size, normalised with the training images' mean and standard deviation.
        name: a study to record the run in, by which commands find it (default: `adhoc`).
        **execution: fields of `bench.launch.workers.Execution`.

    Returns:
        The run's row of the `runs` table; `recipe` is `imported` and `epochs` 0.

    Raises:
        BenchError: the weights are not this network's, or the request cannot be met.
        RunsFailedError: the evaluation failed.
    """
    from bench.launch.imported import import_plan

    _check_arguments(import_model, execution, Execution, IMPORT_SETTINGS)
    how = Execution(**execution)
    path = None if weights is None else Path(weights)
    plan = import_plan(
        model, dataset, options=options or {}, settings=settings or {}, weights=path, name=name,
        device=how.torch_device, store=Store(how.results), force=how.force,
    )  # fmt: skip
    row = run_one(plan, how, weights=path)
    _report_failures(row, row)
    return row


def run_one(
    plan: Plan, how: Execution, *, weights: Path | None = None, track: Sequence[str] = ()
) -> pd.DataFrame:
    """Do what `run_plan` does with a plan of one run; return its row, whatever its status."""
    record = run_plan(plan, how, weights=weights, track=track)
    ((variant, requests),) = [(v.name, v.requests) for v in plan.variants]
    (seed,) = requests
    run = str(record.variants[variant]["runs"][str(seed)])
    rows = study_runs(Store(how.results), plan.name)
    return rows[(rows["run"] == run) & (rows["variant"] == variant)].tail(1)


@caller_state()
def measure(
    targets: str | Path | Sequence[str | Path] = (),
    *,
    results: str | Path = "bench-runs",
    device: str = "auto",
    threads: int | None = None,
    on_event: OnEvent = lambda _event: None,
    **request: Any,
) -> pd.DataFrame:
    """Measure how fast networks run, each configuration interleaved with the others.

    Waits, without a limit, while another bench command of this user trains or measures on this
    machine.

    Args:
        targets: models, runs (id, beginning of an id, folder), studies (one run per variant),
            `.onnx` and `.engine` files (default: ResNet-18).
        results: the results folder; raw samples are written to its `measurements/ID/`.
        device: auto, cpu, cuda, cuda:N or mps.
        threads: number of CPU threads (default: the physical cores this process may
            use, at most `OMP_NUM_THREADS`).
        on_event: called with the progress, as dictionaries.
        **request: fields of `bench.measurement.configurations.Request`, such as `backends`,
            `options` and `input_size`: one value, or several.

    Returns:
        The rows of the `throughput` table (`bench.load_results`). A configuration that could not
        run has another `status` than complete, and no figure.

    Raises:
        BenchError: the request is not valid, or nothing of it can run here.
    """
    from bench.measurement.measure import measure_names
    from bench.measurement.preparation import make_context

    _check_arguments(measure, request, Request)
    several = {field.name for field in fields(Request) if isinstance(field.default, tuple)}
    values: dict[str, Any] = {k: as_tuple(v) if k in several else v for k, v in request.items()}
    wanted = Request(**values)
    context = make_context(results, device, threads, on_event)
    record = measure_names(as_tuple(targets), wanted, context)
    return throughput_frame(record.rows)


@caller_state()
def grow(
    run: str | Path,
    to: str,
    *,
    width: int | None = None,
    epochs: int | None = None,
    settings: dict[str, Any] | None = None,
    track: Sequence[str] = (),
    **execution: Any,
) -> pd.DataFrame:
    """Grow a trained run to a larger network that computes the same, verify it, train it further.

    The new run has its parent's data, recipe and random seed, and names it as `parent`. It is
    recorded in the study `adhoc`.

    Args:
        run: id, unambiguous beginning of one, or folder of a finished run.
        to: name of the larger network; options of the parent's carry over.
        width: channels of the larger network's first stage (default: the parent's).
        epochs: epochs of further training (0: only grow and verify; default: the parent's).
        settings: recipe values that replace the parent's, such as ``learning_rate``.
        track: trackers to log the run to as well, of `tensorboard` and `mlflow`.
        **execution: fields of `bench.launch.workers.Execution`.

    Returns:
        The run's row of the `runs` table.

    Raises:
        BenchError: the networks do not nest (the layer is named), or the request is wrong.
        RunsFailedError: the run failed; `rows` of the error has its row.
        StopRequestedError: a signal asked to stop; the same call resumes.
    """
    row, _ = grow_with_proof(
        run, to, width=width, epochs=epochs, settings=settings, track=track, **execution
    )
    _report_failures(row, row)
    return row


def grow_with_proof(
    run: str | Path,
    to: str,
    *,
    width: int | None,
    epochs: int | None,
    settings: dict[str, Any] | None,
    track: Sequence[str] = (),
    **execution: Any,
) -> tuple[pd.DataFrame, dict[str, Any] | None]:
    """Do what `grow` does; also return the proof that the functions are the same.

    The proof is the run's document `growth.json`, None if the run did not complete.
    """
    _check_arguments(grow, execution, Execution, Recipe.model_fields)
    how = Execution(**execution)
    parent = load_trained(run, results=how.results)
    how = replace(how, results=parent.root)
    request = grown_request(
        parent.request, parent.record.run, to, width=width, epochs=epochs, settings=settings or {}
    )
    name = f"{to} from {parent.record.run}"
    variant = PlannedVariant(name, None, {request.seed: request})
    study = Study(question=f"What does {name} reach?")
    row = run_one(Plan(ADHOC, study, (variant,)), how, track=track)
    complete = row["status"].eq("complete").all()
    return row, Store(how.results).read_document(request.run_id, DOCUMENT) if complete else None


@caller_state()
def export_onnx(
    targets: str | Path | Sequence[str | Path] = (),
    *,
    results: str | Path = "bench-runs",
    options: dict[str, Any] | None = None,
    input_size: int | tuple[int, int] | None = None,
    preprocessing: dict[str, Any] | None = None,
    output: str | Path | None = None,
    bundle: bool = False,
    force: bool = False,
    threads: int | None = None,
    say: Say = _silent,
    **settings: Any,
) -> pd.DataFrame:
    """Export networks to ONNX, each file with the proof that it computes the same.

    Args:
        targets: runs, studies and models (default: the runs of the most recent study, or
            ResNet-18 if there is none); and `.onnx` files, to be quantised.
        results: the results folder; files go to its `exports/SHA/`.
        options: options of models; runs have their own.
        input_size: side, or height and width, in pixels, for models (default: the family's) and
            for `.onnx` files that take any size.
        preprocessing: how a dataset's images become the input of an `.onnx` file: fields of
            `bench.data.Preprocessing` (default: the dataset's own mean and deviation).
        output: a folder that files and proofs are copied to, under readable names.
        bundle: write a folder `NAME-bundle` for somebody without torch, into *output* or
            the current folder; implies `with_preprocessing`.
        force: export again even if the file exists.
        threads: CPU threads (default: the physical cores, at most `OMP_NUM_THREADS`).
        say: called with a line about what is being done.
        **settings: fields of `bench.export.settings.Settings`, such as `precision`.

    Returns:
        The exports' rows of the `exports` table. `max_rel_diff` is relative to the largest
        logit, accuracies are 0…1, `status` is complete, rejected (the file does not compute
        what PyTorch does, and is kept as `model.rejected.onnx`) or failed.

    Raises:
        BenchError: a target or a setting cannot be understood or met. If there are several
            networks, the others are exported and the failed one is a row.
    """
    from bench.export.settings import Settings as ExportSettings

    _check_arguments(export_onnx, settings, ExportSettings)
    records = export_with_proofs(
        targets, results=results, options=options, input_size=input_size,
        preprocessing=preprocessing, output=output, bundle=bundle, force=force, threads=threads,
        say=say, **settings,
    )  # fmt: skip
    return exports_frame(record.row for record in records)


def export_with_proofs(
    targets: str | Path | Sequence[str | Path], **arguments: Any
) -> list[ExportRecord]:
    """Do what `export_onnx` does; return the records, whose `proof` has every figure."""
    from bench.export.export_targets import export_targets

    return export_targets(targets, draw=_draw_sensitivity, **arguments)


def _draw_sensitivity(effects: list[dict[str, Any]], folder: Path, name: str) -> None:
    """Draw the effect of each layer in int8, as `sensitivity.svg` and `.png`."""
    title = f"{name}: each layer alone in int8"
    save_charts([sensitivity_chart(effects, "sensitivity", title)], folder)


@caller_state()
def export_tensorrt(
    targets: str | Path | Sequence[str | Path] = (),
    *,
    flavor: Flavor = "rtx",
    precision: Precision = "fp32",
    dataset: str | None = None,
    preprocessing: dict[str, Any] | None = None,
    compute_capabilities: Sequence[str] = (),
    profile: Profile | None = None,
    results: str | Path = "bench-runs",
    options: dict[str, Any] | None = None,
    input_size: int | tuple[int, int] | None = None,
    output: str | Path | None = None,
    force: bool = False,
    threads: int | None = None,
    say: Say = _silent,
    toolkit: Callable[[Flavor], Toolkit] | None = None,
) -> pd.DataFrame:
    """Build TensorRT engines, each with a sidecar that says what it was built for.

    Args:
        targets: runs, studies, models, or `.onnx` files (default: as in `export_onnx`).
        flavor: rtx (ahead of time, no GPU needed) or standard.
        precision: of runs and models, which are exported first if they are not yet;
            int8 for TensorRT. A file's own is in its graph; int8 quantises it first.
        dataset: as in `export_onnx`, for int8.
        preprocessing: as in `export_onnx`.
        compute_capabilities: such as 86 (rtx; default: this machine's GPU, or without one all
            that the library can target).
        profile: batch sizes of files that take any.
        results: the results folder; engines go to its `exports/SHA/`.
        options: options of models; runs have their own.
        input_size: side, or height and width, in pixels, for models (default: the family's) and
            for `.onnx` files that take any size.
        output: a folder that engines and sidecars are copied to.
        force: export ONNX files again.
        threads: CPU threads (default: the physical cores, at most `OMP_NUM_THREADS`).
        say: called with a line about what is being done.
        toolkit: what builds a flavor's engines (default: the installed library).

    Returns:
        Rows of the `exports` table; `status` is unverified, because nothing has run the
        engine yet, failed, if the library refuses the file, or unsupported, if it cannot build
        that precision for that target.

    Raises:
        BenchError: a target cannot be understood or met, the library is missing, or it supports
            none of the targets.
    """
    from bench.export.build import build_engines

    rows = build_engines(
        targets, flavor=flavor, precision=precision, dataset=dataset, preprocessing=preprocessing,
        compute_capabilities=compute_capabilities, profile=profile, results=results,
        options=options, input_size=input_size, output=output, force=force, threads=threads,
        say=say, toolkit=toolkit,
    )  # fmt: skip
    return exports_frame(rows)


@caller_state()
def lesion(
    run: str | Path,
    *,
    results: str | Path = "bench-runs",
    device: str = "auto",
    test_images: int | None = None,
    swaps: bool = True,
    say: Say = _silent,
) -> pd.DataFrame:
    """Leave out each block of a trained network, swap pairs of one shape, and measure the accuracy.

    Veit et al. 2016, section 4: the accuracy of the network without one block (its shortcut stands
    in its place; what follows the addition stays), and with two blocks of one stage and shape in
    each other's place. Nothing is trained. Plain blocks have no shortcut: their input passes on.

    Args:
        run: id, unambiguous beginning of one, or folder of a finished run of a residual family.
        results: the results folder, unless *run* is a folder.
        device: auto, cpu, cuda, cuda:N or mps.
        test_images: use this many of them, spread evenly over the test set (default: all).
        swaps: measure swapped pairs too.
        say: called with a line about what is being measured.

    Returns:
        A row of the table `lesions` for the whole network (`lesion` is `none`), for each block
        (`drop`) and for each pair (`swap`, with `other`): accuracies 0…1 on the `images` test
        images, `accuracy_drop` against the whole network; `norm_ratio` the median
        over the images of ‖F(x)‖ / ‖h(x)‖ where branch and shortcut meet, before the shortcut's
        scale, gate or dropout acts on them, with its 10th and 90th percentile;
        `initial_gradient_norm` the L2 norm of the first batch's gradient with respect to the
        block's convolutions before any training. What does not apply is missing.

        The rows are recorded in the results folder, and replace older ones of the same run and
        arguments.

    Raises:
        BenchError: there is no such run, or its network has no such blocks.
        StorageError: the results folder cannot be written.
    """
    record = measure_lesions(
        run, results=results, device=device, test_images=test_images, swaps=swaps, say=say
    )
    return analysed_frame([record], "lesions")


@caller_state()
def gradients(
    targets: str | Path | Sequence[str | Path],
    *,
    results: str | Path = "bench-runs",
    dataset: str = "fashion-mnist-mini",
    options: dict[str, Any] | None = None,
    seed: int = 0,
    device: str = "auto",
    correlation: bool = False,
    say: Say = _silent,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Measure how large gradients are by depth, and how alike at neighbouring inputs.

    Args:
        targets: runs (trained with `record_blocks` for what happened during training), studies
            (all their finished runs), or models, which are measured before any training.
        results: the results folder of the runs.
        dataset: the images that untrained networks see.
        options: options of the untrained networks.
        seed: random seed of their weights and of the batch.
        device: auto, cpu, cuda, cuda:N or mps.
        correlation: also follow the gradient along lines between test images (Balduzzi et
            al. 2017, figure 1).
        say: called with a line about what is being measured.

    Returns:
        Rows of the tables `gradients` and `correlations`. Blocks: target, epoch (0 is before
        training), block, depth (from 1), gradient_norm (L2, of one batch's loss with respect to
        the branch's convolutions) and norm_ratio (median ‖F(x)‖ / ‖h(x)‖). Correlations: target,
        epoch, lag (places on the line) and correlation; no rows unless *correlation*. Each
        target's are recorded in the results folder, and replace older ones of the same arguments.

    Raises:
        BenchError: a target is no run, study or model, or has no residual blocks.
        StorageError: the results folder cannot be written.
    """
    records = measure_gradients(
        targets, results=results, dataset=dataset, options=options, seed=seed, device=device,
        correlation=correlation, say=say,
    )  # fmt: skip
    return analysed_frame(records, "gradients"), analysed_frame(records, "correlations")


@caller_state()
def landscape(
    runs: str | Path | Sequence[str | Path],
    *,
    results: str | Path = "bench-runs",
    device: str = "auto",
    plane: bool = False,
    span: float = 1.0,
    points: int = 21,
    split: str = "train",
    images: int | None = 1000,
    seed: int = 0,
    say: Say = _silent,
) -> pd.DataFrame:
    """Measure the loss on a line, or a plane, through each network's trained weights.

    Li et al. 2018, section 4. Batch norm keeps its stored statistics, as in the paper's code.
    Networks whose tensors share names and shapes are moved in the same Gaussian directions, each
    scaled to its own filters.

    Args:
        runs: finished runs (ids, unambiguous beginnings of ids, folders), or studies, which stand
            for all their finished runs.
        results: the results folder, unless a run is a folder.
        device: auto, cpu, cuda, cuda:N or mps.
        plane: go in two directions at once instead of one.
        span: how far to go either way; 1 moves each filter by its own length.
        points: places along each direction; an odd number has the trained network among them.
        split: which images the loss is of: `train` (not augmented) or `test`.
        images: use this many of them, spread evenly over the set (None: all).
        seed: random seed of the directions.
        say: called with a line about what is being measured.

    Returns:
        A row of the table `landscapes` for each place: run, model, split, images, seed, x and y
        (steps; y is missing on a line), loss (mean cross-entropy) and accuracy (0…1). They are
        recorded in the results folder, and replace older ones of the same run and arguments.

    Raises:
        BenchError: there is no such run, or a number is impossible.
        StorageError: the results folder cannot be written.
    """
    records = measure_landscapes(
        runs, results=results, device=device, plane=plane, span=span, points=points, split=split,
        images=images, seed=seed, say=say,
    )  # fmt: skip
    return analysed_frame(records, "landscapes")
