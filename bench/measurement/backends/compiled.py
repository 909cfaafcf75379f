"""`torch.compile`: the network as one compiled graph, for one shape."""

from __future__ import annotations

import shutil
import time
from dataclasses import replace
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import torch

from bench.measurement.backends.eager import TorchPrepared, torch_support
from bench.measurement.backends.protocol import (
    MEMORY_FORMATS,
    Executed,
    Needs,
    Support,
    UnsupportedError,
    Workload,
)
from bench.models.errors import first_line

if TYPE_CHECKING:
    from torch import Tensor


class Compiled:
    """Inductor with frozen weights, one graph without breaks, a static shape."""

    name = "compile"
    needs: Needs = "module"
    memory_formats = MEMORY_FORMATS
    slow_to_prepare = True

    def support(self) -> list[Support]:
        """Return what eager supports, where there is a compiler."""
        found = any(map(shutil.which, ("c++", "g++", "clang++", "cl")))
        lacking = {
            "cpu": None if found else "torch.compile needs a C++ compiler (g++ or clang++)",
            "cuda": None if find_spec("triton") else "torch.compile needs triton on CUDA",
        }
        return [
            replace(pair, missing=pair.missing or lacking[pair.device])
            for pair in torch_support()
            if pair.device in lacking
        ]

    def prepare(self, workload: Workload) -> CompiledPrepared:
        """Compile for exactly this batch."""
        return CompiledPrepared(workload)


class CompiledPrepared(TorchPrepared):
    """A compiled module; the constructor compiles, so that no sample includes it."""

    def __init__(self, workload: Workload) -> None:
        import torch._dynamo as dynamo
        from torch._inductor import config as inductor

        super().__init__(workload)
        # dynamo caches by code object, so networks of one class share its limit of 8 graphs,
        # beyond which it silently runs eagerly. So each network has a function of its own, and
        # reaching the limit is an error.
        network = self.model

        def forward(images: Tensor) -> Any:
            return network(images)

        forward.__code__ = forward.__code__.replace(co_name=f"forward_{id(self)}")
        self.code = forward.__code__
        images = self.upload(torch.zeros(workload.batch_size, *workload.input_shape))
        with (
            dynamo.config.patch(fail_on_recompile_limit_hit=True),
            inductor.patch(freezing=True),
        ):
            self.forward = torch.compile(forward, fullgraph=True, dynamic=False)
            begin = time.perf_counter()
            try:
                self.infer(images)
                self.synchronize()
            except Exception as error:  # dynamo's and inductor's errors have no common class
                reason = f"torch.compile cannot compile it: {first_line(error)}"
                raise UnsupportedError(reason) from error
            self.compile_seconds = time.perf_counter() - begin

    def describe(self) -> Executed:
        """Read back the graphs; more than one means that a sample included a compilation."""
        from torch._dynamo.eval_frame import _debug_get_cache_entry_list

        graphs = len(_debug_get_cache_entry_list(self.code))
        again = (f"torch.compile compiled {graphs} graphs for one shape",) if graphs > 1 else ()
        nothing = ("torch.compile fell back to eager",) if graphs == 0 else ()
        base = super().describe()
        return replace(
            base,
            provider=f"torch.compile {torch.__version__} (inductor) on {self.device}",
            compile_seconds=self.compile_seconds,
            warnings=(*again, *nothing),
            details=base.details | {"freezing": True, "graphs": graphs},
        )
