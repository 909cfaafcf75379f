"""What a person names is resolved in one place, the same for every command."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch

from bench.errors import AmbiguousNameError, BenchError
from bench.store import RunRecord, Store
from bench.store.exports import ExportRecord, Exports
from bench.targets.find import default_names, find_network, find_networks, load_trained

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def runs(trained: Path) -> list[str]:
    """Ids of the four runs of the study `tiny`."""
    return [record.run for record in Store(trained).runs()]


def test_a_model_is_found_with_its_shape_and_built_alike_every_time(tmp_path: Path) -> None:
    found = find_network("plain20", results=tmp_path, options={"width": 4}, input_size=16)
    assert (found.label, found.name, found.kind) == ("plain20 width=4", "plain20", "model")
    assert (found.model, found.options) == ("resnet20", {"shortcut": "none", "width": 4})
    assert found.input_shape == (3, 16, 16)
    one, other = found.load(), found.load()
    assert one.name == "plain20-shortcut-none-width-4"
    assert all(map(torch.equal, one.model.state_dict().values(), other.model.state_dict().values()))


GREY = """
from torch import nn

def make(name="small", num_classes=10, in_channels=1):
    width = {"small": 2, "large": 4}[name]
    conv = nn.Conv2d(in_channels, width, 3)
    return nn.Sequential(conv, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, num_classes))
"""


@pytest.mark.parametrize(("options", "channels"), [({}, 1), ({"in_channels": 3}, 3)])
def test_an_own_network_is_built_for_the_images_that_it_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, int], channels: int
) -> None:
    (tmp_path / "grey_nets.py").write_text(GREY)
    monkeypatch.syspath_prepend(tmp_path)
    wanted = {"name": "large", **options}
    found = find_network("grey_nets:make", results=tmp_path, options=wanted, input_size=8)
    assert found.input_shape == (channels, 8, 8)
    assert found.load().model[0].weight.shape == (4, channels, 3, 3)


def test_a_wrong_option_of_a_model_is_not_passed_over_for_a_run(
    trained: Path, runs: list[str]
) -> None:
    """The runs' ids begin with the model's name."""
    assert {run[:7] for run in runs} == {"resnet8"}
    with pytest.raises(BenchError, match="shortcutt"):
        find_network("resnet8", results=trained, options={"shortcutt": "none"})
    with pytest.raises(BenchError, match="--option width: runs and files have options of their"):
        find_network(runs[0], results=trained, options={"width": 4})


def test_a_run_is_found_by_id_beginning_hash_and_folder(trained: Path, runs: list[str]) -> None:
    expected = find_network(runs[0], results=trained)
    assert (expected.kind, expected.run, expected.input_shape) == ("run", runs[0], (1, 28, 28))
    for name in (runs[0][:-2], runs[0].rsplit("-", 1)[-1]):
        assert find_network(name, results=trained) == expected
    for name in (runs[0], "tiny"):
        with pytest.raises(BenchError, match=r"--input-size 32: run .* was trained at 28"):
            find_networks([name], results=trained, input_size=32)
    for size in (28, (28, 28)):
        assert find_network(runs[0], results=trained, input_size=size) == expected
    in_folder = find_network(str(trained / "runs" / runs[0]), results="elsewhere")
    assert in_folder.load_run().record == load_trained(runs[0], results=trained).record


def test_a_study_stands_for_its_finished_runs(results: Path) -> None:
    store = Store(results)
    runs = store.read_study("tiny").variants["residual"]["runs"]  # type: ignore[union-attr]
    assert len(find_networks(["tiny", runs["0"]], results=results)) == 4
    store.remove_run(runs["0"])
    found = find_networks(["tiny"], results=results, every_seed=False)
    assert runs["1"] in {network.run for network in found}
    assert len(found) == 2
    every = find_networks(["tiny"], results=results, unfinished=True)
    (missing,) = [network for network in every if network.error is not None]
    assert missing.run == runs["0"]
    with pytest.raises(BenchError, match="has no trained network: no readable record: not begun"):
        missing.load()
    store.save_study(replace(store.read_study("tiny"), name="resnet8"))  # type: ignore[type-var]
    assert find_network("resnet8", results=results).kind == "model"


def test_where_one_network_is_needed_a_study_of_several_is_ambiguous(
    trained: Path, runs: list[str]
) -> None:
    with pytest.raises(AmbiguousNameError, match="'tiny' is a study of 4 finished runs, and one"):
        find_network("tiny", results=trained)
    with pytest.raises(AmbiguousNameError, match="fits 4 runs"):
        find_network(runs[0][:8], results=trained, takes=("run",))


def test_a_run_that_is_not_finished_is_refused(tmp_path: Path) -> None:
    record = RunRecord("half-done", {"model": "resnet8"}, "interrupted", {}, "", 0.0, "stopped")
    Store(tmp_path).mark_unfinished(record)
    for name in ("half-done", "half-done.partial", "half"):
        with pytest.raises(BenchError, match=r"is interrupted \(stopped\), and only a complete"):
            find_network(name, results=tmp_path)


def test_an_export_is_found_by_its_file_folder_and_sha256(tmp_path: Path) -> None:
    exports, sha256 = Exports(tmp_path), "0123456789abcdef" * 4
    with exports.workspace() as folder:
        (folder / "model.onnx").write_bytes(b"graph")
        row = {"file": "model.onnx", "format": "onnx", "status": "complete"}
        exports.publish(folder, ExportRecord(sha256, {}, row))
    file = exports.folder(sha256) / "model.onnx"
    for name in (str(file), str(file.parent), sha256[:12]):
        found = find_network(name, results=tmp_path)
        assert (found.kind, found.file) == ("onnx", file)
    with pytest.raises(BenchError, match=r"a \.onnx file; what is needed is a run"):
        find_network(str(file), results=tmp_path, takes=("run",))
    with pytest.raises(BenchError, match="is a file and has no torch network"):
        found.load()


def test_a_suffix_in_capitals_is_one(tmp_path: Path) -> None:
    file = tmp_path / "NET.ONNX"
    file.touch()
    assert (find_network(str(file)).kind, find_network(str(file)).file) == ("onnx", file)


def test_what_nothing_is_called_is_refused_with_the_nearest(trained: Path) -> None:
    with pytest.raises(BenchError, match="no model, run, study or file 'tinny'; did you mean 'ti"):
        find_network("tinny", results=trained)
    with pytest.raises(BenchError, match="no run 'tinny' in "):
        find_network("tinny", results=trained, takes=("run", "onnx"))
    with pytest.raises(BenchError, match="resnet21 with block='basic'"):
        find_network("resnet21", results=trained)
    with pytest.raises(BenchError, match=r"'resnet8-.*' is a run; what is needed is a model"):
        find_network(next(Store(trained).runs()).run, results=trained, takes=("model",))


def test_without_a_name_it_is_the_last_study_or_a_model(trained: Path, tmp_path: Path) -> None:
    assert default_names(trained) == ["tiny"]
    assert default_names(tmp_path) == ["resnet18"]
