"""A study's record holds what was declared, and each look at results."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import bench
from bench.report.findings.looks import look
from bench.report.pages.study_report import read_study_report
from bench.store import Store
from bench.studies import parse_study, run_request
from builders import make_study

STUDY = """
question = "Which?"
{more}
[base]
dataset = "fashion-mnist-mini"
train_images = 100
input_size = 8
epochs = 1
model = "resnet8"
options = {{ width = 2 }}
seeds = [0, 1]
[[variant]]
name = "a"
[[variant]]
name = "b"
weight_decay = 0.0
"""


def run(
    root: Path, more: str, seeds: list[int], last: str = "", name: str = "looks", **how: Any
) -> None:
    study = parse_study(STUDY.format(more=more) + last, Path("looks.toml"))
    bench.run_study(
        study, name=name, seeds=seeds, results=root, device="cpu", threads=1, workers=1, **how
    )


def note(root: Path, name: str = "looks") -> str:
    """Return the note below the study's table."""
    return read_study_report(Store(root), name).table.note


def test_training_again_after_a_new_revision_is_no_other_rule(tmp_path: Path, monkeypatch) -> None:
    runs = []
    for revision in (1, 2):
        monkeypatch.setattr(run_request, "TRAINING_REVISION", revision)
        run(tmp_path, "", [0, 1])
        study = Store(tmp_path).find_study("looks")
        runs.append(study.runs)
        assert len(study.rules) == 1
    assert not runs[0] & runs[1]


PRIMARY = '[primary]\nname = "b"\n'


def test_each_new_set_of_seeds_of_a_sequential_study_is_a_look(tmp_path: Path) -> None:
    looks = []
    for seeds in ([0], [0, 1], [1, 0], [0, 1, 2]):
        run(tmp_path, "sequential = true", seeds)
        looks.append(Store(tmp_path).find_study("looks").looks)
    two, three = [[0, 1]], [[0, 1], [0, 1, 2]]
    assert looks == [[], two, two, three]
    with pytest.warns(
        UserWarning, match=r"finished runs of --seeds 2, .*keep them with --seeds 0,1,2"
    ):
        run(tmp_path, "sequential = true", [0, 1])
    assert Store(tmp_path).find_study("looks").looks == three


def test_each_set_of_seeds_is_a_look_for_each_rule() -> None:
    """Otherwise a level would be spent twice: here at looks 2 and 3."""
    study = make_study({"a": ["a0"], "b": ["b0"]})
    pairs = [([0, 1], 0), ([0, 1, 2], 0), ([0, 1, 2], 1)]
    study = replace(
        study,
        looks=[seeds for seeds, _ in pairs],
        look_rules=[rule for _, rule in pairs],
        rules=["r", "s"],
        declared_seeds=[],
    )

    def number(seeds: list[int], rules: list[str]) -> int:
        runs = {str(seed): f"{seed}" for seed in seeds}
        variants = {name: {**entry, "runs": runs} for name, entry in study.variants.items()}
        return look(replace(study, variants=variants, rules=rules))

    assert [number(seeds, ["r", "s"][: rule + 1]) for seeds, rule in pairs] == [1, 2, 3]
    assert number([0, 1], ["r", "s"]) == 4
    # Records made before the rule of each look was kept.
    study = replace(study, looks=study.looks[:1], look_rules=[])
    assert [number([0, 1], ["r", "s", "t"][: n + 1]) for n in range(3)] == [1, 2, 3]
    # One seed is no set, but its result was seen under the first rule.
    study = replace(study, look_rules=[1])
    assert number([0, 1], ["r", "s"]) == 2


def test_a_changed_rule_of_a_sequential_study_makes_a_look_of_the_same_seeds(
    tmp_path: Path,
) -> None:
    for more in ("", "\ntest = 'welch'", "\ntest = 'welch'"):
        run(tmp_path, f"sequential = true{more}", [0, 1])
    record = Store(tmp_path).find_study("looks")
    assert (record.looks, record.look_rules) == ([[0, 1], [0, 1]], [0, 1])
    assert "this is look 2" in note(tmp_path)


def test_declared_seeds_stay_as_they_were_first_recorded(tmp_path: Path) -> None:
    run(tmp_path, "", [0])
    assert Store(tmp_path).find_study("looks").declared_seeds == [0, 1]
    run(tmp_path, "sequential = true", [0, 1, 2])  # after a look
    record = Store(tmp_path).find_study("looks")
    assert (record.declared_seeds, record.looks) == ([0, 1], [])


