"""Kinds of network that exporters and proofs stumble over."""

from __future__ import annotations

import importlib
import sys
import warnings
from typing import TYPE_CHECKING, Any

import onnx
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench import BenchError, export_onnx
from bench.export.graph import trace
from bench.export.pipeline import Exporter
from bench.export.proof import Prover
from bench.export.settings import Settings
from bench.store.exports import Exports
from bench.system import user_code
from bench.targets.network import LoadedNetwork

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class Net(nn.Module):
    """A convolution, *between* on its map, pooling and a classifier."""

    def __init__(self, between: Callable[[Tensor], Tensor], *modules: nn.Module) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 8, 3, 2, 1)
        self.modules_between = nn.ModuleList(modules)
        self.fc = nn.Linear(8, 10)
        self.between = between

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv(x))
        for module in self.modules_between:
            x = module(x)
        return self.fc(self.between(x).mean((2, 3)))


def source(network: nn.Module) -> LoadedNetwork:
    return LoadedNetwork("net", network.eval(), "net", {}, (1, 28, 28))


def export(network: nn.Module, results: Path, **settings: Any) -> dict[str, Any]:
    torch.manual_seed(0)
    if settings.get("precision") == "int8":
        settings["dataset"] = "random"
    return Exporter(Exports(results), Settings(**settings)).export(source(network)).row


RANDOM = {
    "dropout": lambda x: F.dropout(x, 0.3),
    "noise": lambda x: x + torch.randn_like(x),
    "gumbel": lambda x: F.gumbel_softmax(x, dim=1),
}


@pytest.mark.parametrize("between", RANDOM.values(), ids=RANDOM)
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_random_networks_are_called_random(tmp_path: Path, between: Any, precision: Any) -> None:
    with pytest.raises(
        BenchError, match=r"for the same images .*test_kinds.*py:\d+ .*random"
    ) as no:
        export(Net(between), tmp_path, precision=precision)
    assert "\n" not in str(no.value)
    assert not [f for f in (tmp_path / "exports").iterdir() if not f.name.startswith(".")]


BY_BATCH: dict[str, Callable[[], Net]] = {
    "statistics": lambda: Net(lambda x: x, nn.BatchNorm2d(8, track_running_stats=False)),
    "mean": lambda: Net(lambda x: x + x.mean(0, keepdim=True)),
    "halves": lambda: Net(lambda x: x.view(2, -1, *x.shape[1:]).flip(0).reshape(x.shape)),
}


@pytest.mark.parametrize("make", BY_BATCH.values(), ids=BY_BATCH)
def test_networks_that_depend_on_the_batch_need_a_fixed_one(tmp_path: Path, make: Any) -> None:
    with pytest.raises(BenchError, match=r"(images of the|one) batch.*--static-batch N") as no:
        export(make(), tmp_path)
    assert ("modules_between.0" in str(no.value)) == bool(make().modules_between)
    for size in (8, 6):  # 6 does not divide the number of images
        row = export(make(), tmp_path, static_batch=size)
        assert row["status"] == "complete", row["error"]
        assert row["max_rel_diff"] < 1e-4


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_logits_that_are_all_zero_agree_with_zeros(tmp_path: Path, precision: Any) -> None:
    network = Net(lambda x: x)
    nn.init.zeros_(network.fc.weight)
    nn.init.zeros_(network.fc.bias)
    row = export(network, tmp_path, precision=precision)
    assert row["status"] == "complete", row["error"]
    assert row["max_rel_diff"] == 0


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_network_that_views_its_maps_is_exported(tmp_path: Path, precision: Any) -> None:
    network = Net(lambda x: x.view(x.size(0), -1).view(x.shape))  # of contiguous maps only
    row = export(network, tmp_path, precision=precision)
    assert row["status"] == "complete", row["error"]


