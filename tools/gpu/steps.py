"""The steps of the protocol that check what is right or wrong, and the order of all of them."""

from __future__ import annotations

import csv
import importlib.util
import json
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

from commands import (
    FAILED,
    NOT_RUN,
    PASSED,
    PROBES,
    ROOT,
    Check,
    Part,
    judged,
    not_run,
    refused,
    reported,
    within,
)
from speed import (
    anatomy,
    clocks_and_energy,
    determinism,
    large_batches,
    measured,
    measuring,
    quickstart,
    small_batches,
    throughput,
    time_to_accuracy,
    workers,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from commands import Done, Session

AGREEMENT = ROOT / "tools" / "agreement.py"
# An fp32 network's logits on two processors: rounding alone differs (measured between ONNX
# Runtime and PyTorch on one CPU: below 1e-6), a wrong kernel or hidden TF32 does by more.
FP32_DIFFERENCE = 1e-4
WITHIN = 0.03  # what two instruments may differ by, at the interval's edge
EXPORTED = ("fp32", "fp16", "int8")
FLAVORS = {"rtx": "tensorrt_rtx", "standard": "tensorrt"}
EPOCHS = 2


def doctor(session: Session) -> Iterator[Check]:
    """Ask the program itself what this machine can do, and measure its ceilings."""
    done = session.runner.bench("doctor", "--json", "--results", session.results)
    for found in done.rows:
        outcome = {"ok": PASSED, "missing": NOT_RUN}.get(found["state"], FAILED)
        yield Check(
            found["name"].strip(), outcome, "; ".join(filter(None, (found["found"], found["fix"])))
        )
    if not done.rows:
        yield Check("bench doctor", FAILED, done.reason)
    probed = session.runner.python(PROBES, "ceilings", "--device", session.device)
    yield from reported("ceilings", probed)


def marked_tests(session: Session) -> Iterator[Check]:
    """Run every test that is marked `gpu`."""
    if not session.on_gpu:
        done = session.runner.python("-m", "pytest", "-m", "gpu", "--collect-only", "-q", ROOT)
        names = [line for line in done.out.splitlines() if "::" in line]
        for name in names:
            yield not_run(name, "it needs a CUDA device")
        if not names:
            yield Check("pytest -m gpu", FAILED, f"it finds no test: {done.reason}")
        return
    if importlib.util.find_spec("pytest") is None:
        yield not_run("pytest -m gpu", "pytest is not installed: pip install pytest")
        return
    file = session.runner.folder / "tests.xml"
    done = session.runner.python(
        "-m", "pytest", "-m", "gpu", "-q", "--continue-on-collection-errors",
        f"--junitxml={file}", ROOT,
    )  # fmt: skip
    if not file.is_file():
        yield Check("pytest -m gpu", NOT_RUN if done.cut else FAILED, done.reason)
        return
    yield from read_junit(file)


def read_junit(file: Path) -> Iterator[Check]:
    """Read the JUnit file of pytest."""
    cases = list(ET.parse(file).iter("testcase"))
    for case in cases:
        name = f"{case.get('classname')}::{case.get('name')}"
        found = {child.tag: child.get("message", "") for child in case}
        if "skipped" in found:
            yield not_run(name, found["skipped"])
        else:
            bad = [found[tag] for tag in ("failure", "error") if tag in found]
            yield judged(name, not bad, "; ".join(bad)[:300])
    if not cases:
        yield Check("pytest -m gpu", FAILED, "it ran no test")


def training(session: Session) -> Iterator[Check]:
    """Train a small network for two epochs."""
    few = session.train_images  # of which an epoch has few steps, so they are small ones
    settings = [] if few is None else [f"train_images={few}", "batch_size=20", "learning_rate=0.02"]
    done = session.runner.bench(
        "train", "resnet20", "--dataset", "fashion-mnist-mini", "--epochs", EPOCHS,
        "--device", session.device, "--results", session.results, "--json",
        *(part for setting in settings for part in ("--set", setting)),
    )  # fmt: skip
    if not done.rows:
        yield refused("it trains", done)
        return
    row = done.rows[0]
    seen = f"in {row['precision']}, {row['images_per_second'] or 0:,.0f} images/s"
    yield judged("it trains on the device", row["status"] == "complete", row["error"] or seen)
    if row["status"] != "complete":
        return
    session.run = row["run"]
    kind = session.device.partition(":")[0]
    yield judged("the run says so", str(row["device"]).startswith(kind), str(row["device"]))
    yield judged("the training loss falls", *_falling_loss(session))


def _falling_loss(session: Session) -> tuple[bool, str]:
    with (session.results / "runs" / str(session.run) / "history.csv").open(newline="") as file:
        losses = [float(row["train_loss"]) for row in csv.DictReader(file)]
    return len(losses) == EPOCHS and losses[-1] < losses[0], f"{losses[0]:.3f} → {losses[-1]:.3f}"


def exports(session: Session) -> Iterator[Check]:
    """Export what was trained, each file with its proof."""
    for precision in EXPORTED:
        what = f"ONNX {precision} computes what was trained"
        if session.run is None:
            yield not_run(what, "nothing was trained")
            continue
        done = session.runner.bench(
            "export-onnx", session.run, "--precision", precision, "--results", session.results,
            "--json",
        )  # fmt: skip
        if not done.rows:  # a network that cannot be exported is refused, too, and is a failure
            yield Check(what, NOT_RUN if done.cut else FAILED, done.reason)
            continue
        row = done.rows[0]
        seen = f"accuracy {row['test_accuracy']}, largest difference {row['max_rel_diff']}"
        yield judged(what, row["status"] == "complete", row["error"] or seen)


def engines(session: Session) -> Iterator[Check]:
    """Build TensorRT engines of what was trained and of what is measured, and use them."""
    for flavor in FLAVORS:
        for precision in EXPORTED:
            what = f"TensorRT {flavor} builds {precision}"
            aimed = ["--compute-capability", session.capability] * (flavor == "rtx")
            done = session.runner.bench(
                "export-tensorrt", *filter(None, (session.run, session.model)), *session.sized,
                "--flavor", flavor, "--precision", precision, *aimed,
                "--opt-batch", session.batch_size,
                "--max-batch", max(64, session.batch_size),
                "--output", engine_folder(session, flavor),
                "--results", session.results, "--json",
            )  # fmt: skip
            if not done.rows:
                yield refused(what, done)
                continue
            for row in done.rows:
                name = f"{what} of {row['run'] or row['model']}"
                detail = row["error"] or f"{row['bytes']:,} bytes in {row['seconds']:.1f} s"
                outcome = {"unverified": PASSED, "unsupported": NOT_RUN}.get(row["status"], FAILED)
                yield Check(name, outcome, detail)
    if "tensorrt" in session.backends:
        for flavor in FLAVORS:
            yield from _engines_measured(session, flavor)
        yield from _engines_answer(session)


def engine_folder(session: Session, flavor: str) -> Path:
    return session.runner.folder / "engines" / flavor


def _engines_measured(session: Session, flavor: str) -> Iterator[Check]:
    what = f"throughput of tensorrt {flavor}"
    folder = engine_folder(session, flavor)
    files = [f for p in EXPORTED for f in sorted(folder.glob(f"{session.model}-{p}-sm*.engine"))]
    if not files:
        yield not_run(what, "no engine of this flavour was built")
        return
    done = session.runner.bench("throughput", *files, *measuring(session))
    yield from measured(what, done.rows, done, session)


def accuracy(session: Session) -> Iterator[Check]:
    """Compare losses, and every backend's answers to the whole test set, with the CPU's fp32."""
    done = session.runner.python(PROBES, "losses", "--device", session.device)
    yield from reported("training losses", done)
    if session.run is None:
        yield not_run("every backend answers as the CPU does", "nothing was trained")
        return
    common = ["--device", session.device, "--results", session.results]
    done = session.runner.python(PROBES, "recorded", session.run, *common)
    yield from _answers("the training's own evaluation", done)
    for backend in session.backends:
        if backend != "tensorrt":
            done = session.runner.python(
                PROBES, "accuracy", session.run, "--backend", backend, *common
            )
            yield from _answers(backend, done)


def _engines_answer(session: Session) -> Iterator[Check]:
    folder = session.runner.folder / "engines"
    files = [str(file) for file in sorted(folder.glob(f"*/{session.run}-*.engine"))]
    if not files:
        yield not_run("tensorrt answers as the CPU does", "no engine was built")
    for file in files:
        done = session.runner.python(
            PROBES, "accuracy", session.run, "--backend", "tensorrt", "--file", file,
            "--device", session.device, "--results", session.results,
        )  # fmt: skip
        yield from _answers("tensorrt", done)


def _answers(who: str, done: Done) -> Iterator[Check]:
    rows = done.rows
    if not rows:
        yield refused(f"{who} answers as the CPU does", done)
    for row in rows:
        what = f"{who} answers as the CPU does in {row['precision']}"
        if row["status"] == "unsupported":
            yield not_run(what, row["error"])
        elif row["status"] != "complete":
            yield Check(what, FAILED, f"{row['status']}: {row['error']}")
        else:
            yield _same(what, row)
    if rows and done.code != 0:
        yield refused(f"{who}: every precision", done)


def _same(what: str, row: dict[str, Any]) -> Check:
    """As accurate (exact McNemar test, or half a point), and in fp32 the same logits."""
    drop = abs(row["reference"] - row["accuracy"]) * 100
    same = row["p_value"] > 0.01 or drop < 0.5
    difference = row["max_rel_diff"]
    if row["precision"] == "fp32" and difference is not None:
        same = same and difference <= FP32_DIFFERENCE
    shown = "" if difference is None else f", largest difference {difference:.1e} of the largest"
    detail = f"{row['accuracy']:.4f}, CPU {row['reference']:.4f}; {row['flipped']} of "
    return judged(what, same, f"{detail}{row['images']} answers differ{shown}")


def agreement(session: Session) -> Iterator[Check]:
    """Compare our figures with those of other instruments, interleaved."""
    for backend in ("eager", "onnxruntime"):
        what = f"{backend}: within 3 % of other instruments"
        file = session.runner.folder / f"agreement-{backend}.json"
        done = session.runner.python(
            AGREEMENT, session.model, "--backend", backend, "--device", session.device,
            "--batch-size", session.batch_size, *session.sized, "--output", file,
            "--rounds", 20 if session.on_gpu else 8, "--threads", 1,
        )  # fmt: skip
        if not file.is_file():
            yield refused(what, done)
            continue
        for row in json.loads(file.read_text())["rows"]:
            yield within(what, row, WITHIN, f"ours relative to {row['instrument']}")


# The most valuable first, with the seconds of a budget that must be left, and those it may take.
STEPS = {
    "What this machine can do": Part(doctor, 10, 90),
    "Training": Part(training, 20, 60),
    "The same answers as on the CPU": Part(accuracy, 30, 120),
    "Large batches": Part(large_batches, 35, 150),
    "Quickstart": Part(quickstart, 30, 90),
    "Anatomy of a training step": Part(anatomy, 30, 100),
    "Small batches": Part(small_batches, 35, 120),
    "Time to accuracy": Part(time_to_accuracy, 30, 90),
    "Determinism": Part(determinism, 25, 60),
    "Workers": Part(workers, 30, 90),
    "Clocks and energy": Part(clocks_and_energy, 25, 60),
    "Throughput": Part(throughput, 45, 300),
    "Tests that need CUDA": Part(marked_tests, 45, 200),
    "ONNX exports": Part(exports, 40, 120),
    "TensorRT engines": Part(engines, 60, 300),
    "Agreement with torch.utils.benchmark": Part(agreement, 60, 150),
}
