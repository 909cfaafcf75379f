"""The command line: one thin module per command, and one for shared options.

Nothing heavy (torch, pandas, pydantic) is imported before a command needs it. The modules of
commands do without `from __future__ import annotations`: Typer would compile every annotation,
twice, at each start of the program.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import gc
import os
import sys
import warnings
from typing import TYPE_CHECKING, Any, NoReturn

from bench.errors import BenchError, plain, warning_line
from bench.system.memory import is_out_of_memory
from bench.system.signals import StopRequestedError, exit_on_sigterm

if TYPE_CHECKING:
    from collections.abc import Iterator


def main() -> NoReturn:
    """Run the `bench` command; exits with its code.

    0: done; 1: the work ran and something failed; 2: the request could not be understood or
    met, with one line on stderr; 3: `compare` could not decide everything; 130: interrupted by
    Ctrl-C; 75: stopped by a scheduler's signal, resumable. A fault in native code is reported in
    one line, too.
    """
    # Ending, Python would search every object for cycles: half a second among torch's.
    atexit.register(gc.freeze)
    from bench.cli.output import replace_unencodable_output

    replace_unencodable_output()
    from bench.cli.app import app

    try:
        with exit_on_sigterm(), _plain_warnings():
            code = app(prog_name="bench", standalone_mode=False)
        if sys.stdout is not None:
            sys.stdout.flush()  # here a full disk is still reported
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # the reader closed the pipe, as `head` does
        _discard_output()
        sys.exit(0)
    except Exception as error:  # an unknown one is raised again
        sys.exit(_exit_code(error))
    sys.exit(code if isinstance(code, int) else 0)


@contextlib.contextmanager
def _plain_warnings() -> Iterator[None]:
    """Print a warning as one line, without the line of code that raised it."""
    before, shown = warnings.formatwarning, set[str]()

    def once(message: Warning | str, *_: object, **__: object) -> str:
        """Return a warning's line; nothing the second time, since many parts read one folder."""
        line = warning_line(message)
        seen = line in shown
        shown.add(line)
        return "" if seen else line

    warnings.formatwarning = once
    try:
        yield
    finally:
        warnings.formatwarning = before


def _exit_code(error: Exception) -> int:
    """Print an error as one line, and return its exit code."""
    models = sys.modules.get("bench.models")  # it imports nothing from bench, so has its own error
    if isinstance(error, BenchError) or (models and isinstance(error, models.ModelError)):
        return refuse(str(error))
    if isinstance(error, StopRequestedError):
        print(f"bench: stopped by {error}; rerun the same command to resume", file=sys.stderr)  # noqa: T201
        return error.exit_code
    described: Any = error
    if hasattr(described, "format_message"):  # a usage error of the command-line library
        context = getattr(described, "ctx", None)
        hint = f" (see '{context.command_path} --help')" if context is not None else ""
        message = described.format_message() or "give a command"  # empty when the help was shown
        message = message.replace(": Value error, ", ": ")  # pydantic's, which checks the choices
        return refuse(message.rstrip(".") + hint)
    if is_out_of_memory(error):
        reason = f" ({str(error)[:200]})" if str(error) else ""
        return refuse(f"not enough memory{reason}; use a smaller network, input size or batch")
    if isinstance(error, OSError) and (refusal := _refusal_of(error)):
        return refuse(refusal)
    if type(error).__name__ == "Abort":  # Ctrl-C or "no" at a prompt
        return 130
    raise error


def _refusal_of(error: OSError) -> str | None:
    """Return the line for an operating-system error that only the user can mend."""
    if error.errno == errno.ENOSPC and error.filename is None:
        _discard_output()  # or Python reports it again at exit
        return f"cannot write the output: {error.strerror}; free some space"
    if error.errno == errno.ENAMETOOLONG:  # what a person names is also looked for as a file
        return f"{error.filename}: {error.strerror}; give a shorter name or path"
    return None


def _discard_output() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def refuse(message: str) -> int:
    """Print one line, and with --json the refusal as JSON; return the exit code."""
    line = plain(message)
    print(f"bench: error: {line}", file=sys.stderr)  # noqa: T201
    if "--json" in sys.argv:
        from bench.cli.output import print_json

        print_json([], [{"error": line}])
    return 2
