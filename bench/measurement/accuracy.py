"""Accuracy of a network or file in the very runtime that is measured, beside its reference's.

Runtimes differ: an int8 file answers otherwise in another runtime, or on a processor with other
instructions. So each configuration answers the whole test set once, with the threads and the batch
size that are timed. Other batch sizes share the result where their first answers are the same.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from bench.errors import BenchError
from bench.export.accuracy import Comparison, compare_answers
from bench.export.parity import FP32_TOLERANCE, relative_difference, rounding_tolerance
from bench.export.session import logits_of, open_session
from bench.measurement.backends import is_built_in, load_backend
from bench.measurement.examples import Examples, find_examples
from bench.store import Store
from bench.store.exports import Exports
from bench.studies.run_request import RunRequest
from bench.system.environment import describe_environment, version_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torch import Tensor

    from bench.data import Images
    from bench.measurement.configurations import Configuration
    from bench.measurement.measured_network import MeasuredNetwork
    from bench.training.run import OnEvent

    Logits = npt.NDArray[np.float32]
    Answer = Callable[[Tensor], Logits]

_CHUNK = 256  # images prepared at a time
_FEW = 64  # images whose answers decide whether two batch sizes share a result
_LITERAL = 256  # images on which an int8 file is computed as it is written
_BATCH = 32  # of the reference
# What a configuration's answers depend on, besides its network or file and the batch size.
_RUNTIME = ("backend", "precision", "memory_format", "device", "threads", "streams")


@dataclass(frozen=True)
class Score:
    """How a configuration answered the images of its network's dataset.

    Attributes:
        dataset: name of the dataset.
        test_accuracy: top-1 on the whole test split, 0…1; None if unknown.
        validation_accuracy: of the images that the run's training held out; None without any.
        test_images: number of images of the test split.
        comparison: with the reference: PyTorch in fp32 on the CPU, or the ONNX file that was
            quantised; None if that is not at hand.
        max_rel_diff: largest difference of a logit from the reference's, relative to its largest.
        unknown: why there is no accuracy; None if there is, or if none is possible.
        wrong: what shows that it computes something else than its network; None if nothing does.
    """

    dataset: str | None = None
    test_accuracy: float | None = None
    validation_accuracy: float | None = None
    test_images: int | None = None
    comparison: Comparison | None = None
    max_rel_diff: float | None = None
    unknown: str | None = None
    wrong: str | None = None

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Score:
        """Return the score that `dataclasses.asdict` turned into plain values."""
        known = values["comparison"]
        return cls(**{**values, "comparison": Comparison(**known) if known else None})


@dataclass
class Scorer:
    """Scores the configurations of a measurement; what several of them need is computed once.

    Attributes:
        on_event: called with `score` while images are answered.
    """

    on_event: OnEvent = lambda _event: None
    _examples: dict[str, Examples | BenchError | None] = field(default_factory=dict)
    _references: dict[str, Logits] = field(default_factory=dict)
    _literal: dict[str, Logits] = field(default_factory=dict)
    # What answers depend on, but for the batch size → the first ones, and the score.
    _answered: dict[tuple[Any, ...], tuple[npt.NDArray[np.int64], Score]] = field(
        default_factory=dict
    )
    _scores: dict[tuple[Any, ...], Score] = field(default_factory=dict)

    def score(self, made: Configuration, answer: Answer) -> Score:
        """Let a configuration answer the test split, and the validation split if there is one.

        Args:
            made: the configuration.
            answer: from images as its network or file takes them to its logits.

        Returns:
            The score; one without an accuracy if the images are not at hand, with the reason.
        """
        try:
            examples = self._examples_for(made.target)
            if examples is None or not _runs_a_network(made):
                return Score()
            self._check_shape(made, examples)
        except BenchError as error:
            return Score(unknown=f"accuracy unknown: {error}")
        key = (made.target.label, made.file_sha256, *(getattr(made, name) for name in _RUNTIME))
        if (known := self._scores.get((*key, made.batch_size))) is not None:
            return known
        few = answer(examples.feed(examples.test.images[:_FEW])).argmax(-1)
        earlier = self._answered.get(key)
        if earlier is not None and np.array_equal(few, earlier[0]):
            score = earlier[1]
        else:
            score = self._whole(made, examples, answer)
            self._answered.setdefault(key, (few, score))
        self._scores[*key, made.batch_size] = score
        return score

    def _whole(self, made: Configuration, examples: Examples, answer: Answer) -> Score:
        logits = self._logits(made, examples, examples.test, answer)
        if logits.shape != (len(examples.test), len(examples.classes)):
            shape = "×".join(map(str, logits.shape))
            return Score(
                wrong=f"it answers wrongly: it returns {shape} for {len(examples.test)} images of "
                f"{len(examples.classes)} classes"
            )
        reference = self._reference(made, examples)
        if wrong := self._wrong(made, examples, reference, logits):
            return Score(wrong=wrong)
        labels = examples.test.labels.cpu().numpy()
        comparison = None
        if reference is not None and not examples.is_reference:
            comparison = compare_answers(reference.argmax(1), logits.argmax(1), labels)
        validation = None
        if examples.validation is not None:
            found = self._logits(made, examples, examples.validation, answer).argmax(1)
            held_out = examples.validation.labels.cpu().numpy()
            validation = float((found == held_out).mean())
        return Score(
            dataset=examples.dataset,
            test_accuracy=float((logits.argmax(1) == labels).mean()),
            validation_accuracy=validation,
            test_images=len(labels),
            comparison=comparison,
            max_rel_diff=None if reference is None else relative_difference(logits, reference),
        )

    def _logits(
        self, made: Configuration, examples: Examples, images: Images, answer: Answer
    ) -> Logits:
        size = made.batch_size * math.ceil(_CHUNK / made.batch_size)
        found = []
        for number, part in enumerate(images.chunks(size)):
            self._tell(made.name, number * size / len(images))
            found.append(answer(examples.feed(part)))
        return np.concatenate(found)

    def _wrong(
        self, made: Configuration, examples: Examples, reference: Logits | None, logits: Logits
    ) -> str | None:
        """Return what shows that answers differ by more than rounding, naming the first image."""
        if reference is None:
            return None
        if made.precision == "int8":
            if made.file is None or load_backend(made.backend).needs != "onnx":
                return None
            expected = self._as_written(made.file, examples)
            noise = np.abs(expected - reference[: len(expected)]).max()
            limit = max(float(noise), FP32_TOLERANCE * float(np.abs(expected).max()))
            who = "the file computed as it is written"
        else:
            expected, who = reference, "the reference"
            tolerance = rounding_tolerance(made.precision, examples.layers)
            limit = tolerance * float(np.abs(expected).max())
        differences = np.abs(logits[: len(expected)] - expected).max(1)
        beyond = np.flatnonzero(~(differences <= limit))  # also what is not a number
        if not len(beyond):
            return None
        first = int(beyond[0])
        ours, theirs = (examples.classes[int(rows[first].argmax())] for rows in (logits, expected))
        return (
            f"it answers wrongly: of {examples.dataset}, test image {first} is '{ours}' here and "
            f"'{theirs}' by {who}; logits differ by {differences[first]:.2g}, rounding by at most "
            f"{limit:.2g} ({len(beyond)} of {len(expected)} images)"
        )

    def _as_written(self, file: Path, examples: Examples) -> Logits:
        """Compute an int8 file's quantised values in fp32: integer kernels only round otherwise."""
        key = str(file)
        if key not in self._literal:
            session = open_session(file, threads=torch.get_num_threads(), optimize=False)
            fed = examples.feed(examples.test.images[:_LITERAL]).numpy()
            self._literal[key] = logits_of(session, fed, _BATCH)
        return self._literal[key]

    def _reference(self, made: Configuration, examples: Examples) -> Logits | None:
        """Return the reference's logits of the test split, computed once; None without one."""
        label = made.target.label
        if examples.reference is not None and label not in self._references:
            found = []
            for number, images in enumerate(examples.test.chunks(_CHUNK)):
                self._tell(made.name, number * _CHUNK / len(examples.test))
                found.append(examples.reference(images))
            self._references[label] = np.concatenate(found)
        return self._references.get(label)

    def _examples_for(self, target: MeasuredNetwork) -> Examples | None:
        """Load the images of a network or file once; None if it has none."""
        if target.label not in self._examples:
            try:
                self._examples[target.label] = find_examples(target)
            except BenchError as error:
                self._examples[target.label] = error
        found = self._examples[target.label]
        if isinstance(found, BenchError):
            raise found
        return found

    def _check_shape(self, made: Configuration, examples: Examples) -> None:
        """Refuse images of another size than what is measured."""
        found = tuple(examples.feed(examples.test.images[:1]).shape[1:])
        if found != made.target.input_shape:
            shown, own = ("×".join(map(str, s)) for s in (made.target.input_shape, found))
            raise BenchError(f"it is measured on images of {shown}, and its dataset's are {own}")

    def _tell(self, what: str, share: float) -> None:
        self.on_event({"event": "score", "what": what, "share": share})


