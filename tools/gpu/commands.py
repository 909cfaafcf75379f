"""Commands in processes of their own, the report of what they found, and the steps one by one.

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
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

ROOT = Path(__file__).parents[2]
BENCH = ("-P", "-c", "from bench.cli import main; main()")
PROBES = Path(__file__).with_name("probes.py")
BACKENDS = (
    "eager", "eager-graph", "compile", "compile-graph", "onnxruntime", "onnxruntime-tensorrt",
    "tensorrt",
)  # fmt: skip


@dataclass(frozen=True)
class Done:
    """How a command ended.

    Attributes:
        code: exit code; None if it had to be ended.
        out: what it wrote to stdout.
        err: what it wrote to stderr.
        seconds: it took.
        cut: it had to be ended, or was not begun, because the time of the budget was over.
    """

    code: int | None
    out: str
    err: str
    seconds: float = 0.0
    cut: bool = False

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
        """The rows of its document, or the lines of JSON that it printed before it ended."""
        rows = self.document.get("rows")
        return list(_json_lines(self.out)) if rows is None else list(rows)

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
        left = self.until - begun
        if left < 1:
            return Done(None, "", "the time of the budget is over", cut=True)
        cut = left < timeout
        timeout = min(timeout, left)
        path = os.pathsep.join(
            [*map(str, self.path), *filter(None, [os.environ.get("PYTHONPATH")])]
        )
        process = subprocess.Popen(
            [sys.executable, *map(str, words)], cwd=ROOT, text=True, start_new_session=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ | {"PYTHONPATH": path},
        )  # fmt: skip
        try:
            out, err = process.communicate(timeout=timeout)
            done = Done(process.returncode, out, err, time.monotonic() - begun)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # with the processes that it started
            out, err = process.communicate()
            ended = f"{err}\nit did not end within {timeout:.3g} s" + " of the budget" * cut
            done = Done(None, out, ended, time.monotonic() - begun, cut)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
        self._log(name, self.shown[-1], done)
        return done

    def _log(self, name: str, command: str, done: Done) -> None:
        self.count += 1
        logs = self.folder / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        head = f"$ {command}\nexit code {done.code}, {done.seconds:.1f} s\n"
        text = f"{head}\n--- stdout\n{done.out}\n--- stderr\n{done.err}"
        (logs / f"{self.count:02d}-{name}.txt").write_text(text)


def _json_lines(text: str) -> Iterator[dict[str, Any]]:
    for line in text.splitlines():
        try:
            found = json.loads(line)
        except ValueError:
            continue  # cut off, or something that a library printed
        if isinstance(found, dict):
            yield found


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


def within(what: str, row: dict[str, Any], limit: float, detail: str) -> Check:
    """Judge a row's ratio: it holds if its whole interval is within *limit* of 1.

    It does not if the interval is wholly outside; in between nothing is shown.
    """
    low, high = row["ratio_low"], row["ratio_high"]
    detail = f"{detail} {row['ratio']:.3f} [{low:.3f}, {high:.3f}]"
    close = 1 - limit <= low <= high <= 1 + limit
    if close or low > 1 + limit or high < 1 - limit:
        return judged(what, close, detail)
    return not_run(what, f"too noisy to tell: {detail}")


def refused(what: str, done: Done) -> Check:
    """A command without a row: refused because something is missing (2), out of time, or broken."""
    return Check(what, NOT_RUN if done.code == 2 or done.cut else FAILED, done.reason)


def reported(what: str, done: Done) -> Iterator[Check]:
    """Return the checks that a probe printed, and one more if it did not come to its end."""
    for row in done.rows:
        outcome = {True: PASSED, False: FAILED, None: NOT_RUN}[row["holds"]]
        yield Check(row["what"], outcome, row["detail"])
    if done.code != 0:
        yield refused(f"{what}: to its end", done)


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


@dataclass
class Session:
    """What the steps share.

    Attributes:
        device: cuda, cuda:N, or cpu for a walk.
        runner: runs commands.
        model: the network whose speed is measured, with seeded random weights.
        input_size: side in pixels of its images; its own without.
        batch_size: images.
        max_seconds: for each configuration.
        processes: fresh processes of each measurement; one makes no claim, and takes little time.
        backends: those that are measured.
        train_images: of the training; all without.
        capability: the GPU's, such as 86; on a CPU one that engines are only built for.
        run: id of the run that was trained; None before, or if that failed.
        dataset: on which the time to accuracy is taken.
        target_accuracy: validation accuracy to reach there, in per cent.
    """

    device: str
    runner: Runner
    model: str = "resnet18"
    input_size: int | None = None
    batch_size: int = 256
    max_seconds: float = 2.0
    processes: int = 6
    backends: tuple[str, ...] = BACKENDS
    train_images: int | None = None
    capability: str = "86"
    run: str | None = None
    dataset: str = "fashion-mnist-mini"
    target_accuracy: float = 80

    @property
    def on_gpu(self) -> bool:
        return self.device != "cpu"

    @property
    def results(self) -> Path:
        """The results folder of everything that is run."""
        return self.runner.folder / "results"

    @property
    def sized(self) -> list[object]:
        """The option of the model's input size, if one was asked for."""
        return [] if self.input_size is None else ["--input-size", self.input_size]


@dataclass(frozen=True)
class Part:
    """A step of the protocol, and its time.

    Attributes:
        take: yields its checks.
        needed: seconds that must be left of a budget to begin it.
        most: seconds of a budget that it may take.
    """

    take: Callable[[Session], Iterator[Check]]
    needed: float
    most: float


def conduct(
    parts: Mapping[str, Part], session: Session, report: Report, say: Callable[[str], None]
) -> None:
    """Run every step that has time left; what goes wrong in one is its result."""

    def add(check: Check) -> None:
        step.checks.append(check)
        step.seconds = time.monotonic() - begun
        report.write(session.runner.folder)
        say(f"  {check.outcome}: {check.what}{': ' * bool(check.detail)}{check.detail}")

    until = session.runner.until
    for name, part in parts.items():
        say(name)
        step, begun = Step(name), time.monotonic()
        report.steps.append(step)
        left = until - begun
        if left < part.needed:
            detail = f"{max(0, left):.0f} s of the budget are left, it takes {part.needed:g}"
            add(not_run("the step is run", detail))
            continue
        session.runner.until = min(until, begun + part.most) if math.isfinite(until) else until
        try:
            for check in part.take(session):
                add(check)
        except Exception as error:  # whatever it is, it is recorded
            text = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
            add(Check("the step ran to its end", FAILED, text))
        step.seconds = time.monotonic() - begun
        step.commands = session.runner.take_shown()
        report.write(session.runner.folder)
    session.runner.until = until
