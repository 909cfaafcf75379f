"""What must hold on any GPU: the CPU's answers, other instruments' figures, one time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from commands import ROOT
from record import FAILED, Check, judged, not_run, refused

if TYPE_CHECKING:
    from collections.abc import Iterator

    from commands import Done
    from protocol import Session

PROBES = Path(__file__).with_name("probes.py")
AGREEMENT = ROOT / "tools" / "agreement.py"
# An fp32 network's logits on two processors: rounding alone differs (measured between ONNX
# Runtime and PyTorch on one CPU: below 1e-6), a wrong kernel or hidden TF32 does by more.
FP32_DIFFERENCE = 1e-4
WITHIN = 0.03  # what two instruments may differ by, at the interval's edge
EVENTS = 0.03  # likewise between CUDA events and the wall clock over long samples


def accuracy(session: Session) -> Iterator[Check]:
    """Ask every backend for the whole test set, and compare its answers with the CPU's fp32."""
    if session.run is None:
        yield not_run("every backend answers as the CPU does", "nothing was trained")
        return
    common = ["--device", session.device, "--results", session.results]
    done = session.runner.python(PROBES, "recorded", session.run, *common)
    yield from _answers("the training's own evaluation", done)
    for backend in session.backends:
        files = [""]
        if backend == "tensorrt":
            folder = session.runner.folder / "engines"
            files = [str(file) for file in sorted(folder.glob(f"*/{session.run}-*.engine"))]
            if not files:
                yield not_run("tensorrt answers as the CPU does", "no engine was built")
        for file in files:
            done = session.runner.python(
                PROBES, "accuracy", session.run, "--backend", backend, "--file", file, *common
            )
            yield from _answers(backend, done)


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
