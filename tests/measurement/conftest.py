from __future__ import annotations

import os
import random
from dataclasses import dataclass, field

import pytest

from bench.measurement.backends import Executed
from bench.measurement.configurations import Configuration
from bench.measurement.machine import ceiling
from bench.measurement.measured_network import MeasuredNetwork
from bench.measurement.timing.runner import RunnerReport
from bench.measurement.timing.trial import Trial
from bench.measurement.timing.warmup import WarmUp


@dataclass
class FakeTime:
    """A clock that only the fakes move."""

    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass
class FakeRunner:
    """A runner whose times are drawn from a known distribution and cost no real time."""

    clock: FakeTime
    draw: object
    log: list[str] = field(default_factory=list)
    name: str = "fake"
    fails_after: int | None = None
    blocks: int = 0
    cap_seconds: float = 0.0

    def warm_up(self, cap_seconds: float) -> WarmUp:
        self.cap_seconds = cap_seconds
        return WarmUp((self.draw(),), True)

    def block(self, count: int) -> list[float]:
        self.log.append(self.name)
        self.blocks += 1
        if self.fails_after is not None and self.blocks > self.fails_after:
            raise RuntimeError("the backend broke")
        seconds = [self.draw() for _ in range(count)]
        self.clock.now += sum(seconds)
        return seconds

    def measure_energy(self) -> None:
        """It has no counter."""

    def describe(self) -> RunnerReport:
        return RunnerReport(Executed("fake", "fp32"))

    def close(self) -> None:
        """Nothing to give back."""


def a_trial(name: str, runner: FakeRunner, group: str = "", reference: bool = False) -> Trial:
    """A trial whose runner is a fake; *name* stands for its backend."""
    target = MeasuredNetwork(group, "model", (3, 4, 4), macs=10)
    made = Configuration(target, name, "fp32", "contiguous", 1, "compute", "cpu", 1)
    return Trial(made, runner, reference)


class FakePrepared:
    """A network that returns its images, on whatever device."""

    def __init__(self):
        self.uploaded = []

    def upload(self, images):
        self.uploaded.append(images)
        return images

    def infer(self, batch):
        return batch

    def download(self, output):
        return output

    def synchronize(self): ...

    def describe(self):
        return Executed("fake", "fp32")


class FakeBackend:
    name, needs, memory_formats = "fake", "engine", ("contiguous",)

    def prepare(self, _workload):
        return FakePrepared()


@pytest.fixture
def fake_backend(monkeypatch):
    """Open a `FakePrepared` whatever the backend is called."""
    for room in ("configurations", "timing.runner"):
        monkeypatch.setattr(f"bench.measurement.{room}.load_backend", lambda _name: FakeBackend())


@pytest.fixture
def clock() -> FakeTime:
    return FakeTime()


@pytest.fixture
def normal():
    """Make a sampler of normal times around a median, in seconds."""

    def make(median: float, spread: float, seed: int = 0):
        source = random.Random(seed)
        return lambda: source.gauss(median, median * spread)

    return make


