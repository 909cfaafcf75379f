"""Running a file in ONNX Runtime, and nothing else in its place."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.errors import BenchError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import numpy.typing as npt

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


def open_session(
    model: Path | bytes, *, threads: int, device: str = "cpu", optimize: bool = True
) -> Any:
    """Open a file in ONNX Runtime.

    Args:
        model: the file, or its content.
        threads: CPU threads of one operator.
        device: cpu or cuda.
        optimize: let the runtime rewrite the graph, as it does by default.

    Raises:
        BenchError: the runtime cannot load the file, or would run it elsewhere than asked.
    """
    import onnxruntime as ort

    wanted = PROVIDERS[device]
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4  # what matters is raised
    if not optimize:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    content = model if isinstance(model, bytes) else str(model)
    try:
        session = ort.InferenceSession(content, options, providers=[wanted])
    except Exception as error:  # the runtime's exceptions have no common class
        name = "the graph" if isinstance(model, bytes) else model
        raise BenchError(f"ONNX Runtime cannot load {name}: {short(error)}") from error
    if wanted not in session.get_providers():
        raise BenchError(
            f"ONNX Runtime cannot run on {device} here (it would run on "
            f"{', '.join(session.get_providers())} instead): use --device cpu"
        )
    return session


def run(
    session: Any,
    images: npt.NDArray[Any],
    batch_size: int,
    outputs: Sequence[str] | None = None,
    *,
    workers: int = 1,
) -> Iterator[list[npt.NDArray[Any]]]:
    """Run *images* through a session in batches.

    A file of one batch size gets its last batch filled up with copies of the last image,
    whose answers are left out.

    Args:
        session: the file, opened.
        images: what it takes, N first.
        batch_size: images a batch.
        outputs: names; all without.
        workers: batches that run beside each other. A session of one thread for each is
            faster for small batches than all threads at one of them, which wait for each
            other after every operator.

    Yields:
        For each batch its outputs, in order.
    """
    entry = session.get_inputs()[0]
    fixed = entry.shape[0] if isinstance(entry.shape[0], int) else None
    step = fixed or batch_size
    dtype = np.float16 if entry.type == "tensor(float16)" else None

    def answer(start: int) -> list[npt.NDArray[Any]]:
        batch = np.ascontiguousarray(images[start : start + step], dtype=dtype)
        count = len(batch)
        if fixed and count < fixed:
            batch = np.concatenate([batch, np.repeat(batch[-1:], fixed - count, axis=0)])
        answers = session.run(outputs, {entry.name: batch})
        return [answer[:count] if fixed else answer for answer in answers]

    starts = range(0, len(images), step)
    if workers == 1:
        yield from map(answer, starts)
        return
    with ThreadPoolExecutor(workers) as pool:  # the runtime lets other threads run
        yield from pool.map(answer, starts)


def logits_of(
    session: Any, images: npt.NDArray[Any], batch_size: int, *, workers: int = 1
) -> npt.NDArray[np.float32]:
    """Return the first output for all *images*, float32, N×classes; arguments as of `run`."""
    batches = run(session, images, batch_size, workers=workers)
    return np.concatenate([answers[0] for answers in batches]).astype(np.float32)


def short(error: BaseException) -> str:
    """First line of a runtime's message, without its own long prefixes."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].rsplit(" : ", 1)[-1][:200]
