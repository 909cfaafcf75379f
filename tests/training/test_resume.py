"""A training that was stopped, or killed, ends as the one that was not: bit for bit."""

from __future__ import annotations

import io
import json
import pickle
import signal
import subprocess
import sys
from types import SimpleNamespace

import pandas as pd
import pytest
import torch

from bench.store import Store
from bench.system.signals import Stop, StopRequestedError
from bench.training import run
from bench.training.checkpoint import capture, restore
from bench.training.layout import lay_out
from bench.training.loop import Trainer
from bench.training.run import execute
from bench.training.setup import Split, build_network, load_data

STEPS = 6  # three an epoch


class StopAfter(Stop):
    """Asks to stop after a number of steps; each looks once whether a signal has arrived."""

    def __init__(self, steps):
        super().__init__()
        self.steps = steps

    @property
    def signal(self):
        self.steps -= 1
        return signal.SIGTERM if self.steps == 0 else None

    @signal.setter
    def signal(self, number): ...

    def check(self): ...  # in evaluations


def outcome(store, run_id):
    """Every byte that training decides, and the history without its times."""
    record = store.read_run(run_id)
    assert record.status == "complete"
    history = pd.read_csv(io.BytesIO(store.checked_file(run_id, "history.csv").read_bytes()))
    timeless = history.drop(columns=["seconds", "images_per_second"])
    digests = {name: d for name, d in record.files.items() if name != "history.csv"}
    return digests, timeless.to_csv()


@pytest.fixture
def undisturbed(tmp_path, rich, resources):
    store = Store(tmp_path / "undisturbed")
    execute(rich, store, resources)
    return outcome(store, rich.run_id)


def test_same_run_twice_is_bit_equal(store, rich, resources, undisturbed):
    execute(rich, store, resources)
    assert outcome(store, rich.run_id) == undisturbed


def test_other_seed_is_not_equal(store, tiny, rich, resources, undisturbed):
    other = tiny(options=rich.options, seed=1, **rich.recipe.model_dump())
    execute(other, store, resources)
    digests, _ = outcome(store, other.run_id)
    assert digests["model.safetensors"] != undisturbed[0]["model.safetensors"]


@pytest.mark.parametrize("steps", range(1, STEPS + 1))  # 3 and 6 end an epoch
def test_stopped_after_any_step_and_resumed_is_bit_equal(
    store, rich, resources, undisturbed, steps
):
    with pytest.raises(StopRequestedError, match="SIGTERM"):
        execute(rich, store, resources, stop=StopAfter(steps))
    assert store.read_run(rich.run_id) is None
    (unfinished,) = store.unfinished()
    assert unfinished.status == "interrupted"
    assert execute(rich, store, resources).seconds > unfinished.seconds
    assert outcome(store, rich.run_id) == undisturbed