BACKENDS = """
import gc, os, time
import torch
from bench.measurement.backends import Executed, LayerTime, OutOfMemoryError, Support

class Fine:
    name, needs, memory_formats = "fine", "nothing", ("contiguous",)
    behave = staticmethod(lambda batch: None)
    def support(self):
        return [Support("cpu", "fp32")]
    def prepare(self, workload):
        made = Prepared()
        made.behave, made.size = self.behave, workload.batch_size
        return made

class Prepared:
    def upload(self, images): return images
    def infer(self, batch):
        self.behave(batch)
        time.sleep(0.001)
        return batch
    def download(self, output): return output
    def synchronize(self): pass
    def describe(self): return Executed("a third party", "fp32", {"X": 9}, ("Add y (Y)",))

class Together(Fine):
    gate = None  # passed only by as many batches at once as there are streams
    tick = None  # called each time that they pass
    @classmethod
    def behave(cls, batch):
        cls.gate.wait(60)
    def prepare_streams(self, workload, streams):
        import threading
        from bench.measurement.backends.protocol import prepare_copies
        type(self).gate = threading.Barrier(streams, action=type(self).tick)
        return prepare_copies(self.prepare, workload, streams)

class Sleeper(Fine):  # 5 ms
    behave = staticmethod(lambda batch: time.sleep(0.004))

class Twin(Sleeper):
    pass

class Slower(Fine):  # 10 % more
    behave = staticmethod(lambda batch: time.sleep(0.0045))

class Crash(Fine):
    behave = staticmethod(lambda batch: os.abort())

class Late(Fine):
    @staticmethod
    def behave(batch):
        if not gc.isenabled():  # only while samples are taken
            os.abort()

class Hang(Fine):
    behave = staticmethod(lambda batch: time.sleep(600))

def refuse(batch):
    if len(batch) > 20:
        raise MemoryError("no room")

class Small(Fine):
    behave = staticmethod(refuse)

class Profiled(Fine):
    def profile(self, prepared, step, runs):
        assert isinstance(prepared, Prepared)
        for _ in range(runs):
            step()
        layers = [
            LayerTime("layer1.0.conv1", "our convolution", "convolution", 1000.0 * runs),
            LayerTime("fc", "our product", "linear", 3000.0 * runs),
        ]
        return layers, [("conv2d", 1000.0 * runs), ("gemm", 3000.0 * runs)]

class Wrong:
    # Runs the network in PyTorch, and turns its answers about bright images round.
    name, needs, memory_formats = "wrong", "module", ("contiguous",)
    def support(self):
        return [Support("cpu", "fp32"), Support("cpu", "bf16")]
    def prepare(self, workload):
        made = WrongPrepared()
        made.model = workload.model
        return made

class WrongPrepared(Prepared):
    behave = staticmethod(lambda batch: None)
    def infer(self, batch):
        logits = self.model(batch).detach()
        logits[batch.mean((1, 2, 3)) > 0.5] *= -1
        return logits

class WrongAlone(Wrong):
    # Answers wrongly about single images only.
    def prepare(self, workload):
        made = super().prepare(workload)
        if workload.batch_size > 1:
            made.infer = lambda batch: made.model(batch).detach()
        return made

class Rounded(Wrong):
    # Rounds the logits to eight significant bits.
    def prepare(self, workload):
        made = super().prepare(workload)
        def infer(batch):
            return made.model(batch).detach().to(torch.bfloat16).float()
        made.infer = infer
        return made

class Cuda(Fine):
    def support(self):
        return [Support("cuda", "fp32", "libmissing.so.1 is missing")]
"""

MODELS = """
from torch import nn

def tiny(num_classes=10, in_channels=3):
    return nn.Sequential(
        nn.Conv2d(in_channels, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(4, num_classes),
    )
"""


@pytest.fixture
def third_party(tmp_path, monkeypatch):
    """Install a package with backends and a tiny network, found through its entry points."""
    site = tmp_path / "site"
    (site / "others-1.0.dist-info").mkdir(parents=True)
    (site / "others_backends.py").write_text(BACKENDS)
    (site / "others_models.py").write_text(MODELS)
    (site / "others-1.0.dist-info/METADATA").write_text(
        "Metadata-Version: 2.1\nName: others\nVersion: 1.0\n"
    )
    names = ("Fine", "Together", "Crash", "Late", "Hang", "Small", "Profiled", "Cuda")
    names += ("Wrong", "WrongAlone", "Rounded", "Sleeper", "Twin", "Slower")
    lines = [f"{name.lower()} = others_backends:{name}" for name in names]
    entry_points = "[bench.backends]\n" + "\n".join(lines)
    (site / "others-1.0.dist-info/entry_points.txt").write_text(entry_points)
    monkeypatch.syspath_prepend(site)
    monkeypatch.setenv("PYTHONPATH", str(site), prepend=os.pathsep)
    monkeypatch.setitem(ceiling._SIDE, "cpu", 256)  # the large product only takes longer
    return site


TINY = "others_models:tiny"
