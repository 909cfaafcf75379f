from __future__ import annotations

from pathlib import Path

import pytest

import bench
from bench.errors import BenchError
from bench.launch import carry_out
from bench.launch.estimate import estimate_plan
from bench.launch.learning_rates import choose, tuning_requests
from bench.launch.workers import Execution
from bench.store import Store
from bench.studies import Overrides, expand, load_study, parse_study
from builders import make_record

STUDY = """
question = "Which rate?"
reference = "residual"
[base]
train_images = 100
input_size = 8
epochs = 1
batch_size = 32
seeds = [0, 1]
options = { width = 4 }
[[variant]]
name = "residual"
model = "resnet14"
[[variant]]
name = "plain"
model = "plain14"
[tune]
learning_rate = [0.01, 0.1]
"""


@pytest.fixture
def plan():
    return expand("rates", parse_study(STUDY, Path("rates.toml")))


def finish(store, request, **result):
    store.finish_run(make_record(request, result=result))


def test_every_variant_gets_the_same_values_with_seeds_that_are_not_evaluated(plan):
    requests = tuning_requests(plan)
    tried = [(r.options.get("shortcut"), r.recipe.learning_rate, r.seed) for r in requests]
    assert sorted(tried, key=str) == sorted(
        [(s, rate, n) for s in (None, "none") for rate in (0.01, 0.1) for n in (1000, 1001)],
        key=str,
    )


def test_runs_of_the_search_do_not_evaluate_the_test_images(plan):
    assert {r.evaluate_test for r in tuning_requests(plan)} == {False}
    assert {r.evaluate_test for r in plan.requests} == {True}


@pytest.mark.parametrize(("seeds", "overrides"), [("[0, 7]", None), ("[5, 7]", [7, 8])])
def test_a_seed_of_the_search_is_not_evaluated(seeds, overrides):
    study = parse_study(STUDY + f"seeds = {seeds}\n", Path("rates.toml"))
    with pytest.raises(BenchError, match=r"seed [07] is in tune.seeds and is evaluated as well"):
        expand("rates", study, Overrides(seeds=overrides))


@pytest.mark.parametrize(
    ("low", "high", "images", "taken"),
    [
        ((0.60, 0.62), (0.61, 0.63), 0, 0.01),  # within a standard error of 0.01
        ((0.60, 0.60), (0.61, 0.63), 0, 0.1),
        ((0.60, 0.60), (0.62, 0.62), 400, 0.01),  # the same for both seeds: 0.024
        ((0.60, 0.60), (0.62, 0.62), 10_000, 0.1),
        ((0.70, 0.70), (0.62, 0.62), 0, 0.01),
    ],
)
def test_the_smallest_value_within_one_standard_error_is_taken(
    plan, store, low, high, images, taken
):
    for request in tuning_requests(plan):
        accuracy = (low if request.recipe.learning_rate == 0.01 else high)[request.seed - 1000]
        finish(store, request, validation_accuracy=accuracy, validation_images=images)
    _, tuning = choose(plan, store, searched=True)
    assert tuning["plain"]["chosen"] == taken
    assert tuning["plain"]["values"]["0.1"] == pytest.approx(sum(high) / 2)
    if not images:
        error = abs(high[1] - high[0]) / 2  # the deviation of two values over the root of two
        assert tuning["plain"]["standard_errors"]["0.1"] == pytest.approx(error)


@pytest.mark.parametrize(("varies", "taken"), [("training", 0.01), ("split", 0.1)])
def test_images_of_one_validation_split_count_once(store, varies, taken):
    text = STUDY.replace("[base]", f'[base]\nseed_varies = "{varies}"', 1)
    plan = expand("rates", parse_study(text, Path("rates.toml")))
    for request in tuning_requests(plan):
        accuracy = 0.60 if request.recipe.learning_rate == 0.01 else 0.62
        finish(store, request, validation_accuracy=accuracy, validation_images=400)
    _, tuning = choose(plan, store, searched=True)
    assert tuning["plain"]["chosen"] == taken  # a standard error of 0.024, or of 0.017


def test_parts_of_a_study_run_apart_tune_with_the_same_seed(plan):
    part = expand("rates", parse_study(STUDY, Path("rates.toml")), Overrides(seeds=[3, 1]))
    assert {r.seed for r in part.requests} == {1, 3}
    assert tuning_requests(part) == tuning_requests(plan)


def test_choice_is_by_validation_accuracy_alone(plan, store):
    """Test accuracy, training accuracy and losses all say the opposite."""
    best = {None: 0.1, "none": 0.01}
    for request in tuning_requests(plan):
        good = request.recipe.learning_rate == best[request.options.get("shortcut")]
        finish(
            store, request,
            validation_accuracy=0.6 if good else 0.5, validation_loss=2.0 if good else 1.0,
            test_accuracy=0.1 if good else 0.9, train_accuracy=0.1 if good else 0.9,
        )  # fmt: skip
    tuned, tuning = choose(plan, store, searched=True)
    rates = {v.name: {r.recipe.learning_rate for r in v.requests.values()} for v in tuned.variants}
    assert rates == {"residual": {0.1}, "plain": {0.01}}
    assert tuning["plain"]["chosen"] == 0.01
    assert tuning["plain"]["values"] == {"0.01": 0.6, "0.1": 0.5}


DIVERGED = None


