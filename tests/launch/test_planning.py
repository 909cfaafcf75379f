from __future__ import annotations

import pytest

MACHINES = """
[[machine]]
name = "known"
images_per_second = { resnet8 = 100.0 }
flops_per_second = 1e11
workers = 2
cost_per_hour = 3.0
watts = 200
[[machine]]
name = "twice the peak"
flops_per_second = 2e11
workers = 4
"""


@pytest.fixture
def plan(bench, tiny_study, tmp_path):
    def call(text, *words):
        (tmp_path / "machines.toml").write_text(text)
        return bench("plan", tiny_study, "--machines", "machines.toml", *words)

    return call


def test_time_cost_energy_and_an_estimate_for_a_device_never_seen(plan):
    known, unseen = plan(MACHINES, "--json").document["rows"]
    assert known["runs"] == unseen["runs"] == 4
    assert known["hours"] == pytest.approx(known["images"] / 100 / 2 / 3600, rel=1e-3)
    assert known["cost"] == pytest.approx(3 * known["hours"])
    assert known["kilowatt_hours"] == pytest.approx(0.2 * known["hours"])
    assert known["basis"] == "given in the file"
    # Twice the peak at the same fraction of it, and twice the workers.
    assert unseen["hours"] == pytest.approx(known["hours"] / 4, rel=0.05)
    assert unseen["basis"].startswith("ESTIMATE: ")
    assert unseen["cost"] is None


def test_recorded_runs_are_the_measured_speed(plan, trained):
    from bench.store import Store

    runs = list(Store(trained).runs())
    text = f'[[machine]]\nname = "here"\ncpu = "{runs[0].environment["cpu"]}"\n'
    (row,) = plan(text, "--results", trained, "--seeds", "7", "--json").document["rows"]
    assert row["basis"] == "measured by recorded runs"
    assert row["runs"] == 2


def test_a_known_gpu_is_estimated_by_the_roofline(bench, tiny_study):
    a100, h100 = (
        bench("plan", tiny_study, "--gpu", name, "--json").document["rows"][0]
        for name in ("A100", "H100")
    )
    assert a100["basis"] == "ESTIMATE: roofline, the least time possible"
    # Such a network is bound by memory: 2039 against 3350 GB/s.
    assert a100["hours"] / h100["hours"] == pytest.approx(3350 / 2039, rel=0.01)
    assert (
        "--gpu A10: not known here; did you mean"
        in bench("plan", tiny_study, "--gpu", "A10").refusal
    )
    assert "--machines FILE or --gpu" in bench("plan", tiny_study).refusal
    assert "add --dry-run" in bench("run-ablation", tiny_study, "--gpu", "A100").refusal


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "it has no [[machine]]"),
        ("[[machine", "not a valid machines file"),
        ('[[machine]]\nname = "a"\nflop = 1', "flop: extra inputs are not permitted"),
        ('[[machine]]\nname = "a"', "nothing says how fast it trains resnet8; give images_per"),
        ('[[machine]]\nname = "a"\nworkers = 0', "workers: input should be greater than or equal"),
    ],
)
def test_refused(plan, text, said):
    assert said in plan(text).refusal
