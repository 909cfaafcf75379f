"""Quantising an ONNX file of any origin, with its accuracy before and after on a dataset."""

from __future__ import annotations

import tempfile
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import numpy.typing as npt
import onnx
from onnx import version_converter

from bench.data import Dataset, Preprocessing
from bench.data.preprocessing import Resize
from bench.errors import BenchError, nearest
from bench.export.accuracy import BATCH, Comparison, Judge
from bench.export.calibration import NO_IMAGES, draw_images, fitting_dataset
from bench.export.convert import Converted, Int8
from bench.export.examine import FileFacts, Size, examine, opset_of, spell_size
from bench.export.files import check, inputs_of, onnx_sha256, save
from bench.export.graph import set_properties
from bench.export.messages import short
from bench.export.metadata import as_text, preparation
from bench.export.parity import NO_LOGITS, compare
from bench.export.pipeline import FILE, REJECTED, Exporter, compared
from bench.export.session import logits_of, open_session
from bench.export.settings import RANDOM, Settings
from bench.system.guessing import guessing_limit
from bench.targets.network import random_images

if TYPE_CHECKING:
    from torch import Tensor

    from bench.store.exports import ExportRecord

_OLDEST_OPSET, _OLDEST_IR = 13, 7  # ranges per channel need them
_COMPARED = 256  # images
_RESIZES = get_args(Resize)
_SET = [f.name for f in fields(Preprocessing) if f.name not in {"input_size", "image_size"}]


@dataclass(frozen=True)
class ForeignFile:
    """An ONNX file to quantise, and the images for it.

    Attributes:
        path: the file.
        sha256: of it and its external data.
        facts: what it takes.
        dataset: images to calibrate and to test with; None for random ones.
        preprocessing: of these images.
        note: how they are prepared, for people.
    """

    path: Path
    sha256: str
    facts: FileFacts
    dataset: Dataset | None
    preprocessing: Preprocessing | None
    note: str = ""

    @property
    def is_labelled(self) -> bool:
        """Whether its images have labels, so that its accuracy can be measured."""
        return self.dataset is not None and not self.dataset.timing_only

    def images(self, settings: Settings) -> npt.NDArray[Any]:
        """Draw calibration images, as the file takes them."""
        if self.dataset is None:
            count, seed = settings.images_wanted, settings.calibration_seed
            values = random_images(f"calibration/{seed}", self.facts.channels_first, count)
            return self.facts.arrange(values if self.facts.takes_floats else values * 50 + 128)
        return self.feed(draw_images(self.dataset, settings))

    def feed(self, images: Tensor) -> npt.NDArray[Any]:
        """Turn uint8 images N×C×H×W into the file's input."""
        assert self.preprocessing is not None  # noqa: S101 - there are images
        return self.facts.feed(images, self.preprocessing)


def read_foreign(
    path: Path, settings: Settings, size: Size | None, preprocessing: dict[str, Any]
) -> ForeignFile:
    """Read a file that is to be quantised, and load the dataset for it.

    Args:
        path: the file.
        settings: of the export; `dataset` names the images.
        size: height and width, for a file of any size.
        preprocessing: fields of `bench.data.Preprocessing` that replace the defaults: mean and
            standard deviation of the dataset, for a file that takes integers none.

    Raises:
        BenchError: the file is not one that can be quantised, or the dataset does not fit it.
    """
    _check_settings(path, settings)
    facts = examine(path, size)
    if facts.precision != "fp32":
        done = "is quantised already" if facts.precision == "int8" else f"is in {facts.precision}"
        raise BenchError(f"{path} {done}: give the fp32 file it was made from")
    if settings.dataset is None:
        raise BenchError(f"{path} {NO_IMAGES}")
    dataset = made = None
    if settings.dataset != RANDOM:
        shape = facts.channels_first
        resize = _resize(path, shape[1:], preprocessing.get("resize"))
        dataset = fitting_dataset(settings.dataset, str(path), shape, resize)
        preprocessing = preprocessing | {"resize": resize}
        made = _preprocessing(facts, dataset, preprocessing)
    note = _describe(made, facts.channels_first[1:], preprocessing) if made else ""
    return ForeignFile(path, onnx_sha256(path), facts, dataset, made, note)


