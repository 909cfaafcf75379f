"""Commands in processes of their own: a crash, a hang or a poisoned CUDA context costs one."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
BENCH = ("-P", "-c", "from bench.cli import main; main()")


@dataclass(frozen=True)
class Done:
    """How a command ended; `code` is None if it had to be ended."""

    code: int | None
    out: str
    err: str

    @property
    def document(self) -> dict[str, Any]:
        """The JSON that it printed, or an empty one."""
        try:
            found = json.loads(self.out)
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}

    @property
    def rows(self) -> list[dict[str, Any]]:
        return list(self.document.get("rows", []))

    @property
    def reason(self) -> str:
        """Why it did not do what it was asked: the last line that it said."""
        lines = [line for line in self.err.strip().splitlines() if line.strip()]
        said = lines[-1].removeprefix("bench: error: ") if lines else "it said nothing"
        if self.code is None or self.code >= 0:
            return said
        return f"ended by {signal.Signals(-self.code).name}: {said}"


@dataclass
class Runner:
    """Runs commands and keeps what they say in `logs/`.

    Attributes:
        folder: the report's folder.
        shown: the commands since the last `take_shown`, as a person would give them.
    """

    folder: Path
    shown: list[str] = field(default_factory=list)
    count: int = 0

    def bench(self, *words: object, timeout: float = 900) -> Done:
        """Run `bench WORDS…`, the installed one."""
        self.shown.append(shlex.join(["bench", *map(str, words)]))
        return self._run(str(words[0]), [*BENCH, *words], timeout)

    def python(self, *words: object, timeout: float = 900) -> Done:
        """Run Python, with the working tree off the path."""
        self.shown.append(shlex.join(["python", "-P", *map(str, words)]))
        return self._run(Path(str(words[0])).stem, ["-P", *words], timeout)

    def take_shown(self) -> list[str]:
        taken, self.shown = self.shown, []
        return taken

    def _run(self, name: str, words: list[object], timeout: float) -> Done:
        begun = time.monotonic()
        process = subprocess.Popen(
            [sys.executable, *map(str, words)], cwd=ROOT, text=True, start_new_session=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        try:
            out, err = process.communicate(timeout=timeout)
            done = Done(process.returncode, out, err)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # with the processes that it started
            out, err = process.communicate()
            done = Done(None, out, f"{err}\nit did not end within {timeout:g} s")
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
        self._log(name, self.shown[-1], done, time.monotonic() - begun)
        return done

    def _log(self, name: str, command: str, done: Done, seconds: float) -> None:
        self.count += 1
        logs = self.folder / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        head = f"$ {command}\nexit code {done.code}, {seconds:.1f} s\n"
        text = f"{head}\n--- stdout\n{done.out}\n--- stderr\n{done.err}"
        (logs / f"{self.count:02d}-{name}.txt").write_text(text)
