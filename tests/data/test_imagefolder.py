from __future__ import annotations

import json
import os
import shutil
import struct
import zlib

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image, ImageOps
from torchvision.transforms import functional as reference

from bench.data import imagecache, load_dataset
from bench.errors import BenchError


def load(root, **options):
    return load_dataset(f"imagefolder:{root}", quiet=True, **options)


@pytest.fixture
def folder(tmp_path, write_image):
    """Two classes, three training and two test images each; returns root and pixels."""
    root, pixels = tmp_path / "images", {}
    for split, count in (("train", 3), ("test", 2)):
        for label, name in enumerate(("cat", "dog")):
            for number in range(count):
                path = root / split / name / f"{number}.png"
                pixels[path] = write_image(path, seed=100 * label + 10 * count + number)
    return root, pixels


def test_pixels_labels_and_classes_are_the_folders(folder):
    root, pixels = folder
    dataset = load(root)
    assert dataset.classes == ("cat", "dog")
    assert dataset.train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    expected = np.stack([pixels[path] for path in sorted((root / "train").rglob("*.png"))])
    assert torch.equal(dataset.train.images, torch.from_numpy(expected)[:, None])
    assert dataset.test.images.shape == (4, 1, 6, 6)
    assert dataset.mean == pytest.approx([expected.mean() / 255])


def test_the_second_load_reads_the_cache(folder, monkeypatch):
    first = load(folder[0])
    monkeypatch.setattr(imagecache, "decode", None)
    second = load(folder[0])
    assert second.fingerprint == first.fingerprint
    assert torch.equal(second.train.images, first.train.images)
    assert (second.mean, second.std) == (first.mean, first.std)


def test_a_whole_cache_is_read_where_nothing_can_be_written(folder, monkeypatch):
    first = load(folder[0])

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("filelock.FileLock.acquire", refuse)
    monkeypatch.setattr("pathlib.Path.mkdir", refuse)
    assert load(folder[0]).fingerprint == first.fingerprint


def test_a_changed_image_is_decoded_again(folder, write_image):
    root, _ = folder
    for number in range(100, 160):  # so many that not the bytes of each name the cache
        write_image(root / "train" / "cat" / f"{number}.png", seed=number)
    before = load(root)
    path = root / "train" / "cat" / "1.png"
    changed = path.stat().st_mtime_ns + 10**10  # within one tick of the clock it is the same
    write_image(path, seed=999)
    os.utime(path, ns=(changed, changed))
    assert load(root).fingerprint != before.fingerprint


def test_folders_that_differ_only_in_pixels_have_caches_of_their_own(folder, tmp_path):
    """Uncompressed images of equal size, with the times that an archive gave them."""
    other = tmp_path / "other"
    shutil.copytree(folder[0], other)
    for root in (folder[0], other):
        for path in sorted(root.rglob("*.png")):
            with Image.open(path) as image:
                pixels = image if root == folder[0] else ImageOps.invert(image)
                pixels.save(path.with_suffix(".bmp"))
            path.unlink()
            os.utime(path.with_suffix(".bmp"), ns=(0, 0))
    assert load(folder[0]).fingerprint != load(other).fingerprint


def test_the_cache_cannot_be_told_from_one_written_without_it(folder, tmp_path, monkeypatch):
    here = load(folder[0])
    monkeypatch.setenv("BENCH_DATA", str(tmp_path / "other"))
    assert load(folder[0]).fingerprint == here.fingerprint


@pytest.mark.parametrize("damage", ["no manifest", "half a manifest", "short", "changed"])
def test_a_cache_that_is_not_whole_is_made_anew(folder, own_cache, damage):
    first = load(folder[0])
    (manifest,) = own_cache.rglob("manifest.json")
    data = manifest.parent / "train-images.bin"
    if damage == "no manifest":
        manifest.unlink()
    elif damage == "half a manifest":
        manifest.write_text(manifest.read_text()[:40])
    elif damage == "short":
        data.write_bytes(data.read_bytes()[:-1])
    else:
        data.write_bytes(bytes([data.read_bytes()[0] ^ 1]) + data.read_bytes()[1:])
    again = load(folder[0])
    assert torch.equal(again.train.images, first.train.images)
    assert json.loads(manifest.read_text())["fingerprint"] == first.fingerprint


