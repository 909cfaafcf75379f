"""`--track`: what TensorBoard and MLflow themselves read back, and what happens when they fail."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from bench import load_results
from bench.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Bench = Callable[..., Any]

WORDS = ("--device", "cpu", "--threads", 1, "--workers", 1)


def events_of(folder: Path) -> Any:
    """What TensorBoard reads of one run's folder."""
    module = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = module.EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0})
    events.Reload()
    return events


def logged_runs(results: Path, study: str = "tiny") -> dict[str, Any]:
    """What MLflow reads: our run → its run."""
    mlflow = pytest.importorskip("mlflow")
    client = mlflow.MlflowClient(f"sqlite:///{results / 'mlflow' / 'mlflow.db'}")
    experiment = client.get_experiment_by_name(study)
    found = client.search_runs([experiment.experiment_id])
    runs = {run.data.tags["bench.run"]: run for run in found}
    assert len(runs) == len(found)  # none twice
    return runs


def scalars(events: Any, tag: str) -> list[tuple[int, float]]:
    return [(e.step, e.value) for e in events.Scalars(tag)]


def without(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Make libraries look as if they were not installed."""
    import importlib.util

    real = importlib.util.find_spec

    def find(name: str, *rest: Any) -> Any:
        return None if name in names else real(name, *rest)

    monkeypatch.setattr(importlib.util, "find_spec", find)


def test_tensorboard_reads_what_the_frames_hold(
    bench: Bench, results: Path, tiny_study: Path
) -> None:
    pytest.importorskip("tensorboard")
    words = ("run-ablation", tiny_study, "--results", results, *WORDS, "--track", "tensorboard")
    outcome = bench(*words, "--quiet")
    assert outcome.code == 0, outcome
    assert outcome.err == ""
    folder = results / "tensorboard" / "tiny"
    runs, epochs = load_results(results), load_results(results, "epochs")
    assert len(list(folder.iterdir())) == len(runs) + 1
    for row in runs.to_dict("records"):
        own = folder / f"{row['variant']}-seed-{row['seed']}-{row['run'].rsplit('-', 1)[-1]}"
        events = events_of(own)
        assert scalars(events, "final/test_accuracy") == [(1, pytest.approx(row["test_accuracy"]))]
        (epoch,) = epochs[epochs["run"] == row["run"]].to_dict("records")
        for name in ("train_loss", "validation_accuracy", "learning_rate", "gradient_norm"):
            assert scalars(events, f"epoch/{name}") == [(1, pytest.approx(epoch[name], rel=1e-6))]
        assert "epoch/test_accuracy" not in events.Tags()["scalars"]  # missing is not zero
    report = events_of(folder / "report")
    (text,) = report.Tensors("report/text_summary")
    assert text.tensor_proto.string_val[0].decode().startswith("# Does the shortcut matter here?")
    (picture,) = report.Images("study")
    assert picture.width > 1000
    assert Store(results).read_tracking("tiny")["tensorboard"]["error"] is None


def test_tensorboard_shows_the_parameters(bench: Bench, results: Path, tiny_study: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.plugins.hparams import plugin_data_pb2

    bench("run-ablation", tiny_study, "--results", results, *WORDS, "--track", "tensorboard")
    (folder,) = (results / "tensorboard" / "tiny").glob("plain-seed-1-*")
    metadata = events_of(folder).SummaryMetadata("_hparams_/session_start_info")
    found = plugin_data_pb2.HParamsPluginData.FromString(metadata.plugin_data.content)
    values = found.session_start_info.hparams
    assert values["model"].string_value == "resnet8"
    assert values["options.shortcut"].string_value == "none"
    assert values["recipe.batch_size"].number_value == 50
    assert values["seed"].number_value == 1


@pytest.fixture(scope="module")
def mlflow_results(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results folder whose study is logged to MLflow; only to be read."""
    pytest.importorskip("mlflow")
    import shutil

    from bench.report.tracking import tracked

    results = shutil.copytree(trained, tmp_path_factory.mktemp("mlflow") / "bench-runs")
    with tracked(("mlflow",), Store(results), "tiny", lambda _event: None):
        pass
    return results


@pytest.mark.slow
def test_mlflow_reads_what_the_frames_hold(mlflow_results: Path) -> None:
    mlflow = pytest.importorskip("mlflow")
    runs, logged = load_results(mlflow_results), logged_runs(mlflow_results)
    assert set(logged) == {*runs["run"], "report"}
    client = mlflow.MlflowClient(f"sqlite:///{mlflow_results / 'mlflow' / 'mlflow.db'}")
    epochs = load_results(mlflow_results, "epochs").set_index("run")
    for row in runs.to_dict("records"):
        run = logged[row["run"]]
        assert run.info.run_name == f"{row['variant']} seed {row['seed']}"
        assert run.info.status == "FINISHED"
        assert run.info.start_time == int(row["started_at"].timestamp() * 1000)
        assert run.data.params["model"] == "resnet8"
        assert run.data.params["options.width"] == "4"
        assert run.data.params["recipe.batch_size"] == "50"
        assert run.data.params["seed"] == str(row["seed"])
        assert run.data.tags["environment.cpu"] == row["cpu"]
        for name in ("test_accuracy", "train_loss", "parameters", "macs", "seconds"):
            assert run.data.metrics[f"final/{name}"] == pytest.approx(row[name]), name
        (epoch,) = client.get_metric_history(run.info.run_id, "epoch/train_loss")
        assert (epoch.step, epoch.value) == (1, epochs.loc[row["run"], "train_loss"])
        assert "epoch/test_accuracy" not in run.data.metrics


@pytest.mark.slow
def test_what_others_logged_to_the_same_mlflow_server_stays(
    mlflow_results: Path, results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their runs have the same ids, which are those of what was requested."""
    mlflow = pytest.importorskip("mlflow")
    import shutil

    from bench.report.tracking import tracked

    shutil.copy(mlflow_results / "mlflow" / "mlflow.db", tmp_path / "shared.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'shared.db'}")
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'shared.db'}")
    experiment = client.get_experiment_by_name("tiny").experiment_id
    before = {run.info.run_id for run in client.search_runs([experiment])}
    for _ in range(2):
        with tracked(("mlflow",), Store(results), "tiny", lambda _event: None):
            pass
        after = {run.info.run_id for run in client.search_runs([experiment])}
        assert before < after
        assert len(after) == 2 * len(before)


@pytest.mark.slow
def test_mlflow_holds_the_report(mlflow_results: Path) -> None:
    mlflow = pytest.importorskip("mlflow")
    report = logged_runs(mlflow_results)["report"]
    client = mlflow.MlflowClient(f"sqlite:///{mlflow_results / 'mlflow' / 'mlflow.db'}")
    names = {file.path for file in client.list_artifacts(report.info.run_id)}
    charts = {"study", "accuracy-images-per-second"}
    pictures = {f"{chart}.{ending}" for chart in charts for ending in ("svg", "png")}
    assert names == {"README.md", "report.html", "runs.csv", "epochs.csv", *pictures}
    assert report.data.tags["bench.answer"].endswith(".")
    kept = Store(mlflow_results).read_tracking("tiny")["mlflow"]
    assert kept["error"] is None
    assert kept["where"].startswith("sqlite:////")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tensorboard", "mlflow"])
def test_a_second_call_logs_only_what_changed(
    name: str, mlflow_results: Path, results: Path, bench: Bench, tiny_study: Path, tmp_path: Path
) -> None:
    pytest.importorskip(name)
    import shutil

    if name == "mlflow":  # its tables take seconds to make
        results = shutil.copytree(mlflow_results, tmp_path / "copy")
    words = ("run-ablation", tiny_study, "--results", results, *WORDS, "--track", name, "--quiet")

    def state() -> dict[str, Any]:
        if name == "mlflow":
            return {k: r.info.run_id for k, r in logged_runs(results).items()}
        folders = (results / "tensorboard" / "tiny").iterdir()
        return {
            json.loads((f / "bench.json").read_text())["run"]: (f / "bench.json").stat().st_ino
            for f in folders
        }

    assert bench(*words).code == 0
    before = state()
    assert bench(*words).code == 0
    assert state() == before
    store = Store(results)
    changed = next(store.runs())
    store.finish_run(replace(changed, result={**changed.result, "test_accuracy": 0.5}))
    assert bench(*words).code == 0
    after = state()
    assert set(after) == set(before)
    differ = {run for run, kept in before.items() if after[run] != kept}
    assert differ == {changed.run, "report"}


def test_a_run_that_failed_is_logged_with_its_reason(
    bench: Bench, results: Path, tiny_study: Path
) -> None:
    pytest.importorskip("tensorboard")
    store = Store(results)
    record = next(store.runs())
    store.finish_run(replace(record, status="diverged", error="the loss left", result={}))
    bench("run-ablation", tiny_study, "--results", results, *WORDS, "--track", "tensorboard")
    (folder,) = (results / "tensorboard").glob(f"tiny/*-{record.run.rsplit('-', 1)[-1]}")
    (text,) = events_of(folder).Tensors("run/text_summary")
    assert "status diverged\n- error: `the loss left`" in text.tensor_proto.string_val[0].decode()


def break_tensorboard(results: Path) -> None:
    (results / "tensorboard").write_text("a file where a folder is needed")


def break_mlflow(results: Path) -> None:
    (results / "mlflow").mkdir()
    (results / "mlflow" / "mlflow.db").write_bytes(b"no database at all" * 100)


@pytest.mark.parametrize(
    ("name", "damage"), [("tensorboard", break_tensorboard), ("mlflow", break_mlflow)]
)
@pytest.mark.filterwarnings("default")
def test_a_tracker_that_fails_fails_nothing_else(
    name: str, damage: Callable[[Path], None], bench: Bench, results: Path, tiny_study: Path
) -> None:
    pytest.importorskip(name)
    damage(results)
    store = Store(results)
    store.remove_run(next(store.runs()).run)  # so that one is trained
    words = ("run-ablation", tiny_study, "--results", results, *WORDS, "--allow-mixed", "--json")
    with pytest.warns(UserWarning, match=rf"--track {name} is given up \(\w+: ") as warned:
        outcome = bench(*words, "--track", name)
    assert outcome.code == 0, outcome
    assert [row["status"] for row in outcome.document["rows"]] == ["complete"] * 4
    assert outcome.document["errors"] == []
    ours = [w for w in warned if "--track" in str(w.message)]
    assert len(ours) == 1
    assert "\n" not in str(ours[0].message)
    assert re.match(r"\w+: ", store.read_tracking("tiny")[name]["error"])


def test_one_tracker_that_fails_leaves_the_other(
    bench: Bench, results: Path, tiny_study: Path
) -> None:
    pytest.importorskip("tensorboard")
    pytest.importorskip("mlflow")
    break_mlflow(results)
    words = ("run-ablation", tiny_study, "--results", results, *WORDS, "--quiet")
    with pytest.warns(UserWarning, match="--track mlflow is given up"):
        assert bench(*words, "--track", "mlflow,tensorboard").code == 0
    kept = Store(results).read_tracking("tiny")
    assert kept["mlflow"]["error"]
    assert kept["tensorboard"]["error"] is None
    assert len(list((results / "tensorboard" / "tiny").iterdir())) == 5


class _Refusing(BaseHTTPRequestHandler):
    """A server that keeps what it is asked, and refuses all of it."""

    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        self.send_response(400)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.mark.slow
@pytest.mark.parametrize(
    ("given", "disabled"),
    [({}, True), ({"MLFLOW_DISABLE_TELEMETRY": "false", "CI": "so that nothing is sent"}, False)],
)
def test_mlflow_logs_to_the_server_of_its_variable_and_sends_no_telemetry_unless_allowed(
    given: dict[str, str], disabled: bool, results: Path, tmp_path: Path
) -> None:
    pytest.importorskip("mlflow")
    program = """if True:
        from bench.report.tracking import tracked
        from bench.store import Store

        with tracked(("mlflow",), Store("bench-runs"), "tiny", lambda _event: None):
            pass

        from mlflow.environment_variables import MLFLOW_DISABLE_TELEMETRY

        print(MLFLOW_DISABLE_TELEMETRY.get())
    """
    _Refusing.asked.clear()
    with HTTPServer(("127.0.0.1", 0), _Refusing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        environment = {
            **os.environ,
            "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{server.server_port}",
        }
        environment.pop("MLFLOW_DISABLE_TELEMETRY", None)  # other tests may have set it
        done = subprocess.run(
            [sys.executable, "-c", program], cwd=tmp_path, env=environment | given, check=True,
            capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        server.shutdown()
    assert "--track mlflow is given up" in done.stderr
    assert any(
        path.endswith("/experiments/get-by-name?experiment_name=tiny") for path in _Refusing.asked
    ), _Refusing.asked
    assert not (results / "mlflow").exists()
    assert done.stdout.strip() == str(disabled)


@pytest.mark.slow
def test_runs_of_worker_processes_are_logged_as_they_end(
    bench: Bench, tiny_study: Path, tmp_path: Path
) -> None:
    pytest.importorskip("tensorboard")
    words = ("run-ablation", tiny_study, "--device", "cpu", "--threads", 1, "--workers", 2)
    assert bench(*words, "--track", "tensorboard", "--quiet").code == 0
    assert len(list((tmp_path / "bench-runs" / "tensorboard" / "tiny").iterdir())) == 5


@pytest.mark.slow
def test_one_trained_network_is_logged_with_what_was_exported_of_it(
    bench: Bench, tmp_path: Path
) -> None:
    pytest.importorskip("tensorboard")
    words = (
        "train", "resnet8", "--option", "width=4", "--epochs", 1, "--set", "train_images=200",
        "--set", "batch_size=50", "--device", "cpu", "--threads", 1, "--track", "tensorboard",
    )  # fmt: skip
    assert bench(*words, "--quiet").code == 0
    root = tmp_path / "bench-runs" / "tensorboard" / "adhoc"
    (folder,) = root.glob("resnet8-seed-0-*")
    assert not [tag for tag in events_of(folder).Tags()["scalars"] if tag.startswith("export")]
    assert bench("export-onnx", next((tmp_path / "bench-runs" / "runs").iterdir()).name).code == 0
    assert bench(*words, "--quiet").code == 0
    (row,) = load_results(tmp_path / "bench-runs", "exports").to_dict("records")
    found = scalars(events_of(folder), "export onnx fp32/max_abs_diff")
    assert found == [(1, pytest.approx(row["max_abs_diff"]))]


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ("tensorbord", "--track tensorbord is unknown; did you mean 'tensorboard'"),
        ("mlflow,wandb", "--track wandb is unknown.*known: tensorboard, mlflow"),
        ("", r"--track \(empty\) is unknown"),
    ],
)
@pytest.mark.parametrize("command", [("run-ablation", "quickstart"), ("train", "resnet8")])
def test_an_unknown_tracker_is_refused_before_training(
    names: str, said: str, command: tuple[str, str], bench: Bench, tmp_path: Path
) -> None:
    assert re.search(said, bench(*command, "--track", names).refusal)
    assert not list(tmp_path.iterdir())


def test_a_missing_library_names_the_extra(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without(monkeypatch, "mlflow")
    assert bench("train", "resnet8", "--track", "mlflow").refusal == (
        "--track mlflow: mlflow is not installed; pip install 'resnet-bench[tracking]'"
    )
    assert not list(tmp_path.iterdir())
