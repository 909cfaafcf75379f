"""The ingredients of a fast recipe against independent references, one by one."""

from __future__ import annotations

import copy
import functools

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim._muon import _zeropower_via_newtonschulz

from bench import load_model, load_results
from bench.errors import BenchError
from bench.studies.recipe import LATER, RECIPES, Recipe, get_recipe
from bench.studies.run_request import RunRequest
from bench.training.check import check_trainable
from bench.training.loop import Trainer
from bench.training.optimisers import (
    BLOCK_ROWS,
    DTYPES,
    KernelMuon,
    branch_parameters,
    hidden_matrices,
    muon_precision,
    orthogonalise,
)
from bench.training.run import execute
from bench.training.schedule import side_at
from bench.training.setup import Split, build_network, load_data
from bench.training.whitening import EPSILON, stem_of

CPU = torch.device("cpu")
# As the code before these ingredients made it: recorded runs keep their identity.
HASHES = {"fast": "4cfa5caa9216", "book": "414fb48e70e3"}


def prepared(request, layout=torch.contiguous_format):
    data = load_data(request)
    split = Split.of(data, request, CPU)
    model = build_network(request, data).to(memory_format=layout)
    batches = split.training_batches(layout)
    return split, Trainer(model, batches, request.recipe, seed=request.seed, device=CPU)


@pytest.mark.parametrize("recipe", RECIPES)
def test_runs_recorded_before_keep_their_identity(recipe):
    sgd = {"muon_learning_rate": 0.0, "crop_padding": 2}  # what `fast` was then
    then = sgd if recipe == "fast" else {}
    values = get_recipe(recipe).model_copy(update=then)
    request = RunRequest("resnet20", "fashion-mnist-mini", values, seed=0)
    assert request.hash == HASHES[recipe]
    assert not set(request.as_dict()["recipe"]) & set(LATER)


def test_an_ingredient_is_another_run_and_is_read_back(tiny, ingredient):
    plain, other = tiny(), tiny(**ingredient)
    assert plain.hash != other.hash
    assert RunRequest.from_dict(other.as_dict()) == other
    assert Recipe.model_validate(other.recipe.model_dump()) == other.recipe


def responses(stem, split):
    """What the first convolution makes of all patches, D×N, without its padding."""
    images, _ = zip(*split.evaluation(split.train), strict=True)
    found = F.conv2d(torch.cat(images).double(), stem.weight.double())
    return found.transpose(0, 1).flatten(1).detach().numpy()


def patch_variances(split, side):
    """Variances along the principal axes of the patches, largest first, by NumPy alone."""
    images = np.concatenate([i.numpy() for i, _ in split.evaluation(split.train)])[:, 0]
    patches = np.lib.stride_tricks.sliding_window_view(images.astype(float), (side, side), (1, 2))
    return np.linalg.eigvalsh(np.cov(patches.reshape(-1, side * side).T, bias=True))[::-1]


@pytest.mark.parametrize("width", [4, 9, 16, 20])
def test_whitened_patches_have_the_identity_as_covariance(tiny, width):
    split, trainer = prepared(tiny(whitening="initial", options={"width": width}))
    stem = trainer.model.conv1
    variances = patch_variances(split, 3)
    count = min(width, 9)
    covariance = np.cov(responses(stem, split)[:count], bias=True)
    expected = np.diag(variances / (variances + EPSILON))[:count, :count]
    np.testing.assert_allclose(covariance, expected, atol=2e-4)
    assert expected.diagonal().min() > 0.9
    mirrored = min(width, 18) - count
    assert torch.equal(stem.weight[count : count + mirrored], -stem.weight[:mirrored])
    drawn = build_network(tiny(options={"width": width}), split.dataset).conv1
    assert torch.equal(stem.weight[18:], drawn.weight[18:])


def test_a_frozen_stem_stays_and_another_does_not(tiny, store, resources):
    for whitening in ("initial", "frozen"):
        request = tiny(whitening=whitening)
        before = build_network(request, load_data(request)).conv1.weight
        execute(request, store, resources)
        after = store.read_tensors(request.run_id, "model.safetensors")["conv1.weight"]
        assert torch.equal(before, after) == (whitening == "frozen")