def test_a_cache_that_another_process_replaces_meanwhile_is_read_again(folder, monkeypatch):
    first, lengths = load(folder[0]), []

    def map_file(*words, **options):
        if not lengths:  # before the lock, another process removes what this one has begun to read
            lengths.append(options["size"])
            raise RuntimeError("unable to open file <train-images.bin>")
        return from_file(*words, **options)

    from_file = torch.from_file
    monkeypatch.setattr(torch, "from_file", map_file)
    assert load(folder[0]).fingerprint == first.fingerprint
    assert lengths


def test_an_interrupted_decoding_leaves_no_cache(folder, own_cache, monkeypatch):
    def interrupted(_, shape, _resize):
        yield np.zeros(shape, np.uint8)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(imagecache, "decode", interrupted)
        with pytest.raises(KeyboardInterrupt):
            load(folder[0])
    assert not [path for path in (own_cache / "imagefolder").iterdir() if path.is_dir()]
    assert len(load(folder[0]).train) == 6


def test_the_remains_of_a_killed_process_are_removed(folder, own_cache):
    load(folder[0])
    (manifest,) = own_cache.rglob("manifest.json")
    cache = manifest.parent
    remains = cache.with_name(f"{cache.name}-killed.tmp")
    cache.rename(remains)
    (remains / "manifest.json").unlink()
    load(folder[0])
    assert cache.is_dir()
    assert not remains.exists()


def test_a_set_too_large_for_memory_is_mapped(folder, monkeypatch):
    in_memory = load(folder[0])
    monkeypatch.setattr(imagecache, "memory_left", lambda: 100)
    mapped = load(folder[0])
    assert mapped.memory_mapped
    assert not in_memory.memory_mapped
    assert torch.equal(mapped.train.images, in_memory.train.images)
    subset = mapped.train.subset(torch.tensor([5, 0]))
    assert torch.equal(subset.images[1], in_memory.train.images[0])


def test_val_stands_in_for_test(folder):
    root, _ = folder
    expected = load(root).fingerprint
    (root / "test").rename(root / "val")
    assert load(root).fingerprint == expected


@pytest.mark.parametrize(
    ("train", "test"),
    [("Training", "Testing"), ("TRAIN", "valid"), ("training_set", "test-set"), ("train", "Val")],
)
def test_usual_names_of_splits_are_known(folder, train, test):
    root, _ = folder
    expected = load(root).fingerprint
    (root / "train").rename(root / train)
    (root / "test").rename(root / test)
    dataset = load(root)
    assert dataset.fingerprint == expected
    if test.lower().startswith("val"):
        assert f"without a test/, {test}/ is the test set" in " ".join(dataset.notes)


def test_what_lies_beside_the_splits_is_passed_over_and_named(folder):
    root, _ = folder
    expected = load(root).fingerprint
    for name in ("val/cat", "masks", "__MACOSX/train"):
        (root / name).mkdir(parents=True)
    dataset = load(root)
    assert dataset.fingerprint == expected
    first, second = dataset.notes
    assert "val/ is not used; validation images are held out" in first
    assert second.endswith("beside the splits: masks/")


@pytest.mark.parametrize("names", [("car", "train"), ("invalid", "valid"), ("control", "test")])
def test_a_class_may_be_called_like_a_split(tmp_path, write_image, names):
    for name in names:
        for number in range(5):
            write_image(tmp_path / "set" / name / f"{number}.png", seed=number)
    dataset = load(tmp_path / "set")
    assert dataset.classes == names
    assert not dataset.notes


@pytest.mark.parametrize("others", [("cat", "dog"), ("images",)])
def test_a_test_set_without_a_training_set_is_no_class(tmp_path, write_image, others):
    for name in (*others, "test/cat", "test/dog"):
        for number in range(5):
            write_image(tmp_path / "set" / name / f"{number}.png", seed=number)
    with pytest.raises(BenchError, match="has test/ but no train/"):
        load(tmp_path / "set")


