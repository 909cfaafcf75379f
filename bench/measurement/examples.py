"""The labelled images that are known of a measured network, and its reference's logits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import onnx
import torch

from bench.export.convert import count_layers
from bench.export.foreign import original_of, reread
from bench.export.parity import reference_logits
from bench.export.repeatability import reference_batch
from bench.export.session import logits_of, open_session
from bench.store.exports import Exports
from bench.targets.network import NamedNetwork
from bench.training.setup import split_places

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    import numpy.typing as npt
    from torch import Tensor

    from bench.data import Images
    from bench.measurement.measured_network import MeasuredNetwork
    from bench.store.exports import ExportRecord
    from bench.targets.network import LoadedNetwork

    Logits = npt.NDArray[np.float32]

_BATCH = 32  # of the file that is a reference


@dataclass(frozen=True, eq=False)
class Examples:
    """The images that a network or file is scored on, and what its answers are compared with.

    Attributes:
        dataset: name of the dataset.
        classes: their names, in the order of the logits.
        test: its test split.
        validation: what a run's training held out; None without any.
        feed: from uint8 images N×C×H×W to what the network or file takes.
        reference: from uint8 images to the logits of PyTorch in fp32 on the CPU, or of the ONNX
            file that was quantised; None if that file is not at hand.
        layers: number of layers that round.
        is_reference: whether the file is its own reference.
    """

    dataset: str
    classes: tuple[str, ...]
    test: Images
    feed: Callable[[Tensor], Tensor]
    reference: Callable[[Tensor], Logits] | None
    layers: int
    validation: Images | None = None
    is_reference: bool = False


def find_examples(target: MeasuredNetwork) -> Examples | None:
    """Load the images of a run, of a file made of one, or of a file that was quantised.

    Returns:
        None if none are known.

    Raises:
        BenchError: they are known, and not at hand; or the network does not repeat its logits.
    """
    if target.kind == "model":
        return None
    if target.kind == "run":
        return _of_run(target.load())
    exports = Exports(target.results)
    record = exports.describing(target.file_sha256) if target.file_sha256 else None
    if record is None:
        return None
    if record.run is not None:
        source = NamedNetwork(record.run, "run", run=record.run, results=target.results).load()
        return _of_run(source, raw=not target.input_type.startswith("float"))
    return _of_file(target, record) if record.request.get("dataset") else None


def _of_run(source: LoadedNetwork, *, raw: bool = False) -> Examples | None:
    dataset = source.dataset()
    if dataset is None or source.trained is None or source.timing_only:
        return None
    batch = reference_batch(source, dataset.test.images[:32], None)
    _, held_out = split_places(source.trained.request, dataset)
    return Examples(
        dataset=dataset.name,
        classes=tuple(source.classes),
        test=dataset.test,
        feed=(lambda images: images.permute(0, 2, 3, 1)) if raw else source.prepare,
        reference=lambda images: reference_logits(source, images, batch),
        layers=sum(any(True for _ in m.parameters(recurse=False)) for m in source.model.modules()),
        validation=dataset.train.view(held_out) if len(held_out) else None,
    )


def _of_file(target: MeasuredNetwork, record: ExportRecord) -> Examples | None:
    path = target.file
    known = reread(path, record, target.image_size) if path else None
    if path is None or known is None or known.dataset is None or known.dataset.timing_only:
        return None
    source, reference = original_of(path, record), None
    if source is not None:
        session = open_session(source, threads=torch.get_num_threads())
        size = target.static_batch or _BATCH

        def reference(images: Tensor) -> Logits:
            return logits_of(session, known.feed(images), size)

    return Examples(
        dataset=known.dataset.name,
        classes=known.dataset.classes,
        test=known.dataset.test,
        feed=lambda images: torch.from_numpy(known.feed(images)),
        reference=reference,
        layers=count_layers(onnx.load(str(path), load_external_data=False)),
        is_reference=source == path,
    )
