"""Commands in reports: parsed again, they ask for what was recorded."""

from __future__ import annotations

import dataclasses
import json
import shlex
from typing import TYPE_CHECKING, Any

import pytest

import bench as package
from bench.errors import BenchError
from bench.measurement import measure
from bench.report.pages.commands import measuring_command, training_commands
from bench.report.pages.html import html
from bench.report.pages.markdown import markdown
from bench.report.pages.study_report import read_study_report
from bench.report.study_data import StudyData
from bench.store import Store
from bench.store.measurements import MeasurementRecord
from bench.studies import load_study
from builders import make_record, make_request, make_study

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from bench.launch.workers import Execution
    from bench.measurement.configurations import Request
    from bench.measurement.preparation import Context
    from bench.store import RunRecord
    from bench.studies.plan import Plan
    from bench.studies.run_request import RunRequest

    Asked = tuple[list[str], Request, Context]


@pytest.fixture
def measuring(bench: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Asked]:
    """Return what `bench throughput WORDS…` would measure."""

    def asked(words: list[str]) -> Asked:
        found: list[Asked] = []

        def note(names: list[str], request: Request, context: Context) -> None:
            found.append((names, request, context))
            raise BenchError("nothing is measured here")

        monkeypatch.setattr(measure, "measure_names", note)
        assert bench("throughput", *words).refusal == "nothing is measured here"
        return found[0]

    return asked


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["my net.onnx", "resnet20", "--option", "width=4", "--option", "zero_init_residual=true"],
        ["resnet20", "--option", "shortcut=none", "--input-size", "128"],
        ["resnet20", "--input-size", "64x256", "--batch-size", "auto", "--boundary", "all"],
        ["resnet20", "--scenario", "server", "--max-latency-ms", "5.5", "--processes", "2"],
        ["resnet20", "--backend", "eager", "--backend", "null", "--reference", "null", "--pin"],
        ["a.onnx", "b.onnx", "--reference", "a.onnx", "--streams", "1", "--streams", "2"],
        ["resnet20", "--layers", "--cold-start", "--isolate", "--timeout", "9", "--clear-l2"],
    ],
)
def test_a_measuring_command_asks_for_the_same(
    words: list[str], measuring: Callable[..., Asked]
) -> None:
    names, request, context = measuring([*words, "--threads", "1"])
    recorded = json.loads(json.dumps(dataclasses.asdict(request) | {"names": names}))
    record = MeasurementRecord("m", recorded, [], {"threads": context.threads})
    again = measuring(shlex.split(measuring_command(record))[2:])
    assert again[0] == names
    assert dataclasses.replace(again[1], seed=request.seed) == request
    assert again[2].threads == 1


def test_the_command_of_an_older_record_has_the_options_of_its_labels() -> None:
    labels = ["my net.onnx", "resnet20 width=4 zero_init_residual=True"]
    record = MeasurementRecord("m", {"targets": labels, "bounded": True}, [], {"threads": 2})
    assert measuring_command(record) == (
        "bench throughput 'my net.onnx' resnet20 --processes 1 --option width=4 "
        "--option zero_init_residual=true --threads 2"
    )


@pytest.fixture
def training(
    bench: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[RunRequest, Execution]]:
    """Return what `bench train WORDS…` would train, and how."""

    def asked(words: list[str]) -> tuple[RunRequest, Execution]:
        found: list[tuple[RunRequest, Execution]] = []

        def note(plan: Plan, how: Execution, **_: Any) -> None:
            found.append((plan.requests[0], how))
            raise BenchError("nothing is trained here")

        monkeypatch.setattr("bench.api.run_one", note)
        assert bench("train", *words).refusal == "nothing is trained here"
        return found[0]

    return asked


def commands_of(name: str, root: Path, *records: RunRecord, **changes: Any) -> list[str]:
    """Return the training commands of a study of these runs, one per variant."""
    variants = {f"v{place}": [record.run] for place, record in enumerate(records)}
    data = StudyData(Store(root), make_study(variants, name=name, **changes))
    vars(data)["records"] = {record.run: record for record in records}
    return training_commands(data)