@pytest.mark.parametrize("hidden", ["@eaDir/001.jpg", ".picasaoriginals", ".ipynb_checkpoints"])
def test_copies_in_hidden_folders_are_no_images(tmp_path, write_image, hidden):
    """They would be in the training set and in the test set."""
    for name in ("cat", "dog"):
        for number in range(5):
            write_image(tmp_path / "set" / name / f"{number}.png", seed=number)
        write_image(tmp_path / "set" / name / hidden / "copy.png", seed=0)
    dataset = load(tmp_path / "set")
    assert len(dataset.train) + len(dataset.test) == 10


def test_without_splits_a_fifth_of_each_class_is_held_out(tmp_path, write_image, monkeypatch):
    for name in ("a", "b"):
        for number in range(10):
            write_image(tmp_path / "flat" / name / f"{number}.png", seed=number)
    first = load(tmp_path / "flat")
    monkeypatch.setenv("BENCH_DATA", str(tmp_path / "other"))
    second = load(tmp_path / "flat")
    assert first.train.labels.bincount().tolist() == [8, 8]
    assert first.test.labels.bincount().tolist() == [2, 2]
    assert first.fingerprint == second.fingerprint


def test_images_are_resized_by_their_shorter_side_and_cropped(tmp_path, write_image):
    sizes = {"a": (40, 20), "b": (17, 31)}
    for name, size in sizes.items():
        for split in ("train", "test"):
            write_image(tmp_path / "set" / split / name / "0.png", size, "RGB")
    dataset = load(tmp_path / "set", image_size=10)
    assert dataset.train.images.shape == (2, 3, 10, 10)
    with Image.open(tmp_path / "set" / "train" / "a" / "0.png") as image:
        expected = reference.center_crop(reference.resize(image, 10), 10)
    difference = dataset.train.images[0].int() - reference.pil_to_tensor(expected).int()
    assert difference.abs().max() <= 1
    other = load(tmp_path / "set", image_size=12)  # not the cached images of another size
    assert other.train.images.shape == (2, 3, 12, 12)


@pytest.mark.parametrize("size", [(40, 17), (17, 40), (9, 9), (31, 6)])
def test_images_are_squashed_or_padded_on_request(tmp_path, write_image, size):
    for name in ("a", "b"):
        for split in ("train", "test"):
            write_image(tmp_path / "set" / split / name / "0.png", size, "RGB")
    with Image.open(tmp_path / "set" / "train" / "a" / "0.png") as image:
        expected = {
            "crop": ImageOps.fit(image, (10, 10), Image.Resampling.BILINEAR),
            "squash": image.resize((10, 10), Image.Resampling.BILINEAR),
            "pad": ImageOps.pad(image, (10, 10), Image.Resampling.BILINEAR),
        }
    for resize, wanted in expected.items():
        found = load(tmp_path / "set", image_size=10, resize=resize).train.images[0].int()
        # Earlier Pillow versions round in another order.
        assert (found - reference.pil_to_tensor(wanted).int()).abs().max() <= 1


def test_grey_and_cmyk_images_among_colour_ones_are_read_as_torchvision_does(tmp_path, write_image):
    root = tmp_path / "set"
    modes = {"0.jpeg": "RGB", "1.jpeg": "L", "2.jpeg": "CMYK", "3.png": "LA", "4.png": "1"}
    for split in ("train", "test"):
        for seed, name in enumerate(("a", "b")):
            for file, mode in modes.items():
                write_image(root / split / name / file, mode=mode, seed=seed)
    dataset = load(root)
    expected = torchvision.datasets.ImageFolder(root / "train", reference.pil_to_tensor)
    assert torch.equal(dataset.train.images, torch.stack([image for image, _ in expected]))
    for path in root.rglob("*.jpeg"):
        path.unlink()
    assert load(root).channels == 1


def test_colour_modes_become_rgb(tmp_path, write_image):
    root = tmp_path / "set"
    for split in ("train", "test"):
        pixels = write_image(root / split / "a" / "0.png", mode="RGB")
        write_image(root / split / "b" / "0.png", mode="RGBA")
        write_image(root / split / "b" / "1.png", mode="P")
    dataset = load(root)
    assert dataset.channels == 3
    assert torch.equal(dataset.train.images[0], torch.from_numpy(pixels).permute(2, 0, 1))


