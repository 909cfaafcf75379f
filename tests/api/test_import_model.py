"""A network that was trained elsewhere, in plain PyTorch, becomes a run like any other."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
import shutil
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import bench
from bench.store import Store
from bench.system import user_code

NETWORK = """
from torch import nn
class Net(nn.Module):
    def __init__(self, num_classes=2):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
        )
        self.classifier = nn.Linear(64, num_classes)
    def forward(self, images):
        return self.classifier(self.features(images))
"""
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
COLOURS = {"mean": list(MEAN), "std": list(STD)}
SET = ("--set", f"mean={list(MEAN)}", "--set", f"std={list(STD)}")
HERE = {"dataset": "imagefolder:bars", "results": "bench-runs", "device": "cpu", "threads": 1}


def draw(folder: Path) -> None:
    """Write an image folder of noisy horizontal and vertical bars."""
    generator = np.random.default_rng(0)
    for split, count in (("train", 60), ("test", 30)):
        for name in ("lying", "standing"):
            (folder / split / name).mkdir(parents=True)
            for i in range(count):
                wave = np.where((np.arange(16) + generator.integers(4)) // 2 % 2, 200, 20)
                bars = (
                    np.tile(wave[:, None], (1, 16)) if name == "lying" else np.tile(wave, (16, 1))
                )
                pixels = (bars[..., None] + generator.integers(-20, 20, (16, 16, 3))).clip(0, 255)
                Image.fromarray(pixels.astype(np.uint8)).save(folder / split / name / f"{i:02}.png")


def load(folder: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Read images as a stranger's script does: ToTensor, then Normalize."""
    images, labels = [], []
    for label, name in enumerate(("lying", "standing")):
        for file in sorted((folder / name).glob("*.png")):
            images.append(torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1) / 255)
            labels.append(label)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    return (torch.stack(images) - mean) / std, torch.tensor(labels)