def test_what_has_no_stem_is_refused(tiny):
    with pytest.raises(BenchError, match="the net does not begin with a convolution of the images"):
        stem_of(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), 1, "the net")
    request = tiny("plain_cnn", branch_weight_decay=0.1, options={}, input_size=28)
    with pytest.raises(BenchError, match="no residual blocks, which branch_weight_decay is for"):
        check_trainable(request, load_data(request))


def test_muon_takes_the_hidden_matrices_and_sgd_the_rest(tiny):
    _, trainer = prepared(tiny(muon_learning_rate=0.1))
    sgd, muon = trainer.optimizers
    named = dict(trainer.model.named_parameters())
    hidden = {n for n, p in named.items() if any(p is h for h in hidden_matrices(trainer.model))}
    assert hidden == {n for n, p in named.items() if p.ndim == 4 and n != "conv1.weight"}
    taken = {id(p) for group in sgd.param_groups for p in group["params"]}
    assert taken == {id(p) for n, p in named.items() if n not in hidden}
    assert [id(p) for p in muon.kernels] == [id(named[n]) for n in named if n in hidden]


@pytest.mark.parametrize(("nesterov", "expected"), [(True, (0.8, True)), (False, (0.8, False))])
def test_both_have_the_recipes_momentum_and_weight_decay(tiny, nesterov, expected):
    values = {"momentum": 0.8, "nesterov": nesterov, "weight_decay": 0.003}
    _, trainer = prepared(tiny(muon_learning_rate=0.1, **values))
    for optimiser in trainer.optimizers:
        assert {(g["momentum"], g["nesterov"]) for g in optimiser.param_groups} == {expected}
        assert max(g["weight_decay"] for g in optimiser.param_groups) == 0.003
    assert [g["weight_decay"] for g in trainer.optimizers[1].param_groups] == [0.003]


def test_both_rates_follow_the_schedule(tiny):
    request = tiny(muon_learning_rate=0.06)
    _, trainer = prepared(request)
    seen = []
    trainer.run_epoch(
        after_step=lambda: seen.append([o.param_groups[0]["lr"] for o in trainer.optimizers])
    )
    assert [muon for _, muon in seen] == pytest.approx([sgd / 5 for sgd, _ in seen])  # 0.06 / 0.3


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("shape", [(4, 12, 3, 3), (40, 3, 3, 3), (8, 16, 1, 1), (6, 10)])
def test_muons_step_is_the_nearest_orthogonal_matrix_nearly(shape, layout):
    torch.manual_seed(0)
    layout = layout if len(shape) == 4 else torch.contiguous_format
    kernel = nn.Parameter(torch.randn(shape).contiguous(memory_format=layout))
    before, target = kernel.detach().clone(), torch.randn(shape)
    (kernel * target).sum().backward()
    muon = KernelMuon(
        [{"params": [kernel], "weight_decay": 0.0}], lr=0.5, momentum=0.0, nesterov=False
    )
    muon.take_gradients()
    muon.step()
    step = ((before - kernel.detach()) / 0.5).flatten(1).numpy()
    rows, columns = step.shape
    left, _, right = np.linalg.svd(target.flatten(1).numpy(), full_matrices=False)
    nearest = left @ right * max(1, rows / columns) ** 0.5
    cosine = (step * nearest).sum() / np.linalg.norm(step) / np.linalg.norm(nearest)
    assert cosine > 0.95  # five Newton-Schulz iterations leave singular values of 0.7 to 1.2
    singular = np.linalg.svd(step, compute_uv=False) / max(1, rows / columns) ** 0.5
    assert 0.5 < singular.min() <= singular.max() < 1.4


MUON = (3.4445, -4.7750, 2.0315)


def five_iterations(matrix):
    """Muon's polynomial on the singular values, by SVD in float64."""
    left, values, right = np.linalg.svd(matrix.double().numpy(), full_matrices=False)
    values = values / np.linalg.norm(values)
    for _ in range(5):
        values = MUON[0] * values + MUON[1] * values**3 + MUON[2] * values**5
    return torch.from_numpy(left * values @ right)


def cosine(one, other):
    return F.cosine_similarity(one.double().flatten(), other.double().flatten(), dim=0).item()