def test_derived_weights_are_exported(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        old = Net(lambda x: x, torch.nn.utils.weight_norm(nn.Conv2d(8, 8, 3)))
    new = Net(lambda x: x, torch.nn.utils.parametrizations.spectral_norm(nn.Conv2d(8, 8, 3)))
    for network in (old, new):
        assert export(network, tmp_path)["status"] == "complete"


def test_every_use_of_shared_weights_is_quantised(tmp_path: Path) -> None:
    again = nn.Conv2d(8, 8, 3, padding=1)
    network = Net(lambda x: x, again, nn.GroupNorm(2, 8), again, again)
    row = export(network, tmp_path, precision="int8")
    file = tmp_path / "exports" / row["export"] / row["file"]
    graph = onnx.load(str(file)).graph
    made = {node.output[0]: node.op_type for node in graph.node}
    layers = [node for node in graph.node if node.op_type in {"Conv", "Gemm"}]
    assert len(layers) == 5
    for layer in layers:
        assert {made[name] for name in layer.input[:2]} == {"DequantizeLinear"}
    assert row["max_rel_diff"] < 0.1


class Resized(nn.Module):
    """Adds positions that are resized as timm's ViTs do at another size than their own."""

    def __init__(self) -> None:
        super().__init__()
        self.positions = nn.Parameter(torch.randn(1, 8, 10, 10))

    def forward(self, x: Tensor) -> Tensor:
        return x * F.interpolate(self.positions, x.shape[2:], mode="bicubic", antialias=True)


@pytest.mark.parametrize("settings", [{}, {"precision": "fp16"}], ids=str)
def test_a_graph_that_the_optimiser_breaks_is_exported(tmp_path: Path, settings: Any) -> None:
    torch.manual_seed(0)
    row = export(Net(lambda x: x, Resized()), tmp_path, **settings)
    assert row["status"] == "complete", row["error"]


@pytest.mark.parametrize("batch", [None, 2])
def test_masked_attention_is_exported(tmp_path: Path, batch: int | None) -> None:
    model = pytest.importorskip("timm").create_model("test_vit_relpos").eval()
    network = LoadedNetwork("relpos", model, "relpos", {}, (3, 160, 160))
    row = Exporter(Exports(tmp_path), Settings(static_batch=batch)).export(network).row
    assert row["status"] == "complete", row["error"]


def test_the_optimiser_breaks_that_graph() -> None:
    """Otherwise the test of the optimiser proves nothing, and the way round it can go."""
    torch.manual_seed(0)
    network = source(Net(lambda x: x, Resized()))
    prover = Prover(network, 1, None)
    assert not prover.agrees(trace(network).proto)
    assert prover.agrees(trace(network, optimize=False).proto)


WORDS = {
    "missing operator": (Net(lambda x: x - x.flatten(2).median(2).values[..., None, None]),
                         r"no ONNX form of aten.median.dim; use other operators$"),
    "data-dependent": (Net(lambda x: x * 2 if x.mean() > 0 else x), r"torch.where$"),
    "another size": (Net(lambda x: x.reshape(x.shape[0], 8, 49)[..., None]),
                     r"does not take images of 1x28x28: give another --input-size$"),
    "whole numbers": (Net(lambda x: x * float(x.shape[0])), "one batch size only.*--static-batch"),
}  # fmt: skip


@pytest.mark.parametrize(("network", "words"), WORDS.values(), ids=WORDS)
def test_the_advice_fits_the_error(network: nn.Module, words: str) -> None:
    with pytest.raises(BenchError, match=words) as refusal:
        trace(source(network))
    assert "\n" not in str(refusal.value)
    assert "--opset" not in str(refusal.value)


EDITED = """
import torch

class Net(torch.nn.Linear):
    def forward(self, x):
        return super().forward(x.mean(1).flatten(1)){change}

def net(num_classes, in_channels):
    return Net(784, num_classes)
"""


def test_a_network_of_the_users_that_was_edited_is_exported_again(tmp_path, monkeypatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)

    def export_as_a_new_process() -> tuple[str, list[str]]:
        monkeypatch.setattr(user_code, "_first", {})
        sys.modules.pop("edited_network", None)
        importlib.invalidate_caches()
        said: list[str] = []
        row = export_onnx(
            "edited_network:net", results=tmp_path / "r", input_size=28, threads=1, say=said.append
        ).iloc[0]
        return str(row["export"]), said

    file = tmp_path / "edited_network.py"
    file.write_text(EDITED.format(change=""))
    first, _ = export_as_a_new_process()
    again, said = export_as_a_new_process()
    assert (again, "exported already" in said[-1]) == (first, True)
    file.write_text(EDITED.format(change=" * 2"))
    assert export_as_a_new_process()[0] != first