@pytest.mark.parametrize(
    "words",
    [
        ["resnet20"],
        ["resnet20", "--recipe", "book", "--seed", "3", "--epochs", "2", "--deterministic"],
        ["resnet8", "--option", "shortcut=none", "--option", "width=4", "--dataset", "mnist"],
        ["resnet8", "--set", "input_size=16", "--set", "train_images=100", "--set", "mean=0.5",
         "--set", "std=[0.25]", "--set", "precision=bf16", "--set", "milestones=[0.4]"],
        ["resnet8", "--dataset", "imagefolder:my pets", "--set", "resize=squash",
         "--set", "muon_learning_rate=0.0", "--set", "flip=false", "--set", "mean=[0.1,0.2,0.3]",
         "--set", "std=[0.1,0.2,0.3]"],
    ],
)  # fmt: skip
def test_the_command_of_a_single_run_trains_the_same(
    words: list[str], training: Callable[..., Any], tmp_path: Path
) -> None:
    request, _ = training([*words, "--threads", "2"])
    record = make_record(request, environment={"threads": 2, "device": "cpu", "compiled": True})
    (command,) = commands_of("adhoc", tmp_path, record)
    again, how = training(shlex.split(command)[2:])
    assert again == request
    assert (how.threads, how.compiled) == (2, True)


def test_single_runs_have_a_command_each_if_it_is_known(tmp_path: Path) -> None:
    given = {"environment": {"threads": 1, "weights_file": "/weights.pt"}}
    made = commands_of(
        "adhoc",
        tmp_path,
        make_record(make_request("resnet8", initial_weights="0f"), **given),
        make_record(make_request("resnet8", initial_weights="0f", seed=1)),  # from an unknown file
        make_record(make_request("resnet14", grown_from="resnet8-mnist-s0-0")),
        make_record(make_request("resnet20", epochs=0)),
    )
    assert [command.split(" ")[:3] for command in made] == [
        ["bench", "train", "resnet8"],
        ["bench", "import", "resnet20"],
    ]
    assert " --weights /weights.pt " in made[0]
    assert "--name" not in made[1]  # of 'adhoc', which is no name that a person may give


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "depth --seeds 0"),
        ({"file": "quickstart.toml"}, "quickstart --seeds 0"),
        ({"file": "my study.toml"}, "'my study.toml' --seeds 0"),
        (
            {"overrides": {"epochs": 1, "dataset": "mnist"}},
            "depth --seeds 0 --epochs 1 --dataset mnist",
        ),
        ({"overrides": {"deterministic": True}}, "depth --seeds 0 --deterministic"),
    ],
)
def test_the_command_of_a_study_has_what_was_given_with_it(
    changes: dict[str, Any], words: str, tmp_path: Path
) -> None:
    record = make_record(environment={"threads": 2})
    expected = f"bench run-ablation {words} --threads 2"
    assert commands_of("depth", tmp_path, record, **changes) == [expected]


def test_no_command_starts_a_study_from_given_weights(tmp_path: Path) -> None:
    assert commands_of("depth", tmp_path, make_record(make_request(initial_weights="0f"))) == []


def test_threads_that_differ_between_runs_are_not_written(tmp_path: Path) -> None:
    records = [
        make_record(make_request(seed=seed), environment={"threads": seed}) for seed in (1, 2)
    ]
    assert commands_of("depth", tmp_path, *records) == ["bench run-ablation depth --seeds 0"]


def test_a_study_records_how_it_was_requested(tiny_study: Path, tmp_path: Path) -> None:
    how: dict[str, Any] = {"results": tmp_path / "runs", "only": ["plain"], "seeds": [0]}
    how |= {"device": "cpu", "threads": 1, "workers": 1}
    package.run_study(tiny_study, name="mine", epochs=1, deterministic=True, **how)
    package.run_study(load_study(tiny_study).study, name="ours", deterministic=True, **how)
    report = read_study_report(Store(tmp_path / "runs"), "mine")
    expected = "bench run-ablation tiny.toml --seeds 0 --epochs 1 --deterministic --threads 1"
    assert report.training_commands == [expected]
    assert "<code>tiny.toml</code> is the file of this study" in html(report)
    report = read_study_report(Store(tmp_path / "runs"), "ours")
    assert report.training_commands == []
    assert "is the file of this study" not in html(report)
    assert "- command:" not in markdown(report)
