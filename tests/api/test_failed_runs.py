"""From Python, failed runs are not overlooked."""

from __future__ import annotations

import sys

import pytest

import bench

NETWORK = """
from torch import nn
class Net(nn.Module):
    def __init__(self, num_classes, in_channels, trips):
        super().__init__()
        self.trips, self.layer = trips, nn.Linear(in_channels * 784, num_classes)
    def forward(self, images):
        if self.trips and len(images) > 2:
            raise RuntimeError("the network tripped")
        return self.layer(images.flatten(1))
"""
STUDY = """
question = "?"
[base]
model = "tripping_net:Net"
train_images = 100
epochs = 1
seeds = [0]
[[variant]]
name = "walks"
options = { trips = false }
[[variant]]
name = "trips"
options = { trips = true }
"""
HERE = {"device": "cpu", "threads": 1, "workers": 1, "results": "r"}


@pytest.fixture(autouse=True)
def _in_a_folder_with_the_network(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "tripping_net.py").write_text(NETWORK)
    (tmp_path / "mine.toml").write_text(STUDY)
    yield
    sys.modules.pop("tripping_net", None)


def test_a_warning_names_the_first_of_several_runs_that_failed():
    with pytest.warns(UserWarning, match="1 of 2 runs failed; .* is failed: RuntimeError: the net"):
        rows = bench.run_study("mine.toml", **HERE)
    assert rows["status"].tolist() == ["complete", "failed"]


def test_an_error_has_the_rows_of_runs_that_all_failed():
    with pytest.raises(bench.RunsFailedError, match=r"1 of 1 runs failed; .* tripped") as caught:
        bench.run_study("mine.toml", only=["trips"], **HERE)
    rows = caught.value.rows
    assert rows.loc[rows["variant"] == "trips", "status"].tolist() == ["failed"]
    with pytest.raises(bench.BenchError, match="tripped"):
        bench.train("tripping_net:Net", options={"trips": True}, **HERE)
