"""What a fresh process runs to measure a cold start: import, load, first inference.

It imports nothing but the runtime in question, so that neither time nor memory includes what the
measurement needs; what it needs to know comes as JSON on stdin.
"""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PHASES = ("import", "load", "first inference")


def main() -> None:
    """Read a job on stdin; print seconds and memory of each phase as JSON."""
    import psutil

    job, own, found = json.load(sys.stdin), psutil.Process(), []
    begun = time.perf_counter()
    for phase in PROGRAMS[job["backend"]](job):
        seconds = time.perf_counter() - begun
        found.append({"phase": phase, "seconds": seconds, "bytes": own.memory_info().rss})
        begun = time.perf_counter()
    print(json.dumps(found))  # noqa: T201 - what the parent reads


def _eager(job: dict[str, Any]) -> Iterator[str]:
    import torch

    dtype: Any = getattr(torch, job["dtype"])
    torch.set_num_threads(job["threads"])
    yield "import"
    from safetensors.torch import load_file

    from bench.models import build_model, materialise

    model = materialise(build_model(job["model"], **job["options"]), job["shape"][1:])
    model.load_state_dict(load_file(job["weights"]))
    name = job["memory_format"].replace("contiguous", "contiguous_format")
    layout: Any = getattr(torch, name)
    model = model.eval().to(dtype).to(memory_format=layout)
    yield "load"
    images = torch.zeros(job["shape"], dtype=dtype)
    with torch.inference_mode():
        model(images.to(memory_format=layout))
    yield "first inference"


def _onnxruntime(job: dict[str, Any]) -> Iterator[str]:
    import onnxruntime as ort

    yield "import"
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = job["threads"], 1
    session = ort.InferenceSession(job["file"], options, providers=["CPUExecutionProvider"])
    yield "load"
    session.run(None, {session.get_inputs()[0].name: _zeros(job)})
    yield "first inference"


def _openvino(job: dict[str, Any]) -> Iterator[str]:
    import openvino

    yield "import"
    core = openvino.Core()
    model = core.read_model(job["file"])
    model.reshape(job["shape"])
    compiled = core.compile_model(model, "CPU", job["settings"])
    yield "load"
    compiled.create_infer_request().infer([_zeros(job)])
    yield "first inference"


def _zeros(job: dict[str, Any]) -> Any:
    import numpy as np

    return np.zeros(job["shape"], job["input_type"])


PROGRAMS: dict[str, Callable[[dict[str, Any]], Iterator[str]]] = {
    "eager": _eager,
    "onnxruntime": _onnxruntime,
    "openvino": _openvino,
}
