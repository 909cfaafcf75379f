"""The training loop: steps, epochs, and a state that can be saved and resumed.

All randomness is a function of the seed and the position (epoch, batch, step), so a resumed
training needs no random state to give the same bits as an uninterrupted one.
"""

from __future__ import annotations

import math
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.data.splits import stable_seed
from bench.training.cuda_graph import StepGraph
from bench.training.distributed import ALONE, Replicas
from bench.training.optimisers import Average, KernelMuon, Lookahead, make_optimisers
from bench.training.schedule import learning_rate_at

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.data import Batches
    from bench.studies.recipe import Recipe

# The norm over all gradients takes a pass over the parameters, so it is sampled.
GRADIENT_NORM_EVERY = 16
# On an accelerator, reading a loss waits for the device, so this many are read together.
LOSSES_READ_TOGETHER = 32


class DivergedError(ArithmeticError):
    """The training loss is no longer finite."""

    def __init__(self, step: int) -> None:
        super().__init__(f"the loss was not finite at step {step}")
        self.step = step


@dataclass
class Sums:
    """Sums over the steps of the epoch so far; plain numbers, to be stored in a checkpoint."""

    images: int = 0
    loss: float = 0.0
    correct: float = 0.0
    gradient_norm: float = 0.0
    gradient_norms: int = 0
    seconds: float = 0.0


@dataclass
class Position:
    """The progress of a training."""

    epoch: int = 0
    batch: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    blocks: list[dict[str, Any]] = field(default_factory=list)
    sums: Sums = field(default_factory=Sums)


