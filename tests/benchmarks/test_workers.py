from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

pytestmark = pytest.mark.slow

CIFAR = pytest.mark.parametrize("name", ["resnet20", "resnet56"])
STEPS = 4


@pytest.fixture(scope="module")
def speed() -> ModuleType:
    """The neighbour that starts training processes."""
    path = Path(__file__).with_name("test_training_speed.py")
    spec = importlib.util.spec_from_file_location("training_speed", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@CIFAR
def test_two_workers_against_one_of_one_thread(
    paired: Callable[..., None], speed: ModuleType, name: str
) -> None:
    """Goal: at least 1.6 times the runs an hour."""
    with (
        speed.program("ours", name, 28, 128, 1) as one,
        speed.program("ours", name, 28, 128, 1, processes=2) as two,
    ):
        paired(lambda: two(STEPS), lambda: one(STEPS), rounds=10, work=(2, 1))


@CIFAR
def test_two_workers_against_one_of_two_threads(
    paired: Callable[..., None], speed: ModuleType, name: str
) -> None:
    """Goal: more than 1 times the runs an hour."""
    with (
        speed.program("ours", name, 28, 128, 2) as one,
        speed.program("ours", name, 28, 128, 1, processes=2) as two,
    ):
        paired(lambda: two(STEPS), lambda: one(STEPS), rounds=10, work=(2, 1))
