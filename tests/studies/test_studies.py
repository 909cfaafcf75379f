"""Study files: what is refused and how, and what a valid one expands into."""

from __future__ import annotations

import re
import tomllib
from importlib import resources
from typing import TYPE_CHECKING, Any

import pytest
import torch

from bench.api import run_study
from bench.data import list_datasets
from bench.errors import BenchError
from bench.models import build_model
from bench.studies import Overrides, Study, json_schema, load_study, shipped_studies

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from bench.studies import Plan

    Write = Callable[[str], Path]

VALID = """question = "Why?"

[base]
model = "resnet8"
epochs = 2

[[variant]]
name = "a"

[[variant]]
name = "b"
options = { shortcut = "none" }
"""


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write_study(content: str) -> Path:
        path = tmp_path / "mine.toml"
        path.write_text(content, encoding="utf-8")
        return path

    return write_study


def planned(path: Path, **overrides: object) -> Plan:
    return load_study(path).expand(Overrides(**overrides))  # type: ignore[arg-type]


def variants(plan: Plan) -> list[str]:
    return [variant.name for variant in plan.variants]


INVALID = {
    "empty": ("", "mine.toml is empty; 'bench init mine.toml' writes a commented starter"),
    "only a comment": ("# nothing yet\n", "is empty"),
    "broken": ('question = "Why?\n', "mine.toml: not valid TOML: .*line 1"),
    "duplicate key": ("question = 'a'\nquestion = 'b'\n", "not valid TOML: .*line 2"),
    "no question": (VALID.replace("question", "source", 1), "mine.toml: question is missing"),
    "unknown table": (VALID.replace("[base]", "[bse]"), ":3: bse is unknown; did you mean 'base'"),
    "unknown list": (
        VALID.replace("[[variant]]", "[[variants]]"),
        ":7: variants is unknown; did you mean 'variant'",
    ),
    "unknown key in the base": (
        VALID.replace("epochs", "epoch"),
        r":5: base.epoch is unknown; did you mean 'epochs'",
    ),
    "unknown key in a variant": (
        VALID + "modle = 'resnet8'\n",
        r":13: \[\[variant\]\] 2, modle is unknown; did you mean 'model'",
    ),
    "unknown key in a table of its own": (
        VALID + '[primary]\nname = "b"\naccuracies = "test"\n',
        r":15: primary.accuracies is unknown; did you mean 'accuracy'\? \(known: name, accuracy\)",
    ),
    "impossible value in the base": (
        VALID.replace("epochs = 2", "epochs = 0"),
        ":5: base.epochs = 0: input should be greater than or equal to 1",
    ),
    "impossible value in a variant, good in the base": (
        VALID + "epochs = -3\n",
        r":13: \[\[variant\]\] 2, epochs = -3: input should be greater",
    ),
    "batch size": (VALID.replace("epochs = 2", "batch_size = 0"), ":5: base.batch_size = 0: "),
    "seeds that are words": (
        VALID.replace("epochs = 2", 'seeds = [0, "one"]'),
        ':5: base.seeds.1 = "one": input should be a valid integer',
    ),
    "seeds in quotation marks": (
        VALID.replace("epochs = 2", 'seeds = ["1"]'),
        ':5: base.seeds.0 = "1": input should be a valid integer',
    ),
    "epochs in quotation marks": (
        VALID.replace("epochs = 2", 'epochs = "2"'),
        ':5: base.epochs = "2": input should be a valid integer',
    ),
    "seeds that are fractions": (
        VALID.replace("epochs = 2", "seeds = [\n  0,\n  1.5,\n]"),
        ":5: base.seeds.1 = 1.5: input should be a valid integer",
    ),
    "no seeds": (VALID.replace("epochs = 2", "seeds = []"), r":5: base.seeds = \[\]: "),
    "impossible choice": (
        VALID.replace("epochs = 2", 'schedule = "linear"'),
        ":5: base.schedule = \"linear\": input should be 'constant', 'one_cycle'",
    ),
    "an option that is a list": (
        VALID + "[[variant]]\nname = 'c'\noptions = { width = [4] }\n",
        r":15: \[\[variant\]\] 3, options.width",
    ),
    "a variant without a name": (
        VALID + "[[variant]]\nmodel = 'resnet8'\n",
        r":13: \[\[variant\]\] 3, name is missing",
    ),
    "two variants of one name": (
        VALID.replace('"b"', '"a"'),
        ":11: two variants are called 'a'; rename one",
    ),
    "unknown reference": (
        "reference = 'bb'\n" + VALID,
        r":1: reference bb is unknown; did you mean 'b'\? \(known: a, b\)",
    ),
    "a variant's unknown reference": (
        "reference = 'a'\n" + VALID + "reference = 'aa'\n",
        ":14: reference aa is unknown; did you mean 'a'",
    ),
    "a contrast of an unknown variant": (
        VALID + "[[contrast]]\nname = 'c'\nweights = { a = 1, bb = -1 }\n",
        r":13: contrast 'c': variant bb is unknown; did you mean 'b'",
    ),
    "a contrast that is no difference": (
        VALID + "[[contrast]]\nname = 'c'\nweights = { a = 1, b = 1 }\n",
        r":13: the weights of contrast 'c' add up to 2; they must add up to 0",
    ),
    "a contrast with a variant's name": (
        VALID + "[[contrast]]\nname = 'a'\nweights = { a = 1, b = -1 }\n",
        r":13: contrast 'a' has the name of a variant or of another contrast; rename it",
    ),
    "a contrast that leaves a variant out": (
        VALID + "[[contrast]]\nname = 'c'\nweights = { a = 0, b = 0 }\n",
        r":13: contrast 'c' has a weight of 0; leave the variant out",
    ),
    "a misspelt key of a contrast": (
        VALID + "[[contrast]]\nname = 'c'\nweight = { a = 1, b = -1 }\n",
        r":13: \[\[contrast\]\] 1, weights is missing",
    ),
    "a margin of nothing": ("margin = 0\n" + VALID, r":1: margin = 0: .*greater than 0"),
    "unknown recipe": (
        VALID.replace("epochs = 2", 'recipe = "fats"'),
        r":5: recipe fats is unknown; did you mean 'fast'\? \(known: book, fast\)",
    ),
    "a variant's unknown recipe": (
        VALID.replace("epochs = 2", 'recipe = "fast"') + "recipe = 'bok'\n",
        ":13: recipe bok is unknown; did you mean 'book'",
    ),
    "one table instead of a list": (
        'question = "Why?"\n[variant]\nname = "a"\n',
        ":2: variant = .* valid list",
    ),
    "no variant": ('question = "Why?"\n', "give either .*variant.* or one .*grid"),
    "variants and grid": (VALID + "[grid]\nepochs = [1, 2]\n", "not both"),
    "unknown grid key": (
        'question = "Why?"\n[grid]\nepoch = [1]\n',
        ":3: grid key 'epoch' is no setting; did you mean 'epochs'",
    ),
    "an option at the top of a grid": (
        'question = "Why?"\n[grid]\nmodel = ["resnet8"]\nshortcut = ["none"]\n',
        ":4: grid key 'shortcut' is no setting; .*options.shortcut",
    ),
    "an empty grid axis": (
        'question = "Why?"\n[grid]\noptions.shortcut = []\n',
        "grid key 'options' has no values",
    ),
    "an impossible value in a grid": (
        'question = "Why?"\n[base]\nepochs = 1\n[grid]\nepochs = [2, 0]\n',
        ":5: epochs = 0: input should be greater",
    ),
    "a grid that repeats itself": (
        'question = "Why?"\n[grid]\nepochs = [2, 2]\n',
        "two variants are called '2'",
    ),
    "a primary comparison that is none": (
        VALID + '[primary]\nname = "a"\n',
        r":13: primary 'a' is no contrast, and no variant that is compared with another.*known: b",
    ),
    "a primary comparison of accuracies that are not compared": (
        VALID + '[primary]\nname = "b"\naccuracy = "train"\n',
        r":13: primary.accuracy = 'train' needs compare_training = true",
    ),
    "one learning rate to choose from": (
        VALID + "[tune]\nlearning_rate = [0.1]\n",
        r":14: tune.learning_rate = \[0.1\]: ",
    ),
    "a learning rate to choose from twice": (
        VALID + "[tune]\nlearning_rate = [0.1, 0.2, 0.1]\n",
        r":14: tune.learning_rate = \[0.1, 0.2, 0.1\]: give 0.1 once",
    ),
    "an infinite learning rate to choose from": (
        VALID + "[tune]\nlearning_rate = [0.1, inf]\n",
        r":14: tune.learning_rate.1 = Infinity: input should be less than or equal to 1000000",
    ),
    "a seed of the search twice": (
        VALID + "[tune]\nlearning_rate = [0.1, 0.2]\nseeds = [1000, 1000]\n",
        r":15: tune.seeds = \[1000, 1000\]: give 1000 once",
    ),
    "one seed of the search": (
        VALID + "[tune]\nlearning_rate = [0.1, 0.2]\nseeds = [1000]\n",
        r":15: tune.seeds = \[1000\]: .*at least 2",
    ),
}


