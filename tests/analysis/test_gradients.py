"""Gradients by depth and between neighbours, of networks whose answer is known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from bench import load_model
from bench.data import load_dataset
from bench.models import build_model
from bench.networks.gradient_correlation import gradient_correlation, settle
from bench.networks.gradient_norms import measure_blocks
from bench.report.study_data import load_results
from bench.store.tables.frames import rows_of
from bench.targets.find import load_trained
from bench.training.initialise import initialise
from bench.training.setup import Split


class OfTheSum(nn.Module):
    """A function of the sum of an image's values, so that its derivative is known."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        total = x.flatten(1).sum(1)
        return torch.stack([self.function(total), 3 * self.function(total)], 1)


def images(count, seed=1):
    return torch.randn(count, 1, 16, 16, generator=torch.Generator().manual_seed(seed))


def autocorrelation(series, lags):
    """By its definition."""
    centred = series - series.mean()
    return [
        float((centred[: len(series) - k] * centred[k:]).sum() / (centred**2).sum())
        for k in range(lags + 1)
    ]


@pytest.mark.parametrize(
    ("function", "derivative"),
    [(torch.square, lambda s: 2 * s), (torch.sin, np.cos), (torch.exp, np.exp)],
    ids=["square", "sine", "exponential"],
)
def test_correlation_is_that_of_the_known_derivative(function, derivative):
    start, end = torch.zeros(1, 1, 2, 2), torch.full((1, 1, 2, 2), 0.75)
    found = gradient_correlation(OfTheSum(function), start, end, points=60, lags=8)
    expected = autocorrelation(derivative(np.linspace(0, 3, 60)), 8)
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_a_linear_networks_gradient_has_no_correlation_to_tell():
    model = nn.Sequential(nn.Flatten(), nn.Linear(256, 3))
    assert np.isnan(gradient_correlation(model, images(1), images(1, 2), points=20, lags=4)).all()


def test_shortcuts_keep_neighbours_gradients_alike():
    """Balduzzi et al. 2017, figure 1: a deep plain network's gradients are nearly white noise."""
    found = {}
    for name in ("plain56", "resnet56"):
        model = build_model(name, in_channels=1, num_classes=4, width=4)
        initialise(model, 0)
        settle(model, images(32))
        found[name] = gradient_correlation(model, images(2), images(2, 2), points=64, lags=2)
    assert found["plain56"][1] < found["resnet56"][1] - 0.1


def test_settling_takes_one_batchs_statistics():
    model = build_model("resnet8", in_channels=1, num_classes=4, width=4)
    before = model.train()(images(32)).detach()
    settle(model, images(32))
    assert not model.training
    # Variances are stored unbiased, and applied biased while training.
    torch.testing.assert_close(model(images(32)), before, rtol=0.05, atol=0.02)


def test_measuring_blocks_changes_nothing_and_a_zero_branch_shows():
    model = build_model("resnet14", in_channels=1, num_classes=4, width=4)
    nn.init.zeros_(model.layer2[1].bn2.weight)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    rows = measure_blocks(model, images(8), torch.arange(8) % 4, called="resnet14")
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    ratios = {row["block"]: row["norm_ratio"] for row in rows}
    assert [name for name, ratio in ratios.items() if ratio == 0] == ["layer2.1"]
    norms = {row["block"]: row["gradient_norm"] for row in rows}
    # None passes a scale of 0.
    assert [name for name, norm in norms.items() if norm == 0] == ["layer2.1"]


def test_the_command_follows_a_run_through_training(bench, train_here, tmp_path):
    run = train_here("resnet8", epochs=2, settings={"record_blocks": True})["run"]
    here = ("--device", "cpu", "--threads", 1)
    rows = bench("gradients", run, *here, "--json", "--output", "out").document["rows"]
    assert [(row["epoch"], row["block"], row["depth"]) for row in rows] == [
        (epoch, f"layer{depth}.0", depth) for epoch in (0, 1, 2) for depth in (1, 2, 3)
    ]
    assert all(row["gradient_norm"] > 0 for row in rows)
    assert rows_of(load_results(tmp_path / "bench-runs" / "runs" / run, "gradients")) == rows
    assert len(pd.read_csv(tmp_path / "out" / "gradients.csv")) == 9
    assert (tmp_path / "out" / "gradients.png").read_bytes()[:4] == b"\x89PNG"
    untrained = bench(
        "gradients", "resnet8", "--option", "width=4", *here, "--json", "--correlation"
    ).document["rows"]
    assert len([row for row in untrained if "block" in row]) == 3
    lags = [row["correlation"] for row in untrained if "lag" in row]
    assert lags[0] == 1
    of_networks = load_results(tmp_path / "bench-runs", "correlations")
    assert of_networks["run"].isna().all()
    assert list(of_networks["lag"]) == list(range(len(lags)))


def test_correlation_is_of_the_trained_network_along_four_lines(bench, train_here):
    """Between the first eight test images, which are more than a small batch has."""
    run = train_here("resnet8", epochs=1, settings={"batch_size": 3})["run"]
    words = ("--device", "cpu", "--threads", 1, "--json", "--correlation")
    rows = bench("gradients", run, *words).document["rows"]
    tested = load_dataset("fashion-mnist-mini").test.images[:8]
    inputs = load_trained(run, results="bench-runs").preprocessing.apply(tested)
    model = load_model(run, results="bench-runs").eval()
    expected = gradient_correlation(model, inputs[:4], inputs[4:])
    found = [row["correlation"] for row in rows if "lag" in row]
    assert found == pytest.approx(list(expected), abs=1e-5)


def test_a_run_that_recorded_nothing_is_measured_at_its_end(bench, train_here):
    run = train_here("plain8", epochs=2)["run"]
    said = bench("gradients", run, "--device", "cpu", "--threads", 1, "--quiet").out
    assert "layer3.0" in said
    rows = bench("gradients", run, "--device", "cpu", "--json").document["rows"]
    assert {(row["epoch"], row["norm_ratio"]) for row in rows} == {(2, None)}  # no shortcut
    trained = load_trained(run, results="bench-runs")
    split = Split.of(trained.dataset(), trained.request, torch.device("cpu"))
    batch = next(split.training_batches(torch.contiguous_format).epoch(0))
    expected = measure_blocks(trained.model, *batch, called="plain8")
    assert [row["gradient_norm"] for row in rows] == pytest.approx(
        [row["gradient_norm"] for row in expected], rel=2e-3
    )


def test_what_has_no_gradients_to_show_is_refused(bench):
    assert "resnet21" in bench("gradients", "resnet21").refusal
    assert "plain_cnn' has no block" in bench("gradients", "plain_cnn").refusal
    assert "--threads 0" in bench("gradients", "resnet8", "--threads", 0).refusal
