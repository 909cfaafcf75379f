"""Loss landscapes whose shape is known."""

from __future__ import annotations

import re

import pandas as pd
import pytest
import torch
from torch import nn

from bench.networks.directions import filter_normalised, values_along
from bench.report.study_data import load_results
from bench.store.tables.frames import rows_of

STEPS = [-1.0, -0.5, 0.0, 0.5, 1.0]


def test_a_quadratics_slice_is_the_parabola_it_must_be():
    torch.manual_seed(0)
    weights = {"w": torch.randn(5, 3, 2, 2), "b": torch.randn(5)}
    direction = filter_normalised(weights, seed=0)
    norms = [tensor.flatten(1).norm(dim=1) for tensor in (direction["w"], weights["w"])]
    torch.testing.assert_close(*norms)
    assert not direction["b"].any()
    kept = {name: tensor.clone() for name, tensor in weights.items()}
    squared, along = (float((kept["w"] * t).sum()) for t in (kept["w"], direction["w"]))
    found = dict(
        values_along(weights, [direction], [STEPS], lambda: float(weights["w"].square().sum()))
    )
    for step in STEPS:  # ‖w + s d‖² with ‖d‖ = ‖w‖
        assert found[step,] == pytest.approx(squared * (1 + step**2) + 2 * step * along, rel=1e-4)
    assert all(torch.equal(weights[name], tensor) for name, tensor in kept.items())


def test_two_directions_make_a_plane_and_all_is_put_back_after_a_failure():
    weights = {"w": torch.ones(2, 2)}
    directions = [filter_normalised(weights, seed=0, axis=axis) for axis in (0, 1)]
    assert not torch.equal(directions[0]["w"], directions[1]["w"])
    places = [p for p, _ in values_along(weights, directions, [STEPS, [0.0, 1.0]], lambda: None)]
    assert places == [(x, y) for x in STEPS for y in (0.0, 1.0)]

    def fail():
        raise ValueError("no loss here")

    with pytest.raises(ValueError, match="no loss here"):
        list(values_along(weights, directions[:1], [STEPS], fail))
    assert torch.equal(weights["w"], torch.ones(2, 2))


def homogeneous():
    """Two convolutions with a ReLU between, the first normalised with stored statistics."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 6, 3, bias=False), nn.BatchNorm2d(6, eps=1e-12), nn.ReLU(),
        nn.Conv2d(6, 4, 3, bias=False), nn.ReLU(), nn.Conv2d(4, 3, 3, bias=False),
    )  # fmt: skip
    model[1].running_mean.uniform_(-0.3, 0.3)
    model[1].running_var.uniform_(0.5, 1.5)
    return model.eval()


@torch.no_grad()
def rescaled(model):
    """The same function, written with other scales of its filters."""
    factors = torch.tensor([0.1, 0.5, 1.0, 3.0, 10.0, 30.0])
    model[0].weight *= factors.view(-1, 1, 1, 1)  # batch norm undoes it, filter by filter
    model[1].running_mean *= factors
    model[1].running_var *= factors**2
    model[3].weight *= 20  # and a ReLU lets it through, as a whole
    model[5].weight /= 20
    return model


def slice_of(model, direction):
    x = torch.randn(8, 2, 9, 9, generator=torch.Generator().manual_seed(1))
    labels = torch.arange(8) % 3

    def loss():
        return float(nn.functional.cross_entropy(model(x).mean((2, 3)), labels))

    weights = dict(model.named_parameters())
    return [value for _, value in values_along(weights, [direction(weights)], [STEPS], loss)]


def test_filter_normalised_slices_do_not_see_the_scale_of_filters():
    one = slice_of(homogeneous(), lambda w: filter_normalised(w, seed=3))
    other = slice_of(rescaled(homogeneous()), lambda w: filter_normalised(w, seed=3))
    assert one == pytest.approx(other, rel=1e-3)
    assert max(one) - min(one) > 0.01


def test_plain_gaussian_slices_do_see_it():
    """So the test above can fail."""

    def gaussian(weights):
        generator = torch.Generator().manual_seed(3)
        return {n: torch.randn(w.shape, generator=generator) for n, w in weights.items()}

    one, other = (slice_of(m, gaussian) for m in (homogeneous(), rescaled(homogeneous())))
    assert one != pytest.approx(other, rel=1e-2)


def test_the_command_has_the_trained_network_in_the_middle(bench, train_here, tmp_path):
    row = train_here("resnet8")
    words = ("landscape", row["run"], "--device", "cpu", "--threads", 1, "--points", 3)
    rows = bench(*words, "--split", "test", "--images", 5000, "--json").document["rows"]
    assert [r["x"] for r in rows] == [-1, 0, 1]
    assert rows[1]["loss"] == pytest.approx(row["test_loss"], rel=1e-5)
    assert rows[1]["accuracy"] == pytest.approx(row["test_accuracy"], abs=1e-6)
    assert {r["images"] for r in rows} == {1000}
    assert rows[0]["y"] is None
    assert rows_of(load_results(tmp_path / "bench-runs", "landscapes")) == rows
    on_training = bench(*words, "--images", 300, "--json").document["rows"]  # all of them
    assert on_training[1]["loss"] == pytest.approx(row["train_loss"], rel=1e-5)
    elsewhere = bench(*words, "--seed", 1, "--images", 300, "--json").document["rows"]
    assert elsewhere[1]["loss"] == on_training[1]["loss"]
    assert elsewhere[0]["loss"] != on_training[0]["loss"]
    plane = bench(*words, "--plane", "--images", 100, "--output", "out")
    assert plane.code == 0
    losses = pd.read_csv(tmp_path / "out" / "landscape.csv").set_index(["x", "y"])["loss"]
    assert losses[1, 0] != losses[0, 1]
    assert re.search(r"9 places\n.*about \d+ s left\n", plane.err)
    assert len(pd.read_csv(tmp_path / "out" / "landscape.csv")) == 9
    assert (tmp_path / "out" / "landscape.png").read_bytes()[:4] == b"\x89PNG"
    both = load_results(tmp_path / "bench-runs", "landscapes")
    assert sorted(both.groupby("analysis").size()) == [3, 3, 3, 9]
    far = bench(*words, "--span", 1e35, "--images", 100)
    assert far.code == 0, far.err
    assert re.search(r"\+0\.00 +\d\.\d+ .*\n.* - ", far.out)  # a loss that is not finite


def test_impossible_slices_are_refused(bench):
    assert "--points 2: it must be at least 3" in bench("landscape", "x", "--points", 2).refusal
    assert "--span 0: it must be above 0" in bench("landscape", "x", "--span", 0).refusal
    assert (
        "--split all is unknown (known: train, test)"
        in bench("landscape", "x", "--split", "all").refusal
    )
    assert "--images 0" in bench("landscape", "x", "--images", 0).refusal
    assert "no run 'nobody'" in bench("landscape", "nobody").refusal
