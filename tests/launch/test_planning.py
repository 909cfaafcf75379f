from __future__ import annotations

import json
import re
import statistics

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile

from bench.launch.planning import GPUS, Machine, Work, known_gpu, roofline, training_macs
from bench.models import build_model
from bench.networks.memory_traffic import count_traffic
from bench.networks.operations import count_operations
from bench.networks.summary import count_macs
from bench.store import Store
from bench.store.records import seal
from bench.studies import load_study, shipped_costs, shipped_studies

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

SPEED = '[[machine]]\nname = "a"\nimages_per_second = {{ resnet8 = {} }}\n'


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
    runs = list(Store(trained).runs())
    text = f'[[machine]]\nname = "here"\ncpu = "{runs[0].environment["cpu"]}"\n'
    (row,) = plan(text, "--results", trained, "--seeds", "7", "--json").document["rows"]
    assert row["basis"] == "measured by recorded runs"
    assert row["runs"] == 2
    speeds = {}
    for run in runs:
        shortcut = run.request["options"].get("shortcut")
        speeds.setdefault(shortcut, []).append(run.result["images_per_second"])
    assert [len(found) for found in speeds.values()] == [2, 2]
    seconds = sum(row["images"] / 2 / statistics.median(found) for found in speeds.values())
    assert 3600 * row["hours"] == pytest.approx(seconds, rel=1e-3)


@pytest.mark.parametrize(
    ("changed", "measured"), [({}, True), ({"workers": 2}, False), ({"device": "cuda:0"}, False)]
)
def test_speeds_of_runs_on_a_gpu_or_side_by_side_are_others(plan, results, changed, measured):
    for path in results.glob("runs/*/run.json"):
        record = json.loads(path.read_bytes())
        record["environment"] |= changed
        del record["checksum"], record["format_version"]
        path.write_bytes(seal(record))
    cpu = next(Store(results).runs()).environment["cpu"]
    text = f'[[machine]]\nname = "here"\ncpu = "{cpu}"\nflops_per_second = 1e11\n'
    (row,) = plan(text, "--results", results, "--seeds", "7", "--json").document["rows"]
    assert row["basis"].startswith("measured" if measured else "ESTIMATE")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("{ width = 4", "{ width = 8"),
        ("[base]", "[base]\ninput_size = 12"),
        ("batch_size = 50", "batch_size = 10"),
        ("[base]", "[base]\nema_decay = 0.9"),
    ],
)
def test_recorded_runs_of_another_training_step_are_no_measured_speed(
    bench, trained, tiny_study, tmp_path, old, new
):
    cpu = next(Store(trained).runs()).environment["cpu"]
    text = f'[[machine]]\nname = "here"\ncpu = "{cpu}"\nflops_per_second = 1e11\n'
    (tmp_path / "machines.toml").write_text(text)
    (tmp_path / "other.toml").write_text(tiny_study.read_text().replace(old, new))
    words = ("--machines", "machines.toml", "--results", trained, "--seeds", "7", "--json")
    (row,) = bench("plan", "other.toml", *words).document["rows"]
    assert row["basis"].startswith("ESTIMATE: ")


def test_the_runs_of_a_search_for_learning_rates_are_counted(bench, tiny_study, tmp_path):
    text = tiny_study.read_text().replace(
        "[[variant]]", "[tune]\nlearning_rate = [0.1, 0.2, 0.4]\nseeds = [5, 6]\n\n[[variant]]", 1
    )
    (tmp_path / "tuned.toml").write_text(text)
    (plain,), (tuned,) = (
        bench("plan", study, "--gpu", "A100", "--json").document["rows"]
        for study in (tiny_study, "tuned.toml")
    )
    assert (plain["runs"], tuned["runs"]) == (4, 4 + 2 * 3 * 2)
    assert tuned["hours"] == pytest.approx(plain["hours"] * 16 / 4)


