from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from bench.studies import expand, parse_study
from builders import TROUBLED_NETWORK

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from bench.studies.run_request import RunRequest

MODELS = f"""{TROUBLED_NETWORK}
import ctypes, os, signal, time

def fine(num_classes, in_channels):
    return Network(num_classes, in_channels)

def killed(num_classes, in_channels):
    return Network(num_classes, in_channels, 2, lambda: os.kill(os.getpid(), signal.SIGKILL))

def leaves(num_classes, in_channels):
    return Network(num_classes, in_channels, 2, lambda: os._exit(3))

def crashes(num_classes, in_channels):
    return Network(num_classes, in_channels, 2, lambda: ctypes.string_at(0))

def hangs(num_classes, in_channels):
    return Network(num_classes, in_channels, 2, lambda: time.sleep(3600))

def slow(num_classes, in_channels):
    model = Network(num_classes, in_channels)
    model.register_forward_pre_hook(lambda *_: time.sleep(0.4))
    return model

def raises(num_classes, in_channels):
    return Network(num_classes, in_channels, 2, lambda: dict()["wrong"])
"""

STUDY = """
question = "?"
[base]
train_images = 100
input_size = 8
epochs = 2
batch_size = 32
seeds = [0]
"""


@pytest.fixture
def own_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the user's own networks, as the current one."""
    (tmp_path / "launched_networks.py").write_text(MODELS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def make_requests(own_models: Path) -> Callable[..., list[RunRequest]]:
    """Make the requests of a study with one variant a name of `MODELS`."""

    def make(*names: str) -> list[RunRequest]:
        variants = "".join(
            f'[[variant]]\nname = "{name}"\nmodel = "launched_networks:{name}"\n' for name in names
        )
        path = own_models / "own.toml"
        return expand("own", parse_study(STUDY + variants, path)).requests

    return make


@pytest.fixture
def make_study(own_models: Path) -> Callable[..., list[RunRequest]]:
    """Write a study `own.toml` of one network of `MODELS`; returns its requests."""

    def make(name: str, epochs: int) -> list[RunRequest]:
        text = STUDY.replace("epochs = 2", f"epochs = {epochs}")
        text += f'[[variant]]\nname = "{name}"\nmodel = "launched_networks:{name}"\n'
        path = own_models / "own.toml"
        path.write_text(text)
        return expand("own", parse_study(text, path)).requests

    return make
