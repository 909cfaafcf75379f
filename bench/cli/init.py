"""`bench init`."""

import contextlib
import shlex
from importlib import resources
from pathlib import Path
from typing import Annotated

from bench.cli.options import argument
from bench.cli.output import print_line
from bench.errors import BenchError


def init(file: Annotated[Path, argument("STUDY.toml", "Study file to write.")]) -> None:
    """Write a commented study file to start from.

    Example:

      bench init my-study.toml

    """
    if file.suffix != ".toml":
        raise BenchError(f"{file}: a study file ends in .toml; write bench init {file.stem}.toml")
    from bench.studies import check_study_name

    check_study_name(file.stem, str(file))
    template = resources.files("bench.ablations").joinpath("starter.template")
    starter = template.read_text(encoding="utf-8")
    try:
        with file.open("x", encoding="utf-8") as handle:
            handle.write(starter)
    except FileExistsError:
        raise BenchError(f"{file} exists; give another name, or remove it first") from None
    except OSError as error:
        with contextlib.suppress(OSError):
            file.unlink()  # it may be partly written
        raise BenchError(f"cannot write {file}: {error.strerror}; choose another folder") from None
    print_line(f"Wrote {file}. Run it: bench run-ablation {shlex.quote(str(file))}")
