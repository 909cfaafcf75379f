"""What the protocol found, as one report: Markdown for people, JSON for programs."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from commands import Done

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
    """All steps so far; rewritten after each, so that an interruption loses nothing."""

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
