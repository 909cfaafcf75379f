"""The state of a training as tensors and plain values, without pickle."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from bench.training.loop import Position, Sums, Trainer
from bench.training.weights import stored


def capture(trainer: Trainer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return a trainer's whole state: tensors on the CPU, and JSON values.

    Its losses have been read: all processes of a training do that together, and one captures.
    """
    tensors = {f"model/{k}": v for k, v in trainer.model.state_dict().items()}
    if trainer.average is not None:
        averaged = trainer.average.module.state_dict()
        tensors |= {f"average/module.{k}": v for k, v in averaged.items()}
    for index, (optimizer, parameter) in enumerate(_optimised(trainer)):
        momentum = optimizer.state.get(parameter, {}).get("momentum_buffer")
        if momentum is not None:
            tensors[f"momentum/{index}"] = momentum
    if trainer.lookahead is not None:
        tensors |= {f"slow/{index}": slow for index, slow in enumerate(trainer.lookahead.slow)}
    state = {"position": asdict(trainer.position), "scaler": trainer.scaler.state_dict()}
    return stored(tensors), state


def restore(trainer: Trainer, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
    """Restore a state returned by `capture` in a fresh trainer of the same request."""
    trainer.model.load_state_dict(_under("model/", tensors))
    if trainer.average is not None:
        trainer.average.module.load_state_dict(_under("average/module.", tensors))
    for index, (optimizer, parameter) in enumerate(_optimised(trainer)):
        momentum = tensors.get(f"momentum/{index}")
        if momentum is not None:
            buffer = torch.empty_like(parameter).copy_(momentum)  # keeps the memory format
            optimizer.state[parameter]["momentum_buffer"] = buffer
    if trainer.lookahead is not None:
        for index, slow in enumerate(trainer.lookahead.slow):
            slow.copy_(tensors[f"slow/{index}"])
    trainer.scaler.load_state_dict(state["scaler"])
    position = dict(state["position"])
    trainer.position = Position(**{**position, "sums": Sums(**position["sums"])})


def _optimised(trainer: Trainer) -> list[tuple[torch.optim.Optimizer, Tensor]]:
    return [
        (optimizer, parameter)
        for optimizer in trainer.optimizers
        for group in optimizer.param_groups
        for parameter in group["params"]
    ]


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