def test_a_small_network_on_a_known_gpu_is_bound_by_the_launch_of_its_operations(bench, tiny_study):
    a100, h100 = (
        bench("plan", tiny_study, "--gpu", name, "--json").document["rows"][0]
        for name in ("A100", "H100")
    )
    each = re.findall(
        r"launching (\d+) operations per step one by one, about 8 µs each, one run at a time",
        a100["basis"],
    )
    assert a100["basis"].startswith("ESTIMATE: ")
    assert "least time possible" not in a100["basis"]
    assert a100["hours"] == h100["hours"]  # whatever the GPU
    steps = a100["images"] / 50  # the batch size
    low, high = (steps * count * 8e-6 for count in (min(map(int, each)), max(map(int, each))))
    assert low * 0.99 < a100["hours"] * 3600 < high * 1.01
    assert (
        "--gpu A10: not known here; did you mean"
        in bench("plan", tiny_study, "--gpu", "A10").refusal
    )
    assert "--machines FILE or --gpu" in bench("plan", tiny_study).refusal
    assert "add --dry-run" in bench("run-ablation", tiny_study, "--gpu", "A100").refusal


def work(name, size, batch_size, **options):
    model = build_model(name, **options).eval()
    traffic, operations = count_traffic(model, size), count_operations(model, size)
    return Work(name, 1.0, traffic, operations, batch_size)


def test_the_first_layer_has_no_gradient_of_the_images():
    """By hand, for a batch of 10."""
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, bias=False), nn.ReLU(), nn.Conv2d(4, 4, 3, bias=False), nn.Flatten(),
        nn.Linear(64, 5, bias=False),
    )  # fmt: skip
    size = (3, 8, 8)
    counted = Work("", 1.0, count_traffic(model, size), count_operations(model, size), 10)
    first, second, head = 36 * 4 * 3 * 9, 16 * 4 * 4 * 9, 64 * 5
    assert counted.operations.macs == 2 * first + 3 * (second + head)
    activations = 2 * (3 * 64 + 4 * 36) + 3 * (4 * 36 + 4 * 16 + 64 + 5)
    weights = 2 * 4 * 3 * 9 + 3 * (4 * 4 * 9 + 64 * 5)
    assert counted.bytes_per_image("fp32") == pytest.approx(4 * (activations + weights / 10))


def test_no_gpu_has_published_a_speed_above_its_bound():
    """ResNet-50 in mixed precision: NVIDIA's deep-learning examples publish 2,470 for an A100."""
    resnet50 = work("resnet50", (3, 224, 224), 256)
    speed, limit = roofline(resnet50, known_gpu("A100"))
    assert 2_470 < speed < 312e12 / (2 * resnet50.operations.macs) * 1.001
    assert limit == "roofline, the least time possible"
    bounds = {name: roofline(resnet50, known_gpu(name))[0] for name in GPUS}
    assert sorted(bounds, key=bounds.get)[0] in {"L4", "T4"}
    assert bounds["H200"] > bounds["H100"]  # which has less bandwidth


def test_bytes_are_those_of_the_precision():
    resnet20 = work("resnet20", (3, 32, 32), 128)
    assert resnet20.bytes_per_image("fp32") == 2 * resnet20.bytes_per_image("bf16")
    machine = Machine(name="m", flops_per_second=1e30, bytes_per_second=1e12)
    in_bf16 = machine.model_copy(update={"precision": "bf16"})
    assert roofline(resnet20, in_bf16)[0] == 2 * roofline(resnet20, machine)[0]


@pytest.mark.parametrize("groups", [1, 2, 8])
def test_a_training_step_has_three_products_for_each_of_the_forward_pass(groups):
    """But for the images' gradient, which nobody needs: the first layer has two."""
    layers = [nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 16, 3, padding=1, groups=groups)]
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10))
    first, second, head = 8 * 8 * 9 * 3 * 8, 8 * 8 * 9 * 8 * 16 // groups, 160
    assert count_operations(model, (3, 8, 8)).macs == 2 * first + 3 * (second + head)