@pytest.mark.parametrize(
    ("low", "high", "taken", "means", "learned"),
    [
        ((DIVERGED, 0.9), (0.2, 0.2), 0.1, (0.9, 0.2), (1, 2)),
        ((0.1, 0.9), (0.2, 0.2), 0.1, (0.9, 0.2), (1, 2)),  # at the accuracy of guessing
        ((0.2, 0.2), (DIVERGED, 0.9), 0.01, (0.2, 0.9), (2, 1)),
        ((0.1, 0.3), (0.1, 0.8), 0.1, (0.3, 0.8), (1, 1)),  # of bad values the better one
        ((DIVERGED, DIVERGED), (0.1, DIVERGED), 0.1, (None, 0.1), (0, 0)),
        ((DIVERGED, 0.1), (0.11, 0.1), 0.01, (0.1, 0.105), (0, 0)),
    ],
)
def test_a_value_at_which_more_seeds_learn_comes_first(
    plan, store, low, high, taken, means, learned
):
    for request in tuning_requests(plan):
        accuracy = (low if request.recipe.learning_rate == 0.01 else high)[request.seed - 1000]
        found = {} if accuracy is DIVERGED else {"validation_accuracy": accuracy}
        finish(store, request, classes=list("abcdefghij"), validation_images=1000, **found)
    _, tuning = choose(plan, store, searched=True)
    tried = tuning["plain"]
    assert tried["chosen"] == taken
    assert list(tried["values"].values()) == pytest.approx(list(means))
    assert tuple(tried["learned"].values()) == learned


@pytest.mark.parametrize(("share", "taken"), [(0.5, 0.01), (0.9, 0.1)])
def test_guessing_is_that_of_the_largest_class(plan, store, share, taken):
    for request in tuning_requests(plan):
        found = {
            0.01: (0.91, 0.95),
            0.1: (0.92, 0.92),
        }  # 0.918 may be guessed where a class has 0.9
        accuracy = found[request.recipe.learning_rate][request.seed - 1000]
        finish(
            store, request, validation_accuracy=accuracy, validation_images=1000,
            classes=["no", "yes"], validation_largest_class=share,
        )  # fmt: skip
    _, tuning = choose(plan, store, searched=True)
    assert tuning["plain"]["chosen"] == taken


def test_a_value_that_lacks_a_run_is_shown_and_not_taken(plan, store):
    first, *others = tuning_requests(plan)
    for request in others:
        finish(store, request, validation_accuracy=0.2)
    _, tuning = choose(plan, store, searched=True)
    assert tuning["residual"]["values"] == {"0.01": None, "0.1": 0.2}
    assert tuning["residual"]["chosen"] == 0.1
    assert first.recipe.learning_rate == 0.01


def test_no_value_that_trains_is_an_error_of_one_line(plan, store):
    with pytest.raises(BenchError, match=r"no learning rate of \[0.01, 0.1\] trained 'residual'"):
        choose(plan, store, searched=True)


def test_study_is_tuned_recorded_and_trained_with_what_was_chosen(tmp_path):
    (tmp_path / "rates.toml").write_text(STUDY)
    results = tmp_path / "results"
    store, known = Store(results), []

    def look(event):
        if event["event"] == "plan":
            known.append((set(event["runs"]), store.read_study("rates").runs))

    rows = bench.run_study(
        tmp_path / "rates.toml",
        results=results, device="cpu", threads=1, workers=1, on_event=look,
    )  # fmt: skip
    assert len(known) == 2  # tuning, then training
    assert all(asked <= recorded for asked, recorded in known)  # nothing that gc would remove
    assert (rows["status"] == "complete").all()
    assert len(rows) == 4
    record = store.read_study("rates")
    for name in ("residual", "plain"):
        entry = record.tuning[name]
        assert set(entry["values"]) == {"0.01", "0.1"}
        best = max(entry["values"], key=entry["values"].get)
        least = entry["values"][best] - entry["standard_errors"][best]
        assert entry["values"][str(entry["chosen"])] >= least
        for run in record.variants[name]["runs"].values():
            assert store.read_run(run).request["recipe"]["learning_rate"] == entry["chosen"]
    assert len(list(store.runs())) == 12  # eight of the search, four that are evaluated


def test_a_finished_study_has_nothing_to_do_and_other_hardware_is_refused(tmp_path, monkeypatch):
    (tmp_path / "rates.toml").write_text(STUDY)
    how = {"results": tmp_path / "results", "device": "cpu", "threads": 1, "workers": 1}
    bench.run_study(tmp_path / "rates.toml", **how)
    plan = load_study(tmp_path / "rates.toml").expand()
    rows = estimate_plan(plan, Execution(results=tmp_path / "results", threads=1))
    assert {row["status"] for row in rows} == {"complete"}
    here = carry_out.describe_environment
    monkeypatch.setattr(
        carry_out, "describe_environment", lambda *a, **k: here(*a, **k) | {"torch": "1.0"}
    )
    with pytest.raises(BenchError, match="has runs of another environment"):
        bench.run_study(tmp_path / "rates.toml", seeds=[0, 1, 2], **how)


def test_only_keeps_the_choices_and_results_of_the_other_variants(tmp_path):
    (tmp_path / "rates.toml").write_text(STUDY)
    how = {"results": tmp_path / "results", "device": "cpu", "threads": 1, "workers": 1}
    bench.run_study(tmp_path / "rates.toml", **how)
    store = Store(tmp_path / "results")
    before = store.read_study("rates")
    for run in before.tuning["residual"]["runs"].values():
        store.remove_run(run)  # so that it is searched again, and the record is written on the way
    known = []

    def look(event):
        if event["event"] == "plan":
            known.append(store.read_study("rates"))

    bench.run_study(tmp_path / "rates.toml", only=["residual"], on_event=look, **how)
    for record in (*known, store.read_study("rates")):
        assert record.variants["plain"] == before.variants["plain"]
        assert record.tuning["plain"] == before.tuning["plain"]
    assert record.rules == before.rules
