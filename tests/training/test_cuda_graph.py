"""Training by CUDA graphs without a GPU: a recorder in the place of `torch.cuda.graph`.

What a capture does is imitated on the CPU: the operations of a step are recorded with the tensors
and numbers that they had, and a replay carries out the same on the same. So a number that should
have changed between two steps, an input that was not copied to where it is read, or a value that
is read back during a capture shows.
"""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from types import SimpleNamespace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from bench import BenchError
from bench.launch.workers import Execution, allot
from bench.training.cuda_graph import WARM_UP
from bench.training.loop import Trainer
from bench.training.resources import torch_settings
from bench.training.setup import Split, build_network, load_data

READS_BACK = {torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default}
RECIPES = {
    "SGD": {},
    "momentum without Nesterov": {"nesterov": False},
    "growing images": {"initial_size": 0.5, "epochs": 3},
    "lookahead": {"lookahead_steps": 2},
    "average": {"ema_decay": 0.8},
    "Muon": {"muon_learning_rate": 0.1},
}


class Recorder(TorchDispatchMode):
    """Carries operations out, and records them to be carried out again."""

    def __init__(self, may_read_back):
        super().__init__()
        self.calls, self.may_read_back = [], may_read_back

    def __torch_dispatch__(self, function, _types, arguments=(), keywords=None):
        if function in READS_BACK and not self.may_read_back:
            raise RuntimeError("operation not permitted when stream is capturing")
        result = function(*arguments, **(keywords or {}))
        self.calls.append((function, arguments, keywords or {}, result))
        return result

    def replay(self):
        with torch.no_grad():
            for function, arguments, keywords, result in self.calls:
                again = function(*arguments, **keywords)
                for old, new in zip(tree_leaves(result), tree_leaves(again), strict=True):
                    if isinstance(old, torch.Tensor) and old.data_ptr() != new.data_ptr():
                        old.detach().copy_(new)


@pytest.fixture
def captures(monkeypatch):
    """Replace CUDA's streams and graphs; returns the trainer to look after, and what happened."""
    seen = SimpleNamespace(trainer=None, captures=0, replays=0, may_read_back=False)

    class Graph:
        def replay(self):
            seen.replays += 1
            self.recorder.replay()

    @contextmanager
    def graph(empty, stream, capture_error_mode):
        assert stream is ours  # torch's own stays on the device of the first capture
        assert capture_error_mode == "thread_local"
        seen.captures += 1
        empty.recorder = Recorder(seen.may_read_back)
        changed = [*seen.trainer.model.state_dict().values()]
        for optimizer in seen.trainer.optimizers:
            changed += [state["momentum_buffer"] for state in optimizer.state.values()]
        before = [tensor.clone() for tensor in changed]
        with empty.recorder:
            yield
        for tensor, value in zip(changed, before, strict=True):  # a capture carries nothing out
            tensor.detach().copy_(value)

    monkeypatch.setattr(torch.cuda, "device", lambda _device: nullcontext())
    ours = SimpleNamespace(wait_stream=lambda _other: None)
    monkeypatch.setattr(torch.cuda, "Stream", lambda: ours)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: ours)
    monkeypatch.setattr(torch.cuda, "stream", lambda _stream: nullcontext())
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", graph)
    return seen


def train(request, resources, *, cuda_graph, captures=None):
    data = load_data(request)
    with torch_settings(request, resources):
        split = Split.of(data, request, torch.device("cpu"))
        batches = split.training_batches(torch.contiguous_format)
        model = build_network(request, data)
        trainer = Trainer(model, batches, request.recipe, seed=0, device=torch.device("cpu"),
                          cuda_graph=cuda_graph)  # fmt: skip
        if captures is not None:
            captures.trainer = trainer
        epochs = [trainer.run_epoch(after_step=lambda: None) for _ in range(request.recipe.epochs)]
    return trainer, epochs


@pytest.mark.parametrize("values", RECIPES.values(), ids=RECIPES)
def test_replayed_steps_train_as_steps_without_a_graph(values, tiny, resources, captures):
    # Of 180 training images, five whole batches and a last one of 20.
    request = tiny(train_images=200, **{"epochs": 2, "validation_fraction": 0.1} | values)
    captures.may_read_back = "muon_learning_rate" in values  # on a CPU only
    plain, expected = train(request, resources, cuda_graph=False)
    graphed, epochs = train(request, resources, cuda_graph=True, captures=captures)
    for name, tensor in plain.network.state_dict().items():
        # The rate is float32 in the place that a graph reads.
        torch.testing.assert_close(graphed.network.state_dict()[name], tensor, rtol=2e-4, atol=2e-5)
    for one, other in zip(epochs, expected, strict=True):
        for name in ("train_loss", "train_accuracy", "learning_rate", "gradient_norm"):
            assert one[name] == pytest.approx(other[name], rel=1e-4)
    sizes = len(set(graphed.batches.sides)) or 1
    whole = 5 * request.recipe.epochs  # the last batch of an epoch takes its step alone
    assert captures.captures == sizes
    assert captures.replays == whole - sizes * WARM_UP


@pytest.mark.parametrize(
    ("changes", "device", "message"),
    [
        ({}, "cpu", "--cuda-graph needs a CUDA device, not cpu; leave it out"),
        ({"precision": "fp16"}, "cuda", "--cuda-graph does not go with precision fp16"),
    ],
)
def test_where_there_can_be_no_graph_it_is_refused_before_training(
    changes, device, message, tiny, monkeypatch
):
    monkeypatch.setattr(Execution, "torch_device", torch.device(device))
    with pytest.raises(BenchError, match=message):
        allot(SimpleNamespace(requests=[tiny(**changes)]), Execution(cuda_graph=True))