def _is_alone(event):
    """Whether an operator is no part of another one."""
    while (event := event.cpu_parent) is not None:
        if event.name.startswith("aten::"):
            return False
    return True


def test_operations_are_those_that_pytorch_starts():
    """Against its profiler: operators of a step that are no part of another one, without views."""
    model = build_model("resnet8", width=4).train()
    images, labels = torch.randn(2, 3, 32, 32), torch.zeros(2, dtype=torch.int64)
    counted = count_operations(model, (3, 32, 32))
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        F.cross_entropy(model(images), labels).backward()
    views = {f"aten::{v}" for v in ("detach", "slice", "t", "view", "reshape", "flatten", "expand")}
    started = [e.name for e in seen.events() if e.name.startswith("aten::") and _is_alone(e)]
    assert started.count("aten::batch_norm") == 7
    # Some, such as the loss, are two to the dispatcher.
    assert counted.fp32 == pytest.approx(sum(n not in views for n in started), rel=0.05)
    products = sum(e.count for e in seen.key_averages() if e.key in {"aten::conv2d", "aten::addmm"})
    assert counted.casts == 2 * products
    assert counted.count("bf16") == counted.fp32 + counted.casts
    assert counted.count("fp32") == counted.fp32


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "it has no [[machine]]"),
        ("[[machine", "not a valid machines file"),
        (f"x = {'[' * 9_000}", "not a valid machines file"),
        ('[[machine]]\nname = "a"\nflop = 1', "flop is unknown (known: name, images_per_"),
        ('[[machine]]\nname = "a"', "nothing says how fast it trains resnet8; give images_per"),
        ('[[machine]]\nname = "a"\nworkers = 0', "workers = 0: input should be greater than"),
        (SPEED.format(0.0), "images_per_second.resnet8 = 0.0: input should be greater than 0"),
        (SPEED.format("inf"), "images_per_second.resnet8 = Infinity: input should be a finite"),
        (SPEED.format("nan"), "images_per_second.resnet8 = NaN: input should be a finite number"),
        ('[[machine]]\nname = "a"\nwatts = inf', "watts = Infinity: input should be a finite"),
        (2 * SPEED.format(1), "2 machines are called 'a': give each a name of its own"),
    ],
)
def test_refused(plan, text, said):
    assert said in plan(text).refusal


def test_a_machines_file_is_utf8_with_or_without_its_mark(plan, bench, tiny_study, tmp_path):
    assert plan("\N{BYTE ORDER MARK}" + SPEED.format(1)).code == 0
    (tmp_path / "wide.toml").write_text(SPEED.format(1), encoding="utf-16")
    refusal = bench("plan", tiny_study, "--machines", "wide.toml").refusal
    assert refusal == "--machines wide.toml: it is not UTF-8 text; save it as UTF-8"


def test_the_cost_of_a_study_is_that_of_all_its_trainings():
    plan = load_study("quickstart").expand()
    # 5,400 images in 4 epochs, forward and backward; 600 for validation after each, and once all
    # 5,400 and 1,000 to test, forward alone.
    images = 5400 * 4 + (600 * 4 + 5400 + 1000) / 3
    networks = [
        build_model(request.model, num_classes=10, in_channels=1, **request.options)
        for request in plan.requests
    ]
    macs = sum(count_macs(network, (1, 1, 28, 28)) for network in networks)
    assert training_macs(plan) == pytest.approx(3 * images * macs)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name in {"quickstart", "depth"} else pytest.mark.slow)
        for name in shipped_studies()
    ],
)
def test_the_listed_cost_of_a_study_is_its_own(name):
    costs = shipped_costs()
    assert costs.keys() == shipped_studies().keys(), "run tools/costs.py"
    assert costs[name] == training_macs(load_study(name).expand()), "run tools/costs.py"
