"""Running a file in ONNX Runtime on the CPU, which every file is compared and tested on."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime as ort
from onnx import helper

from bench.errors import BenchError
from bench.export.messages import short

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    import numpy.typing as npt
    import onnx


def open_session(model: Path | bytes, *, threads: int, optimize: bool = True) -> Any:
    """Open a file, or its content, in ONNX Runtime.

    Args:
        model: the file, or its content.
        threads: CPU threads of one operator.
        optimize: let the runtime rewrite the graph, as it does by default.

    Raises:
        BenchError: the runtime cannot load the file.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4  # what matters is raised
    if not optimize:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    content = model if isinstance(model, bytes) else str(model)
    try:
        return ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime's exceptions have no common class
        name = "the graph" if isinstance(model, bytes) else model
        raise BenchError(f"ONNX Runtime cannot load {name}: {short(error)}") from error


def run(
    session: Any,
    images: npt.NDArray[Any],
    batch_size: int,
    outputs: Sequence[str] | None = None,
    *,
    workers: int = 1,
) -> Iterator[list[npt.NDArray[Any]]]:
    """Run *images* (N first) through a session in batches, and yield each batch's outputs.

    For a file of one batch size, the last batch is padded with copies of the last image, whose
    outputs are dropped.

    Args:
        session: an open file.
        images: its input, N first.
        batch_size: images per batch, for a file of any batch size.
        outputs: names of the outputs (default: all).
        workers: number of batches that run in parallel. For small batches this is faster than
            several threads within one, which wait for each other after every operator.
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


def with_outputs(proto: onnx.ModelProto, names: Iterable[str]) -> bytes:
    """Return the serialised graph with the values *names* among its outputs; changes *proto*."""
    known = {value.name for value in proto.graph.output}
    proto.graph.output.extend(
        helper.make_empty_tensor_value_info(name) for name in names if name not in known
    )
    content: bytes = proto.SerializeToString()
    return content
