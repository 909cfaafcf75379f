from __future__ import annotations

import pytest
import torch
from torchvision.transforms import functional as reference

from bench.data import Augmentation, augment
from bench.data.augmentation import draw
from bench.errors import BenchError


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def draws(images):
    """The same random numbers for every call: mirrored, down, right, and the two of cutout."""
    return draw(len(images), generator())


def one_by_one(images, augmentation):
    """The same with torchvision, an image at a time."""
    mirrored, down, right, row, column = draws(images).tolist()
    height, width = images.shape[2:]
    padding, side = augmentation.crop_padding, augmentation.cutout
    results = []
    for i in range(len(images)):
        image = images[i]
        if augmentation.flip and mirrored[i] % 2:
            image = reference.hflip(image)
        if padding:
            mode = {"reflect": "reflect", "zero": "constant"}[augmentation.padding_mode]
            image = reference.pad(image, [padding] * 4, padding_mode=mode)
            span = 2 * padding + 1
            image = reference.crop(image, down[i] % span, right[i] % span, height, width)
        if side:
            top, left = row[i] % height - side // 2, column[i] % width - side // 2
            image = image.clone()
            image[:, max(0, top) : top + side, max(0, left) : left + side] = 0
        results.append(image)
    return torch.stack(results)


@pytest.mark.parametrize("shape", [(33, 1, 28, 28), (5, 3, 11, 11), (4, 2, 9, 13)])
@pytest.mark.parametrize(
    "augmentation",
    [
        Augmentation(crop_padding=2),
        Augmentation(crop_padding=2, padding_mode="zero"),
        Augmentation(crop_padding=8, flip=True),
        Augmentation(crop_padding=8, padding_mode="zero", flip=True),
        Augmentation(flip=True),
        Augmentation(cutout=5),
        Augmentation(crop_padding=3, flip=True, cutout=4),
    ],
    ids=str,
)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_it_equals_torchvision_image_by_image(shape, augmentation, dtype):
    images = torch.randint(256, shape, generator=generator(9)).to(torch.uint8)
    if dtype == torch.float32:
        images = images / 255
    expected = one_by_one(images, augmentation)
    result = augment(images, augmentation, draws(images))
    assert result.dtype == dtype
    assert torch.equal(result, expected)


def test_nothing_is_done_by_default(make_images):
    images = make_images().images
    assert torch.equal(augment(images, Augmentation(), draws(images)), images)


def test_the_input_is_left_as_it_was(make_images):
    images = make_images().images
    before = images.clone()
    augment(images, Augmentation(2, "zero", flip=True, cutout=3), draws(images))
    assert torch.equal(images, before)


def test_any_number_of_threads_gives_the_same(make_images):
    images = make_images(count=64, channels=3, size=16).images
    augmentation = Augmentation(crop_padding=4, flip=True, cutout=5)
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            results.append(augment(images, augmentation, draws(images)))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(*results)


def test_the_memory_format_changes_nothing(make_images):
    images = make_images(channels=3).images
    augmentation = Augmentation(crop_padding=2, flip=True, cutout=3)
    last = augment(
        images.contiguous(memory_format=torch.channels_last), augmentation, draws(images)
    )
    assert torch.equal(last, augment(images, augmentation, draws(images)))


def test_switching_flips_on_leaves_the_crops_as_they_were():
    symmetric = torch.rand(20, 1, 9, 5, generator=generator())
    symmetric = torch.cat((symmetric, symmetric.flip(3)), 3)
    with_flips, without = (
        augment(symmetric, Augmentation(crop_padding=3, flip=flip), draws(symmetric))
        for flip in (True, False)
    )
    assert torch.equal(with_flips, without)


def test_every_shift_and_both_directions_occur():
    ramp = torch.arange(25, dtype=torch.uint8).view(1, 1, 5, 5).expand(400, -1, -1, -1)
    shifted = augment(ramp, Augmentation(crop_padding=1), draws(ramp))
    assert sorted(set(shifted[:, 0, 2, 2].tolist())) == [6, 7, 8, 11, 12, 13, 16, 17, 18]
    mirrored = augment(ramp, Augmentation(flip=True), draws(ramp))[:, 0, 0, 0] == 4
    assert 150 < mirrored.sum() < 250


def test_cutout_fills_each_channel_with_its_value():
    images = torch.full((10, 3, 6, 6), 200, dtype=torch.uint8)
    fill = torch.tensor([1, 2, 3])
    result = augment(images, Augmentation(cutout=2), draws(images), fill=fill)
    for channel, value in enumerate((1, 2, 3)):
        assert set(result[:, channel].unique().tolist()) == {value, 200}
    assert ((result != 200).sum((1, 2, 3)) <= 3 * 4).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"crop_padding": -1}, "crop_padding = -1 is negative"),
        ({"cutout": -2}, "cutout = -2 is negative"),
        ({"padding_mode": "reflet"}, "did you mean 'reflect'"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(BenchError, match=message):
        Augmentation(**options)


def test_padding_as_large_as_the_image_is_refused(make_images):
    images = make_images(size=8).images
    with pytest.raises(BenchError, match="use less than 8"):
        augment(images, Augmentation(crop_padding=8), draws(images))


@pytest.mark.gpu
def test_cuda_gives_the_pixels_of_the_cpu(make_images):
    images = make_images(count=64, channels=3, size=16).images
    augmentation = Augmentation(crop_padding=4, flip=True, cutout=5)
    on_gpu = augment(images.cuda(), augmentation, draws(images).cuda())
    assert torch.equal(on_gpu.cpu(), augment(images, augmentation, draws(images)))
