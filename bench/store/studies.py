"""Studies in a results folder: which run stands for which variant and seed."""

from __future__ import annotations

import dataclasses
import warnings

from bench.errors import BenchError
from bench.store.files import write_atomically
from bench.store.folder import ResultsFolder
from bench.store.records import StudyRecord, read_study_record, refuse_overwriting_newer, seal


class Studies(ResultsFolder):
    """The studies of a results folder."""

    def save_study(self, record: StudyRecord) -> None:
        """Write a study's record in the place of an older one."""
        self.ready()
        path = self.root / "studies" / f"{record.name}.json"
        refuse_overwriting_newer(path)
        values = dataclasses.asdict(record)
        if record.target_accuracy is None:  # which the bench before this key would not read
            del values["target_accuracy"]
        write_atomically(path, seal(values))

    def read_study(self, name: str) -> StudyRecord | None:
        """Read a study's record; None if there is none or it is broken (with a warning)."""
        path = self.root / "studies" / f"{name}.json"
        if not path.is_file():
            return None
        try:
            return read_study_record(path)
        except BenchError as error:
            warnings.warn(f"passing over {path}: {error}", stacklevel=2)
            return None

    def studies(self) -> list[StudyRecord]:
        """Read every study's record, in order of name."""
        paths = sorted((self.root / "studies").glob("*.json"))
        records = [self.read_study(path.stem) for path in paths]
        return [record for record in records if record is not None]

    def remove_study(self, name: str) -> None:
        """Forget a study; its runs stay."""
        (self.root / "studies" / f"{name}.json").unlink(missing_ok=True)
