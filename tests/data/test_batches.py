from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch._subclasses.fake_tensor import FakeTensorMode
from torchvision.transforms import functional as reference

from bench.data import Augmentation, Batches, Preprocessing, evaluation_batches
from bench.data.images import Images
from bench.errors import BenchError

MEAN, STD = (0.3, 0.4, 0.5), (0.2, 0.25, 0.3)
PLAIN = Preprocessing(None, MEAN, STD, antialias=False, normalize=True)
GREY = replace(PLAIN, mean=(0.5,), std=(0.2,))


def make_batches(images, *, preprocessing=PLAIN, input_size=None, **changes):
    options = {
        "batch_size": 16,
        "seed": 0,
        "augmentation": Augmentation(crop_padding=2, flip=True, cutout=2),
        "preprocessing": replace(preprocessing, input_size=input_size),
    }
    return Batches(images, **(options | changes))


@pytest.fixture
def images(make_images):
    return make_images(count=50, channels=3, size=8)


def same(first, second):
    pairs = list(zip(first, second, strict=True))
    return bool(pairs) and all(torch.equal(a, c) and torch.equal(b, d) for (a, b), (c, d) in pairs)


def test_unnormalised_values_are_totensors_bit_for_bit():
    levels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    ours = Preprocessing(None, (0,), (1,), antialias=False, normalize=False).apply(levels)
    theirs = reference.to_tensor(Image.fromarray(levels[0, 0].numpy()))
    assert torch.equal(ours[0], theirs)


def test_normalised_values_are_torchvisions(images):
    ours = PLAIN.apply(images.images)
    theirs = reference.normalize(images.images / 255, MEAN, STD)
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=2e-6)


@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize("size", [5, 8, 24])
def test_resizing_before_or_after_normalising_is_the_same(images, size, antialias):
    ours = replace(PLAIN, input_size=size, antialias=antialias).apply(images.images)
    resized = torch.nn.functional.interpolate(
        images.images / 255, (size, size), mode="bilinear", antialias=antialias
    )
    assert ours.shape == (50, 3, size, size)
    torch.testing.assert_close(ours, reference.normalize(resized, MEAN, STD), rtol=1e-5, atol=1e-5)


def test_antialiased_resizing_is_pillows_but_for_its_rounding():
    levels = np.random.default_rng(0).integers(0, 256, (32, 32), dtype=np.uint8)
    pillow = np.array(Image.fromarray(levels).resize((12, 12), Image.Resampling.BILINEAR))
    shrinking = Preprocessing(12, (0,), (1,), antialias=True, normalize=False)
    ours = shrinking.apply(torch.from_numpy(levels)[None, None])
    assert np.abs(ours[0, 0].numpy() * 255 - pillow).max() < 1.01


def test_an_epoch_is_every_image_once_in_an_order_of_its_own(make_images):
    images = make_images(count=50)
    images = Images(images.images, torch.arange(50))  # the label tells the image
    batches = make_batches(images, preprocessing=GREY)
    assert len(batches) == 4
    orders = [torch.cat([labels for _, labels in batches.epoch(epoch)]) for epoch in range(2)]
    assert all(torch.equal(order.sort().values, torch.arange(50)) for order in orders)
    assert not torch.equal(*orders)


def test_the_seed_and_the_epoch_decide_everything(images):
    torch.manual_seed(1)
    first = list(make_batches(images).epoch(3))
    torch.manual_seed(2)
    assert same(first, make_batches(images).epoch(3))
    assert not same(first, make_batches(images, seed=1).epoch(3))
    assert not same(first, make_batches(images).epoch(4))


@pytest.mark.parametrize("start", [1, 3, 4])
def test_resuming_inside_an_epoch_gives_the_batches_that_were_left(images, start):
    whole = list(make_batches(images).epoch(2))
    resumed = list(make_batches(images).epoch(2, start=start))
    assert len(resumed) == 4 - start
    assert start == 4 or same(whole[start:], resumed)


def test_epochs_can_be_iterated_at_the_same_time(images):
    batches = make_batches(images)
    interleaved = [pair for pairs in zip(batches.epoch(0), batches.epoch(1)) for pair in pairs]  # noqa: B905
    assert same(interleaved[::2], batches.epoch(0))
    assert same(interleaved[1::2], batches.epoch(1))


