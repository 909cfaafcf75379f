"""Networks whose tensors share memory are stored, resumed, loaded, exported and measured."""

from __future__ import annotations

import os

import pytest
import torch

import bench
from bench.measurement.configurations import Request, expand
from bench.measurement.measured_network import find_target
from bench.measurement.timing.cold_start import measure_cold_starts
from bench.store import Store
from bench.system.signals import StopRequestedError
from bench.training.run import execute
from bench.training.setup import Split, load_data, read_trained

from .test_resume import StopAfter, outcome

SHARING = """
import torch
from torch import nn

class Sharing(nn.Module):
    def __init__(self, num_classes, in_channels):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, 8, 3)
        self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 8)
        self.second.weight = self.first.weight
        self.norm = nn.BatchNorm1d(8)
        self.fc = nn.Linear(8, num_classes)
        self.register_buffer("expanded", torch.full((1, 1), 0.5).expand(8, 8))
        self.register_buffer("transposed", torch.eye(8)[:, :4].t())
        self.register_buffer("part", self.transposed[1:3])

    def forward(self, x):
        x = self.conv(x).relu().mean((2, 3))
        x = self.second(self.first(x).relu()) @ self.expanded + x
        return self.fc(self.norm(x) + self.transposed.sum(0) + self.part.sum(0))

    def get_extra_state(self):
        return torch.tensor(1.0)

    def set_extra_state(self, state): ...
"""


@pytest.fixture
def sharing(tiny, tmp_path, monkeypatch):
    (tmp_path / "sharing_network.py").write_text(SHARING)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    return tiny("sharing_network:Sharing", options={}, ema_decay=0.8)


def test_tensors_that_share_memory(tmp_path, store, sharing, resources):
    whole = Store(tmp_path / "whole")
    execute(sharing, whole, resources)
    with pytest.raises(StopRequestedError):
        execute(sharing, store, resources, stop=StopAfter(4))
    execute(sharing, store, resources)
    run = sharing.run_id
    assert outcome(store, run) == outcome(whole, run)

    _, model = read_trained(store, run)
    assert model.second.weight is model.first.weight
    data = load_data(sharing)
    batches = Split.of(data, sharing, torch.device("cpu")).evaluation(data.test)
    with torch.no_grad():
        predicted = torch.cat([model(images).argmax(1) for images, _ in batches])
    recorded = store.read_tensors(run, "predictions.safetensors")["predictions"]
    assert torch.equal(predicted.int(), recorded)

    (row,) = bench.export_onnx(run, results=store.root, threads=1).to_dict("records")
    assert (row["status"], row["test_accuracy"]) == ("complete", row["torch_accuracy"])
    target = find_target(run, results=store.root)
    made = expand(Request(backends=("eager",), batch_sizes=(2,)), [target], device="cpu", threads=1)
    rows = measure_cold_starts(made, tmp_path, processes=1)
    assert [row["error"] for row in rows] == [None] * 3
