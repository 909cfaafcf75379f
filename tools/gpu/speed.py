"""The steps of the protocol that measure: throughput, training, clocks and energy."""

from __future__ import annotations

import csv
import statistics
from typing import TYPE_CHECKING, Any

from commands import FAILED, PROBES, ROOT, Check, judged, not_run, refused, reported, within

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from commands import Done, Session

PRECISIONS = ("fp32", "tf32", "fp16", "bf16", "int8")
PUBLISHED = ROOT / "results" / "quickstart" / "runs.csv"
# Five short runs by other arithmetic and other kernels; seeds of one machine vary by half of it.
NEAR = 0.05
# What to expect of an H200, printed beside the figures and no part of any check: images/s in bf16,
# channels-last, batch 256, compiled; seconds of quickstart.
GOALS = {"resnet18": "55,000 to 90,000", "resnet50": "16,000 to 26,000"}
GOAL_BATCH = 256
GOAL_SECONDS = 12
EVENTS = 0.03  # what CUDA events and the wall clock may differ by, over long samples


def throughput(session: Session) -> Iterator[Check]:
    """Measure every backend beside eager, in every precision."""
    for backend in session.backends:
        if backend == "tensorrt":
            continue  # its engines are built in a later step
        beside = [part for b in dict.fromkeys(("eager", backend)) for part in ("--backend", b)]
        wanted = [part for p in PRECISIONS for part in ("--precision", p)]
        # A GPU's convolutions prefer channels-last; TensorRT inside ONNX Runtime chooses by itself.
        last = session.on_gpu and backend != "onnxruntime-tensorrt"
        done = session.runner.bench(
            "throughput", session.model, *session.sized, *beside, *wanted,
            "--memory-format", "channels_last" if last else "contiguous", *measuring(session),
        )  # fmt: skip
        rows = [row for row in done.rows if row["backend"] == backend]
        yield from measured(f"throughput of {backend}", rows, done, session)


def measuring(session: Session, *sizes: int) -> list[Any]:
    """Return what every throughput command of the protocol is given; *sizes* are of batches."""
    chosen = [part for size in sizes or (session.batch_size,) for part in ("--batch-size", size)]
    return [
        *chosen, "--device", session.device,
        "--max-seconds", session.max_seconds, "--processes", session.processes,
        "--results", session.results, "--json",
    ]  # fmt: skip


def large_batches(session: Session) -> Iterator[Check]:
    """Measure the two best-known networks in bf16, as users of a GPU run them."""
    yield from _in_bf16(
        session, ("resnet50", "resnet18"), (session.batch_size,),
        ("eager", "eager-graph", "compile", "compile-graph"),
    )  # fmt: skip


def small_batches(session: Session) -> Iterator[Check]:
    """Measure batches whose time is that of launching kernels, with and without CUDA graphs."""
    yield from _in_bf16(
        session, ("resnet18", "resnet50"), (1, 32), ("eager", "eager-graph", "compile-graph")
    )


def _in_bf16(
    session: Session, models: tuple[str, ...], sizes: tuple[int, ...], backends: tuple[str, ...]
) -> Iterator[Check]:
    """Measure networks one after the other, so that the first is reported before the next."""
    precision = "bf16"
    if not session.on_gpu:  # the walk: one small network
        models, sizes, backends, precision = (session.model,), sizes[:1], ("eager",), "fp32"
    chosen = [part for backend in backends for part in ("--backend", backend)]
    for model in models:
        done = session.runner.bench(
            "throughput", model, *session.sized, *chosen, "--precision", precision,
            "--memory-format", "channels_last", *measuring(session, *sizes),
        )  # fmt: skip
        if not done.rows:
            yield refused(f"throughput of {model}", done)
        for row in done.rows:
            what = f"{model}, batch {row['batch_size']}, {row['backend']}"
            yield from measured(what, [row], done, session, goal=_goal(model, row))


def _goal(model: str, row: dict[str, Any]) -> str:
    meant = row["precision"] == "bf16" and row["batch_size"] == GOAL_BATCH
    if model in GOALS and meant and row["backend"] in {"compile", "compile-graph"}:
        return f" (goal on an H200: {GOALS[model]} images/s)"
    return ""


def measured(
    what: str, rows: list[dict[str, Any]], done: Done, session: Session, *, goal: str = ""
) -> Iterator[Check]:
    """Judge the rows of one backend: each has a figure or the reason, and ran as asked."""
    if not rows:
        yield refused(what, done)
        return
    for row in rows:
        name = f"{what} in {row['precision']}"
        if row["status"] == "unsupported":
            yield not_run(name, row["error"])
        elif row["status"] != "complete":
            yield Check(name, FAILED, f"{row['status']}: {row['error']}")
        else:
            yield judged(name, row["images_per_second"] > 0, _figure(row) + goal)
            asked, ran = row["precision"], row["executed_precision"]
            kind = session.device.partition(":")[0]
            as_asked = ran == asked and str(row["device"]).startswith(kind)
            yield judged(f"{name}: ran as asked", as_asked, f"{ran} by {row['provider']}")
            if row["nodes_elsewhere"] is not None:
                elsewhere = row["nodes_elsewhere"] and row["warnings"]
                detail = elsewhere or f"all by {row['provider']}"
                yield judged(f"{name}: every node", row["nodes_elsewhere"] == 0, detail)


def _figure(row: dict[str, Any]) -> str:
    ratio = "" if row["ratio"] is None else f", {row['ratio']:.2f} × {row['reference']}"
    noisy = " (noisy)" if row["noisy"] else ""
    return f"{row['images_per_second']:,.0f} images/s ± {row['width']:.1%}{noisy}{ratio}"