def test_the_rule_is_free_until_results_are_seen_and_then_each_change_is_a_look(
    tmp_path: Path,
) -> None:
    def stop(event: dict[str, Any]) -> None:
        if event["event"] == "plan":
            raise RuntimeError

    with pytest.raises(RuntimeError):
        run(tmp_path, "margin = 2.0", [0, 1], on_event=stop)  # recorded, and nothing trained
    run(tmp_path, "", [0, 1])
    assert "The seeds 0, 1 were declared beforehand." in note(tmp_path)
    texts = 'discussion = "As expected."\ntarget_accuracy = 0.5'
    run(tmp_path, texts, [0, 1])
    assert "The seeds 0, 1 were declared beforehand." in note(tmp_path)
    run(tmp_path, 'test = "welch"', [0, 1])
    assert (
        "The seeds 0, 1 were declared beforehand; what is compared or how it is tested was changed "
        "after results were seen (1 time), so this is look 2, tested at 0.0076 instead of 0.05"
    ) in note(tmp_path)
    run(tmp_path, 'test = "welch"', [0, 1], PRIMARY)
    found = note(tmp_path)
    assert "was changed after results were seen (2 times), so this is look 3" in found
    assert "The primary comparison, which may have been chosen after results were seen, is b" in (
        found
    )


@pytest.mark.parametrize("stopped", [0, 1, 2])
def test_a_look_is_not_forgotten_when_the_next_one_is_stopped(stopped: int, tmp_path: Path) -> None:
    def stop(event: dict[str, Any]) -> None:
        if event["event"] == "plan":
            raise RuntimeError

    run(tmp_path, "", [0])
    for _ in range(stopped):
        with pytest.raises(RuntimeError):
            run(tmp_path, "margin = 2.0", [0], "learning_rate = 0.01\n", on_event=stop)
    run(tmp_path, "margin = 2.0", [0], "learning_rate = 0.01\n")
    record = Store(tmp_path).find_study("looks")
    assert (len(record.rules), record.existing_runs) == (2, 0)


def test_a_variant_added_to_a_tuned_study_after_a_look_is_a_change(tmp_path: Path) -> None:
    tune = "[tune]\nlearning_rate = [0.01, 0.1]\n"
    run(tmp_path, "", [0], tune)
    run(tmp_path, "", [0], f'{tune}[[variant]]\nname = "c"\nweight_decay = 0.1\n')
    assert len(Store(tmp_path).find_study("looks").rules) == 2


@pytest.mark.parametrize(
    ("more", "last"),
    [
        ("margin = 2.0", ""),
        ("compare_training = true", ""),
        ("", '[[contrast]]\nname = "c"\nweights = { a = -1, b = 1 }\n'),
        ("", '[[variant]]\nname = "c"\nweight_decay = 0.1\n'),
        ("reference = 'b'", ""),
        ("", "learning_rate = 0.01\n"),  # of variant b
    ],
)
def test_whatever_a_claim_depends_on_is_part_of_the_rule(
    more: str, last: str, tmp_path: Path
) -> None:
    run(tmp_path, "", [0])
    run(tmp_path, more, [0], last)
    assert len(Store(tmp_path).find_study("looks").rules) == 2


def test_seeds_names_and_the_choice_of_a_learning_rate_are_no_change_of_the_rule(
    tmp_path: Path,
) -> None:
    tune = "[tune]\nlearning_rate = [0.01, 0.1]\n"
    run(tmp_path, "", [0], tune)
    run(tmp_path, "", [0, 1], tune)
    renamed = STUDY.replace('name = "b"', 'name = "other"').format(more="")
    study = parse_study(renamed + tune, Path("looks.toml"))
    bench.run_study(study, name="looks", results=tmp_path, device="cpu", threads=1, workers=1)
    record = Store(tmp_path).find_study("looks")
    assert list(record.variants) == ["a", "other"]
    assert (len(record.rules), record.existing_runs) == (1, 0)


def test_a_study_of_runs_that_exist_was_not_declared_beforehand(tmp_path: Path) -> None:
    run(tmp_path, "", [0, 1])
    for _ in range(2):
        run(tmp_path, 'test = "welch"', [0, 1], PRIMARY, name="copy")
        found = note(tmp_path, "copy")
        assert "beforehand" not in found
        ended = "declared when 4 of the study's runs had already ended"
        assert f"The seeds 0, 1 were {ended}." in found
        assert f"The primary comparison, {ended}, is b in test accuracy." in found
    run(tmp_path, "sequential = true", [0, 1], name="growing")
    assert f"Seeds may be added to this study, which was {ended}; this is look 1" in note(
        tmp_path, "growing"
    )


def test_a_record_made_before_rules_were_kept_is_read_as_it_was(tmp_path: Path) -> None:
    run(tmp_path, "", [0, 1])
    store = Store(tmp_path)
    store.save_study(replace(store.find_study("looks"), rules=[]))
    assert "rules" not in json.loads((tmp_path / "studies" / "looks.json").read_text())
    run(tmp_path, 'test = "welch"', [0, 1])
    assert "The seeds 0, 1 were declared beforehand." in note(tmp_path)
    run(tmp_path, "", [0, 1])  # from then on they are
    assert "so this is look 2" in note(tmp_path)