@pytest.mark.parametrize(("content", "message"), INVALID.values(), ids=INVALID)
def test_an_invalid_study_is_refused_in_one_line(content: str, message: str, write: Write) -> None:
    path = write(content)
    with pytest.raises(BenchError, match=message) as refusal:
        load_study(path)
    assert str(refusal.value).startswith(str(path))
    assert "\n" not in str(refusal.value)


UNFIT = {
    "no model": (VALID.replace('model = "resnet8"', ""), ":7: variant 'a' has no model"),
    "unknown model": (
        VALID.replace("resnet8", "resnet8x"),
        ":4: .*'a': unknown model 'resnet8x'; did",
    ),
    "unknown option": (
        VALID.replace("shortcut =", "shortcuts ="),
        ":12: .*'b': .* has no option 'shortcuts'; did you mean 'shortcut'",
    ),
    "unknown value of an option": (
        VALID.replace("none", "non"),
        ":12: .*'b': shortcut='non' is unknown; did you mean 'none'",
    ),
    "impossible depth": (
        VALID + "model = 'resnet33'",
        ":13: .*'b': .*resnet33",
    ),
    "unknown dataset": (
        VALID.replace("epochs = 2", 'dataset = "fashon-mnist"'),
        ":5: unknown dataset 'fashon-mnist'; did you mean 'fashion-mnist'",
    ),
    "tune without a validation split": (
        VALID.replace("epochs = 2", 'recipe = "book"') + "[tune]\nlearning_rate = [0.1, 0.2]\n",
        "tune chooses on validation accuracy",
    ),
    "seeds that vary no subset": (
        VALID.replace("epochs = 2", 'seed_varies = "subset"'),
        "'a': seed_varies = \"subset\" varies nothing, since all images .*; set train_images",
    ),
    "seeds that vary no split": (
        VALID.replace("epochs = 2", 'recipe = "book"\nseed_varies = "split"'),
        "'a': seed_varies = \"split\" varies nothing, since no images .*; set validation_fraction",
    ),
    "a seed beyond 64 bits": (
        VALID.replace("epochs = 2", f"seeds = [{2**64}]"),
        "random seed 18446744073709551616 has more than 64 bits",
    ),
}


