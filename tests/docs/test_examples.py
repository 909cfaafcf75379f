"""The tutorial and the how-tos as a reader follows them: every command, word for word."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.slow

DOCS = Path(__file__).parents[2] / "docs"
PAGES = (
    "tutorial.md", "how-to/own-network.md", "how-to/own-dataset.md", "how-to/own-weights.md",
    "how-to/trackers.md",
)  # fmt: skip
# ```bash is run, a block with a title is a file to save; ```sh is for the reader's own machine.
_BLOCK = re.compile(r"^```(\w+)(?: title=\"([^\"]+)\")?\n(.*?)^```$", re.MULTILINE | re.DOTALL)

_PROGRAM = """#!{}
from bench.cli import main

if __name__ == "__main__":  # workers are started anew, and read this file
    main()
"""


def blocks(page: Path) -> list[tuple[str, str, str]]:
    """Language, title and content of every fenced block."""
    return _BLOCK.findall(page.read_text())


def test_no_page_has_commands_that_nothing_runs() -> None:
    """`index.md` has those of README, and `vi/tutorial.md` translates the tutorial."""
    found = {
        str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md") if "```bash" in page.read_text()
    }
    assert found == {*PAGES, "index.md", "vi/tutorial.md"}


@pytest.fixture
def shell(tmp_path: Path) -> Callable[..., str]:
    """Run a line in a shell that finds `bench`, in a folder of its own; it exits with a code."""
    program = tmp_path / "bin" / "bench"
    program.parent.mkdir()
    program.write_text(_PROGRAM.format(sys.executable))
    program.chmod(0o755)
    (tmp_path / "work").mkdir()
    path = [str(program.parent), str(Path(sys.executable).parent), os.environ["PATH"]]
    packages = [str(tmp_path / "installed"), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {
        **os.environ, "PATH": os.pathsep.join(path), "PYTHONPATH": os.pathsep.join(packages),
    }  # fmt: skip

    def run(command: str, codes: tuple[int, ...] = (0,)) -> str:
        done = subprocess.run(
            ["bash", "-c", command], cwd=tmp_path / "work", env=environment, capture_output=True,
            text=True, check=False, timeout=1800,
        )  # fmt: skip
        assert done.returncode in codes, f"{command}\n{done.stdout}{done.stderr}"
        return done.stdout

    return run


def save_files(page: str, folder: Path) -> None:
    """Save what a page tells its reader to save."""
    for _, title, content in blocks(DOCS / page):
        if title:
            (folder / title).write_text(content)


@pytest.mark.parametrize("page", PAGES)
def test_commands_run_word_for_word(page: str, shell: Callable[..., str], tmp_path: Path) -> None:
    save_files(page, tmp_path / "work")
    scripts = [content for language, _, content in blocks(DOCS / page) if language == "bash"]
    assert scripts
    for command in "".join(scripts).replace("\\\n", " ").splitlines():
        # On a busy machine none is chosen.
        choice = command.startswith("bench choose")
        printed = shell(command, (0, 1) if choice else (0,))
        assert not choice or "Ship shapes" in printed or "Cannot be chosen" in printed


def test_the_backend_of_the_how_to_is_listed_and_measured(
    shell: Callable[..., str], tmp_path: Path
) -> None:
    page = "how-to/own-backend.md"
    save_files(page, tmp_path / "work")
    (script,) = [content for language, _, content in blocks(DOCS / page) if language == "sh"]
    install, listing, measuring = script.splitlines()
    assert install == "pip install ."
    shell(
        f"{sys.executable} -m pip install --quiet --no-deps --no-build-isolation "
        f"--target {tmp_path / 'installed'} ."
    )
    assert re.search(r"^inference +cpu +fp32\b", shell(listing), re.MULTILINE)
    assert "inference" in shell(f"{measuring} --max-seconds 1 --processes 1")


def test_candidates_are_compared_by_the_predictions_of_their_runs(
    shell: Callable[..., str], tmp_path: Path
) -> None:
    """One network always answers with the first class, the other with the second."""
    timm = pytest.importorskip("timm")
    images = {"cat": 5, "dog": 2, "eel": 3}
    for split in ("train", "test"):
        for number, (name, count) in enumerate(images.items()):
            folder = tmp_path / "work" / "pets" / split / name
            folder.mkdir(parents=True)
            for image in range(count):
                grey = 50 * number + 5 * image
                Image.new("RGB", (32, 32), (grey, grey, 100)).save(folder / f"{image}.png")
    for answer, (file, name) in enumerate([("a.pth", "resnet18"), ("b.pth", "resnet50")]):
        network = timm.create_model(name, num_classes=3)
        torch.nn.init.zeros_(network.fc.weight)
        network.fc.bias.data = torch.eye(3)[answer]
        torch.save(network.state_dict(), tmp_path / "work" / file)
    page = blocks(DOCS / "how-to/own-weights.md")
    (script,) = [code for language, _, code in page if language == "sh"]
    small, large, measuring, choosing = script.splitlines()
    shell(small)
    shell(large)
    shell(f"{measuring} --backend eager --max-seconds 1 --processes 1")
    assert "measured can be judged" in shell(choosing, (1,))  # none, of one process each
    (snippet,) = [code for language, title, code in page if language == "python" and not title]
    (tmp_path / "work" / "compare.py").write_text(snippet)
    only_large, only_small = images["dog"], images["cat"]
    assert f"(k={only_large}, n={only_large + only_small}," in shell("python compare.py")


def test_both_languages_show_the_same_commands() -> None:
    assert blocks(DOCS / "tutorial.md") == blocks(DOCS / "vi/tutorial.md")


def test_the_tutorial_installs_as_the_readme_does() -> None:
    (install,) = [c for language, _, c in blocks(DOCS / "tutorial.md") if language == "sh"]
    readme = (DOCS.parent / "README.md").read_text()
    assert install.splitlines()[0] in readme
