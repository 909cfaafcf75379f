"""The developer's commands, the same here and in CI.

Every session runs in the environment that nox itself runs in: torch alone is several
gigabytes, so it is installed once (`pip install '.[dev]'`), not once a session. What is
checked is the installed package: each session first reinstalls the working tree.
"""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import nox

nox.options.default_venv_backend = "none"
nox.options.sessions = ["lint", "types", "docs", "tests"]

PATHS = ("bench", "models", "ablations", "docs", "tests", "tools", "noxfile.py")


def install(session: nox.Session) -> None:
    """Install the working tree, without looking at its dependencies again."""
    shutil.rmtree("build", ignore_errors=True)  # setuptools installs what was deleted since, too
    session.run(
        sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--force-reinstall", "."
    )


def pytest(session: nox.Session, *arguments: str) -> None:
    """Run pytest; -P keeps the working tree off the path: the installed package is tested."""
    session.run(sys.executable, "-P", "-m", "pytest", *arguments, *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style, format, and that imports go only down (the contracts in pyproject.toml)."""
    install(session)
    session.run(sys.executable, "-m", "ruff", "check", *PATHS)
    session.run(sys.executable, "-m", "ruff", "format", "--check", *PATHS)
    # From another folder, so that the installed package, which has bench.models, is read.
    with session.chdir("tests"):
        session.run(
            str(Path(sys.executable).with_name("lint-imports")),
            "--no-logo",
            "--no-cache",
            "../pyproject.toml",
        )


@nox.session
def types(session: nox.Session) -> None:
    """Check the types of the installed package, strictly, also those of another system."""
    install(session)
    for system in ("linux", "darwin"):
        session.run(sys.executable, "-P", "-m", "mypy", "--platform", system)


@nox.session
def tests(session: nox.Session) -> None:
    """Run the tests that take a few minutes in all, a process for each core."""
    install(session)
    pytest(session, "-n", "auto")


@nox.session
def slow(session: nox.Session) -> None:
    """Run the long tests; those of faults fork, so in a process where nothing else has run."""
    install(session)
    if session.posargs:
        pytest(session, "-m", "slow and not gpu")
        return
    pytest(session, "-m", "slow and not gpu", "--ignore=tests/faults")
    pytest(session, "-m", "slow", "tests/faults")


@nox.session
def gpu(session: nox.Session) -> None:
    """Run the GPU protocol: writes gpu-report/report.md and report.json.

    `-- --budget SECONDS` limits its time. Without a CUDA device it says so and exits with code 2.
    """
    install(session)
    words = [sys.executable, "-P", "tools/gpu", *session.posargs]
    code = subprocess.run(words, check=False).returncode  # noqa: S603 - our own program
    if code:
        sys.exit(code)  # nox itself would make a 1 of a 2


@nox.session
def benchmarks(session: nox.Session) -> None:
    """Run the benchmarks; their figures go to benchmarks.json."""
    install(session)
    pytest(
        session, "tests/benchmarks", "-m", "", "--benchmark-enable", "--benchmark-only",
        "--benchmark-json=benchmarks.json",
    )  # fmt: skip


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation site into site/; a broken link is an error."""
    install(session)
    session.run(
        sys.executable, "-P", "-m", "mkdocs", "build", "--strict", *session.posargs,
        env={"NO_MKDOCS_2_WARNING": "1"},
    )  # fmt: skip


@nox.session
def security(session: nox.Session) -> None:
    """Look for known holes in dependencies and ours, list what is installed, fuzz the parsers."""
    install(session)
    python = sys.executable
    session.run(python, "-m", "ruff", "check", "--select", "S", "bench", "models")
    session.run(
        python, "-m", "cyclonedx_py", "environment", "--of", "JSON", "--output-file", "sbom.json"
    )
    session.run(python, "tools/fuzz/mutations.py", "--count", "10000")
    if importlib.util.find_spec("atheris"):  # pip install '.[fuzz]'
        session.run(python, "tools/fuzz/coverage.py", "--format", "study", "--count", "10000")
    # Last: it asks a server on the internet.
    session.run(python, "-m", "pip_audit", "--skip-editable")


@nox.session
def soak(session: nox.Session) -> None:
    """Train a thousand tiny runs in one process, and a hundred in ten."""
    install(session)
    for words in (("--runs", "1000"), ("--runs", "100", "--processes", "10")):
        session.run(sys.executable, "tools/soak.py", *words)