def reread(path: Path, record: ExportRecord, size: Size) -> ForeignFile:
    """Load the images that a file was tested on.

    Args:
        path: the file that was quantised, or its export.
        record: of the export.
        size: height and width, for a file of any size.

    Raises:
        BenchError: they cannot be had, or are others now.
    """
    values: dict[str, Any] = dict(record.request["preprocessing"])
    values |= {key: tuple(values[key]) for key in ("mean", "std")}
    made = Preprocessing(**values)
    facts, name = examine(path, size), record.request["dataset"]
    dataset = fitting_dataset(name, str(path), facts.channels_first, made.resize)
    if dataset.fingerprint != record.request["dataset_fingerprint"]:
        raise BenchError(
            f"the dataset '{name}' is not what {path} was tested on (its fingerprint differs): put "
            "the old files back, or quantise it again"
        )
    return ForeignFile(path, record.export, facts, dataset, made)


def original_of(path: Path, record: ExportRecord) -> Path | None:
    """Return the file that was quantised, if it is *path* or still where it was; else None."""
    for file in (path, Path(record.proof.get("source", ""))):
        if file.is_file() and onnx_sha256(file) == record.request["file_sha256"]:
            return file
    return None


def quantise_file(source: ForeignFile, exporter: Exporter) -> ExportRecord:
    """Quantise a file and compare it with itself in fp32, unless that was done before.

    Args:
        source: the file.
        exporter: where to, and with which settings; the batch size is the file's own.

    Raises:
        BenchError: it cannot be quantised, or is no classifier of the dataset's classes.
        StorageError: the results folder cannot be written; nothing is left there.
    """
    settings = replace(exporter.settings, static_batch=source.facts.static_batch)
    if not source.is_labelled:
        fix = "give --dataset with the images it was trained for"
        settings.require_test_set(source.path.name, fix)
    preprocessing = asdict(source.preprocessing) if source.preprocessing else None
    request = {
        "file_sha256": source.sha256,
        "input_shape": source.facts.input_shape,
        "settings": settings.as_dict(),
        "dataset": source.dataset.name if source.dataset else None,
        "dataset_fingerprint": source.dataset.fingerprint if source.dataset else None,
        "preprocessing": preprocessing,
    }
    return exporter.once(
        source.path.name, request, lambda folder: _quantised(source, settings, exporter, folder)
    )


