"""The backend that computes nothing: its figure is the harness's own cost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bench.measurement.backends.protocol import CONTIGUOUS, PRECISIONS, Executed, Support

if TYPE_CHECKING:
    from torch import Tensor

    from bench.measurement.backends.protocol import Needs, Workload


class Null:
    """Takes every batch and returns at once (after MLPerf's `backend_null`)."""

    name = "null"
    needs: Needs = "nothing"
    memory_formats = (CONTIGUOUS,)

    def support(self) -> list[Support]:
        """Every precision on the CPU: none is computed with."""
        return [Support("cpu", precision) for precision in PRECISIONS]

    def prepare(self, workload: Workload) -> NullPrepared:
        """Prepare nothing."""
        del workload
        return NullPrepared()


class NullPrepared:
    """Nothing, ready to run."""

    def upload(self, images: Tensor) -> Tensor:
        """Return the images."""
        return images

    def infer(self, batch: Any) -> Any:
        """Return the images."""
        return batch

    def download(self, output: Any) -> Any:
        """Return the images."""
        return output

    def synchronize(self) -> None:
        """Return at once."""

    def describe(self) -> Executed:
        """Say that nothing was computed."""
        return Executed(provider="nothing", precision="none")
