"""The settings of an export, checked before any work begins."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal, get_args

from bench.errors import BenchError, check_known

Precision = Literal["fp32", "fp16", "int8"]
IoPrecision = Literal["fp32", "fp16"]
Int8Target = Literal["cpu", "tensorrt"]
CalibrationMethod = Literal["minmax", "entropy", "percentile"]
Flavor = Literal["rtx", "standard"]

CALIBRATION_IMAGES = 128
DEFAULT_OPSET = 20  # taken by ONNX Runtime and by both TensorRT parsers
CALIBRATION_BATCH = 32
RANDOM = "random"  # instead of the name of a dataset
_OF_INT8 = (
    "calibration_method",
    "calibration_images",
    "calibration_seed",
    "calibration_draws",
    "max_accuracy_drop",
    "sensitivity",
)


@dataclass(frozen=True)
class Settings:
    """The settings of an export.

    Attributes:
        precision: fp32, fp16 or int8 arithmetic.
        io_precision: of input and output of an fp16 file.
        target: where an int8 file will run: cpu or tensorrt.
        opset: ONNX operator set.
        static_batch: the one batch size the file takes; None for any.
        with_preprocessing: it takes uint8 images N×H×W×C of any size.
        dataset: images to calibrate int8 with, and to test a file on: the name of a dataset, or
            `random`; None for the run's own.
        calibration_method: how int8 ranges are determined: minmax, entropy or percentile.
        calibration_images: number of images used for that; None for `CALIBRATION_IMAGES` (or one
            batch, if that is more), or as many as there are.
        calibration_seed: random seed for choosing those images.
        calibration_draws: number of such choices that the accuracy is measured for.
        max_accuracy_drop: largest accuracy drop allowed for int8, in percentage points; layers are
            kept in fp32 to stay within it.
        sensitivity: measure the effect of each layer in int8.

    Raises:
        BenchError: a value is unknown or two contradict each other.
    """

    precision: Precision = "fp32"
    io_precision: IoPrecision = "fp32"
    target: Int8Target = "cpu"
    opset: int = DEFAULT_OPSET
    static_batch: int | None = None
    with_preprocessing: bool = False
    dataset: str | None = None
    calibration_method: CalibrationMethod = "minmax"
    calibration_images: int | None = None
    calibration_seed: int = 0
    calibration_draws: int = 1
    max_accuracy_drop: float | None = None
    sensitivity: bool = False

    def __post_init__(self) -> None:
        check_known("--precision", self.precision, get_args(Precision))
        check_known("--io-precision", self.io_precision, get_args(IoPrecision))
        check_known("--target", self.target, get_args(Int8Target))
        check_known("--calibration-method", self.calibration_method, get_args(CalibrationMethod))
        for name in ("static_batch", "calibration_draws"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise BenchError(f"--{name.replace('_', '-')} {value}: it must be at least 1")
        self._check_calibration()
        self._check_combinations()

    @property
    def calibration_batch(self) -> int:
        """Images of one calibration step."""
        return self.static_batch or CALIBRATION_BATCH

    @property
    def images_wanted(self) -> int:
        """Calibration images to draw, if there are as many."""
        return self.calibration_images or max(CALIBRATION_IMAGES, self.calibration_batch)

    def require_test_set(self, name: str, fix: str) -> None:
        """Refuse what measures accuracy, for *name*, which has no labelled test set.

        Raises:
            BenchError: such a setting was given; the message ends with *fix*.
        """
        for setting in ("max_accuracy_drop", "calibration_draws"):
            if getattr(self, setting) != getattr(Settings, setting):  # not its default
                raise BenchError(
                    f"--{setting.replace('_', '-')}: {name} has no labelled test set, and so no "
                    f"accuracy; {fix}"
                )

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values, without those that the precision does not use."""
        values = dataclasses.asdict(self) | {"calibration_images": self.images_wanted}
        if self.dataset is None:
            values.pop("dataset")
        if self.precision != "int8":
            for key in (*_OF_INT8, "target"):
                values.pop(key)
        return values

    def _check_calibration(self) -> None:
        count = self.calibration_images
        if self.precision == "int8" and count is not None and count < self.calibration_batch:
            raise BenchError(
                f"--calibration-images {count} is smaller than one batch of "
                f"{self.calibration_batch}: use {self.calibration_batch} or more"
            )
        drop = self.max_accuracy_drop
        if drop is not None and not 0 <= drop <= 100:  # noqa: PLR2004 - points of 100
            raise BenchError(f"--max-accuracy-drop {drop}: it is in points, 0 … 100")

    def _check_combinations(self) -> None:
        if self.io_precision == "fp16" and (self.precision != "fp16" or self.with_preprocessing):
            raise BenchError(
                "--io-precision fp16 goes with --precision fp16 and without "
                "--with-preprocessing, whose input is uint8"
            )
        if self.precision == "int8":
            return
        for name in (*_OF_INT8, "dataset"):
            if getattr(self, name) != getattr(Settings, name):  # not its default
                raise BenchError(f"--{name.replace('_', '-')} goes with --precision int8")


def is_noise(dataset: str | None) -> bool:
    """Return whether images of this name show nothing."""
    return dataset in {RANDOM, "synthetic"}
