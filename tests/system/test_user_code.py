"""A change of what a user's function reaches is noticed, and nothing else is."""

from __future__ import annotations

import importlib
import sys
from importlib import metadata
from types import SimpleNamespace

import pytest

from bench.errors import BenchError
from bench.system import user_code
from bench.system.user_code import changes, current_code, imported_code

NETS = """
import math
from torch import nn
from own_package.blocks import Block
from own_package import helpers

WIDTH = 8
UNUSED = 1

def network(num_classes, in_channels):
    return nn.Sequential(Block(WIDTH), helpers.head(num_classes))

def other(num_classes, in_channels):
    return math.pi

if __name__ == "__main__":
    print("a script")
"""
BLOCKS = """
class Base:
    size = 3

class Block(Base):
    pass

class Stranger:
    pass
"""
FILES = {
    "nets.py": NETS,
    "blocks.py": BLOCKS,
    "helpers.py": "def head(n):\n    from .deeper import scale\n    return scale * n\n",
    "deeper.py": "scale = 2\n",
    "__init__.py": "",
}


@pytest.fixture
def package(tmp_path, monkeypatch):
    folder = tmp_path / "own_package"
    folder.mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    for name, content in FILES.items():
        (folder / name).write_text(content)
    yield folder
    for name in [name for name in sys.modules if name.partition(".")[0] == "own_package"]:
        del sys.modules[name]


def code():
    """The digests as a new process sees them."""
    from bench.system import user_code

    return user_code._digests("own_package.nets:network")


@pytest.mark.usefixtures("package")
def test_every_module_that_is_reached_has_a_digest():
    assert set(code()) == {f"own_package.{m}" for m in ("nets", "blocks", "helpers", "deeper")}


@pytest.mark.parametrize(
    ("file", "old", "new", "noticed"),
    [
        ("nets.py", "WIDTH = 8", "WIDTH = 16", True),
        ("nets.py", "Block(WIDTH)", "Block(WIDTH, 2)", True),
        ("blocks.py", "size = 3", "size = 5", True),
        ("deeper.py", "scale = 2", "scale = 3", True),
        ("__init__.py", "", "print('now it does something')\n", True),
        ("nets.py", "WIDTH = 8", "WIDTH = 8  # a comment\n", False),
        ("nets.py", "UNUSED = 1", "UNUSED = 2", False),
        ("nets.py", "math.pi", "math.tau", False),
        ("nets.py", "a script", "another", False),
        ("blocks.py", "class Stranger:", "class Another:", False),
    ],
)
def test_changes(package, file, old, new, noticed):
    before = code()
    path = package / file
    path.write_text(path.read_text().replace(old, new, 1))
    named = [f"own_package.{file[:-3]}".removesuffix(".__init__")]
    assert changes(before, code()) == (named if noticed else [])


@pytest.mark.parametrize("mark", ["\f", "\v", "\x1c", "\x85", "\u2028"])
def test_a_mark_that_ends_no_line_of_python_hides_no_change(package, mark):
    path = package / "helpers.py"
    content = f'TEXT = "{mark}"\n{path.read_text()}'
    path.write_text(content, encoding="utf-8")
    before = code()
    path.write_text(content.replace("scale * n", "scale * n + 1"), encoding="utf-8")
    assert changes(before, code()) == ["own_package.helpers"]


def test_a_process_that_imported_the_old_code_says_so(package):
    name = "own_package.nets:network"
    before = imported_code(name)
    assert current_code(name) == before
    (package / "deeper.py").write_text("scale = 4\n")
    assert imported_code(name) == before  # what this process runs
    with pytest.raises(BenchError, match=r"own_package\.deeper changed after this process"):
        current_code(name)


def test_a_module_that_the_program_imported_itself_before_is_noticed(package, monkeypatch):
    """Before bench first looked at it: what would run is the old code."""
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    importlib.invalidate_caches()
    importlib.import_module("own_package.nets")
    importlib.import_module("own_package.deeper")
    (package / "deeper.py").write_text("scale = 40000\n")
    with pytest.raises(BenchError, match=r"own_package\.deeper changed after this process"):
        current_code("own_package.nets:network")
    importlib.reload(sys.modules["own_package.deeper"])
    assert "own_package.deeper" in current_code("own_package.nets:network")


def test_code_in_the_current_folder_is_remembered_from_the_first_look(
    package, tmp_path, monkeypatch
):
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p not in {"", str(tmp_path)}])
    name = "own_package.nets:network"
    before = imported_code(name)
    (package / "deeper.py").write_text("scale = 4\n")
    assert imported_code(name) == before
    with pytest.raises(BenchError, match="changed after this process"):
        current_code(name)


@pytest.mark.parametrize("name", ["resnet20", "timm:no_such_network", "no_such_module:f"])
def test_what_is_not_the_users_or_is_nowhere_has_none(name):
    assert current_code(name) == {}


LIBRARY = """
import torch
from registry import register, configure

default_cfgs = configure({"small": "url", "large": "url"})

class Block(torch.nn.Module):
    wide = 2

class Attention(torch.nn.Module):
    heads = 4

@register
def small(pretrained=False):
    return Block()

@register
def large(pretrained=False):
    return Attention()
"""


@pytest.mark.parametrize("library", ["timm", "torchvision"])
@pytest.mark.parametrize(
    ("old", "new", "noticed"),
    [("wide = 2", "wide = 3", True), ("heads = 4", "heads = 8", False), ("url", "other", False)],
)
def test_a_librarys_network_is_its_own_code_alone(package, monkeypatch, library, old, new, noticed):
    """Another version of timm or torchvision counts only where it changed the network itself."""
    (package / "library.py").write_text(LIBRARY)
    monkeypatch.setattr(
        f"{library}.models.{'model_entrypoint' if library == 'timm' else 'get_model_builder'}",
        {"small": SimpleNamespace(__module__="own_package.library")}.__getitem__,
    )
    name = f"{library}:small"
    before = current_code(name)
    assert set(before) == {"own_package.library"}
    user_code._first.clear()
    (package / "library.py").write_text(LIBRARY.replace(old, new))
    assert (current_code(name) != before) == noticed
    user_code._first.clear()


def test_an_installed_package_stands_for_its_version_and_files(monkeypatch):
    """Reinstalling the same version with another network is noticed, another path is not."""
    name = "typer.main:run"
    monkeypatch.setattr(user_code, "_first", {})
    before = current_code(name)
    assert before["typer"].startswith(metadata.version("typer"))
    assert not changes({"typer": metadata.version("typer")}, before)  # recorded by earlier versions
    assert changes({"typer": "0.0.1"}, before) == ["typer"]
    record = metadata.distribution("typer").read_text("RECORD")
    for old, new, noticed in (
        ("typer/main.py,sha256=", "typer/main.py,sha256=0", ["typer"]),
        ("INSTALLER,sha256=", "INSTALLER,sha256=0", []),
    ):
        assert old in record
        monkeypatch.setattr(user_code, "_first", {})
        again = SimpleNamespace(read_text={"RECORD": record.replace(old, new)}.get)
        with monkeypatch.context() as patch:
            patch.setattr(metadata, "version", lambda _: before["typer"].partition(", files ")[0])
            patch.setattr(metadata, "distribution", lambda _, again=again: again)
            assert changes(before, current_code(name)) == noticed