def test_time_on_a_slow_disk_does_not_go_back(store, rich, resources, monkeypatch):
    clock, save = [0.0], Store.save_checkpoint

    def save_slowly(*args):
        save(*args)
        clock[0] += 1000

    monkeypatch.setattr(Store, "save_checkpoint", save_slowly)
    monkeypatch.setattr(run, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    with pytest.raises(StopRequestedError):
        execute(rich, store, resources, stop=StopAfter(2))
    (unfinished,) = store.unfinished()
    assert execute(rich, store, resources).seconds >= unfinished.seconds


@pytest.mark.parametrize(("epochs", "position"), [(0, (0, 3)), (1, (1, 3)), (2, (2, 0))])
def test_stopped_in_an_evaluation_and_resumed_is_bit_equal(
    store, rich, resources, undisturbed, epochs, position
):
    seen = []

    class StopInEvaluation(Stop):
        def check(self):
            if len(seen) == epochs:
                raise StopRequestedError(signal.SIGTERM)

    def note(event):
        seen.extend([event] * (event["event"] == "epoch"))

    with pytest.raises(StopRequestedError):
        execute(rich, store, resources, stop=StopInEvaluation(), on_event=note)
    _, state = store.load_checkpoint(rich.run_id)
    assert (state["position"]["epoch"], state["position"]["batch"]) == position
    execute(rich, store, resources)
    assert outcome(store, rich.run_id) == undisturbed


def test_stopped_again_and_again_is_bit_equal(store, rich, resources, undisturbed):
    for _ in range(STEPS):
        with pytest.raises(StopRequestedError):
            execute(rich, store, resources, stop=StopAfter(1))
    execute(rich, store, resources)
    assert outcome(store, rich.run_id) == undisturbed


def test_every_ingredient_is_taken_up_bit_for_bit(tmp_path, tiny, ingredient, resources):
    request = tiny(**ingredient)
    whole, parts = Store(tmp_path / "whole"), Store(tmp_path / "parts")
    execute(request, whole, resources)
    stops = 0
    while parts.read_run(request.run_id) is None:
        try:
            execute(request, parts, resources, stop=StopAfter(2))
        except StopRequestedError:
            stops += 1
    assert stops >= 3
    assert outcome(parts, request.run_id) == outcome(whole, request.run_id)


def trainer_of(request, device):
    data = load_data(request)
    split, model = Split.of(data, request, device), build_network(request, data)
    batches = split.training_batches(lay_out(model, device, split.input_shape))
    return Trainer(model, batches, request.recipe, seed=request.seed, device=device)


def test_a_checkpoint_that_holds_pytorchs_averaged_model_is_taken_up(tiny):
    """So it was written until November 2026."""
    request, device = tiny(ema_decay=0.5), torch.device("cpu")
    before, after = (trainer_of(request, device) for _ in range(2))
    with torch.no_grad():
        for parameter in before.average.module.parameters():
            parameter.fill_(2.0)
    tensors, state = capture(before)
    assert "average/module.fc.bias" in tensors
    restore(after, tensors | {"average/n_averaged": torch.tensor(3)}, state)
    assert all((parameter == 2.0).all() for parameter in after.average.module.parameters())


def test_blocks_recorded_before_a_fall_are_not_recorded_again(
    tmp_path, store, tiny, resources, monkeypatch
):
    monkeypatch.setattr(run, "CHECKPOINT_SECONDS", -1)
    monkeypatch.setattr(run, "PROGRESS_SECONDS", -1)
    request, whole = tiny(record_blocks=True), Store(tmp_path / "whole")
    execute(request, whole, resources)

    def fall(event):
        if event["event"] == "progress" and event["done"] > 0.5:  # the second epoch's first step
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        execute(request, store, resources, on_event=fall)
    _, state = store.load_checkpoint(request.run_id)
    assert (state["position"]["epoch"], state["position"]["batch"]) == (1, 0)
    execute(request, store, resources)
    assert outcome(store, request.run_id) == outcome(whole, request.run_id)


def test_checkpoint_alone_is_enough(store, rich, resources, undisturbed, monkeypatch):
    """As after kill -9: nothing is written at the end, the last checkpoint is all there is."""
    monkeypatch.setattr(run, "CHECKPOINT_SECONDS", 0)

    def fall(event):
        if event["event"] == "epoch":
            raise KeyboardInterrupt  # passes every handler of failures

    with pytest.raises(KeyboardInterrupt):
        execute(rich, store, resources, on_event=fall)
    _, state = store.load_checkpoint(rich.run_id)
    assert state["position"]["batch"] == 3
    assert state["environment"]["torch"] == torch.__version__
    execute(rich, store, resources)
    assert outcome(store, rich.run_id) == undisturbed


KILLED = """
import json, os, signal, sys
from bench.studies.run_request import RunRequest
from bench.store import Store
from bench.training import run

save, left = Store.save_checkpoint, [1, 2, 3, 4]

def save_and_die(*args):
    save(*args)
    left.pop() if left else os.kill(os.getpid(), signal.SIGKILL)

Store.save_checkpoint = save_and_die
run.CHECKPOINT_SECONDS = -1  # one after each step, and after the epoch
run.execute(RunRequest.from_dict(json.loads(sys.argv[2])), Store(sys.argv[1]),
            run.Resources(device="cpu", threads=1))
"""


def test_killed_process_is_taken_up_bit_for_bit(store, rich, resources, undisturbed):
    arguments = [sys.executable, "-P", "-c", KILLED, str(store.root), json.dumps(rich.as_dict())]
    assert subprocess.run(arguments, check=False).returncode == -signal.SIGKILL
    assert store.read_run(rich.run_id) is None
    _, state = store.load_checkpoint(rich.run_id)
    assert (state["position"]["epoch"], state["position"]["batch"]) == (1, 1)
    execute(rich, store, resources)
    assert outcome(store, rich.run_id) == undisturbed


def test_broken_checkpoint_starts_from_the_beginning_with_a_warning(
    store, rich, resources, undisturbed
):
    with pytest.raises(StopRequestedError):
        execute(rich, store, resources, stop=StopAfter(2))
    path = store.partial(rich.run_id) / "checkpoint.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.warns(UserWarning, match="starts from the beginning"):
        execute(rich, store, resources)
    assert outcome(store, rich.run_id) == undisturbed


def test_finished_run_is_not_done_again_unless_forced(store, tiny, resources):
    first = execute(tiny(), store, resources)
    events = []
    assert execute(tiny(), store, resources, on_event=events.append) == first
    assert not events
    forced = run.Resources(device="cpu", threads=1, force=True)
    again = execute(tiny(), store, forced, on_event=events.append)
    assert [events[0]["event"], events[-1]["event"]] == ["start", "end"]
    assert again.files["model.safetensors"] == first.files["model.safetensors"]


def test_a_forced_run_resumes_what_its_own_command_began(store, tiny, resources):
    execute(tiny(), store, resources)
    first = outcome(store, tiny().run_id)
    forced = run.Resources(device="cpu", threads=1, force=True)
    with pytest.raises(StopRequestedError):
        execute(tiny(), store, forced, stop=StopAfter(4))  # in the second epoch

    def epochs(resources):
        events = []
        execute(tiny(), store, resources, on_event=events.append)
        assert outcome(store, tiny().run_id) == first
        return [event["epoch"] for event in events if event["event"] == "epoch"]

    assert epochs(pickle.loads(pickle.dumps(forced))) == [2]  # as a scheduler starts it again
    with pytest.raises(StopRequestedError):
        execute(tiny(), store, forced, stop=StopAfter(4))
    assert epochs(run.Resources(device="cpu", threads=1, force=True)) == [1, 2]
