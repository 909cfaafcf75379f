"""A study in TensorBoard: one folder per run in `RESULTS/tensorboard/STUDY`."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from torch.utils.tensorboard import SummaryWriter

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

    from bench.report.tracking.records import TrackedReport, TrackedRun
    from bench.store import Store

MARKER = "bench.json"  # which run a folder shows, and in which state
REPORT = "report"


class TensorboardTracker:
    """Writes event files; a folder appears when it is whole.

    Args:
        store: the results folder.
        study: the study's name.
    """

    def __init__(self, store: Store, study: str) -> None:
        self.folder = store.root / "tensorboard" / study
        self.where = str(self.folder.absolute())
        self.folder.mkdir(parents=True, exist_ok=True)
        self.known: dict[str, tuple[Path, str]] = {}
        for marker in self.folder.glob(f"*/{MARKER}"):
            values = json.loads(marker.read_text(encoding="utf-8"))
            self.known[values["run"]] = (marker.parent, values["digest"])

    def log_run(self, run: TrackedRun) -> None:
        """Write a run's folder, in the place of an older one."""
        started = run.started_at.timestamp()
        with self._writing(run.run, run.digest, run.name) as writer:
            if writer is None:
                return
            for name, value, seconds, epoch in run.points():
                writer.add_scalar(name, value, epoch, walltime=started + seconds)
            writer.add_text("run", _lines(run), run.last_epoch)
            final = {f"final/{name}": value for name, value in run.final.items()}
            # "." is the run's own folder; TensorBoard would otherwise show another run.
            writer.add_hparams(
                dict(run.parameters), final, run_name=".", global_step=run.last_epoch
            )

    def log_report(self, report: TrackedReport) -> None:
        """Write the report as a text and a picture."""
        with self._writing(REPORT, report.digest, REPORT) as writer:
            if writer is None:
                return
            writer.add_text("report", report.text)
            writer.add_image("study", _pixels(report.folder / "study.png"), dataformats="HWC")

    @contextmanager
    def _writing(self, key: str, digest: str, name: str) -> Iterator[SummaryWriter | None]:
        """Give a writer into a folder that takes its place at the end; None if it is there."""
        older = self.known.get(key)
        if older is not None and older[1] == digest:
            yield None
            return
        final = self.folder / _safe(name, key)
        # Beside `tensorboard`, which a running TensorBoard searches for event files.
        partial = Path(tempfile.mkdtemp(dir=self.folder.parents[1], prefix=".tensorboard-"))
        try:
            with SummaryWriter(str(partial)) as writer:
                yield writer
            (partial / MARKER).write_text(json.dumps({"run": key, "digest": digest}))
            partial.chmod(0o755)  # mkdtemp lets only the owner in
            for doomed in {final, older[0] if older else final}:
                if doomed.exists():
                    shutil.rmtree(doomed)
            partial.rename(final)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        self.known[key] = (final, digest)


def _safe(name: str, key: str) -> str:
    """Return the name of a folder: readable, and unique by the run's hash."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "run"
    return REPORT if key == REPORT else f"{plain[:80]}-{key.rsplit('-', 1)[-1]}"


def _lines(run: TrackedRun) -> str:
    """Return a run's identity, outcome and exports as Markdown."""
    lines = [f"run `{run.run}`", f"status {run.status}"]
    lines += [f"error: `{run.error}`"] if run.error else []
    lines += [f"export {e.title}: {e.status}, SHA-256 `{e.sha256}`" for e in run.exports]
    lines += [f"{key}: {value}" for key, value in run.environment.items()]
    return "\n".join(f"- {line}" for line in lines)


def _pixels(picture: Path) -> npt.NDArray[np.uint8]:
    from PIL import Image

    with Image.open(picture) as image:
        return np.asarray(image.convert("RGB"))