def test_other_files_are_passed_over_and_subfolders_are_not(folder, write_image):
    root, _ = folder
    (root / "train" / "cat" / "Thumbs.db").write_bytes(b"x")
    (root / "train" / "cat" / ".hidden.png").write_bytes(b"x")
    (root / "train" / ".cache").mkdir()
    write_image(root / "train" / "cat" / "more" / "9.PNG")
    assert load(root).train.labels.tolist() == [0, 0, 0, 0, 1, 1, 1]


def test_every_suffix_that_pillow_reads_counts_and_the_rest_is_reported(folder, write_image):
    root, _ = folder
    cats = root / "train" / "cat"
    pixels = write_image(cats / "3.gif")
    for name in ("4.JFIF", "5.tga", "6.jp2"):
        kind = {"4.JFIF": "JPEG"}.get(name)
        Image.fromarray(pixels).save(cats / name, kind)
    for name in ("a.txt", "b.txt", "noname", ".DS_Store"):
        (cats / name).write_text("x")
    (cats / "gone.png").symlink_to(root / "nowhere.png")
    dataset = load(root)
    assert dataset.train.labels.tolist() == [0] * 7 + [1] * 3
    (note,) = dataset.notes
    assert "passed over 4 files without the suffix of an image" in note
    assert note.endswith("(2 .txt, 1 broken links, 1 without a suffix)")


def test_a_class_of_other_files_says_what_they_are(folder):
    for path in (folder[0] / "train" / "cat").iterdir():
        path.rename(path.with_suffix(".dat"))
    with pytest.raises(
        BenchError, match=r"cat: class folder with no image \(only 3 .* \(3 \.dat\)"
    ):
        load(folder[0])


def test_an_animation_gives_its_first_image(tmp_path, write_image):
    for name in ("a", "b"):
        for split in ("train", "test"):
            path = tmp_path / "set" / split / name / "0.gif"
            first = write_image(path)
            second = Image.fromarray(np.zeros((6, 6), np.uint8))
            Image.fromarray(first).save(path, save_all=True, append_images=[second])
    images = load(tmp_path / "set").train.images
    assert torch.equal(images[0, 0], torch.from_numpy(first))


def test_links_are_followed_once(folder, tmp_path):
    root, _ = folder
    expected = load(root).fingerprint
    for path in list((root / "train" / "cat").iterdir()):
        moved = tmp_path / "store" / "more" / path.name
        moved.parent.mkdir(parents=True, exist_ok=True)
        path.rename(moved)
    (root / "train" / "cat").rmdir()
    (root / "train" / "cat").symlink_to(tmp_path / "store")
    assert load(root).fingerprint == expected
    (tmp_path / "store").rename(tmp_path / "elsewhere")
    (root / "train" / "cat").unlink()
    (root / "train" / "cat").mkdir()
    (root / "train" / "cat" / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "more" / "back").symlink_to(root / "train" / "cat")
    assert load(root).fingerprint == expected


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="everything can be read")
@pytest.mark.parametrize("name", ["train/cat/0.png", "train/cat", "train"])
def test_what_may_not_be_read_is_named(folder, name):
    path = folder[0] / name
    mode = path.stat().st_mode
    path.chmod(0)
    try:
        with pytest.raises(BenchError, match=f"{name}: .*Permission denied"):
            load(folder[0])
    finally:
        path.chmod(mode)


def break_size(root, write_image):
    write_image(root / "train" / "dog" / "1.png", (7, 6))
    return r"train/dog/1\.png: 6x7 pixels \(HxW\) where 0\.png has 6x6: set an input size"


def break_image(root, _):
    path = root / "test" / "dog" / "1.png"
    path.write_bytes(path.read_bytes()[:-40])
    return r"test/dog/1\.png: unreadable image"


def break_header(root, _):
    (root / "test" / "dog" / "1.png").write_text("no image")
    return r"test/dog/1\.png: unreadable image"


