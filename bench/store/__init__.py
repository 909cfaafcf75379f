"""The results folder: the only code that writes or reads it.

`files` holds the few atomic file operations, `records` what is recorded of runs and studies,
`runs` the folder that keeps them, `exports` and `measurements` those of the other stages,
`analyses` what was found out about networks, `archive` the packing of runs into one file that
another machine can unpack.
"""

from bench.store.records import RunRecord, StudyRecord
from bench.store.runs import Store

__all__ = ["RunRecord", "Store", "StudyRecord"]
