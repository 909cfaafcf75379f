"""Where the time goes: by layer and by kind of operator, from the runtime's own profiler."""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.errors import BenchError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import nn

    from bench.measure.plan import Configuration

_RUNS = 5
_LAYER = "bench.layer:"
_UNITS = {"cpu": "self_cpu_time_total", "cuda": "self_device_time_total"}


@dataclass(frozen=True)
class Share:
    """A part of one batch's time.

    Attributes:
        by: layer or operator.
        name: path of the layer in the network (node of the graph), or kind of operator.
        kind: what the layer is.
        milliseconds: of one batch, mean over a few profiled ones (slower than unprofiled).
        share: of all that was profiled, 0…1.
    """

    by: str
    name: str
    kind: str
    milliseconds: float
    share: float


def profile(made: Configuration) -> list[Share]:
    """Profile one configuration.

    Returns:
        Layers in the network's order, then operators, slowest first.

    Raises:
        BenchError: its backend has no profiler that is read here.
    """
    if made.backend == "eager":
        return _torch(made)
    if made.backend == "onnxruntime":
        return _onnxruntime(made)
    raise BenchError(f"--layers: the backend '{made.backend}' has no profile by layer")


def kind_of(name: str, module: nn.Module) -> str:
    """Name a layer's kind; 1×1 convolutions on a shortcut are told apart."""
    from torch import nn

    if not isinstance(module, nn.Conv2d):
        return type(module).__name__
    side = "×".join(map(str, module.kernel_size))
    where = " on the shortcut" if "downsample" in name or "shortcut" in name else ""
    return f"Conv2d {side}{where}"


def _torch(made: Configuration) -> list[Share]:
    import torch
    from torch.profiler import ProfilerActivity, record_function
    from torch.profiler import profile as torch_profile

    lane = made.open()
    model: Any = lane.prepared.model  # type: ignore[attr-defined] # eager's own
    leaves = {n: m for n, m in model.named_modules() if n and not any(m.children())}
    opened: list[Any] = []

    def begin(name: str) -> Any:
        def enter(*_: object) -> None:
            opened.append(record_function(_LAYER + name))
            opened[-1].__enter__()

        return enter

    def end(*_: object) -> None:
        opened.pop().__exit__(None, None, None)

    for name, module in leaves.items():
        module.register_forward_pre_hook(begin(name))
        module.register_forward_hook(end)
    device = made.device.partition(":")[0]
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (device == "cuda")
    lane.step()
    with torch_profile(activities=activities) as found:
        for _ in range(_RUNS):
            lane.step()
        if device == "cuda":
            torch.cuda.synchronize()
    averages = found.key_averages()
    whole = {e.key: e.cpu_time_total if device == "cpu" else e.device_time_total for e in averages}
    layers = [(n, kind_of(n, m), whole.get(_LAYER + n, 0.0)) for n, m in leaves.items()]
    unit = _UNITS.get(device, "self_cpu_time_total")
    operators = [(e.key, getattr(e, unit)) for e in averages if not e.key.startswith(_LAYER)]
    lane.close()
    return _shares(layers, operators)


def _onnxruntime(made: Configuration) -> list[Share]:
    import numpy as np
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = made.threads
    options.enable_profiling = True
    options.log_severity_level = 3
    with tempfile.TemporaryDirectory() as folder:
        options.profile_file_prefix = str(Path(folder) / "profile")
        provider = "CPUExecutionProvider" if made.device == "cpu" else "CUDAExecutionProvider"
        session = ort.InferenceSession(str(made.file), options, providers=[provider])
        entry = session.get_inputs()[0]
        dtype = np.float16 if entry.type == "tensor(float16)" else np.float32
        images = np.zeros((made.batch_size, *made.target.input_shape), dtype)
        for _ in range(_RUNS):
            session.run(None, {entry.name: images})
        events = json.loads(Path(session.end_profiling()).read_text())
    times: dict[tuple[str, str], list[float]] = defaultdict(list)
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            times[event["name"].removesuffix("_kernel_time"), event["args"]["op_name"]].append(
                event["dur"]
            )
    layers = [(name, kind, sum(spent)) for (name, kind), spent in times.items()]
    operators: dict[str, float] = defaultdict(float)
    for _, kind, spent in layers:
        operators[kind] += spent
    return _shares(layers, operators.items())


def _shares(
    layers: Iterable[tuple[str, str, float]], operators: Iterable[tuple[str, float]]
) -> list[Share]:
    """Turn microseconds of all runs into milliseconds of one."""
    layers, operators = list(layers), sorted(operators, key=lambda item: -item[1])
    whole = sum(spent for _, spent in operators) or 1.0
    rows = [("layer", name, kind, spent) for name, kind, spent in layers]
    rows += [("operator", name, name, spent) for name, spent in operators if spent > 0]
    return [Share(by, name, kind, us / _RUNS / 1e3, us / whole) for by, name, kind, us in rows]
