"""What a command does not need, it does not import."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = {"torch", "pandas", "numpy", "scipy", "statsmodels", "matplotlib", "onnx"}
PROGRAM = """
import json, sys
from bench.cli import main
try:
    main()
except SystemExit as leave:
    print(json.dumps([leave.code, sorted(sys.modules)]), file=sys.stderr)
"""


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["--help"], 0),
        (["--version"], 0),
        (["run-ablation", "--help"], 0),
        (["export-onnx", "--help"], 0),
        (["export-tensorrt", "--help"], 0),
        (["results", "--help"], 0),
        (["results", "ls", "--help"], 0),
        (["traim"], 2),
        (["init", "no-suffix"], 2),
        (["list", "models"], 0),
        (["list", "options"], 0),
    ],
)
def test_nothing_heavy_is_imported_at_start_up(words: list[str], code: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *words], capture_output=True, text=True, check=True
    )
    left, modules = json.loads(done.stderr.splitlines()[-1])
    assert left == code
    assert "bench.cli" in modules
    assert HEAVY.isdisjoint(modules)
    if "--help" in words and len(words) == 1:  # to parse more, Typer itself imports it
        assert "pydantic" not in modules


def test_importing_the_package_imports_nothing_heavy() -> None:
    text = "import bench, json, sys; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True)
    modules = json.loads(done.stdout)
    assert "bench" in modules
    assert HEAVY.isdisjoint(modules)
    assert {"typer", "pydantic"}.isdisjoint(modules)


def test_every_public_name_can_be_had() -> None:
    import bench

    for name in bench.__all__:
        assert callable(getattr(bench, name))
    assert dir(bench) == sorted(bench.__all__)
    with pytest.raises(AttributeError, match="module 'bench' has no attribute 'run_studdy'"):
        _ = bench.run_studdy


def test_a_command_does_not_look_for_cycles_before_it_exits() -> None:
    program = "import atexit, gc, sys; atexit.register(lambda: print(gc.get_freeze_count() > 0))"
    program += "; sys.argv = ['bench', '--version']; from bench.cli import main; main()"
    words = [sys.executable, "-c", program]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "True"
