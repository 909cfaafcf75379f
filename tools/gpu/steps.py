"""The steps of the protocol, in order; each yields its checks."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

from commands import FAILED, NOT_RUN, PASSED, ROOT, Check, judged, not_run, refused

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from commands import Done
    from protocol import Session

PROBES = Path(__file__).with_name("probes.py")
AGREEMENT = ROOT / "tools" / "agreement.py"
# An fp32 network's logits on two processors: rounding alone differs (measured between ONNX
# Runtime and PyTorch on one CPU: below 1e-6), a wrong kernel or hidden TF32 does by more.
FP32_DIFFERENCE = 1e-4
WITHIN = 0.03  # what two instruments may differ by, at the interval's edge
EVENTS = 0.03  # likewise between CUDA events and the wall clock over long samples
EXPORTED = ("fp32", "fp16", "int8")
FLAVORS = {"rtx": "tensorrt_rtx", "standard": "tensorrt"}
EPOCHS = 2


def doctor(session: Session) -> Iterator[Check]:
    """Ask the program itself what this machine can do."""
    done = session.runner.bench("doctor", "--json", "--results", session.results)
    for found in done.rows:
        outcome = {"ok": PASSED, "missing": NOT_RUN}.get(found["state"], FAILED)
        yield Check(
            found["name"].strip(), outcome, "; ".join(filter(None, (found["found"], found["fix"])))
        )
    if not done.rows:
        yield Check("bench doctor", FAILED, done.reason)


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
    file = session.runner.folder / "tests.xml"
    done = session.runner.python(
        "-m", "pytest", "-m", "gpu", "-q", "--continue-on-collection-errors",
        f"--junitxml={file}", ROOT,
    )  # fmt: skip
    if not file.is_file():
        yield Check("pytest -m gpu", FAILED, done.reason)
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
        if not done.rows:
            yield refused(what, done)
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
                built = row["status"] == "unverified"
                detail = row["error"] or f"{row['bytes']:,} bytes in {row['seconds']:.1f} s"
                yield judged(name, True, detail) if built else not_run(name, detail)
    if "tensorrt" in session.backends:
        for flavor in FLAVORS:
            yield from _engines_measured(session, flavor)
        yield from _engines_answer(session)


def engine_folder(session: Session, flavor: str) -> Path:
    return session.runner.folder / "engines" / flavor


def throughput(session: Session) -> Iterator[Check]:
    """Measure every backend beside eager, in every precision."""
    from protocol import PRECISIONS

    for backend in session.backends:
        if backend == "tensorrt":
            continue  # its engines are built in a later step
        beside = [part for b in dict.fromkeys(("eager", backend)) for part in ("--backend", b)]
        wanted = [part for p in PRECISIONS for part in ("--precision", p)]
        # A GPU's convolutions prefer channels-last; TensorRT inside ONNX Runtime chooses by itself.
        last = session.on_gpu and backend != "onnxruntime-tensorrt"
        done = session.runner.bench(
            "throughput", session.model, *session.sized, *beside, *wanted,
            "--memory-format", "channels_last" if last else "contiguous", *_common(session),
        )  # fmt: skip
        rows = [row for row in done.rows if row["backend"] == backend]
        yield from measured(f"throughput of {backend}", rows, done, session)


def _common(session: Session) -> tuple[Any, ...]:
    return (
        "--device", session.device, "--batch-size", session.batch_size,
        "--max-seconds", session.max_seconds, "--processes", session.processes,
        "--results", session.results, "--json",
    )  # fmt: skip


def _engines_measured(session: Session, flavor: str) -> Iterator[Check]:
    what = f"throughput of tensorrt {flavor}"
    folder = engine_folder(session, flavor)
    files = [f for p in EXPORTED for f in sorted(folder.glob(f"{session.model}-{p}-sm*.engine"))]
    if not files:
        yield not_run(what, "no engine of this flavour was built")
        return
    done = session.runner.bench("throughput", *files, *_common(session))
    yield from measured(what, done.rows, done, session)


def measured(
    what: str, rows: list[dict[str, Any]], done: Done, session: Session
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
            yield judged(name, row["images_per_second"] > 0, _figure(row))
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


def accuracy(session: Session) -> Iterator[Check]:
    """Ask every backend for the whole test set, and compare its answers with the CPU's fp32."""
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
        yield from _agreeing(what, json.loads(file.read_text())["rows"])


def _agreeing(what: str, rows: list[dict[str, Any]]) -> Iterator[Check]:
    """Two instruments agree if the whole interval of their ratio is within 3 % of 1.

    They disagree if it is wholly outside; in between nothing is shown.
    """
    for row in rows:
        low, high = row["ratio_low"], row["ratio_high"]
        close = 1 - WITHIN <= low <= high <= 1 + WITHIN
        apart = low > 1 + WITHIN or high < 1 - WITHIN
        detail = f"ours is {row['ratio']:.3f} [{low:.3f}, {high:.3f}] of {row['instrument']}"
        if not close and not apart:
            yield not_run(what, f"too noisy to tell: {detail}")
        else:
            yield judged(what, close, detail)


def clocks(session: Session) -> Iterator[Check]:
    """Time the same calls by CUDA events and by the wall clock."""
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
        close = row["ratio_low"] <= 1 + EVENTS and row["ratio_high"] >= 1 - EVENTS
        detail = f"wall/events {row['ratio']:.3f} [{row['ratio_low']:.3f}, {row['ratio_high']:.3f}]"
        yield judged(f"{what}, batch {row['batch_size']}", close, detail)


# The most valuable first, with the seconds that must be left to begin one.
STEPS: dict[str, tuple[Callable[[Session], Iterator[Check]], float]] = {
    "What this machine can do": (doctor, 10),
    "Training": (training, 30),
    "The same answers as on the CPU": (accuracy, 30),
    "Throughput": (throughput, 45),
    "CUDA events against wall time": (clocks, 20),
    "Tests that need CUDA": (marked_tests, 45),
    "ONNX exports": (exports, 40),
    "TensorRT engines": (engines, 60),
    "Agreement with torch.utils.benchmark": (agreement, 60),
}
