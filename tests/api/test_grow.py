"""`bench grow`, and studies whose variants grow from others."""

from __future__ import annotations

import pytest

from bench import load_results, run_study
from bench.errors import BenchError
from bench.store import Store
from bench.studies import Overrides, load_study

STUDY = """question = "Does growing help?"
reference = "scratch"
[base]
model = "resnet8"
options = { width = 2 }
train_images = 100
batch_size = 50
epochs = 1
seeds = [0, 1]
[[variant]]
name = "small"
[[variant]]
name = "grown"
model = "resnet14"
grow_from = "small"
[[variant]]
name = "grown again"
model = "resnet20"
grow_from = "grown"
[[variant]]
name = "scratch"
model = "resnet20"
"""


def test_a_run_grows_is_proved_and_trains_on(bench, train_here):
    parent = train_here("resnet8", settings={"train_images": 200})
    here = ("--device", "cpu", "--threads", 1, "--json")
    still = bench("grow", parent["run"], "--to", "resnet14", "--epochs", 0, *here).document["rows"][
        0
    ]
    assert (still["parent"], still["epochs"]) == (parent["run"], 0)
    assert still["proof"]["max_abs_diff"] == 0
    assert still["proof"]["images"] == 20
    assert still["test_accuracy"] == parent["test_accuracy"]
    assert still["test_loss"] == parent["test_loss"]
    on = bench("grow", still["run"], "--to", "resnet14", "--width", 8, *here, "--epochs", 1)
    (row,) = on.document["rows"]
    assert (row["parent"], row["options"], row["epochs"]) == (still["run"], "width=8", 1)
    assert row["test_loss"] != parent["test_loss"]
    runs = load_results("bench-runs").set_index("run")
    assert runs.loc[row["run"], "parent"] == still["run"]
    assert set(runs["study"]) == {"adhoc"}
    folder = f"bench-runs/runs/{parent['run']}"  # its results folder is used, not --results
    words = ("grow", folder, "--to", "resnet14", "--epochs", 0, "--results", "elsewhere")
    printed = bench(*words, *here[:-1], "--quiet").out
    assert "Proof: largest logit difference 0 on 20 validation images" in printed


def test_what_growing_would_leave_without_effect_is_refused(bench, train_here):
    run = train_here("resnet8", options={"width": 4, "zero_init_residual": True})["run"]
    assert "own network" in bench("grow", run, "--to", "resnet8").refusal
    whiten = ("--to", "resnet14", "--set", "whitening=initial")
    assert "own first convolution; leave it out" in bench("grow", run, *whiten).refusal


def test_a_plain_run_does_not_grow(bench, train_here, entries, tmp_path):
    run = train_here("plain8")["run"]
    before = entries(tmp_path)
    assert "layer1.1.bn1 breaks the nesting" in bench("grow", run, "--to", "plain14").refusal
    assert "own network" in bench("grow", run, "--to", "plain8").refusal
    assert "--epochs -1" in bench("grow", run, "--to", "plain14", "--epochs", -1).refusal
    assert entries(tmp_path) == before


def test_a_study_grows_its_variants_after_their_parents(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(STUDY)
    results = tmp_path / "results"
    rows = run_study(path, results=results, device="cpu", workers=1, threads=1)
    assert set(rows["status"]) == {"complete"}
    run = {(r.variant, r.seed): r.run for r in rows.itertuples()}
    parent = {r.run: r.parent for r in rows.itertuples() if isinstance(r.parent, str)}
    expected = {}
    for seed in (0, 1):
        expected[run["grown", seed]] = run["small", seed]
        expected[run["grown again", seed]] = run["grown", seed]
    assert parent == expected
    proof = Store(results).read_document(run["grown again", 1], "growth.json")
    assert (proof["parent"], proof["max_abs_diff"]) == (run["grown", 1], 0)


@pytest.mark.parametrize(
    ("change", "only", "message"),
    [
        (('grow_from = "small"', 'grow_from = "smal"'),
         (), r"mine.toml:15: .*grow_from = 'smal' is no variant before it; did you mean 'small'"),
        (('model = "resnet20"\ngrow_from', 'model = "plain20"\ngrow_from'), (),
         r"mine.toml:19: variant 'grown again': .*layer1.0.join breaks the nesting"),
        (("", '[tune]\nlearning_rate = [0.1, 0.2]\n'), (), "tune changes the runs that grow_from"),
        (("", ""), ("grown",), "--only grown: it grows from 'small'; add --only small"),
    ],
    ids=["unknown", "not nested", "tuned", "without its parent"],
)  # fmt: skip
def test_a_study_that_cannot_grow_is_refused(change, only, message, tmp_path):
    text = STUDY.replace(*change) if change[0] else STUDY + change[1]
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(BenchError, match=message):
        load_study(path).expand(Overrides(only=only))
