"""Data-parallel training of one run: several processes that `torchrun` started share each batch.

Every process makes the same global batch and trains on its own slice of it; gradients and
figures are summed over all, so that any number of processes takes the same steps as one, but for
the masks of dropout. The first process alone evaluates, writes checkpoints and records the run.

On GPUs batch norm is synchronised (`torch.nn.SyncBatchNorm`), which refuses CPU tensors. On
CPUs each process normalises by its own slice, so that results equal one process's only
where batch-norm statistics are frozen; the run's record says how it was.
"""

from __future__ import annotations

import atexit
import functools
import math
import os
import time
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.rendezvous import rendezvous

from bench.errors import BenchError
from bench.models.errors import first_line

if TYPE_CHECKING:
    from collections.abc import Callable

_START_TIMEOUT = timedelta(minutes=30)  # until all processes have joined
# The others wait in a collective while the first evaluates and publishes, which may take hours.
# A dead process is found without it: TCP reports it, and torchrun ends the others.
_TIMEOUT = timedelta(hours=24)
_FAILING_SECONDS = 5.0  # between the failures of two processes that fail in the same step


@dataclass(frozen=True)
class Replicas:
    """The processes that train one run together.

    Attributes:
        rank: this process's number, from 0.
        size: how many there are.
        device: where this one trains.
        store: torch's store of keys and values that all of them share; None if there is one.
    """

    rank: int = 0
    size: int = 1
    device: str = "cpu"
    store: Any = None

    @property
    def leads(self) -> bool:
        """Whether this process evaluates and records."""
        return self.rank == 0

    def share(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return this process's slice of a global batch.

        Raises:
            BenchError: the batch has fewer images than there are processes.
        """
        if self.size == 1:
            return images, labels
        if len(labels) < self.size:
            raise BenchError(
                f"a batch of {len(labels)} images cannot be shared by {self.size} processes; "
                "use fewer processes, or another batch_size"
            )
        return images[self.rank :: self.size], labels[self.rank :: self.size]

    def weight(self, part: int, whole: int) -> float:
        """Weight a slice's mean loss so that averaged gradients are those of the whole batch."""
        return self.size * part / whole

    def wrap(self, model: nn.Module) -> Callable[[Tensor], Tensor]:
        """Return *model* as a callable whose gradients are averaged over all processes."""
        if self.size == 1:
            return model
        # Unsynchronised running statistics must not be overwritten during a step.
        on_gpu = self.device.startswith("cuda")
        ids = [torch.device(self.device).index] if on_gpu else None
        return nn.parallel.DistributedDataParallel(model, device_ids=ids, broadcast_buffers=on_gpu)

    def synchronise_batch_norm(self, model: nn.Module) -> nn.Module:
        """Let batch norm use the global batch, where PyTorch supports it."""
        if self.size > 1 and self.device.startswith("cuda"):
            converted: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
            return converted
        return model

    def total(self, *values: float) -> list[float]:
        """Sum each value over all processes."""
        if self.size == 1:
            return list(values)
        summed = torch.tensor(values, dtype=torch.float64, device=self.device)
        self._reduce(summed, dist.ReduceOp.SUM)
        return [float(value) for value in summed.tolist()]

    def largest(self, *values: int) -> list[int]:
        """Return the largest of all processes' values, such as a signal that one received."""
        if self.size == 1:
            return list(values)
        found = torch.tensor(values, dtype=torch.int64, device=self.device)
        self._reduce(found, dist.ReduceOp.MAX)
        return [int(value) for value in found.tolist()]

    def _reduce(self, values: Tensor, operation: dist.ReduceOp.RedOpType) -> None:
        try:
            dist.all_reduce(values, operation)
        except RuntimeError as error:  # gloo's and nccl's
            raise BenchError(
                f"process {self.rank} of {self.size} lost the others, whose messages say why: "
                f"{first_line(error)}"
            ) from None

    def all_failed(self, run: str) -> bool:
        """Report that a run failed in this process; return whether it did in all, by one bug say.

        If not, the others wait for this process in a collective, which only its end ends.
        """
        if self.store is None:
            return True
        key = f"failed: {run}"
        failed = self.store.add(key, 1)
        together = math.ceil(failed / self.size) * self.size  # it may have failed before
        until = time.monotonic() + _FAILING_SECONDS
        while failed < together and time.monotonic() < until:
            time.sleep(0.1)
            failed = self.store.add(key, 0)
        if failed < together:
            self.store.set(f"{key} alone", "")  # for those that fail later, since they lost it
        return not bool(self.store.check([f"{key} alone"]))


ALONE = Replicas()


def launched_by_torchrun() -> bool:
    """Return whether `torchrun` started this process as one of several."""
    return "TORCHELASTIC_RUN_ID" in os.environ and int(os.environ.get("WORLD_SIZE", "1")) > 1


def follows() -> bool:
    """Return whether another process than this one records and prints."""
    return launched_by_torchrun() and os.environ["RANK"] != "0"


@functools.cache
def join(device: str) -> Replicas:
    """Join the processes that `torchrun` started, by gloo or nccl; without it, return `ALONE`.

    Raises:
        BenchError: there are more processes than GPUs on this machine.
    """
    if not launched_by_torchrun():
        return ALONE
    on_gpu = device.startswith("cuda")
    local = int(os.environ["LOCAL_RANK"])
    if on_gpu:
        count, started = torch.cuda.device_count(), int(os.environ["LOCAL_WORLD_SIZE"])
        if started > count:
            raise BenchError(
                f"--nproc-per-node {started}: this machine has {count} CUDA device(s), one for "
                f"each process; use at most {count}"
            )
        torch.cuda.set_device(local)
    store, rank, size = next(rendezvous("env://", timeout=_START_TIMEOUT))
    dist.init_process_group(
        "nccl" if on_gpu else "gloo", timeout=_TIMEOUT, store=store, rank=rank, world_size=size
    )
    atexit.register(dist.destroy_process_group)
    return Replicas(rank, size, f"cuda:{local}" if on_gpu else device, store)