def identity(made: Configuration) -> dict[str, Any] | None:
    """Return everything that a score depends on, as JSON values; None if it cannot be known.

    What another package's backend computes may change without a trace.
    """
    if not is_built_in(made.backend) or not _runs_a_network(made):
        return None
    store = Store(made.target.results)
    run = store.read_run(made.target.run) if made.target.run else None
    export = Exports(store.root).describing(made.file_sha256) if made.file_sha256 else None
    trained = store.read_run(export.run) if export and export.run else run
    seed = RunRequest.from_dict(trained.request).split_seed if trained else None
    imported = trained is not None and trained.imported
    images = ("dataset_fingerprint", "preprocessing")
    packages = ("torch", "onnxruntime", "onnxruntime-gpu", "openvino", "tensorrt")
    here = describe_environment(made.device, threads=made.threads)
    kept = ("cpu", "instruction_sets", "torch_cpu_capability", "gpu", "cuda", "cudnn", "driver")
    return {
        "weights": run.files.get("model.safetensors") if run else None,
        "images": run.result.get("dataset_fingerprint") if run else None,
        # Left out where all runs share one split, so that their recorded scores stay valid.
        **({} if seed is None else {"split_seed": seed}),
        **({"held_out": False} if imported else {}),
        "file": made.file_sha256,
        "export": {name: export.request.get(name) for name in images} if export else None,
        **{name: getattr(made, name) for name in (*_RUNTIME, "batch_size")},
        "input_shape": list(made.target.input_shape),
        **{name: version_of(name) for name in packages},
        **{name: here.get(name) for name in kept},
    }


def as_json(made: Configuration, score: Score | None) -> dict[str, Any]:
    """Return a score with what it depends on, for the measurement's record."""
    if score is None or score.test_accuracy is None:
        return {}
    return {"score": asdict(score) | {"identity": identity(made)}}


def recorded_score(made: Configuration, records: list[dict[str, Any]]) -> Score | None:
    """Return the score that an earlier measurement found of the same; None without one.

    Args:
        made: the configuration.
        records: what `as_json` recorded.
    """
    wanted = identity(made)
    for found in records if wanted is not None else ():
        if found["identity"] == wanted:
            return Score.from_dict({k: v for k, v in found.items() if k != "identity"})
    return None


def _runs_a_network(made: Configuration) -> bool:
    return made.computes and load_backend(made.backend).needs != "nothing"