@pytest.mark.parametrize("precision", DTYPES)
@pytest.mark.parametrize("smallest", [1.0, 1e-4])
@pytest.mark.parametrize("shape", [(64, 576), (128, 64), (96, 96)])
def test_orthogonalising_is_that_of_pytorch_and_no_less_exact(precision, smallest, shape):
    torch.manual_seed(0)
    left, _, right = torch.linalg.svd(torch.randn(2, *shape), full_matrices=False)
    decaying = torch.logspace(0, np.log10(smallest), min(shape))
    batch = left * decaying @ right
    batch[:, :, 3] = 0  # no gradient, as at the rim of a kernel of small maps
    found = orthogonalise(batch, MUON, DTYPES[precision], 1e-7)
    assert not found[:, :, 3].any()
    for ours, matrix in zip(found, batch, strict=True):
        exact = five_iterations(matrix)
        reference = _zeropower_via_newtonschulz(matrix.clone(), MUON, 5, 1e-7)
        assert 1 - cosine(ours, exact) < (1e-4 if precision == "fp32" else 0.02)
        if precision == "fp32":
            assert cosine(ours, exact) >= cosine(reference, exact)


@pytest.mark.parametrize("value", [0.0, float("nan")])
def test_what_has_no_direction_raises_nothing(value):
    found = orthogonalise(torch.full((1, 4, 6), value), MUON, torch.float32, 1e-7)
    torch.testing.assert_close(found, torch.full((1, 4, 6), value), equal_nan=True)


def test_muon_takes_the_steps_of_pytorchs_muon(tiny):
    _, ours = prepared(tiny(muon_learning_rate=0.05))
    _, theirs = prepared(tiny(muon_learning_rate=0.05))
    pytorchs = theirs.optimizers[1]
    pytorchs.step = functools.partial(torch.optim.Muon.step, pytorchs)
    before = [p.detach().clone() for p in ours.parameters]
    for trainer in (ours, theirs):
        trainer.step(*next(trainer.batches.epoch(0)))
    ours_moved, theirs_moved = (
        torch.cat([(p.detach() - b).flatten() for p, b in zip(t.parameters, before, strict=True)])
        for t in (ours, theirs)
    )
    assert cosine(ours_moved, theirs_moved) > 0.998
    assert float(ours_moved.norm()) == pytest.approx(float(theirs_moved.norm()), rel=0.01)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_pixels_of_a_kernel_without_a_gradient_follow_their_momentum(layout):
    torch.manual_seed(0)
    kernel = nn.Parameter(torch.randn(6, 4, 3, 3).contiguous(memory_format=layout))
    theirs = nn.Parameter(kernel.detach().flatten(1))
    ours = muon_of(kernel, momentum=0.9)
    pytorchs = torch.optim.Muon([theirs], lr=0.05, weight_decay=0.01, momentum=0.9)
    centre, all_pixels = (slice(1, 2), slice(1, 2)), (slice(None), slice(None))
    for pixels in (centre, all_pixels, centre):
        gradient = torch.zeros_like(kernel)
        gradient[:, :, *pixels] = torch.randn_like(kernel)[:, :, *pixels]
        kernel.grad, theirs.grad = gradient, gradient.flatten(1)
        before = kernel.detach().clone()
        ours.take_gradients()
        ours.step()
        pytorchs.step()
        moved = kernel.detach() - before
        their_move = theirs.detach().view_as(kernel) - before
        assert cosine(moved, their_move) > 0.998
        assert float(moved.norm()) == pytest.approx(float(their_move.norm()), rel=0.02)
        theirs.data.copy_(kernel.detach().flatten(1))
    assert moved[:, :, 0, 0].abs().min() > 0