def empty_file(root, _):
    (root / "test" / "dog" / "1.png").write_bytes(b"")
    return r"test/dog/1\.png: unreadable image \(an empty file\)"


def break_depth(root, _):
    pixels = np.zeros((6, 6), np.uint16)
    Image.fromarray(pixels).save(root / "train" / "cat" / "1.png")
    return r"train/cat/1\.png: mode I;16 is not supported"


def break_colour_depth(root, _):
    def chunk(kind, data):
        checked = kind + data
        return struct.pack(">I", len(data)) + checked + struct.pack(">I", zlib.crc32(checked))

    rows = b"".join(b"\0" + bytes(6 * 3 * 2) for _ in range(6))
    (root / "train" / "cat" / "1.png").write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", 6, 6, 16, 2, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )
    return r"train/cat/1\.png: 16 bits per channel are not supported: convert it to 8-bit"


def empty_class(root, _):
    for path in (root / "train" / "dog").iterdir():
        path.unlink()
    return r"train/dog: class folder with no image"


def one_class(root, _):
    for split in ("train", "test"):
        (root / split / "dog").rename(root / split / "cat" / "dog")
    return "train has 1 class folders"


def missing_class(root, write_image):
    write_image(root / "train" / "owl" / "0.png")
    return "class 'owl' is missing in .*test"


def no_test(root, _):
    (root / "test").rename(root / "holdout")
    return "has train/ but neither test/ nor val/: add one, or give imagefolder:.*/train"


def no_train(root, _):
    (root / "train").rename(root / "Validation")
    return "has Validation/ and test/ but no train/"


def two_test_sets(root, _):
    (root / "Testing").mkdir()
    return "has Testing/ and test/, each a test set"


def no_classes(root, _):
    for path in sorted((root / "train").rglob("*.png")):
        path.rename(root / "train" / f"{path.parent.name}{path.name}")
    for name in ("cat", "dog"):
        (root / "train" / name).rmdir()
    return "train has 0 class folders"


def name_that_is_no_text(root, _):
    for split in ("train", "test"):
        (root / split / "dog").rename(root / split / os.fsdecode(b"caf\xe9"))
    return "class 'caf\udce9': the name is not valid UTF-8: rename it"


def prefixed_splits(root, _):
    for name in ("train", "test"):
        (root / name).rename(root / f"seg_{name}")
    return "seg_test/ and seg_train/ look like splits, not classes: call them train/ and test/"


@pytest.mark.parametrize(
    "damage",
    [
        break_size,
        break_image,
        break_header,
        empty_file,
        break_depth,
        break_colour_depth,
        empty_class,
        one_class,
        missing_class,
        no_test,
        no_train,
        two_test_sets,
        no_classes,
        prefixed_splits,
        name_that_is_no_text,
    ],
)
def test_what_is_wrong_is_named_in_one_line_and_nothing_is_cached(
    folder, write_image, own_cache, damage
):
    message = damage(folder[0], write_image)
    with pytest.raises(BenchError, match=message) as caught:
        load(folder[0])
    assert "\n" not in str(caught.value)
    assert not list(own_cache.rglob("manifest.json"))


def test_images_that_are_not_square_need_a_size(tmp_path, write_image):
    for split in ("train", "test"):
        for name in ("a", "b"):
            write_image(tmp_path / "set" / split / name / "0.png", (8, 6))
    with pytest.raises(BenchError, match=r"6x8 pixels \(HxW\) is not square, .*: set an input"):
        load(tmp_path / "set")


def test_a_folder_whose_path_is_no_text_is_refused(tmp_path):
    path = tmp_path / os.fsdecode(b"caf\xe9")
    path.mkdir()
    with pytest.raises(BenchError, match=r"dataset '.*': the name is not valid UTF-8: rename it"):
        load(path)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(BenchError, match="nowhere: no such folder"):
        load(tmp_path / "nowhere")


def test_a_cache_folder_that_cannot_be_written_is_named(folder, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("BENCH_DATA", str(tmp_path / "file"))
    with pytest.raises(BenchError, match=r"cannot be written or read .*BENCH_DATA"):
        load(folder[0])
