"""Converting a graph to fp16 or int8, with a record of the choices made."""

from __future__ import annotations

import tempfile
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from bench.errors import BenchError
from bench.export.files import save
from bench.export.half import SAFE_MAX, convert_to_fp16, overflowing_layers
from bench.export.quantise import LAYERS, Quantiser
from bench.export.sensitivity import Effect, fewest_kept, layer_effects
from bench.export.session import open_session
from bench.export.settings import CALIBRATION_IMAGES, is_noise
from bench.export.verdict import relative_speed, verdict

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    from bench.export.accuracy import Comparison, Judge
    from bench.export.settings import Settings
    from bench.targets.network import LoadedNetwork

_SPEED_BATCH = 32
NOISE = " Its ranges come from random images: do not use the file for predictions."


@dataclass(frozen=True)
class Converted:
    """A converted graph, and what was chosen and measured on the way, as JSON values."""

    proto: onnx.ModelProto
    details: dict[str, Any] = field(default_factory=dict)


def to_fp16(
    proto: onnx.ModelProto, source: LoadedNetwork, settings: Settings, threads: int
) -> Converted:
    """Convert to fp16, keeping in fp32 the layers whose values would overflow."""
    images = source.calibration_images(CALIBRATION_IMAGES, seed=0)
    kept = overflowing_layers(proto, images.numpy(), threads)
    half = convert_to_fp16(proto, keep=list(kept), fp16_io=settings.io_precision == "fp16")
    return Converted(half, {"kept_fp32": kept, "kept_above": SAFE_MAX, "images": len(images)})


def count_layers(proto: onnx.ModelProto) -> int:
    """Count convolutions, linear layers and normalisations that were not folded."""
    return sum(node.op_type in {*LAYERS, "BatchNormalization"} for node in proto.graph.node)


class Int8:
    """Quantises one network.

    Args:
        proto: its fp32 graph.
        images: from settings to calibration images, as the graph takes them.
        settings: of the export.
        judge: its test set, if it has one.
        folder: for intermediate files.
        threads: number of CPU threads.
        say: called with the progress.
        optimize: fold normalisations and constants first.
    """

    def __init__(
        self,
        proto: onnx.ModelProto,
        images: Callable[[Settings], npt.NDArray[Any]],
        settings: Settings,
        judge: Judge | None,
        folder: Path,
        threads: int,
        say: Callable[[str], None],
        *,
        optimize: bool = False,
    ) -> None:
        self.optimize = optimize
        self.images, self.settings, self.judge = images, settings, judge
        self.folder, self.threads, self.say = folder, threads, say
        self.fp32 = folder / "fp32.onnx"
        save(proto, self.fp32)
        self.quantiser = self._calibrated(settings, folder)
        self.file = folder / "int8.onnx"

    def convert(self) -> Converted:
        """Quantise, keep what has to be kept, and measure."""
        self.quantiser.write(self.file)
        whole = self._score(self.file)
        limit = self.settings.max_accuracy_drop
        over = limit is not None and whole is not None and whole.drop > limit
        effects, kept = [], []
        if self.settings.sensitivity or over:
            self.say("measuring the effect of each layer")
            subset = self.quantiser.images[: max(64, self.settings.calibration_batch)]
            effects = layer_effects(self.quantiser, self.folder, subset, self.threads)
        if over:
            kept = fewest_kept(effects, self._good_enough)
            if len(kept) == len(effects):
                raise BenchError(
                    f"--max-accuracy-drop {limit:g}: int8 loses more with any layer quantised; "
                    "allow a larger drop, or keep --precision fp32"
                )
            self.quantiser.write(self.file, keep=kept)
        final = self._score(self.file) if kept else whole
        details = self.quantiser.describe() | self._figures(whole, final, effects, kept)
        return Converted(onnx.load(str(self.file)), details | self._draws(kept, final))

    def _figures(
        self,
        whole: Comparison | None,
        final: Comparison | None,
        effects: list[Effect],
        kept: list[str],
    ) -> dict[str, Any]:
        marked = [asdict(replace(e, kept=e.layer in kept)) for e in effects]
        size = self.settings.static_batch or min(_SPEED_BATCH, len(self.quantiser.images))
        batch = np.resize(self.quantiser.images, (size, *self.quantiser.images.shape[1:]))
        int8, fp32 = (open_session(f, threads=self.threads) for f in (self.file, self.fp32))
        speed = relative_speed(int8, fp32, batch)
        drop, p_value = (final.drop, final.p_value) if final else (None, None)
        images = final.images if final else 0
        noise = NOISE if is_noise(self.settings.dataset) else ""
        return {
            "all_layers": asdict(whole) | {"drop": whole.drop} if whole else None,
            "accuracy": asdict(final) | {"drop": final.drop} if final else None,
            "sensitivity": marked,
            "kept_fp32": kept,
            "speed": asdict(speed),
            "verdict": verdict(speed, drop, p_value, images) + noise,
        }

    def _draws(self, kept: list[str], first: Comparison | None) -> dict[str, Any]:
        """Repeat with other draws of calibration images; the file is the first draw's."""
        if self.settings.calibration_draws == 1 or first is None:
            return {}
        accuracies = [first.accuracy]
        for draw in range(1, self.settings.calibration_draws):
            self.say(f"calibration draw {draw + 1} of {self.settings.calibration_draws}")
            seed = self.settings.calibration_seed + draw
            with tempfile.TemporaryDirectory(dir=self.folder) as name:
                again = replace(self.settings, calibration_seed=seed)
                quantiser = self._calibrated(again, Path(name))
                scored = self._score(quantiser.write(Path(name) / "draw.onnx", keep=kept))
            accuracies += [scored.accuracy] if scored else []
        return {
            "draws": accuracies,
            "draws_mean": float(np.mean(accuracies)),
            "draws_std": float(np.std(accuracies, ddof=1)),
        }

    def _good_enough(self, kept: list[str]) -> bool:
        scored = self._score(self.quantiser.write(self.folder / "trial.onnx", keep=kept))
        self.say(f"{len(kept)} layers in fp32: {scored.drop if scored else 0:+.2f} points lost")
        return scored is not None and scored.drop <= (self.settings.max_accuracy_drop or 0.0)

    def _calibrated(self, settings: Settings, folder: Path) -> Quantiser:
        return Quantiser(self.fp32, folder, self.images(settings), settings, self.optimize)

    def _score(self, file: Path) -> Comparison | None:
        if self.judge is None:
            return None
        answers = self.judge.answers(open_session(file, threads=1), workers=self.threads)
        return self.judge.score(answers)
