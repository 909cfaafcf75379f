"""The results folder: the only code that writes or reads it.

`files` holds the few atomic file operations, `runs` the runs and studies, `archive`
the packing of runs into one file that another machine can unpack.
"""

from bench.store.runs import RunRecord, Store, StudyRecord

__all__ = ["RunRecord", "Store", "StudyRecord"]
