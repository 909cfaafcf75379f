"""Commands in processes of their own, and the report of what they found.

A crash, a hang or a poisoned CUDA context costs one command. The report is Markdown for people and
JSON for programs.
"""

from __future__ import annotations

import json
import math
import os
import shlex
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
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
        path: folders from which the program is imported; the installed one without.
        until: monotonic seconds after which nothing is begun and what runs is ended.
        shown: the commands since the last `take_shown`, as a person would give them.
    """

    folder: Path
    path: tuple[Path, ...] = ()
    until: float = math.inf
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
        timeout = max(1.0, min(timeout, self.until - begun))
        path = os.pathsep.join(
            [*map(str, self.path), *filter(None, [os.environ.get("PYTHONPATH")])]
        )
        process = subprocess.Popen(
            [sys.executable, *map(str, words)], cwd=ROOT, text=True, start_new_session=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ | {"PYTHONPATH": path},
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


PASSED, FAILED, NOT_RUN = "passed", "failed", "could not run"


@dataclass(frozen=True)
class Check:
    """One thing that has to hold.

    Attributes:
        what: has to hold.
        outcome: passed, failed or could not run.
        detail: the figure, or the reason.
    """

    what: str
    outcome: str
    detail: str = ""


def judged(what: str, holds: bool, detail: str = "") -> Check:
    return Check(what, PASSED if holds else FAILED, detail)


def not_run(what: str, because: str) -> Check:
    return Check(what, NOT_RUN, because)


def refused(what: str, done: Done) -> Check:
    """A command without a row: refused because something is missing (2), or broken."""
    return Check(what, NOT_RUN if done.code == 2 else FAILED, done.reason)


@dataclass
class Step:
    """A part of the protocol; `commands` can be given again by hand."""

    name: str
    checks: list[Check] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)
    seconds: float = 0.0


@dataclass
class Report:
    """All steps so far; rewritten after each check, so that an interruption loses nothing."""

    device: str
    environment: dict[str, Any]
    steps: list[Step] = field(default_factory=list)
    created_at: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))

    @property
    def counts(self) -> Counter[str]:
        return Counter(check.outcome for step in self.steps for check in step.checks)

    @property
    def summary(self) -> str:
        seconds = sum(step.seconds for step in self.steps)
        parts = [f"{self.counts[outcome]} {outcome}" for outcome in (PASSED, FAILED, NOT_RUN)]
        return f"{', '.join(parts)}; {seconds // 60:.0f} min {seconds % 60:.0f} s"

    def write(self, folder: Path) -> None:
        document = asdict(self) | {"protocol": 1, "counts": dict(self.counts)}
        (folder / "report.json").write_text(json.dumps(document, indent=1) + "\n")
        (folder / "report.md").write_text("\n".join(self._markdown()) + "\n")

    def _markdown(self) -> list[str]:
        gpu = self.environment.get("gpu")
        where = gpu or f"{self.device}: this says nothing about a GPU"
        lines = [f"# GPU protocol ({where})", "", f"{self.summary}. Begun {self.created_at}.", ""]
        lines += ["| machine | |", "|---|---|"]
        lines += [f"| {key} | {_cell(value)} |" for key, value in self.environment.items()]
        for step in self.steps:
            lines += ["", f"## {step.name} ({step.seconds:.0f} s)", ""]
            lines += ["| check | outcome | detail |", "|---|---|---|"]
            for check in step.checks:
                outcome = f"**{check.outcome}**" if check.outcome == FAILED else check.outcome
                lines.append(f"| {_cell(check.what)} | {outcome} | {_cell(check.detail)} |")
            if step.commands:
                lines += ["", "```sh", *step.commands, "```"]
        return lines


def _cell(value: Any) -> str:
    text = " ".join(map(str, value)) if isinstance(value, list) else str(value)
    return " ".join(text.replace("|", "\\|").split())
