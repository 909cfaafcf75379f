"""A study's record holds which seeds were declared, or each look at a study that may grow."""

from __future__ import annotations

from pathlib import Path

import bench
from bench.store import Store
from bench.studies import parse_study

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


def run(root: Path, more: str, seeds: list[int]) -> None:
    study = parse_study(STUDY.format(more=more), Path("looks.toml"))
    bench.run_study(
        study, name="looks", seeds=seeds, results=root, device="cpu", threads=1, workers=1
    )


def test_each_new_set_of_seeds_of_a_sequential_study_is_a_look(tmp_path: Path) -> None:
    looks = []
    for seeds in ([0], [0, 1], [1, 0], [0, 1, 2], [0, 1]):
        run(tmp_path, "sequential = true", seeds)
        looks.append(Store(tmp_path).find_study("looks").looks)
    two, three = [[0, 1]], [[0, 1], [0, 1, 2]]
    assert looks == [[], two, two, three, three]


def test_declared_seeds_stay_as_they_were_first_recorded(tmp_path: Path) -> None:
    run(tmp_path, "", [0])
    assert Store(tmp_path).find_study("looks").declared_seeds == [0, 1]
    run(tmp_path, "sequential = true", [0, 1, 2])  # after a look
    record = Store(tmp_path).find_study("looks")
    assert (record.declared_seeds, record.looks) == ([0, 1], [])
