"""A study in TensorBoard: one folder per run in `RESULTS/tensorboard/STUDY`."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    import numpy.typing as npt
    from torch.utils.tensorboard import SummaryWriter

    from bench.report.tracking.records import TrackedReport, TrackedRun
    from bench.store import Store

MARKER = "bench.json"  # run and digest of a folder
REPORT = "report"


class TensorboardTracker:
    """Writes event files; a folder appears when it is complete.

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
        """Write a run's folder, replacing an older one."""
        started = run.started_at.timestamp()
        last = max(run.epochs, default=0)
        with self._writing(run.run, run.digest, run.name) as writer:
            if writer is None:
                return
            elapsed = 0.0
            for epoch, values in run.epochs.items():
                elapsed += values.get("seconds", 0.0)
                for name, value in values.items():
                    writer.add_scalar(f"epoch/{name}", value, epoch, walltime=started + elapsed)
            for export in run.exports:
                for name, value in export.values.items():
                    writer.add_scalar(f"export {export.title}/{name}", value, last)
            writer.add_text("run", _lines(run), last)
            final = {f"final/{name}": value for name, value in run.final.items()}
            # "." is the run's own folder: any other would show as a separate run.
            writer.add_hparams(dict(run.parameters), final, run_name=".", global_step=last)

    def log_report(self, report: TrackedReport) -> None:
        """Write the report as text and picture."""
        with self._writing(REPORT, report.digest, REPORT) as writer:
            if writer is None:
                return
            writer.add_text("report", report.text)
            writer.add_image("study", _pixels(report.folder / "study.png"), dataformats="HWC")

    @contextmanager
    def _writing(self, key: str, digest: str, name: str) -> Iterator[SummaryWriter | None]:
        """Yield a writer to a folder that replaces the old one at the end; None if unchanged."""
        from torch.utils.tensorboard import SummaryWriter

        older = self.known.get(key)
        if older is not None and older[1] == digest:
            yield None
            return
        final = self.folder / _safe(name, key)
        # Not in `tensorboard`, which a running TensorBoard searches for event files.
        partial = Path(tempfile.mkdtemp(dir=self.folder.parents[1], prefix=".tensorboard-"))
        try:
            with SummaryWriter(str(partial)) as writer:
                yield writer
            (partial / MARKER).write_text(json.dumps({"run": key, "digest": digest}))
            partial.chmod(0o755)  # mkdtemp restricts it to the owner
            for doomed in {final, older[0] if older else final}:
                if doomed.exists():
                    shutil.rmtree(doomed)
            partial.rename(final)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        self.known[key] = (final, digest)


def _safe(name: str, key: str) -> str:
    """Return a folder name: the readable name, and the run's hash to make it unique."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "run"
    return REPORT if key == REPORT else f"{plain[:80]}-{key.rsplit('-', 1)[-1]}"


def _lines(run: TrackedRun) -> str:
    """Describe a run's identity, outcome and exports as Markdown."""
    lines = [f"run `{run.run}`", f"status {run.status}"]
    lines += [f"error: `{run.error}`"] if run.error else []
    lines += [f"export {e.title}: {e.status}, SHA-256 `{e.sha256}`" for e in run.exports]
    lines += [f"{key}: {value}" for key, value in run.environment.items()]
    return "\n".join(f"- {line}" for line in lines)


def _pixels(picture: Path) -> npt.NDArray[np.uint8]:
    import numpy as np
    from PIL import Image

    with Image.open(picture) as image:
        return np.asarray(image.convert("RGB"))