@pytest.fixture(scope="module")
def trained_elsewhere(tmp_path_factory):
    """A project with a package, a folder of images, and weights trained by its own loop."""
    root = tmp_path_factory.mktemp("project")
    draw(root / "bars")
    (root / "stranger").mkdir()
    (root / "stranger" / "__init__.py").touch()
    (root / "stranger" / "network.py").write_text(NETWORK)
    scope: dict[str, type[nn.Module]] = {}
    exec(NETWORK, scope)  # as its script imports it
    torch.manual_seed(0)
    network = nn.DataParallel(scope["Net"]())
    optimizer = torch.optim.AdamW(network.parameters(), 5e-3)
    images, labels = load(root / "bars" / "train")
    for _ in range(15):
        for batch in torch.randperm(len(images)).split(24):
            loss = nn.functional.cross_entropy(network(images[batch]), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    torch.save(
        {"epoch": 15, "state_dict": network.state_dict(), "optimizer": optimizer.state_dict()},
        root / "best.pt",
    )
    with torch.no_grad():
        images, labels = load(root / "bars" / "test")
        network.eval()
        accuracy = (network(images).argmax(1) == labels).double().mean().item()
    assert accuracy > 0.9
    return root, accuracy


@pytest.fixture
def project(trained_elsewhere, bench, tmp_path, monkeypatch):
    """That project as the working directory of a new process; returns its test accuracy."""
    del bench  # which is in tmp_path
    root, accuracy = trained_elsewhere
    shutil.copytree(root, tmp_path, dirs_exist_ok=True)
    monkeypatch.setenv("BENCH_DATA", str(tmp_path / "cache"))
    monkeypatch.syspath_prepend(tmp_path)

    def forget():
        user_code._first.clear()
        for name in [name for name in sys.modules if name.partition(".")[0] == "stranger"]:
            del sys.modules[name]

    forget()
    yield accuracy
    forget()


def import_net(**changes):
    arguments = {"weights": "best.pt", "settings": COLOURS, **HERE, **changes}
    return bench.import_model("stranger.network:Net", **arguments)


def test_five_commands_from_a_checkpoint_to_a_choice(project, bench):
    """The README's way: import, int8, throughput, choose, predict."""
    done = bench(
        "import", "stranger.network:Net", "--weights", "best.pt", "--dataset", "imagefolder:bars",
        "--name", "bars", *SET, "--device", "cpu", "--threads", 1, "--quiet",
    )  # fmt: skip
    assert done.code == 0, done.err
    assert f"test accuracy {project * 100:.2f} % (60 images, 2 classes)" in done.out
    assert "input 16x16, normalised with mean 0.485, 0.456, 0.406" in done.out
    (command, _) = [line.split()[1:] for line in done.out.splitlines() if line.startswith("  ")]
    exported = bench(*command, "--calibration-images", 64, "--threads", 1, "--json")
    (row,) = exported.document["rows"]
    assert (row["status"], row["torch_accuracy"]) == ("complete", pytest.approx(project))
    measured = bench(
        "throughput", "bars", "--precision", "fp32", "--precision", "int8", "--batch-size", 1,
        "--scenario", "single-stream", "--max-seconds", 0.2, "--processes", 1, "--device", "cpu",
        "--threads", 1, "--json",
    )  # fmt: skip
    rows = [r for r in measured.document["rows"] if r["status"] == "complete"]
    assert [r["test_accuracy"] for r in rows if r["precision"] == "fp32"] == [
        pytest.approx(project)
    ] * 2
    chosen = bench("choose", "--max-latency-ms", 1000, "--json")
    listed = chosen.document["rows"]
    assert len(listed) == len(rows)  # also those that are noisy
    assert all(r["test_accuracy"] is not None for r in listed)
    # What it was trained on is not known, so nothing was held out.
    assert all(r["validation_accuracy"] is None for r in rows)
    shown = bench("predict", "bars", "bars/test/lying/00.png", "--json").document["rows"]
    assert shown[0]["class"] == "lying"


@pytest.mark.usefixtures("project")
def test_a_network_whose_outputs_are_not_finite_has_no_accuracy(bench):
    checkpoint = torch.load("best.pt")
    name = next(n for n in checkpoint["state_dict"] if n.endswith("running_var"))
    checkpoint["state_dict"][name] -= 1e9  # the root of a negative variance
    torch.save(checkpoint, "broken.pt")
    done = bench(
        "import", "stranger.network:Net", "--weights", "broken.pt", "--dataset",
        "imagefolder:bars", "--device", "cpu", "--threads", 1, "--quiet",
    )  # fmt: skip
    assert done.code == 1
    assert "failed: " in done.out
    assert "outputs for some test images are not finite, so it has no accuracy" in done.out


@pytest.mark.usefixtures("project")
def test_the_share_of_the_largest_class_is_told_where_classes_are_unequal(bench):
    for file in sorted(Path("bars/test/standing").glob("*.png"))[6:]:
        file.unlink()
    done = bench(
        "import", "stranger.network:Net", "--weights", "best.pt", "--dataset",
        "imagefolder:bars", "--device", "cpu", "--threads", 1, "--quiet",
    )  # fmt: skip
    assert "(36 images, 2 classes; the largest has 83.3 %)" in done.out


def test_the_record_says_what_was_imported(project, tmp_path):
    row = import_net(name="bars")
    assert row[["recipe", "epochs", "study"]].values.tolist() == [["imported", 0, "bars"]]
    assert row["test_accuracy"].item() == pytest.approx(project)
    assert row["train_accuracy"].isna().all()
    record = Store("bench-runs").read_run(row["run"].item())
    digest = hashlib.sha256((tmp_path / "best.pt").read_bytes()).hexdigest()
    assert record.request["initial_weights"] == digest
    assert record.environment["weights_file"] == str(tmp_path / "best.pt")
    assert record.environment["user_code"].keys() == {"stranger.network"}
    assert bench.load_results("bench-runs", "epochs").empty


@pytest.mark.usefixtures("project")
def test_the_same_import_is_one_run_and_other_weights_are_another(tmp_path):
    first = import_net(name="bars")["run"].item()
    again = import_net(name="bars", dataset=f"imagefolder:{tmp_path}/bars/")
    assert again["run"].item() == first
    state = torch.load("best.pt", weights_only=True)["state_dict"]
    torch.save({k: v * 1.5 if v.is_floating_point() else v for k, v in state.items()}, "other.pt")
    with pytest.raises(bench.BenchError, match=f"--name bars: there is a study .* run {first}"):
        import_net(name="bars", weights="other.pt")
    second = import_net(name="bars", weights="other.pt", force=True)["run"].item()
    assert second != first
    assert {r.run for r in Store("bench-runs").runs()} == {first, second}
    assert bench.load_results("bench-runs/studies/bars.json")["run"].tolist() == [second]


@pytest.mark.usefixtures("project")
def test_an_edited_network_is_not_taken_for_the_imported_one(tmp_path):
    run = import_net()["run"].item()
    source = tmp_path / "stranger" / "network.py"
    source.write_text(NETWORK.replace("nn.ReLU()", "nn.SiLU()"))
    user_code._first.clear()
    del sys.modules["stranger.network"]
    other = r"imported with other code than .* in stranger\.network; restore .* or import it again"
    with pytest.raises(bench.BenchError, match=other):
        bench.load_model(run, results="bench-runs")
    with pytest.raises(bench.BenchError, match=other):
        import_net()


@pytest.mark.usefixtures("project")
def test_a_number_is_the_mean_of_all_channels():
    one = import_net(settings={"mean": 0.5, "std": [0.25] * 3})["run"].item()
    assert import_net(settings={"mean": [0.5] * 3, "std": 0.25})["run"].item() == one
    assert Store("bench-runs").read_run(one).request["mean"] == [0.5] * 3


@pytest.mark.usefixtures("project")
def test_what_is_passed_over_in_the_folder_is_said():
    shutil.copytree("bars/test", "bars/val")
    Path("bars/train/lying/notes.txt").touch()
    with pytest.warns(UserWarning, match=r"val/ is not used") as said:
        import_net()
    assert any("passed over 1 file " in str(warning.message) for warning in said)


@pytest.mark.usefixtures("project")
def test_a_normalisation_that_is_not_the_networks_is_noticed(tmp_path):
    """This one classifies images of an unusual range wrongly."""
    sign = "        sign = 1 if images.abs().max() < 3 else -1\n        return sign * self"
    picky = NETWORK.replace("        return self", sign)
    (tmp_path / "stranger" / "network.py").write_text(picky)
    with pytest.warns(UserWarning, match=r"0 % of 120 training images .*, but 100 % with --set "):
        import_net(settings={"mean": [0.0, 0.0, 0.0], "std": [0.01, 0.01, 0.01]})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        import_net()


def test_loaded_weights_need_no_file_and_random_ones_are_refused(project, tmp_path):
    loading = NETWORK + (
        "import torch\n"
        "def loaded(num_classes):\n"
        "    net = Net(num_classes)\n"
        "    state = torch.load('best.pt', weights_only=True)['state_dict']\n"
        "    net.load_state_dict({k.removeprefix('module.'): v for k, v in state.items()})\n"
        "    return net\n"
    )
    (tmp_path / "stranger" / "network.py").write_text(loading)
    row = bench.import_model("stranger.network:loaded", settings=COLOURS, **HERE)
    assert row["test_accuracy"].item() == pytest.approx(project)
    with pytest.raises(bench.BenchError, match=r"has random weights in 6 of 8 .*--weights FILE"):
        bench.import_model("stranger.network:Net", **HERE)


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize("library", ["timm", "torchvision"])
def test_networks_of_libraries_take_images_as_their_weights_do(library, monkeypatch):
    torch.manual_seed(0)
    name = "resnet10t" if library == "timm" else "squeezenet1_1"
    package = pytest.importorskip(library)
    create = package.create_model if library == "timm" else package.models.get_model
    torch.save(create(name, num_classes=2).state_dict(), "library.pth")
    imported = bench.import_model(f"{library}:{name}", weights="library.pth", **HERE)
    record = Store("bench-runs").read_run(imported["run"].item())
    assert record.request["mean"] == pytest.approx(MEAN)
    assert record.request["std"] == pytest.approx(STD)
    own = 176 if library == "timm" else 224
    assert record.result["input_shape"] == [3, own, own]
    assert record.environment["library"].startswith(f"{library} ")
    small = bench.import_model(
        f"{library}:{name}", weights="library.pth", settings={"input_size": 64}, **HERE
    )
    assert small["input_size"].item() == 64
    with monkeypatch.context() as patch:
        patch.setattr("bench.launch.reuse.current_code", lambda _name: {f"{library}.x": "other"})
        with pytest.raises(
            bench.BenchError, match=rf"\({library} \S+ then\); install that version"
        ):
            bench.import_model(
                f"{library}:{name}", weights="library.pth", settings={"input_size": 64}, **HERE
            )


REFUSED = {
    "a setting of training": (["--set", "learning_rate=1"], "an imported network is not trained"),
    "a misspelt setting": (["--set", "inputsize=16"], "did you mean 'input_size'?"),
    "half a normalisation": (["--set", "mean=[0.5,0.5,0.5]"], "give both mean and std"),
    "too few channels": (["--set", "mean=[0.5]", "--set", "std=[0.5]"], "have 3 channel(s)"),
    "a model's name": (["--name", "resnet18"], "--name resnet18: 'resnet18' is a model"),
    "a study's name": (
        ["--name", "quickstart"],
        "--name quickstart: 'quickstart' is the name of a",
    ),
    "no name": (["--name", "../x"], "--name ../x: the name of a study begins with a letter"),
    "no file": (["--weights", "absent.pt"], "--weights absent.pt: No such file"),
    "a whole module": (["--weights", "whole.pt"], "torch.save(model.state_dict(), FILE)"),
    "another network": (["--weights", "another.pt"], "give weights of the same network"),
    "an empty file": (["--weights", "empty.safetensors"], "no checkpoint (0 bytes); copy it again"),
    "half a file": (["--weights", "half.pt"], "it was cut off or is no checkpoint (5,000 bytes)"),
    "two sides": (["--set", "input_size=48x64"], "the input of a run is square; for a network"),
    "a list as an option": (["--option", "size=[8,8]"], "an option is a number, a word or true"),
    "a word as a mean": (["--set", "mean=x", "--set", "std=1"], 'mean = "x": give a number from 0'),
    "noise": (["--weights", "noise.pt"], "cannot be read: torch.save did not write it"),
    "what the dataset decides": (["--option", "num_classes=2"], "dataset determines num_classes"),
    "an empty name": (["--dataset", ""], "unknown dataset ''"),
    "no classes": (["--dataset", "imagefolder:bars/train/lying"], "has 0 class folders"),
    "no dataset": (["--dataset", "nowhere"], "unknown dataset 'nowhere'"),
    "no images": (["--dataset", "synthetic"], "its images are noise"),
}


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize("why", REFUSED)
def test_what_cannot_be_imported_is_refused_in_one_line(bench, why):
    Path("empty.safetensors").touch()
    Path("noise.pt").write_bytes(np.random.default_rng(0).bytes(500))
    Path("half.pt").write_bytes(Path("best.pt").read_bytes()[:5000])
    torch.save(nn.Linear(2, 2), "whole.pt")
    torch.save(nn.Linear(2, 2).state_dict(), "another.pt")
    words, message = REFUSED[why]
    given = {"--weights": "best.pt", "--dataset": "imagefolder:bars"}
    given = {flag: value for flag, value in given.items() if flag not in words}
    usual = [word for pair in given.items() for word in pair]
    assert message in bench("import", "stranger.network:Net", *usual, *words).refusal
    assert not Path("bench-runs").exists()


def test_an_onnx_file_is_not_imported(bench):
    refusal = bench("import", "best.onnx", "--dataset", "imagefolder:bars").refusal
    assert refusal.startswith("best.onnx: an ONNX file is not imported; other commands take it")


@pytest.mark.usefixtures("project")
def test_a_network_that_fails_on_images_is_refused(bench, tmp_path):
    """It passes the check of every run, which is of two images."""
    broken = NETWORK.replace(
        "        return self", "        assert len(images) < 32, 'too many'\n        return self"
    )
    (tmp_path / "stranger" / "network.py").write_text(broken)
    words = ["import", "stranger.network:Net", "--weights", "best.pt", *SET]
    refusal = bench(*words, "--dataset", "imagefolder:bars").refusal
    assert "fails on training images: AssertionError: too many" in refusal
    assert not Path("bench-runs").exists()


def test_grown_from_an_imported_network(trained, tmp_path):
    """A network of bench's own families that was imported is grown and trained on."""
    source = next(r for r in Store(trained).runs() if not r.request["options"].get("shortcut"))
    arguments = {"results": tmp_path / "bench-runs", "device": "cpu", "threads": 1}
    imported = bench.import_model(
        "resnet8", weights=Store(trained).folder(source.run) / "model.safetensors",
        dataset="fashion-mnist-mini", options={"width": 4}, **arguments,
    )  # fmt: skip
    assert imported["test_accuracy"].item() == pytest.approx(source.result["test_accuracy"])
    grown = bench.grow(imported["run"].item(), "resnet14", **arguments)
    assert grown["parent"].item() == imported["run"].item()
    assert grown["test_accuracy"].item() == pytest.approx(source.result["test_accuracy"], abs=0.01)
    assert grown["recipe"].item() != "imported"


@pytest.mark.usefixtures("project")
def test_the_page_names_the_command_that_imports_again(bench):
    given = {**COLOURS, "resize": "squash", "batch_size": 8, "precision": "bf16"}
    import_net(name="bars", settings=given)
    assert bench("report", "bars").code == 0
    text = Path("report/bars/README.md").read_text()
    assert "`bench import stranger.network:Net --dataset imagefolder:bars --weights " in text
    assert f"'mean={json.dumps(list(MEAN))}'" in text
    assert "--set resize=squash " in text
    assert "- recipe: imported" in text
    (command,) = re.findall(r"^- command: `bench (.*)`$", text, re.M)
    assert bench(*shlex.split(command), "--device", "cpu", "--threads", 1).code == 0
    assert len(list(Store("bench-runs").runs())) == 1  # the same run


@pytest.mark.usefixtures("project")
def test_nothing_says_that_an_imported_network_was_trained_here(bench):
    row = import_net(name="bars")
    assert bench("report", "bars", "--format", "markdown,html").code == 0
    for file in ("README.md", "report.html"):
        text = Path("report/bars", file).read_text()
        for claim in ("Training took", "training time of all runs", "Images/s is training"):
            assert claim not in text, file
    shown = bench("results", "show", row["run"].item()).out
    settings = [line.split(":")[0] for line in shown.splitlines() if line.startswith("  recipe.")]
    assert settings == [
        "  recipe.epochs", "  recipe.batch_size", "  recipe.normalize", "  recipe.antialias",
    ]  # fmt: skip