def quickstart(session: Session) -> Iterator[Check]:
    """Run quickstart as a new user does; its accuracies must be those published of a CPU."""
    yield from _study(session, "quickstart", session.results)


def workers(session: Session) -> Iterator[Check]:
    """Run quickstart one run at a time: on a GPU, four share it by default."""
    folder = session.runner.folder / "one-worker"
    yield from _study(session, "quickstart, one run at a time", folder, "--workers", 1)


def _study(session: Session, what: str, results: Path, *extra: object) -> Iterator[Check]:
    few = session.train_images is not None  # the walk: one short run
    small = ("--epochs", 1, "--seeds", 0, "--only", "plain_cnn") if few else ()
    done = session.runner.bench(
        "run-ablation", "quickstart", "--device", session.device, "--results", results, "--json",
        *small, *extra,
    )  # fmt: skip
    if not done.rows:
        yield refused(what, done)
        return
    ended = [row["status"] for row in done.rows]
    complete = ended.count("complete")
    took = f"{complete} of {len(ended)} runs in {done.seconds:.1f} s"
    if not few and not extra:
        took += f" (goal on an H200: at most {GOAL_SECONDS} s)"
    yield judged(f"{what}: every run is complete", complete == len(ended), took)
    if not few:
        yield from as_published(what, done.rows, _published_accuracies())


def _published_accuracies() -> dict[str, float]:
    """Return the mean test accuracy of each variant of the published quickstart, 0…1."""
    with PUBLISHED.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {
        variant: statistics.fmean(
            float(row["test_accuracy"]) for row in rows if row["variant"] == variant
        )
        for variant in dict.fromkeys(row["variant"] for row in rows)
    }  # fmt: skip


def as_published(
    what: str, rows: list[dict[str, Any]], published: dict[str, float]
) -> Iterator[Check]:
    """Compare each variant's mean test accuracy with the published one."""
    for variant, expected in published.items():
        name = f"{what}: {variant} is as accurate as published"
        runs = [r for r in rows if r["variant"] == variant and r["status"] == "complete"]
        if not runs:
            yield not_run(name, "no run of it is complete")
            continue
        mean = statistics.fmean(run["test_accuracy"] for run in runs)
        speed = statistics.median(run["images_per_second"] for run in runs)
        detail = f"{mean:.2%}, published {expected:.2%}; {speed:,.0f} images/s of a run"
        yield judged(name, abs(mean - expected) < NEAR, detail)


def anatomy(session: Session) -> Iterator[Check]:
    """Take a training step apart: data, arithmetic, launches, and one CUDA graph of it."""
    done = session.runner.python(PROBES, "step", "--device", session.device)
    yield from reported("anatomy of a step", done)


def time_to_accuracy(session: Session) -> Iterator[Check]:
    """Train ResNet-20 by both optimisers, and tell when it reached an accuracy."""
    few = session.train_images
    small = [] if few is None else ["--epochs", 1, "--set", f"train_images={few}"]
    for name, chosen in {"Muon": [], "SGD": ["--set", "muon_learning_rate=0.0"]}.items():
        done = session.runner.bench(
            "train", "resnet20", "--dataset", session.dataset, "--device", session.device,
            "--target-accuracy", session.target_accuracy, "--results", session.results, "--json",
            *small, *chosen,
        )  # fmt: skip
        what = f"{name} to {session.target_accuracy:g} % on {session.dataset}"
        if not done.rows:
            yield refused(what, done)
            continue
        (row,) = done.rows
        reached = row.get("seconds_to_target")
        found = "not reached" if reached is None else f"after {reached:.1f} s of training"
        detail = row["error"] or f"{found}; {done.seconds:.1f} s for the whole command"
        yield judged(what, row["status"] == "complete", detail)


def determinism(session: Session) -> Iterator[Check]:
    """Train twice with `--deterministic`."""
    what = "two deterministic trainings give the same bits"
    weights = []
    for name in ("first", "second"):
        results = session.runner.folder / "deterministic" / name
        done = session.runner.bench(
            "train", "resnet8", "--epochs", 1, "--set", "train_images=1280",
            "--set", "batch_size=64", "--deterministic", "--device", session.device,
            "--results", results, "--json",
        )  # fmt: skip
        if not done.rows:
            yield refused(what, done)
            return
        (row,) = done.rows
        if row["status"] != "complete":
            yield Check(what, FAILED, f"{row['status']}: {row['error']}")
            return
        weights.append((results / "runs" / row["run"] / "model.safetensors").read_bytes())
    yield judged(what, weights[0] == weights[1], f"{len(weights[0]):,} bytes of weights")


def clocks_and_energy(session: Session) -> Iterator[Check]:
    """Time the same calls by CUDA events and by the wall clock; read the energy counter."""
    yield from _clocks(session)
    done = session.runner.python(PROBES, "energy", "--device", session.device)
    yield from reported("energy", done)


def _clocks(session: Session) -> Iterator[Check]:
    what = "CUDA events and the wall clock tell the same time"
    if not session.on_gpu:
        yield not_run(what, "CUDA events need a CUDA device")
        return
    done = session.runner.python(
        PROBES, "clocks", session.model, "--device", session.device,
        "--batch-size", session.batch_size, *session.sized,
    )  # fmt: skip
    if not done.rows:
        yield refused(what, done)
    for row in done.rows:
        yield within(f"{what}, batch {row['batch_size']}", row, EVENTS, "wall/events")
