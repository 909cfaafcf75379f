"""The backend that computes nothing: its figure is the cost of measuring itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bench.measurement.backends.protocol import (
    CONTIGUOUS,
    PRECISIONS,
    Executed,
    Needs,
    Prepared,
    Support,
    Workload,
    prepare_copies,
)

if TYPE_CHECKING:
    from torch import Tensor


class Null:
    """Returns every batch at once (after MLPerf's `backend_null`)."""

    name = "null"
    needs: Needs = "nothing"
    memory_formats = (CONTIGUOUS,)
    computes = False

    def support(self) -> list[Support]:
        """Return every precision on the CPU, since nothing is computed."""
        return [Support("cpu", precision) for precision in PRECISIONS]

    def prepare(self, workload: Workload) -> NullPrepared:
        """Return a network that does nothing."""
        del workload
        return NullPrepared()

    def prepare_streams(self, workload: Workload, streams: int) -> list[Prepared]:
        """Prepare one that does nothing for each stream."""
        return prepare_copies(self.prepare, workload, streams)


class NullPrepared:
    """A network that does nothing."""

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
        """Return that nothing was computed."""
        return Executed(provider="nothing", precision="none")