class Trainer:
    """Trains one network by one recipe.

    Args:
        model: on its device, in the wanted memory format.
        batches: the training images.
        recipe: how to train.
        seed: the run's random seed.
        device: where the model is.
        precision: `fp32`, or `bf16`/`fp16` for autocast; fp16 scales its gradients.
        compiled: run the forward and backward pass through `torch.compile`.
        cuda_graph: run each step as one CUDA graph.
        replicas: the processes that share this training.
    """

    def __init__(
        self,
        model: nn.Module,
        batches: Batches,
        recipe: Recipe,
        *,
        seed: int,
        device: torch.device,
        precision: str = "fp32",
        compiled: bool = False,
        cuda_graph: bool = False,
        replicas: Replicas = ALONE,
    ) -> None:
        self.replicas = replicas
        self.model = model
        self.batches = batches
        self.recipe = recipe
        self.seed = seed
        self.device = device
        self.precision = precision
        self.forward: Callable[[Tensor], Tensor] = replicas.wrap(model)
        if compiled:
            # Sizes are few: those of a batch and of the last one. Each has faster code of its own.
            self.forward = torch.compile(self.forward, dynamic=False)
        self.optimizers = make_optimisers(model, recipe, device)
        self.graph: StepGraph | None = None
        if cuda_graph:
            self.graph = StepGraph(partial(self._arithmetic, with_norm=True), recipe.batch_size)
            for optimizer in self.optimizers:
                for group in optimizer.param_groups:
                    group["lr"] = torch.zeros((), device=device)
        self.scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")
        self.average = Average(model, recipe.ema_decay) if recipe.ema_decay else None
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        every = recipe.lookahead_steps
        self.lookahead = Lookahead(self.parameters, every) if every else None
        self.steps = recipe.epochs * len(batches)
        self.position = Position()
        self.read_together = 1 if device.type == "cpu" else LOSSES_READ_TOGETHER
        self._unread: list[tuple[int, Tensor, Tensor, int]] = []
        self._norms: list[Tensor] = []

    @property
    def network(self) -> nn.Module:
        """The network to evaluate and keep: the averaged one if the recipe averages."""
        return self.model if self.average is None else self.average.module

    def run_epoch(self, *, after_step: Callable[[], None]) -> dict[str, Any]:
        """Train from the current batch to the end of the epoch; return the epoch's figures.

        Args:
            after_step: called after every step; may raise to stop between two steps.

        Returns:
            train_loss (as optimised), train_accuracy, learning_rate (of the last step),
            gradient_norm (mean over every `GRADIENT_NORM_EVERY`-th step), images_per_second
            and seconds.

        Raises:
            DivergedError: the loss is not finite.
        """
        position, sums = self.position, self.position.sums
        self.model.train()
        started = time.perf_counter()
        for images, labels in self.batches.epoch(position.epoch, start=position.batch):
            self.step(images, labels)
            if self.replicas.size > 1 and self.device.type == "cuda":
                # The processes agree after each step, and would wait for the GPU there, untimed.
                torch.cuda.synchronize(self.device)
            now = time.perf_counter()
            sums.seconds += now - started
            started = now
            after_step()
            started = time.perf_counter()  # excludes the caller's time
        self.read_losses()
        sums.seconds += time.perf_counter() - started
        # Not read from the optimiser, where a training resumed after the last step has set none.
        last = (position.epoch + 1) * len(self.batches) - 1
        rate = learning_rate_at(self.recipe, last, self.steps)
        position.epoch, position.batch, position.sums = position.epoch + 1, 0, Sums()
        return {
            "train_loss": sums.loss / sums.images,
            "train_accuracy": sums.correct / sums.images,
            "learning_rate": rate,
            "gradient_norm": sums.gradient_norm / max(1, sums.gradient_norms),
            "images_per_second": sums.images / sums.seconds,
            "seconds": sums.seconds,
        }

    def step(self, images: Tensor, labels: Tensor) -> None:
        """Take one optimiser step on float images N×C×H×W and int64 labels N."""
        step = self.position.epoch * len(self.batches) + self.position.batch
        # For dropout, of which each process draws its own images' masks.
        rank = (self.replicas.rank,) if self.replicas.rank else ()
        torch.manual_seed(stable_seed("step", self.seed, step, *rank))
        self._set_learning_rates(step)
        whole = len(labels)
        images, labels = self.replicas.share(images, labels)
        weight = self.replicas.weight(len(labels), whole)
        with_norm = self.position.batch % GRADIENT_NORM_EVERY == 0  # so every epoch has one
        if self.graph is not None:
            loss, correct, *norms = self.graph(images, labels)
        else:
            loss, correct, *norms = self._arithmetic(images, labels, weight, with_norm=with_norm)
        if with_norm:
            self._norms += norms
        if self.lookahead is not None:
            self.lookahead.after_step(step, self.steps)
        if self.average is not None:
            self.average.after_step(step, self.model)
        self._unread.append((step, loss, correct, len(labels)))
        self.position.batch += 1
        if len(self._unread) >= self.read_together:
            self.read_losses()

    def _arithmetic(
        self, images: Tensor, labels: Tensor, weight: float = 1, *, with_norm: bool
    ) -> tuple[Tensor, ...]:
        """Do what the device does in a step: the passes forward and backward, and the update.

        Returns:
            The loss, the number of correct answers and, if asked for, the norm of the gradient.
        """
        with self._autocast():
            logits = self.forward(images)
            loss = F.cross_entropy(logits, labels, label_smoothing=self.recipe.label_smoothing)
        self.scaler.scale(loss if weight == 1 else loss * weight).backward()  # type: ignore[no-untyped-call]
        norms = self._update(with_norm=with_norm)
        correct = (logits.detach().argmax(1) == labels).sum()
        return loss.detach(), correct, *norms

    def _set_learning_rates(self, step: int) -> None:
        for optimizer in self.optimizers:
            muon = isinstance(optimizer, KernelMuon)
            peak = self.recipe.muon_learning_rate if muon else None
            rate = learning_rate_at(self.recipe, step, self.steps, peak)
            for group in optimizer.param_groups:
                if isinstance(group["lr"], Tensor):
                    group["lr"].fill_(rate)  # where a CUDA graph reads it
                else:
                    group["lr"] = rate

    def _update(self, *, with_norm: bool) -> list[Tensor]:
        """Update the weights by their gradients, and clear those; return their norm, if wanted."""
        norms = []
        for optimizer in self.optimizers:
            if isinstance(optimizer, KernelMuon):
                optimizer.take_gradients()
        if with_norm:
            for optimizer in self.optimizers:
                self.scaler.unscale_(optimizer)
            norms.append(_gradient_norm(self.parameters))
        for optimizer in self.optimizers:
            self.scaler.step(optimizer)
        self.scaler.update()
        for parameter in self.parameters:
            parameter.grad = None
        return norms

    def finish_steps(self) -> None:
        """Read the losses of the steps so far within the epoch's time, as the device ends them."""
        started = time.perf_counter()
        self.read_losses()
        self.position.sums.seconds += time.perf_counter() - started

    def read_losses(self) -> None:
        """Add the figures of the last steps to the sums.

        Raises:
            DivergedError: one of their losses is not finite.
        """
        sums = self.position.sums
        for step, loss, correct, images in self._unread:
            summed, right, seen = self.replicas.total(loss.item() * images, correct.item(), images)
            if not math.isfinite(summed):
                raise DivergedError(step)
            sums.loss += summed
            sums.correct += right
            sums.images += int(seen)
        self._unread.clear()
        for norm in self._norms:
            value = norm.item()
            if math.isfinite(value):  # fp16 gradients overflow until the scale is found
                sums.gradient_norm += value
                sums.gradient_norms += 1
        self._norms.clear()

    def _autocast(self) -> AbstractContextManager[object]:
        if self.precision == "fp32":
            return nullcontext()
        dtype = torch.bfloat16 if self.precision == "bf16" else torch.float16
        return torch.autocast(self.device.type, dtype)


def _gradient_norm(parameters: list[nn.Parameter]) -> Tensor:
    """Return the L2 norm of all gradients together."""
    return torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