def test_the_network_never_changes_the_images(images):
    before = images.images.clone()
    for inputs, _ in make_batches(images).epoch(0):
        inputs.zero_()
    for inputs, _ in evaluation_batches(images, batch_size=16, preprocessing=PLAIN):
        inputs.zero_()
    assert torch.equal(images.images, before)


def test_the_last_batch_has_what_is_left(images):
    batches = make_batches(images)
    assert len(batches) == 4
    assert [len(labels) for _, labels in batches.epoch(0)] == [16, 16, 16, 2]


@pytest.mark.parametrize("input_size", [None, 12])
def test_channels_last_holds_the_same_values(images, input_size):
    last = make_batches(images, memory_format=torch.channels_last, input_size=input_size)
    for (inputs, _), (plain, _) in zip(
        last.epoch(0), make_batches(images, input_size=input_size).epoch(0), strict=True
    ):
        assert inputs.is_contiguous(memory_format=torch.channels_last)
        assert plain.is_contiguous()
        torch.testing.assert_close(inputs, plain, rtol=0, atol=1e-6)


def test_cutout_leaves_about_zero_after_normalisation():
    white = Images(torch.full((8, 3, 8, 8), 255, dtype=torch.uint8), torch.zeros(8).long())
    batches = make_batches(white, augmentation=Augmentation(cutout=4))
    inputs, _ = next(batches.epoch(0))
    assert inputs.abs().min() < 0.5 / 255 / min(STD)
    assert (inputs.abs().amin((1, 2, 3)) < 0.02).all()


def test_evaluation_is_every_image_in_order(images):
    batches = list(evaluation_batches(images, batch_size=20, preprocessing=PLAIN))
    assert [len(labels) for _, labels in batches] == [20, 20, 10]
    assert torch.equal(torch.cat([labels for _, labels in batches]), images.labels)
    torch.testing.assert_close(
        torch.cat([inputs for inputs, _ in batches]),
        PLAIN.apply(images.images),
    )


@pytest.mark.parametrize("size", [0, -3])
def test_a_batch_size_below_one_is_refused(images, size):
    with pytest.raises(BenchError, match=f"batch size {size} is below 1"):
        make_batches(images, batch_size=size)
    with pytest.raises(BenchError, match=f"batch size {size} is below 1"):
        next(evaluation_batches(images, batch_size=size, preprocessing=PLAIN))


def test_an_input_size_below_one_is_refused():
    with pytest.raises(BenchError, match="input size 0"):
        replace(PLAIN, input_size=0)


@pytest.mark.parametrize("resident", [True, False], ids=["on the device", "moved by batch"])
def test_no_tensor_is_left_behind_on_the_wrong_device(resident):
    # Fake tensors walk the CUDA path where there is no GPU.
    with FakeTensorMode():
        images = Images(torch.zeros(50, 3, 8, 8, dtype=torch.uint8), torch.zeros(50).long())
        if resident:
            images = images.to("cuda")
        batches = make_batches(images, device=None if resident else "cuda", input_size=12)
        for inputs, labels in batches.epoch(0):
            assert inputs.device.type == labels.device.type == "cuda"
            assert inputs.shape[1:] == (3, 12, 12)


def test_alternating_flips_show_both_sides_of_every_image_in_two_epochs():
    pixels = torch.zeros(400, 1, 4, 4, dtype=torch.uint8)
    pixels[..., 0] = 255  # bright on the left, unless flipped
    images = Images(pixels, torch.arange(400))
    batches = make_batches(
        images, preprocessing=GREY, augmentation=Augmentation(flip="alternating")
    )

    def flipped(epoch, **changes):
        made = make_batches(
            images,
            preprocessing=GREY,
            augmentation=Augmentation(flip="alternating"),
            **changes,
        )
        sides, labels = zip(*made.epoch(epoch), strict=True)
        right = torch.cat([side[:, 0, 0, 3] > 0 for side in sides])
        return right[torch.cat(labels).argsort()]

    first = flipped(0)
    assert 150 < int(first.sum()) < 250
    assert torch.equal(flipped(1), ~first)
    assert torch.equal(flipped(2), first)
    assert not torch.equal(flipped(0, seed=1), first)
    assert same(list(batches.epoch(1, start=2)), list(batches.epoch(1))[2:])


def test_the_first_epochs_can_have_sides_of_their_own(images):
    batches = make_batches(images, input_size=8, sides=(4, 6))
    shapes = [next(batches.epoch(epoch))[0].shape[2] for epoch in range(4)]
    assert shapes == [4, 6, 8, 8]
