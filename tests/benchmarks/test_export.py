from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

import bench
from bench.models import build_model
from bench.targets.network import PROOF_IMAGES

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.slow

CORES, BATCH = 2, 32
WHOLE, MINI = ("fashion-mnist", 10_000), ("fashion-mnist-mini", 1_000)  # test images


@torch.inference_mode()
def bare_export(folder: Path, size: int, channels: int, images: int) -> None:
    """Export as the documentation of torch does, and answer so many images once."""
    model = build_model("resnet18", in_channels=channels).eval()
    example = torch.randn(2, channels, size, size)
    batch = torch.export.Dim("batch", min=1)
    torch.onnx.export(
        model, (example,), folder / "bare.onnx",
        dynamo=True, dynamic_shapes=({0: batch},), opset_version=20, verbose=False,
    )  # fmt: skip
    for start in range(0, images, BATCH):
        model(torch.randn(min(BATCH, images - start), channels, size, size))


@pytest.mark.parametrize(
    ("data", "size", "rounds"),
    [(MINI, 28, 3), (MINI, 96, 3), (MINI, 224, 3), (WHOLE, 28, 3), (WHOLE, 96, 1), (WHOLE, 224, 1)],
    ids=lambda value: value[0] if isinstance(value, tuple) else str(value),
)
def test_a_trained_network_with_proof_against_the_bare_export(
    paired: Callable[..., None], tmp_path: Path, data: tuple[str, int], size: int, rounds: int
) -> None:
    """Goal: a ratio above 0.5, that is at most twice the bare export and one pass.

    The proof sees every image of the test set: PyTorch once, ONNX Runtime once, and 256 of them
    at two more batch sizes. A round of the whole set takes two minutes at 96 pixels, ten at 224.
    """
    dataset, images = data
    torch.set_num_threads(CORES)
    few = {"input_size": size, "train_images": 200, "batch_size": 50, "learning_rate": 0.01}
    trained = bench.train(
        "resnet18", dataset=dataset, epochs=1, settings=few, results=tmp_path / "r"
    )
    run = trained["run"].item()

    def ours() -> None:
        bench.export_onnx(run, results=tmp_path / "r", threads=CORES, force=True)

    paired(ours, lambda: bare_export(tmp_path, size, 1, images), rounds=rounds)


@pytest.mark.parametrize("size", [28, 64, 96, 224])
def test_a_network_without_data_with_proof_against_the_bare_export(
    paired: Callable[..., None], tmp_path: Path, size: int
) -> None:
    """Goal: the same, where the proof has 256 random images, for PyTorch once.

    Hardest at 224 pixels, where PyTorch's pass and ONNX Runtime's three (batch sizes 1, 3, 32) are
    nearly all of it.
    """
    torch.set_num_threads(CORES)

    def ours() -> None:
        bench.export_onnx(
            "resnet18", results=tmp_path / "r", input_size=size, threads=CORES, force=True
        )

    paired(ours, lambda: bare_export(tmp_path, size, 3, PROOF_IMAGES), rounds=10)
