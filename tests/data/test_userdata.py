from __future__ import annotations

import sys
import textwrap
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import ConcatDataset, IterableDataset, TensorDataset

from bench.data import Dataset, Images, load_dataset
from bench.errors import BenchError

TRAIN = np.random.default_rng(0).integers(0, 256, (12, 6, 6, 3), dtype=np.uint8)
TEST = np.random.default_rng(1).integers(0, 256, (4, 6, 6, 3), dtype=np.uint8)
TRAIN_LABELS, TEST_LABELS = np.arange(12) % 4, np.arange(4)


@pytest.fixture
def returning(tmp_path, monkeypatch):
    """Load a dataset from a function that returns the given value."""
    (tmp_path / "user_of_bench.py").write_text("def make(): return VALUE\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))

    def load(value):
        sys.modules.pop("user_of_bench", None)
        sys.path.append(str(tmp_path))
        __import__("user_of_bench").VALUE = value
        return load_dataset("user_of_bench:make", quiet=True)

    yield load
    sys.modules.pop("user_of_bench", None)


def to_float_tensor(images):
    return torch.from_numpy(images).permute(0, 3, 1, 2) / 255  # as torchvision's ToTensor


FOUR = (TRAIN, TRAIN_LABELS, TEST, TEST_LABELS)
FORMS = {
    "four arrays": FOUR,
    "two pairs": ((TRAIN, TRAIN_LABELS), (TEST, TEST_LABELS)),
    "channels first": (
        TRAIN.transpose(0, 3, 1, 2),
        TRAIN_LABELS.astype(np.uint8),
        torch.from_numpy(TEST).permute(0, 3, 1, 2),
        torch.from_numpy(TEST_LABELS).int(),
    ),
    "lists of labels": (TRAIN, TRAIN_LABELS.tolist(), TEST, TEST_LABELS.tolist()),
    "a dict": dict(
        zip(("train_images", "train_labels", "test_images", "test_labels"), FOUR, strict=True)
    ),
    "a dict of pairs": {"train": (TRAIN, TRAIN_LABELS), "test": (TEST, TEST_LABELS)},
    "torch datasets": (
        TensorDataset(torch.from_numpy(TRAIN), torch.from_numpy(TRAIN_LABELS)),
        TensorDataset(torch.from_numpy(TEST), torch.from_numpy(TEST_LABELS)),
    ),
    "floats of grey levels": (
        TensorDataset(to_float_tensor(TRAIN), torch.from_numpy(TRAIN_LABELS)),
        (to_float_tensor(TEST).half(), TEST_LABELS),
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_dataset(returning, form):
    dataset = returning(FORMS[form])
    assert dataset.name == "user_of_bench:make"
    assert dataset.classes == ("0", "1", "2", "3")
    assert torch.equal(dataset.train.images, torch.from_numpy(TRAIN).permute(0, 3, 1, 2))
    assert torch.equal(dataset.test.images, torch.from_numpy(TEST).permute(0, 3, 1, 2))
    assert dataset.train.labels.tolist() == TRAIN_LABELS.tolist()
    assert dataset.train.labels.dtype == torch.int64
    assert dataset.mean == pytest.approx(TRAIN.mean((0, 1, 2)) / 255)


def test_grey_images_need_no_channel(returning):
    dataset = returning((TRAIN[..., 0], TRAIN_LABELS, TEST[..., 0], TEST_LABELS))
    assert dataset.train.images.shape == (12, 1, 6, 6)


def test_class_names_are_taken(returning):
    dataset = returning(FORMS["a dict"] | {"classes": ["a", "b", "c", "d", "never seen"]})
    assert dataset.classes[3:] == ("d", "never seen")


NAMES = ("cat", "dog", "eel", "fox")
SPELLINGS = {
    "class_to_idx": {"fox": 3, "dog": 1, "cat": 0, "eel": 2},
    "idx_to_class": {np.int64(3): "fox", 1: "dog", 0: "cat", 2: "eel"},
    "a generator": (name for name in NAMES),
    "bytes": [name.encode() for name in NAMES],
    "an array": np.array(NAMES),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_class_names_are_those_of_their_labels(returning, spelling):
    classes = SPELLINGS[spelling]
    assert returning(FORMS["a dict of pairs"] | {"classes": classes}).classes == NAMES


def torch_datasets(**classes):
    train, test = FORMS["torch datasets"]
    sets = {"train": TensorDataset(*train.tensors), "test": TensorDataset(*test.tensors)}
    for split, names in classes.items():
        sets[split].classes = names
    return sets


@pytest.mark.parametrize("form", [dict, lambda sets: tuple(sets.values())])
def test_class_names_of_the_training_set_are_taken(returning, form):
    sets = form(torch_datasets(train=SPELLINGS["class_to_idx"], test=NAMES[:2]))
    assert returning(sets).classes == NAMES


def test_a_dataset_of_ours_keeps_its_statistics(returning):
    splits = [
        Images(torch.from_numpy(images).permute(0, 3, 1, 2), torch.from_numpy(labels))
        for images, labels in ((TRAIN, TRAIN_LABELS), (TEST, TEST_LABELS))
    ]
    own = Dataset("x", ("a", "b", "c", "d"), *splits, (0.1,) * 3, (0.2,) * 3, "", timing_only=True)
    assert returning(replace(own, classes=SPELLINGS["class_to_idx"])).classes == NAMES
    dataset = returning(own)
    assert (dataset.name, dataset.mean, dataset.timing_only) == (
        "user_of_bench:make",
        (0.1,) * 3,
        True,
    )
    assert dataset.fingerprint == returning(FOUR).fingerprint


def test_a_view_of_a_set_keeps_images_and_labels_together(returning):
    images = Images(torch.from_numpy(TRAIN).permute(0, 3, 1, 2), torch.from_numpy(TRAIN_LABELS))
    test = Images(torch.from_numpy(TEST).permute(0, 3, 1, 2), torch.from_numpy(TEST_LABELS))
    order = torch.arange(len(images) - 1, -1, -1)
    own = Dataset("x", ("a", "b", "c", "d"), images, test, (0.1,) * 3, (0.2,) * 3, "")
    viewed = returning(replace(own, train=images.view(order))).train
    assert torch.equal(viewed.images, images.images.flip(0))
    assert torch.equal(viewed.labels, images.labels.flip(0))


def test_colours_of_a_palette_are_no_grey_levels(returning):
    class Palette(torch.utils.data.Dataset):
        def __len__(self):
            return len(TRAIN_LABELS)

        def __getitem__(self, place):
            flat = np.full((4, 4, 3), (200, 10 * place, 30), dtype=np.uint8)
            return Image.fromarray(flat).convert("P"), int(TRAIN_LABELS[place])

    train = returning({"train": Palette(), "test": Palette()}).train.images
    assert train.shape[1] == 3
    assert (train[:, 0] > 150).all()


def test_train_images_works_for_them_too(returning):
    returning(FOUR)
    dataset = load_dataset("user_of_bench:make", train_images=4)
    assert sorted(dataset.train.labels.tolist()) == [0, 1, 2, 3]


WRONG = {
    "returned a str": ("no data", "the function returned a str: return"),
    "three values": ((TRAIN, TRAIN_LABELS, TEST), "returned a tuple of 3"),
    "a dict of other names": ({"x": TRAIN}, "the dict has the names x: return"),
    "fewer labels": ((TRAIN, TRAIN_LABELS[:-1], TEST, TEST_LABELS), "12 images but 11 labels"),
    "label too large": (
        (TRAIN, TRAIN_LABELS, TEST, TEST_LABELS + 1),
        r"label 4 of test image 3 is outside 0 … 3",
    ),
    "negative label": ((TRAIN, TRAIN_LABELS - 1, TEST, TEST_LABELS), "label -1 of training image"),
    "labels from one": (
        (TRAIN, TRAIN_LABELS + 1, TEST, TEST_LABELS + 1),
        "class 0 of 0 … 4 has no training image",
    ),
    "name without text": (
        FORMS["a dict"] | {"classes": ["a", "b", "c", "caf\udce9"]},
        "not valid UTF-8: rename it",
    ),
    "label beyond the names": (FORMS["a dict"] | {"classes": ["a", "b"]}, r"outside 0 … 1"),
    "names without an order": (
        FORMS["a dict"] | {"classes": {"a", "b", "c", "d"}},
        "classes has the type set: give a list of names in the order of the labels, or a dict",
    ),
    "names in one word": (
        FORMS["a dict"] | {"classes": "abcd"},
        "classes has the type str: give a list",
    ),
    "labels with a gap": (
        FORMS["a dict"] | {"classes": {"a": 0, "b": 2}},
        "classes has the type dict",
    ),
    "labels that are no numbers": (
        FORMS["a dict"] | {"classes": {"a": [0]}},
        "classes has the type dict",
    ),
    "a number of classes": (
        torch_datasets(train=4),
        "classes has the type int: give a list of names",
    ),
    "splits of different classes": (
        torch_datasets(train=NAMES, test=["cat", "eel", "fox"]),
        "label 1 is 'dog' in the training set, but 'eel' in the test set",
    ),
    "float labels": (
        (TRAIN, TRAIN_LABELS.astype(float), TEST, TEST_LABELS),
        "labels are torch.float64 .* one integer an image",
    ),
    "one-hot labels": (
        (TRAIN, np.eye(4, dtype=int)[TRAIN_LABELS], TEST, TEST_LABELS),
        r"shape \(12, 4\)",
    ),
    "normalised images": (
        (to_float_tensor(TRAIN) - 0.5, TRAIN_LABELS, TEST, TEST_LABELS),
        "training set: images are torch.float32 and no grey levels .* give uint8",
    ),
    "floats to 255": (
        (TRAIN.astype(np.float32), TRAIN_LABELS, TEST, TEST_LABELS),
        "no grey levels",
    ),
    "int64 images": (
        (TRAIN.astype(int), TRAIN_LABELS, TEST, TEST_LABELS),
        "images are torch.int64",
    ),
    "flat images": (
        (TRAIN.reshape(12, -1), TRAIN_LABELS, TEST, TEST_LABELS),
        r"shape \(12, 108\): give NxHxW",
    ),
    "oblong images": (
        (TRAIN[:, :4], TRAIN_LABELS, TEST, TEST_LABELS),
        r"4x6 pixels \(HxW\), not square .*: set an",
    ),
    "two sizes": (
        (TRAIN, TRAIN_LABELS, TEST[:, :4, :4], TEST_LABELS),
        "training images are 3x6x6 but test images are 3x4x4",
    ),
    "nothing": ((TRAIN[:0], TRAIN_LABELS[:0], TEST, TEST_LABELS), "training set is empty"),
    "no test": ((TRAIN, TRAIN_LABELS, TEST[:0], TEST_LABELS[:0]), "test set is empty"),
    "one class": ((TRAIN, TRAIN_LABELS * 0, TEST, TEST_LABELS * 0), "at least 2 are needed"),
    "strings": ((["a"], [0], ["b"], [0]), "no numeric array"),
    "a torch dataset of float labels": (
        (
            TensorDataset(torch.zeros(3, 3, 6, 6), torch.tensor([0.6, 1.6, 0.0])),
            (TEST, TEST_LABELS),
        ),
        "item 0 gives no .image, integer label",
    ),
    "a torch dataset of something else": (
        (TensorDataset(torch.zeros(3, 6, 6)), (TEST, TEST_LABELS)),
        "item 0 gives no .image, integer label",
    ),
    "a torch dataset without a length": (
        (type("Stream", (IterableDataset,), {"__iter__": iter})(), (TEST, TEST_LABELS)),
        "the torch Dataset has no length: give a map-style one",
    ),
    "a torch dataset without images": (
        (TensorDataset(torch.zeros(0, 3, 6, 6), torch.zeros(0)), (TEST, TEST_LABELS)),
        "is empty: give it images",
    ),
    "a torch dataset of two sizes": (
        (
            ConcatDataset(
                TensorDataset(torch.zeros(1, 3, side, side), torch.zeros(1, dtype=int))
                for side in (6, 4)
            ),
            (TEST, TEST_LABELS),
        ),
        r"image 1 is of shape \(3, 4, 4\), image 0 of \(3, 6, 6\): resize them to one shape",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_said_in_one_line(returning, case):
    value, message = WRONG[case]
    with pytest.raises(BenchError, match=message) as caught:
        returning(value)
    assert str(caught.value).startswith("dataset 'user_of_bench:make'")
    assert "\n" not in str(caught.value)


@pytest.fixture
def write_module(tmp_path, monkeypatch):
    """Write a module into the current folder, which is not on the path yet."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry not in {"", "."}])
    before = set(sys.modules)

    def write(name, source):
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(source))

    yield write
    for name in set(sys.modules) - before:
        if name.startswith("mine"):
            del sys.modules[name]


def test_the_current_folder_is_importable_but_comes_last(write_module, tmp_path):
    write_module("numpy", "raise RuntimeError('the wrong numpy')")
    write_module(
        "mine_a",
        """
        import numpy
        def data():
            images = numpy.zeros((4, 5, 5), numpy.uint8)
            return (images, [0, 1, 0, 1]), (images, [0, 1, 0, 1])
        """,
    )
    dataset = load_dataset("mine_a:data")
    assert dataset.size == 5
    assert sys.path[-1] == str(tmp_path)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("def data(): raise KeyError('lost\\nfile')", "the function raised KeyError: .*lost"),
        ("def dato(): pass", r"no 'data' in mine_b .*mine_b\.py\); did you mean 'dato'"),
        ("data = 3", "mine_b:data is int, not a function"),
        ("import not_there_at_all", "mine_b:data: importing it raised .*not_there_at_all"),
        ("def data(:", "mine_b:data: importing it raised SyntaxError"),
        ("def data(folder): pass", "raised TypeError: .*folder"),
    ],
)
def test_a_function_that_cannot_be_called_is_named(write_module, source, message):
    write_module("mine_b", source)
    with pytest.raises(BenchError, match=message) as caught:
        load_dataset("mine_b:data")
    assert "\n" not in str(caught.value)


def test_a_module_that_is_not_there_says_where_to_run():
    with pytest.raises(BenchError, match=r"no module 'mine_c' .*run from the folder"):
        load_dataset("mine_c:data")