@pytest.mark.parametrize(("content", "message"), UNFIT.values(), ids=UNFIT)
def test_what_does_not_fit_together_is_refused_in_one_line(
    content: str, message: str, write: Write
) -> None:
    with pytest.raises(BenchError, match=message) as refusal:
        planned(write(content))
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("dept", "unknown study 'dept'; did you mean 'depth'.*shipped: .*shortcut"),
        ("nowhere.toml", "cannot read the study nowhere.toml: No such file"),
    ],
)
def test_an_unknown_study_is_refused(name: str, message: str) -> None:
    with pytest.raises(BenchError, match=message):
        load_study(name)


def test_a_study_called_as_a_shipped_one_is_refused_unless_it_is_that_one(tmp_path: Path) -> None:
    path = tmp_path / "depth.toml"
    path.write_text(VALID)
    with pytest.raises(BenchError, match=r"depth.toml: 'depth' is the name of a study of bench's"):
        load_study(path)
    path.write_bytes(shipped_studies()["depth"].read_bytes())
    assert load_study(path).study == load_study("depth").study


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("adhoc", "'adhoc' is the name of a study of bench's own, and the results would be taken"),
        (
            "resnet18",
            "'resnet18' is a model, which commands would take it for; choose another name",
        ),
        ("is it: faster?", "the name of a study begins with a letter, .* none of / "),
        ("-x", "the name of a study begins with a letter, digit or _"),
        ("x" * 81, "has at most 80 characters"),
    ],
)
def test_a_name_that_means_something_else_or_is_not_found_again_is_refused(
    name: str, message: str, tmp_path: Path
) -> None:
    path = tmp_path / f"{name}.toml"
    path.write_text(VALID)
    with pytest.raises(BenchError, match=re.escape(f"{path}: ") + f".*{message}"):
        load_study(path)
    with pytest.raises(BenchError, match=re.escape(f"name={name!r}: ") + f".*{message}"):
        run_study(load_study("quickstart").study, name=name)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"reference": "plain35"},
            "study 'mine': reference plain35 is unknown; did you mean 'plain34'",
        ),
        ({"primary": {"name": "pain34"}}, "study 'mine': primary 'pain34' is no contrast"),
        ({"primary": {"name": "plain34", "accuracy": "train"}}, "needs compare_training = true"),
        ({"contrast": [{"name": "c", "weights": {"plain34": 1, "plain": -1}}]}, "contrast 'c'"),
        ({"contrast": [{"name": "c", "weights": {"plain34": 1, "resnet34": -2}}]}, "add up to -1"),
        ({"variant": []}, "study 'mine': give either"),
    ],
)
def test_a_study_made_in_python_is_checked_as_a_file_is(
    changes: dict[str, Any], message: str
) -> None:
    values = load_study("quickstart").study.model_dump(exclude_unset=True)
    study = Study.model_validate({**values, **changes})
    with pytest.raises(BenchError, match=message):
        run_study(study, name="mine")


