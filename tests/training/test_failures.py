from __future__ import annotations

import pytest
import torch

from bench.launch.assignment import Assignment
from bench.launch.processes import LocalLauncher
from bench.system.signals import Stop
from bench.training.resources import Resources
from bench.training.run import execute
from builders import TROUBLED_NETWORK

MODELS = f"""{TROUBLED_NETWORK}
def device_memory(num_classes, in_channels):
    def trouble():
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\\nSee docs")
    return Network(num_classes, in_channels, 2, trouble)

def host_memory(num_classes, in_channels):
    return Network(num_classes, in_channels, 2, lambda: torch.empty(2**60, dtype=torch.uint8))

def bug(num_classes, in_channels):
    return Network(num_classes, in_channels, 2, lambda: dict()["wrong"])
"""


@pytest.fixture
def own(tiny, tmp_path, monkeypatch):
    """Make requests for networks of the user's own."""
    (tmp_path / "troubled_networks.py").write_text(MODELS)
    monkeypatch.syspath_prepend(tmp_path)
    return lambda name: tiny(f"troubled_networks:{name}", options={})


@pytest.mark.parametrize(
    ("name", "status", "error"),
    [
        ("device_memory", "out_of_memory", "OutOfMemoryError: CUDA out of memory"),
        ("host_memory", "out_of_memory", "RuntimeError: "),
        ("bug", "failed", "KeyError: 'wrong'"),
    ],
)
def test_failure_is_recorded_and_the_others_go_on(own, tiny, store, resources, name, status, error):
    requests, ends = [own(name), tiny()], []
    work = Assignment(
        requests, store, resources, 1, Stop(), lambda e: e["event"] == "end" and ends.append(e)
    )
    LocalLauncher().run(work)
    assert [end["status"] for end in ends] == [status, "complete"]
    (record,) = store.unfinished()
    assert (record.run, record.status) == (requests[0].run_id, status)
    assert record.error.startswith(error)
    assert "\n" not in record.error


def test_divergence_is_recorded_with_its_step_and_the_others_go_on(tiny, store, resources):
    wild = tiny(learning_rate=1e30, warmup_fraction=0.0, momentum=0.0)
    work = Assignment([wild, tiny()], store, resources, 1, Stop(), lambda _: None)
    LocalLauncher().run(work)
    record = store.read_run(wild.run_id)
    assert record.status == "diverged"
    assert record.error == f"the loss was not finite at step {record.result['diverged_step']}"
    assert 1 <= record.result["diverged_step"] < 6
    assert store.read_run(tiny().run_id).status == "complete"


def test_last_step_that_goes_too_far_is_a_divergence_too(tiny, store, resources):
    """No training loss shows it: the step after would have."""
    wild = tiny(learning_rate=1e38, epochs=1, batch_size=128, warmup_fraction=0.0)
    record = execute(wild, store, resources)
    assert (record.status, record.result["diverged_step"]) == ("diverged", 0)


def test_failed_run_is_tried_again(own, store, resources, monkeypatch):
    request = own("bug")
    assert execute(request, store, resources).status == "failed"
    import troubled_networks

    monkeypatch.setattr(troubled_networks.Network, "forward", lambda self, x: self.head(x))
    assert execute(request, store, resources).status == "complete"
    assert not list(store.unfinished())


def test_torch_settings_are_put_back_after_a_failure(own, store):
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    execute(own("bug"), store, Resources(device="cpu", threads=before[0] + 1))
    assert (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()) == before
