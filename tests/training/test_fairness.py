from __future__ import annotations

import pytest
import torch

from bench.training import run
from bench.training.run import execute


@pytest.fixture
def seen(monkeypatch, store, resources):
    """Train a request and return every batch that its network saw in training mode."""

    def train(request):
        batches = []

        def watch(module, inputs):
            if module.training and torch.is_grad_enabled():
                batches.append(inputs[0].detach().clone())

        def build(*arguments):
            model = original(*arguments)
            model.register_forward_pre_hook(watch)
            return model

        original = run.build_network
        with monkeypatch.context() as patch:
            patch.setattr(run, "build_network", build)
            assert execute(request, store, resources).status == "complete"
        return batches

    return train


def equal(first, second):
    return len(first) == len(second) and all(map(torch.equal, first, second))


def test_variants_of_one_seed_see_the_same_batches_in_the_same_order(seen, tiny):
    variants = [
        tiny("resnet14"),
        tiny("plain20"),
        tiny("resnet14", options={"width": 4, "shortcut": "dropout"}),
    ]
    first, *others = (seen(request) for request in variants)
    assert len(first) == 6
    assert all(equal(first, other) for other in others)


def test_batches_are_augmented_and_differ_between_epochs(seen, tiny):
    plain = seen(tiny(crop_padding=0, flip=False))
    augmented = seen(tiny())
    assert not equal(plain, augmented)
    assert not equal(augmented[:3], augmented[3:])


def test_other_seed_sees_other_batches(seen, tiny):
    assert not equal(seen(tiny(seed=0)), seen(tiny(seed=1)))
