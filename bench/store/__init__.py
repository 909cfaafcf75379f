"""The results folder; only the modules here write or read it.

`files` has the atomic file operations, `locks` the locks between processes, `workspace` temporary
folders that are published when they are complete. `records` declares the records of runs and
studies. `Store` (`runs`, `studies`) reads and writes runs and studies, `checkpoints` those of
unfinished runs; `exports`, `measurements` and `analyses` do the same for the other stages.
`archive` packs runs into one file and unpacks it elsewhere. `tables` reads all of it as pandas
frames.

Whatever writes raises `StorageError`, with the reason, if the folder cannot be written or its disk
is full; what was there before is kept.
"""

from bench.store.records import RunRecord, StudyRecord
from bench.store.runs import Store

__all__ = ["RunRecord", "Store", "StudyRecord"]