def _quantised(
    source: ForeignFile, settings: Settings, exporter: Exporter, folder: Path
) -> tuple[dict[str, Any], dict[str, Any]]:
    name, threads, batch = source.path.name, exporter.threads, settings.static_batch or BATCH
    fp32 = open_session(source.path, threads=1)
    _check_classes(source, fp32, settings)

    def reference(images: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        return logits_of(fp32, images, batch, workers=threads)

    judge = None
    if source.dataset is not None and source.is_labelled:
        exporter.say(f"{name}: testing on {source.dataset.name}")
        judge = Judge(source.dataset.test, lambda chunk: reference(source.feed(chunk)), source.feed)
    made = _converted(source, settings, exporter, judge, folder)
    own = {p.key: p.value for p in made.proto.metadata_props}
    set_properties(made.proto, own | _properties(source, settings))
    save(made.proto, folder / FILE)
    check(folder / FILE)
    int8 = open_session(folder / FILE, threads=1)
    fed = source.images(settings) if judge is None else source.feed(judge.images.images[:_COMPARED])
    parity = compare(
        int8, reference(fed), fed, tolerance=None, batch_sizes=(batch,), workers=threads
    )
    accuracy = judge.score(judge.answers(int8, workers=threads)) if judge else None
    made.details["verdict"] += _near_guessing(source, accuracy)
    if not parity.accepted:
        (folder / FILE).rename(folder / REJECTED)
    columns = {
        "model": name,
        "opset": opset_of(made.proto),
        "file": FILE if parity.accepted else REJECTED,
        **compared(parity, accuracy),
        "status": "complete" if parity.accepted else "rejected",
        "error": None if parity.accepted else NO_LOGITS,
        "executed_precision": "int8",
    }
    details = {
        "source": str(source.path.resolve()),
        "parity": parity.as_dict(),
        "accuracy": asdict(accuracy) if accuracy else None,
    }
    return columns, details | {"int8": made.details | {"images_prepared": source.note}}


def _properties(source: ForeignFile, settings: Settings) -> dict[str, str]:
    """Return the metadata of the int8 file; that of the original stays beside it.

    Exports of different sources or images are different files, each with its own record.
    """
    data, made = source.dataset, source.preprocessing
    values: dict[str, Any] = {
        "source_sha256": source.sha256,
        "precision": settings.precision,
        "dataset": data.name if data else RANDOM,
        "dataset_fingerprint": data.fingerprint if data else "",
    }
    if data is not None and made is not None:
        values |= preparation(replace(made, image_size=data.size))
        values |= {"input_shape": source.facts.channels_first, "with_preprocessing": False}
        if not data.timing_only:  # else the classes are not the file's
            values["classes"] = data.classes
    return as_text(values)


def _converted(
    source: ForeignFile, settings: Settings, exporter: Exporter, judge: Judge | None, folder: Path
) -> Converted:
    exporter.say(f"{source.path.name}: calibrating")
    proto, threads = _readied(source), exporter.threads
    with tempfile.TemporaryDirectory(dir=folder) as work:
        int8 = Int8(
            proto, source.images, settings, judge, Path(work), threads, exporter.say, optimize=True
        )
        made = int8.convert()
    if not any(node.op_type == "QuantizeLinear" for node in made.proto.graph.node):
        raise BenchError(f"{source.path} has no layer that ONNX Runtime quantises")
    return made


def _check_settings(path: Path, settings: Settings) -> None:
    """Refuse what goes with networks only: a file keeps its batch size, its input and its opset."""
    if settings.precision != "int8":
        raise BenchError(
            f"{path} is an ONNX file already; what can be made of it is --precision int8"
        )
    for name in ("static_batch", "with_preprocessing", "opset"):
        if getattr(settings, name) != getattr(Settings, name):  # not its default
            option = f"--{name.replace('_', '-')}"
            raise BenchError(f"{option}: {path} keeps its own input and opset; leave it out")


def _preprocessing(facts: FileFacts, dataset: Dataset, given: dict[str, Any]) -> Preprocessing:
    """Return how the dataset's images become the file's input, from `--set`."""
    for key in given.keys() - set(_SET):
        own = "use --input-size" if key == "input_size" else f"known: {', '.join(_SET)}"
        raise BenchError(f"--set {key} is unknown{nearest(key, _SET)} ({own})")
    for key in ("normalize", "antialias"):
        if not isinstance(given.get(key, True), bool):
            raise BenchError(f"--set {key}={given[key]}: write {key}=true or {key}=false")
    floats = facts.takes_floats
    values: dict[str, Any] = {"mean": dataset.mean, "std": dataset.std, "normalize": floats}
    values |= given
    if values["normalize"] and not floats:
        raise BenchError(f"--set normalize: the file takes {facts.input_type}, not real numbers")
    useless = next((key for key in ("mean", "std") if key in given), None)
    if useless and not values["normalize"]:
        why = "with normalize=false" if floats else f"for a file of {facts.input_type}"
        raise BenchError(f"--set {useless}: no image is normalised {why}; leave it out")
    for key in ("mean", "std"):
        try:
            copies = 1 if np.ndim(values[key]) else dataset.channels
            values[key] = tuple(map(float, np.atleast_1d(values[key]))) * copies
        except (TypeError, ValueError):
            values[key] = ()
        if len(values[key]) != dataset.channels:
            raise BenchError(
                f"--set {key}: give one number, or one for each channel, such as "
                f"{key}=[{', '.join(['0.5'] * dataset.channels)}] for images scaled to 0…1"
            )
    if min(values["std"]) <= 0:
        raise BenchError("--set std: deviations are above 0")
    height, width = facts.channels_first[1:]
    return Preprocessing(height if height == width else None, **values)


def _resize(path: Path, sides: Size, given: object) -> Resize:
    """Return how images of a folder become those of a file, from `--set`.

    Images that are not square are squashed: they are decoded as squares of the longer side.
    """
    if given is not None and given not in _RESIZES:
        raise BenchError(
            f"--set resize={given} is unknown{nearest(str(given), _RESIZES)} "
            f"(known: {', '.join(_RESIZES)})"
        )
    if sides[0] != sides[1]:
        if given not in {None, "squash"}:
            raise BenchError(
                f"--set resize={given}: {path} takes images of {spell_size(sides)}, and only "
                "square ones are cropped or padded; use resize=squash"
            )
        return "squash"
    return next((mode for mode in _RESIZES if mode == given), "crop")


def _describe(made: Preprocessing, sides: Size, given: dict[str, Any]) -> str:
    """Say how images are prepared: where that is wrong, both accuracies are."""
    size = f"{spell_size(sides)} px, {made.resize}"
    if not made.normalize:
        return f"images: {size}, not normalised"
    mean, std = (", ".join(f"{v:.4g}" for v in values) for values in (made.mean, made.std))
    text = f"images: {size}, mean {mean}, std {std}"
    if {"mean", "std"} <= given.keys():
        return text
    return f"{text} (the dataset's; give those of the training with --set mean=… --set std=…)"


def _check_classes(source: ForeignFile, fp32: Any, settings: Settings) -> None:
    """Run one batch, and check that it gives logits of the dataset's classes."""
    count = settings.static_batch or 1
    some = source.images(replace(settings, calibration_images=None))[:count]
    try:
        first = fp32.run(None, {fp32.get_inputs()[0].name: some})[0]
    except Exception as error:  # the runtime's exceptions have no common class
        raise BenchError(f"ONNX Runtime cannot run {source.path}: {short(error)}") from error
    shape = np.shape(first)
    if len(shape) != 2 or shape[0] != count:  # noqa: PLR2004 - N×classes
        raise BenchError(
            f"{source.path} returns {'×'.join(map(str, shape)) or 'no tensor'} for {count} images, "
            "and no logits N×classes: only classifiers can be proven accurate in int8"
        )
    if source.dataset is not None and shape[1] != source.dataset.num_classes:
        raise BenchError(
            f"{source.path} distinguishes {shape[1]} classes, and --dataset {source.dataset.name} "
            f"has {source.dataset.num_classes}; give the dataset it was trained for"
        )


def _readied(source: ForeignFile) -> onnx.ModelProto:
    """Load a file, and make of it what ONNX Runtime's quantiser takes.

    Raises:
        BenchError: its opset is too old, and cannot be converted.
    """
    proto = onnx.load(str(source.path))
    if opset_of(proto) < _OLDEST_OPSET:
        try:
            proto = version_converter.convert_version(proto, _OLDEST_OPSET)
        except Exception as error:  # the converter's exceptions have no common class
            raise BenchError(
                f"{source.path} is of opset {opset_of(proto)}, and onnx cannot convert it "
                f"({short(error)}): export it with opset {_OLDEST_OPSET} or newer"
            ) from error
    proto.ir_version = max(proto.ir_version, _OLDEST_IR)
    inputs = inputs_of(proto.graph)
    del proto.graph.input[:]
    proto.graph.input.extend(inputs)
    # Layers that are kept in fp32 are named.
    for place, node in enumerate(proto.graph.node):
        node.name = node.name or f"{node.op_type}_{place}"
    return proto


def _near_guessing(source: ForeignFile, accuracy: Comparison | None) -> str:
    """Say so if the fp32 file itself guesses: the images are probably prepared differently."""
    if accuracy is None or source.dataset is None:
        return ""
    if accuracy.reference > guessing_limit(source.dataset.test.largest_class):
        return ""
    return (
        f" In fp32 the file's accuracy is {accuracy.reference * 100:.1f} %, near guessing: check "
        "the order of the classes, and give the mean and std of its training (--set mean=…)."
    )
