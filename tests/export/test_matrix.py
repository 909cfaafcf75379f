"""Every network that can be named computes in ONNX Runtime what it computes in PyTorch."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import pytest

from bench import export_onnx
from bench.models import CHOICES, default_shape, list_models

if TYPE_CHECKING:
    from pathlib import Path

OTHERS = [
    ("timm:convnext_atto", 64),
    ("timm:mobilenetv3_small_050", 64),
    ("timm:vit_tiny_patch16_224", 224),
    ("torchvision:resnet18", 64),
    ("ownnets:make", 24),
]
OWN = """
from torch import nn

def make(num_classes=7):
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.GELU(), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Linear(8, num_classes),
    )
"""


def check(folder: Path, name: str, size: int, **options: Any) -> None:
    row = export_onnx(name, results=folder, input_size=size, options=options, threads=1).iloc[0]
    figures = f"{row['max_abs_diff']:.3g} {row['max_rel_diff']:.3g}"
    print(f"{name} {size} {options}: {figures}")  # noqa: T201 - the matrix, shown by -s
    assert row["status"] == "complete"
    assert row["images_compared"] == 256
    assert row["max_rel_diff"] <= 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("name", list_models())
def test_listed_networks(tmp_path: Path, name: str) -> None:
    # Smaller images than the ImageNet family's own: the graph is the same.
    check(tmp_path, name, min(64, default_shape(name)[1]))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shortcut", "order"),
    list(itertools.product(CHOICES["shortcut"], CHOICES["activation_order"])),
)
def test_every_shortcut_and_order(tmp_path: Path, shortcut: str, order: str) -> None:
    check(tmp_path, "resnet8", 32, shortcut=shortcut, activation_order=order)


@pytest.mark.slow
@pytest.mark.parametrize("block", CHOICES["block"])
@pytest.mark.parametrize("stem", CHOICES["stem"])
def test_blocks_and_stems(tmp_path: Path, block: str, stem: str) -> None:
    name = {"basic": "resnet8", "bottleneck": "resnet11"}[block]
    check(tmp_path, name, 32, block=block, stem=stem)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "size"), OTHERS)
def test_networks_from_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, size: int
) -> None:
    (tmp_path / "ownnets.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    check(tmp_path, name, size)