@pytest.mark.parametrize("shape", [(260, 150), (150, 260)])
def test_a_wide_matrix_moves_as_pytorchs_muon_moves_blocks_of_its_rows(shape):
    torch.manual_seed(0)
    matrix, gradient = nn.Parameter(torch.randn(shape)), torch.randn(shape)
    before = matrix.detach().clone()
    blocks = [nn.Parameter(b.clone()) for b in before.tensor_split(-(-shape[0] // BLOCK_ROWS))]
    assert all(len(block) <= BLOCK_ROWS for block in blocks)
    for block, its in zip(blocks, gradient.tensor_split(len(blocks)), strict=True):
        block.grad = its
    matrix.grad = gradient
    ours = muon_of(matrix, momentum=0.9)
    ours.take_gradients()
    ours.step()
    torch.optim.Muon(blocks, lr=0.05, weight_decay=0.01, momentum=0.9).step()
    assert cosine(matrix.detach() - before, torch.cat(blocks).detach() - before) > 0.998


def test_a_column_whose_momentum_is_zero_moves_along_its_gradient():
    torch.manual_seed(0)
    ours, gradient = nn.Parameter(torch.randn(6, 8)), torch.randn(6, 8)
    theirs = nn.Parameter(ours.detach().clone())
    muon = muon_of(ours, momentum=0.5)
    pytorchs = torch.optim.Muon([theirs], lr=0.05, weight_decay=0.01, momentum=0.5)
    for factor in (1.0, -0.5):  # the second cancels the momentum of the first in column 0
        now = gradient.clone()
        now[:, 0] *= factor
        ours.grad, theirs.grad = now, now.clone()
        muon.take_gradients()
        muon.step()
        pytorchs.step()
    assert cosine(ours.detach()[:, 0], theirs.detach()[:, 0]) > 0.998


def test_matrices_without_a_gradient_stay_as_they_are():
    still, moving = nn.Parameter(torch.ones(4, 6)), nn.Parameter(torch.ones(4, 6))
    groups = [{"params": [p], "weight_decay": 0.1} for p in (still, moving)]
    muon = KernelMuon(groups, lr=0.1, momentum=0.9, nesterov=True)
    moving.grad = torch.randn(4, 6)
    muon.take_gradients()
    muon.step()
    assert torch.equal(still, torch.ones(4, 6))
    assert not torch.equal(moving, torch.ones(4, 6))


def muon_of(parameter, momentum):
    muon = KernelMuon(
        [{"params": [parameter], "weight_decay": 0.01}],
        lr=0.05, momentum=momentum, nesterov=True,
    )  # fmt: skip
    muon.dtype = torch.float32
    return muon


@pytest.mark.parametrize(
    ("avx512_bf16", "onednn", "expected"),
    [(True, True, "bf16"), (False, True, "fp32"), (True, False, "fp32")],
)
def test_muon_takes_bf16_only_on_cpus_that_have_it(avx512_bf16, onednn, expected, monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512_bf16)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: onednn)
    assert muon_precision(CPU) == expected


def test_muon_takes_bf16_only_on_gpus_that_have_it(monkeypatch):
    capabilities = {0: (7, 5), 1: (8, 0), 2: (12, 0)}  # T4, A100, RTX 5090
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda d: capabilities[d.index])
    found = [muon_precision(torch.device("cuda", index)) for index in capabilities]
    assert found == ["fp32", "bf16", "bf16"]
    assert muon_precision(torch.device("mps")) == "fp32"


def test_the_record_says_in_which_arithmetic_muon_ran(tiny, store, resources):
    for request, expected in (
        (tiny(muon_learning_rate=0.05), muon_precision(CPU)),
        (tiny(), None),
    ):
        assert execute(request, store, resources).environment.get("muon_precision") == expected


def test_lookahead_is_algorithm_1(tiny):
    changes = {"flip": False, "schedule": "constant", "warmup_fraction": 0.0}
    _, ours = prepared(tiny(lookahead_steps=2, **changes))
    _, plain = prepared(tiny(**changes))
    slow = [p.detach().clone() for p in plain.parameters]
    step = 0

    def outer():
        nonlocal step
        step += 1
        if step % 2 == 0:  # the slow go half-way to the fast, which then start there
            for old, new in zip(slow, plain.parameters, strict=True):
                old.copy_(old + 0.5 * (new.detach() - old))
                new.data.copy_(old)

    for _ in range(2):
        ours.run_epoch(after_step=lambda: None)
        plain.run_epoch(after_step=outer)
    for one, other in zip(ours.parameters, plain.parameters, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_images_grow_by_epoch_and_end_at_their_size(tiny):
    recipe = Recipe(initial_size=0.5, epochs=6)
    assert [side_at(recipe, epoch, 28) for epoch in range(6)] == [14, 18, 21, 24, 28, 28]
    assert side_at(Recipe(initial_size=0.5, epochs=1), 0, 28) == 28
    split, _ = prepared(tiny(initial_size=0.5, epochs=3, input_size=12))
    batches = split.training_batches(torch.contiguous_format)
    shapes = [next(batches.epoch(epoch))[0].shape[2:] for epoch in range(4)]
    assert shapes == [(6, 6), (9, 9), (12, 12), (12, 12)]
    assert next(iter(split.evaluation(split.test)))[0].shape[2:] == (12, 12)


def test_flips_at_test_time_are_a_figure_of_their_own(tiny, store, resources):
    request, plain = tiny(test_time_flip=True), tiny()
    record = execute(request, store, resources)
    assert (
        record.result["test_accuracy"] == execute(plain, store, resources).result["test_accuracy"]
    )
    model = load_model(request.run_id, results=store.root)
    split = Split.of(load_data(request), request, CPU)
    right = 0
    with torch.no_grad():
        for images, labels in split.evaluation(split.test):
            logits = torch.stack([model(images), model(images.flip(3))]).mean(0)
            right += int((logits.argmax(1) == labels).sum())
    assert record.result["test_accuracy_with_flip"] == pytest.approx(right / 1000)
    rows = load_results(store.root).set_index("run")["test_accuracy_with_flip"]
    assert rows[request.run_id] == record.result["test_accuracy_with_flip"]
    assert np.isnan(rows[plain.run_id])


def test_decay_of_the_branches_spares_all_else(tiny):
    request = tiny(branch_weight_decay=0.5, options={"width": 4, "shortcut": "projection"})
    _, trainer = prepared(request)
    named = {id(p): name for name, p in trainer.model.named_parameters()}
    decay = {
        named[id(p)]: group["weight_decay"]
        for group in trainer.optimizers[0].param_groups
        for p in group["params"]
    }
    for name, value in decay.items():
        inside = name.startswith("layer") and "downsample" not in name
        spared = "bn" in name or name.endswith("bias") or "downsample.1" in name
        assert value == (0.5 if inside else 0.0 if spared else 5e-4), name
    assert len(decay) == len(named)
    assert len(branch_parameters(trainer.model)) == 6 * 6


def test_a_norm_before_an_identity_shortcuts_branch_is_decayed_with_it(tiny):
    """In a pre-activation block, bn1 comes first; a projection takes what it gives, too."""
    options = {"width": 4, "shortcut": "projection", "activation_order": "preact"}
    _, trainer = prepared(tiny(model="resnet14", options=options))
    decayed = {id(p) for p in branch_parameters(trainer.model)}
    names = [name for name, p in trainer.model.named_parameters() if id(p) in decayed]
    blocks = [f"layer{stage}.{block}" for stage in (1, 2, 3) for block in (0, 1)]
    assert [name for name in names if name.endswith("bn2.weight")] == [
        f"{block}.bn2.weight" for block in blocks
    ]
    # The first block of the network is entered by the stem's norm.
    assert [name for name in names if name.endswith("bn1.weight")] == [
        f"{block}.bn1.weight" for block in blocks if block.endswith(".1")
    ]


def test_recorded_blocks_are_used_for_nothing(tiny, store, resources):
    watched, plain = tiny(record_blocks=True), tiny()
    digests = [execute(r, store, resources).files["model.safetensors"] for r in (watched, plain)]
    assert digests[0] == digests[1]
    rows = store.read_document(watched.run_id, "blocks.json")
    blocks = [f"layer{stage}.{block}" for stage in (1, 2, 3) for block in (0, 1)]
    assert [(row["epoch"], row["block"]) for row in rows] == [
        (epoch, block) for epoch in (0, 1, 2) for block in blocks
    ]
    assert all(row["gradient_norm"] > 0 and row["norm_ratio"] > 0 for row in rows)
    split, trainer = prepared(watched, torch.channels_last)
    images, labels = next(split.training_batches(torch.channels_last).epoch(1))
    model = copy.deepcopy(trainer.model).train()
    F.cross_entropy(model(images), labels).backward()
    norms = [model.layer1[0].conv1.weight.grad.norm(), model.layer1[0].conv2.weight.grad.norm()]
    assert rows[0]["gradient_norm"] == pytest.approx(float(torch.stack(norms).norm()), rel=1e-4)
