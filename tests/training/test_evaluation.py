from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from bench.training.evaluation import evaluate
from bench.training.run import execute
from bench.training.setup import build_network, load_data

CLASSES = 3


class Lookup(nn.Module):
    """Gives each image the logits written in its pixels, and remembers its mode."""

    def forward(self, images):
        assert not self.training
        return images.flatten(1)


@pytest.fixture
def scored():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(50, CLASSES, generator=generator)
    labels = torch.randint(CLASSES, (50,), generator=generator)
    batches = list(zip(logits.view(50, 1, 1, CLASSES).split(16), labels.split(16), strict=True))
    return logits, labels, batches


def test_figures_are_those_of_a_plain_computation(scored):
    logits, labels, batches = scored
    found = evaluate(Lookup(), batches)
    assert found.loss == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-6)
    right = [int(row.argmax()) == int(label) for row, label in zip(logits, labels, strict=True)]
    assert found.accuracy == pytest.approx(sum(right) / 50)
    assert torch.equal(found.predictions, logits.argmax(1))
    assert torch.equal(found.labels, labels)
    torch.testing.assert_close(found.confidence, logits.softmax(1).amax(1))


def test_confusion_has_the_true_class_in_its_rows(scored):
    logits, labels, batches = scored
    expected = torch.zeros(CLASSES, CLASSES, dtype=torch.int64)
    for row, label in zip(logits, labels, strict=True):
        expected[label, row.argmax()] += 1
    assert torch.equal(evaluate(Lookup(), batches).confusion(CLASSES), expected)


@pytest.mark.parametrize("training", [True, False])
def test_training_mode_is_put_back(scored, training):
    model = Lookup().train(training)
    evaluate(model, scored[2])
    assert model.training is training


class Keeping(nn.Module):
    """Keeps a tensor of the last forward pass, and multiplies with it in the next."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(CLASSES))
        self.kept = None

    def forward(self, images):
        x = images.flatten(1) * self.weight
        if self.kept is None:
            self.kept = torch.ones_like(x)
        return x * self.kept


def test_a_network_may_train_with_what_it_kept_of_an_evaluation(scored):
    model, (images, _) = Keeping(), scored[2][0]
    evaluate(model, scored[2][:1])
    model(images).sum().backward()
    assert model.weight.grad is not None


def test_run_keeps_predictions_that_give_its_figures(tiny, store, resources):
    request = tiny(normalize=False, crop_padding=0)
    record = execute(request, store, resources)
    kept = store.read_tensors(record.run, "predictions.safetensors")
    data = load_data(request)
    model = build_network(request, data)
    model.load_state_dict(store.read_tensors(record.run, "model.safetensors"))
    images = F.interpolate(data.test.images / 255, (8, 8), mode="bilinear", antialias=True)
    with torch.no_grad():
        logits = model.eval()(images)
    labels = data.test.labels
    assert torch.equal(kept["labels"], labels.int())
    agreed = (kept["predictions"] == logits.argmax(1)).float().mean().item()
    assert agreed > 0.99  # the layout in memory differs, and with it the rounding
    assert record.result["test_loss"] == pytest.approx(
        F.cross_entropy(logits, labels).item(), rel=1e-4
    )
    right = kept["predictions"] == kept["labels"]
    assert record.result["test_accuracy"] == pytest.approx(right.float().mean().item())
    per_class = [right[labels == c].float().mean().item() for c in range(10)]
    assert record.result["per_class_accuracy"] == pytest.approx(per_class)
    assert kept["confusion"].sum() == 1000
    gap = record.result["train_accuracy"] - record.result["test_accuracy"]
    assert record.result["generalization_gap"] == pytest.approx(gap)
