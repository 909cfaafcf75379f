"""The words that exports are asked for with; nothing is imported for them."""

from __future__ import annotations

from typing import Literal

Precision = Literal["fp32", "fp16", "int8"]
IoPrecision = Literal["fp32", "fp16"]
Target = Literal["cpu", "tensorrt"]
CalibrationMethod = Literal["minmax", "entropy", "percentile"]
Flavor = Literal["rtx", "standard"]