def test_a_study_made_in_python_has_a_name_of_its_own() -> None:
    with pytest.raises(
        BenchError, match="a Study made in Python has no name for its results: give name="
    ):
        run_study(load_study("quickstart").study)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"seeds": "0-4"}, "seeds: '0-4' is no whole number"),
        ({"seeds": [0.5]}, "seeds: 0.5 is no whole number"),
        ({"epochs": 2.0}, "epochs: 2.0 is no whole number"),
        ({"only": "pain34"}, "--only pain34 is unknown"),
        ({"weights": "none.pt"}, "none.pt"),
    ],
)
def test_arguments_from_python_are_refused_in_one_line(
    given: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(BenchError, match=message):
        run_study("quickstart", results=tmp_path, **given)


def test_a_name_may_have_spaces_and_any_letters(tmp_path: Path) -> None:
    path = tmp_path / "độ sâu (2).toml"
    path.write_text(VALID)
    assert load_study(path).name == "độ sâu (2)"


def test_from_python_a_name_is_none_of_a_folder_or_of_another_study() -> None:
    with pytest.raises(BenchError, match="name='jan/quick': the name of a study begins"):
        run_study("quickstart", name="jan/quick")
    with pytest.raises(BenchError, match="name='depth': 'depth' is the name of a study of bench's"):
        run_study("quickstart", name="depth")


def test_a_study_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_bytes(b"question = '\xff\xfe'\n")
    with pytest.raises(BenchError, match=r"cannot read the study .*mine.toml: it is not UTF-8"):
        load_study(path)
    with pytest.raises(BenchError, match=r"cannot read the study .*: Is a directory"):
        load_study(tmp_path.rename(tmp_path.with_name("folder.toml")))


def test_a_byte_order_mark_is_no_error(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(VALID, encoding="utf-8-sig")
    assert load_study(path).name == "mine"


def test_a_variants_word_goes_before_the_bases(write: Write) -> None:
    plan = planned(write(VALID.replace("epochs = 2", "epochs = 2\noptions = { width = 4 }")))
    a, b = (variant.requests[0] for variant in plan.variants)
    assert a.options == {"width": 4}
    assert b.options == {"shortcut": "none", "width": 4}
    assert a.recipe.epochs == b.recipe.epochs == 2
    assert planned(write(VALID + "epochs = 7\n")).variants[1].requests[0].recipe.epochs == 7


def test_a_depth_may_need_the_option_that_makes_it_one(write: Write) -> None:
    deep = VALID + '[[variant]]\nname = "c"\nmodel = "resnet29"\n'
    plan = planned(write(deep + 'options = { block = "bottleneck" }\n'))
    request = plan.variants[2].requests[0]
    assert (request.model, request.options) == ("resnet29", {"block": "bottleneck"})
    alone = r":15: .*variant 'c': resnet29 .* or block='bottleneck' for 29"
    with pytest.raises(BenchError, match=alone):
        planned(write(deep))
    with pytest.raises(BenchError, match=r":16: .*no option 'widht'"):
        planned(write(deep + 'options = { block = "bottleneck", widht = 8 }\n'))


def test_a_grid_is_multiplied_out(write: Write) -> None:
    plan = planned(
        write(
            'question = "Why?"\n[base]\nseeds = [5]\n[grid]\nmodel = ["resnet8", "resnet14"]\n'
            'options.shortcut = ["zero_pad", "none"]\noptions.width = [4]\n'
        )
    )
    assert variants(plan) == [
        "resnet8-zero_pad-4",
        "resnet8-none-4",
        "resnet14-zero_pad-4",
        "resnet14-none-4",
    ]
    assert [v.reference for v in plan.variants] == [None, *["resnet8-zero_pad-4"] * 3]
    assert plan.variants[3].requests[5].model == "resnet14"
    assert plan.variants[3].requests[5].options == {"shortcut": "none", "width": 4}


def test_the_first_variant_is_the_reference_unless_told(write: Write) -> None:
    third = '[[variant]]\nname = "c"\nreference = "b"\nlearning_rate = 0.2\n'
    plan = planned(write(VALID + third))
    assert [v.reference for v in plan.variants] == [None, "a", "b"]
    plan = planned(write('reference = "b"\n' + VALID + third))
    assert [v.reference for v in plan.variants] == ["b", None, "b"]


def test_overrides_take_the_place_of_the_file(write: Write) -> None:
    plan = planned(write(VALID), seeds=[7, 8, 7], epochs=9, dataset="mnist", deterministic=True)
    requests = plan.requests
    assert [r.seed for r in requests] == [7, 7, 8, 8]
    assert {(r.recipe.epochs, r.dataset, r.deterministic) for r in requests} == {(9, "mnist", True)}


def test_only_selects_variants_and_keeps_the_plan_whole(write: Write) -> None:
    plan = planned(write(VALID), only=("b",))
    assert variants(plan) == ["a", "b"]
    assert {r.options["shortcut"] for r in plan.requests} == {"none"}
    with pytest.raises(
        BenchError, match=r"--only bb is unknown; did you mean 'b'\? \(known: a, b\)"
    ):
        planned(write(VALID), only=("bb",))


def test_no_seeds_are_refused(write: Write) -> None:
    with pytest.raises(BenchError, match="no random seeds; give at least one"):
        planned(write(VALID), seeds=[])


def test_seeds_go_side_by_side(write: Write) -> None:
    order = [(r.seed, bool(r.options)) for r in planned(write(VALID)).requests]
    assert order == [(s, shortcut) for s in (0, 1, 2) for shortcut in (False, True)]


SAME = {
    "a network of two names": ('model = "plain8"', "b", {}),
    "what is the recipe's own": ("learning_rate = 0.3", "a", {}),
    "epochs that are replaced": ("epochs = 3", "a", {"epochs": 1}),
    "a rate that is searched for": (
        "learning_rate = 0.1\n[tune]\nlearning_rate = [0.1, 0.2]",
        "a",
        {},
    ),
}


@pytest.mark.parametrize(("third", "twin", "overrides"), SAME.values(), ids=SAME)
def test_variants_that_would_share_their_runs_are_refused(
    third: str, twin: str, overrides: dict[str, int], write: Write
) -> None:
    path = write(f'{VALID}\n[[variant]]\nname = "c"\n{third}\n')
    message = rf":14: variants '{twin}' and 'c' train the same network .*; change one or leave it"
    with pytest.raises(BenchError, match=message):
        planned(path, **overrides)


def test_renaming_a_variant_keeps_its_runs(write: Write) -> None:
    before = {r.run_id for r in planned(write(VALID)).requests}
    renamed = VALID.replace('"b"', '"without"').replace("Why?", "Why else?")
    assert {r.run_id for r in planned(write(renamed)).requests} == before


def test_changing_the_epochs_changes_every_run(write: Write) -> None:
    before = {r.run_id for r in planned(write(VALID)).requests}
    after = {r.run_id for r in planned(write(VALID.replace("epochs = 2", "epochs = 3"))).requests}
    assert before.isdisjoint(after)


SHIPPED = {"activation-order", "book", "bottleneck", "degradation", "depth", "quickstart"} | {
    "shortcut",
    "shortcut-kinds",
    "time-budget",
}


def test_the_shipped_studies_are_there() -> None:
    assert set(shipped_studies()) >= SHIPPED


@pytest.mark.parametrize("name", sorted(shipped_studies()))
def test_a_shipped_study_begins_with_its_question_and_can_be_built(name: str) -> None:
    text = shipped_studies()[name].read_text()
    assert re.match(r"# [^\n]*\?", text)
    file = load_study(name)
    assert file.name == name
    assert file.study.question.endswith("?")
    plan = file.expand()
    assert len(plan.requests) >= 3
    channels = {info.name: (info.channels, info.classes) for info in list_datasets()}
    for variant in plan.variants:
        request = next(iter(variant.requests.values()))
        in_channels, classes = channels.get(request.dataset, (3, 1000))  # ImageNet's folder
        with torch.device("meta"):
            assert build_model(
                request.model, num_classes=classes, in_channels=in_channels, **request.options
            )


def test_the_quickstart_compares_three_networks_over_three_seeds() -> None:
    plan = load_study("quickstart").expand()
    assert len(plan.variants) == 3
    assert all(len(variant.requests) >= 3 for variant in plan.variants)
    assert {r.dataset for r in plan.requests} == {"fashion-mnist-mini"}


def test_the_starter_is_a_valid_study(write: Write) -> None:
    starter = resources.files("bench.ablations").joinpath("starter.template").read_text()
    assert variants(planned(write(starter))) == ["residual", "plain"]


@pytest.mark.parametrize("hint", ["input_size", "train_images", "[grid]", "[tune]"])
def test_what_the_starter_shows_as_a_comment_works(hint: str, write: Write) -> None:
    starter = resources.files("bench.ablations").joinpath("starter.template").read_text()
    lines = starter.splitlines()
    first = next(n for n, line in enumerate(lines) if line.startswith(f"# {hint}"))
    for n in range(first, len(lines)):
        if not re.match(r"# (\[|\w+(\.\w+)? *=)", lines[n]):
            break
        lines[n] = lines[n].removeprefix("# ")
    if hint == "[grid]":  # stands in the place of the variants
        start = lines.index("[[variant]]")
        lines[start:first] = []
        lines.remove('reference = "residual"')
    assert "\n".join(lines) != starter.rstrip("\n")
    assert planned(write("\n".join(lines))).requests


def test_the_shipped_schema_is_the_programs() -> None:
    shipped = resources.files("bench.ablations").joinpath("study.schema.json").read_text()
    assert shipped == json_schema(), "write json_schema() to ablations/study.schema.json anew"


@pytest.mark.parametrize("name", sorted(shipped_studies()))
def test_a_shipped_study_fits_the_schema(name: str) -> None:
    jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed")
    study = tomllib.loads(shipped_studies()[name].read_text())
    jsonschema.validate(study, Study.model_json_schema())
