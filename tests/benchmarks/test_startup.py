from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

# Typer imports the modules of rich that draw a help screen only when it draws one.
IMPORTS = "import rich, typer, typer.rich_utils"
HELP = "import sys; sys.argv = ['bench', '--help']; from bench.cli import main; main()"


DESCRIBE = HELP.replace("'--help'", "'describe', 'resnet18'")


def python(code: str) -> None:
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


def test_help_against_importing_typer_and_rich(paired: Callable[..., None]) -> None:
    """Goal: a ratio above 1 / 1.6, that is at most 1.6 times the time."""
    paired(lambda: python(HELP), lambda: python(IMPORTS), rounds=20)


def test_describe_against_importing_torch(paired: Callable[..., None]) -> None:
    """Goal: a ratio above 1 / 2; PyTorch's counter of operations imports TorchDynamo."""
    paired(lambda: python(DESCRIBE), lambda: python("import torch"), rounds=10)
