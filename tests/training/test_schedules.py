from __future__ import annotations

import pytest
import torch
from torch.optim import lr_scheduler as reference

from bench.errors import BenchError
from bench.studies.recipe import RECIPES, Recipe, get_recipe
from bench.training.schedule import learning_rate_at

STEPS, WARMUP = 40, 10


def ours(schedule, warmup_fraction=0.0):
    recipe = Recipe(learning_rate=0.3, schedule=schedule, warmup_fraction=warmup_fraction)
    return [learning_rate_at(recipe, step, STEPS) for step in range(STEPS)]


def theirs(make):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.3)
    scheduler = make(optimizer)
    rates = []
    for _ in range(STEPS):
        rates.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    return rates


DECAYS = {
    "constant": lambda o, steps: reference.ConstantLR(o, factor=1, total_iters=steps),
    "one_cycle": lambda o, steps: reference.LinearLR(o, 1, 0, total_iters=steps),
    "cosine": lambda o, steps: reference.CosineAnnealingLR(o, T_max=steps),
}


@pytest.mark.parametrize("schedule", DECAYS)
def test_schedule_is_torchs(schedule):
    expected = theirs(lambda o: DECAYS[schedule](o, STEPS))
    assert ours(schedule) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("schedule", DECAYS)
def test_warm_up_is_linear_and_then_the_schedule_begins(schedule):
    def both(optimizer):
        rise = reference.LinearLR(optimizer, 1 / WARMUP, 1, total_iters=WARMUP - 1)
        fall = DECAYS[schedule](optimizer, STEPS - WARMUP)
        return reference.SequentialLR(optimizer, [rise, fall], milestones=[WARMUP])

    assert ours(schedule, WARMUP / STEPS) == pytest.approx(theirs(both), rel=1e-9)


def test_steps_divide_by_ten_at_the_milestones():
    expected = theirs(lambda o: reference.MultiStepLR(o, milestones=[20, 30], gamma=0.1))
    assert ours("step") == pytest.approx(expected, rel=1e-9)


def test_milestones_are_shares_of_all_steps_with_the_warm_up():
    recipe = Recipe(learning_rate=0.3, schedule="step", milestones=(0.25, 0.6), warmup_fraction=0.1)
    rates = [learning_rate_at(recipe, step, 20) for step in range(20)]
    assert rates == pytest.approx([0.15, *[0.3] * 4, *[0.03] * 7, *[0.003] * 8])


@pytest.mark.parametrize("schedule", ["one_cycle", "cosine"])
def test_decay_ends_at_zero_right_after_the_last_step(schedule):
    recipe = Recipe(learning_rate=0.3, schedule=schedule, warmup_fraction=0.25)
    assert learning_rate_at(recipe, STEPS, STEPS) == pytest.approx(0, abs=1e-12)
    assert learning_rate_at(recipe, STEPS - 1, STEPS) > 0


def test_book_recipe_has_the_books_values():
    book = get_recipe("book")
    assert (book.learning_rate, book.batch_size, book.epochs) == (0.05, 256, 10)
    assert book.momentum == book.weight_decay == book.label_smoothing == 0
    assert book.schedule == "constant"
    assert book.warmup_fraction == book.validation_fraction == 0
    assert book.crop_padding == book.cutout == 0
    assert not any([book.flip, book.normalize, book.antialias, book.nesterov])
    assert book.initialization == "xavier"
    assert book.ema_decay is None
    assert book.test_every_epoch


def test_unknown_recipe_is_named_with_the_nearest():
    with pytest.raises(BenchError, match=r"recipe fsat is unknown; did you mean 'fast'\?"):
        get_recipe("fsat")


@pytest.mark.parametrize("values", [{"epochs": -1}, {"batch_size": -1}, {"lr": 0.1}])
def test_impossible_recipe_values_are_refused(values):
    with pytest.raises(ValueError, match=next(iter(values))):
        Recipe.model_validate({**RECIPES["fast"].model_dump(), **values})
