"""The steps of the protocol, in order; each yields its checks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

from commands import ROOT
from invariants import accuracy, agreement, clocks
from record import FAILED, NOT_RUN, PASSED, Check, judged, not_run, refused

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from commands import Done
    from protocol import Session

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
    done = session.runner.python("-m", "pytest", "-m", "gpu", "-q", f"--junitxml={file}", ROOT)
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
    from bench import load_results

    epochs = load_results(session.results / "runs" / str(session.run), "epochs")
    losses = epochs["train_loss"].tolist()
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
    """Build TensorRT engines of what was trained and of what is measured."""
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


def engine_folder(session: Session, flavor: str) -> Path:
    return session.runner.folder / "engines" / flavor


def throughput(session: Session) -> Iterator[Check]:
    """Measure every backend beside eager, in every precision."""
    from protocol import PRECISIONS

    common = (
        "--device", session.device, "--batch-size", session.batch_size,
        "--max-seconds", session.max_seconds, "--processes", 6,
        "--results", session.results, "--json",
    )  # fmt: skip
    for backend in session.backends:
        if backend == "tensorrt":
            for flavor in FLAVORS:
                yield from _engines_measured(session, flavor, common)
            continue
        beside = [part for b in dict.fromkeys(("eager", backend)) for part in ("--backend", b)]
        wanted = [part for p in PRECISIONS for part in ("--precision", p)]
        done = session.runner.bench(
            "throughput", session.model, *session.sized, *beside, *wanted, *common
        )
        rows = [row for row in done.rows if row["backend"] == backend]
        yield from measured(f"throughput of {backend}", rows, done, session)


def _engines_measured(session: Session, flavor: str, common: tuple[Any, ...]) -> Iterator[Check]:
    what = f"throughput of tensorrt {flavor}"
    folder = engine_folder(session, flavor)
    files = [f for p in EXPORTED for f in sorted(folder.glob(f"{session.model}-{p}-sm*.engine"))]
    if not files:
        yield not_run(what, "no engine of this flavour was built")
        return
    done = session.runner.bench("throughput", *files, *common)
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


STEPS: dict[str, Callable[[Session], Iterator[Check]]] = {
    "What this machine can do": doctor,
    "Tests that need CUDA": marked_tests,
    "Training": training,
    "ONNX exports": exports,
    "TensorRT engines": engines,
    "Throughput": throughput,
    "The same answers as on the CPU": accuracy,
    "Agreement with torch.utils.benchmark": agreement,
    "CUDA events against wall time": clocks,
}
