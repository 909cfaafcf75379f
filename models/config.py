"""One residual network as data: the dataclass whose fields the papers vary.

He et al. 2016a: "Deep Residual Learning for Image Recognition", arXiv:1512.03385.
He et al. 2016b: "Identity Mappings in Deep Residual Networks", arXiv:1603.05027.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from .errors import ModelError, nearest
from .registry import check_count

# He et al. 2016a, section 3.3: options A and B put something where shapes change and the
# identity elsewhere; option C puts a projection everywhere; a plain network has nothing.
# He et al. 2016b, figure 2 (b, c, d, f): what acts on the shortcut of every block.
Shortcut = Literal[
    "projection",
    "zero_pad",
    "all_projection",
    "none",
    "scaled",
    "gated",
    "shortcut_only_gated",
    "dropout",
]
Block = Literal["basic", "bottleneck"]
Stem = Literal["imagenet", "cifar"]
# He et al. 2016b, figure 4 (a) to (e).
ActivationOrder = Literal["post", "bn_after_add", "relu_before_add", "relu_preact", "preact"]
Norm = Literal["batch", "group", "none"]

CHOICES: dict[str, tuple[str, ...]] = {
    "shortcut": get_args(Shortcut),
    "block": get_args(Block),
    "activation_order": get_args(ActivationOrder),
    "stem": get_args(Stem),
    "norm": get_args(Norm),
}
# Which numbers belong to which kind of shortcut.
SHORTCUT_NUMBERS: dict[str, tuple[str, ...]] = {
    "scaled": ("shortcut_scale", "residual_scale"),
    "gated": ("gate_bias",),
    "shortcut_only_gated": ("gate_bias",),
    "dropout": ("dropout_rate",),
}


@dataclass(frozen=True)
class ResNetConfig:
    """What sets one residual network apart from another.

    Attributes:
        stages: number of blocks in each stage; every stage but the first halves height
            and width and doubles the channels.
        block: `basic`, two 3x3 convolutions; `bottleneck`, 1x1, 3x3, 1x1 with four times
            the stage's width at its end (2016a, figure 5).
        stem: `imagenet`, 7x7 stride 2 and 3x3 max pooling stride 2; `cifar`, 3x3 stride 1.
        width: channels of the stem and of the first stage's 3x3 convolutions.
        shortcut: `projection` (option B), `zero_pad` (A), `all_projection` (C), `none`
            (plain), or a kind of 2016b, figure 2: `scaled`, `gated`,
            `shortcut_only_gated`, `dropout`.
        resize: `projection` or `zero_pad`: what those last four have where shapes change.
        activation_order: where normalisation and ReLU stand around the addition (2016b,
            figure 4); `bench.models.blocks.ORDERS` spells them out.
        norm: `batch`; `group`, at most 16 groups of channels; or `none`, with a shift per channel,
            and a learned factor at the end of each residual branch that starts at 1/√(number of
            blocks), or at 0 with `zero_init_residual` (De and Smith 2020, arXiv:2002.10444). A
            plain network without normalisation has He's initialisation alone.
        zero_init_residual: start every residual branch at zero, so that the network
            starts as its shortcuts alone (Goyal et al. 2017, arXiv:1706.02677, section 5.1).
        shortcut_scale: factor on the shortcut (`scaled`).
        residual_scale: factor on the residual branch (`scaled`). 0.5 and 0.5 are the
            only scales of 2016b, table 1, that trained.
        gate_bias: the gate's first bias (`gated`, `shortcut_only_gated`); -6 is the best
            of 2016b, table 1, for both.
        dropout_rate: probability of dropping a value on the shortcut (`dropout`).

    Raises:
        ModelError: a value is impossible, or two of them do not go together.
    """

    stages: tuple[int, ...]
    block: Block = "basic"
    stem: Stem = "imagenet"
    width: int = 64
    shortcut: Shortcut = "projection"
    resize: Literal["projection", "zero_pad"] = "projection"
    activation_order: ActivationOrder = "post"
    norm: Norm = "batch"
    zero_init_residual: bool = False
    shortcut_scale: float = 0.5
    residual_scale: float = 0.5
    gate_bias: float = -6.0
    dropout_rate: float = 0.5

    def __post_init__(self) -> None:
        for option in CHOICES:
            check_choice(option, getattr(self, option))
        if not isinstance(self.zero_init_residual, bool):
            raise ModelError(
                f"zero_init_residual={self.zero_init_residual!r} must be true or false"
            )
        check_count("width", self.width)
        self._check_numbers()
        if self.zero_init_residual:
            self._check_zero_init()

    def _check_numbers(self) -> None:
        for option in ("shortcut_scale", "residual_scale", "gate_bias", "dropout_rate"):
            value = getattr(self, option)
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not number or not math.isfinite(value):
                raise ModelError(f"{option}={value!r} must be a finite number")
            # -6 and -6.0 are one network, so they must be written (and hashed) alike.
            object.__setattr__(self, option, float(value))
        if self.shortcut_scale <= 0:
            raise ModelError(
                f"shortcut_scale={self.shortcut_scale:g} must be above 0; "
                "for a network without shortcuts use shortcut='none'"
            )
        if self.residual_scale <= 0:
            raise ModelError(
                f"residual_scale={self.residual_scale:g} must be above 0; "
                "for branches that start at zero use zero_init_residual"
            )
        if not 0 <= self.dropout_rate < 1:
            raise ModelError(
                f"dropout_rate={self.dropout_rate:g} must be at least 0 and below 1; "
                "for a network without shortcuts use shortcut='none'"
            )

    def _check_zero_init(self) -> None:
        if self.shortcut == "none":
            raise ModelError(
                "zero_init_residual with shortcut='none' would make every block output zero "
                "and never train; use it with a shortcut"
            )
        if self.activation_order == "relu_before_add" and self.norm != "none":
            raise ModelError(
                "zero_init_residual with activation_order='relu_before_add' would never train: "
                "the ReLU that ends the branch passes no gradient at zero; use another order"
            )


def check_choice(option: str, value: object) -> str:
    """Return *value*, or raise `ModelError` if it is not one of the option's choices."""
    allowed = CHOICES[option]
    if value not in allowed:
        raise ModelError(
            f"{option}={value!r} is unknown{nearest(str(value), allowed)} "
            f"(known: {', '.join(allowed)})"
        )
    return str(value)
