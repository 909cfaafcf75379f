"""Pack runs into one archive, and merge it into the results folder of another machine."""

from __future__ import annotations

import shutil
import tarfile
import tempfile
import warnings
from pathlib import Path
from typing import IO, TYPE_CHECKING

from bench.errors import BenchError
from bench.store.analyses import Analyses
from bench.store.files import damaged_file, make_folder, publish_folder, storage_errors
from bench.store.runs import Store
from bench.studies.run_request import request_hash
from bench.system.tarball import TarballError, read_files

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bench.store.analyses import AnalysisRecord

# runs/ID/FILE, studies/NAME.json and analyses/KIND-HASH.json
_DEPTHS = {"runs": 3, "studies": 2, "analyses": 2}
# Weights hardly compress: an archive that expands more than this is malicious.
_LARGEST_RATIO = 100
_SMALL_BYTES = 1 << 26


def pack(store: Store, runs: Iterable[str], archive: Path) -> int:
    """Write finished runs, their analyses, and the studies that refer to them into one archive.

    Returns:
        The number of runs packed.

    Raises:
        BenchError: a run is missing or damaged, or the archive cannot be written.
    """
    wanted = sorted(set(runs))
    for run in wanted:
        run_record = store.read_run(run)
        if run_record is None:
            raise BenchError(f"no finished run '{run}' in {store.root}")
        damaged = damaged_file(store.folder(run), run_record.files)
        if damaged:
            raise BenchError(f"run {run} is damaged ({damaged}); nothing was packed")
    partial = archive.with_name(f".{archive.name}.partial")
    make_folder(archive.parent, option="")
    with storage_errors(archive, option=""):
        try:
            with tarfile.open(partial, "w:gz") as tar:
                for run in wanted:
                    tar.add(store.folder(run), f"runs/{run}")
                for study in store.studies():
                    if study.runs & set(wanted):
                        tar.add(
                            store.root / "studies" / f"{study.name}.json",
                            f"studies/{study.name}.json",
                        )
                analyses = Analyses(store.root)
                for record in analyses.of(wanted):
                    tar.add(analyses.file(record.analysis), f"analyses/{record.analysis}.json")
            partial.replace(archive)
        finally:
            partial.unlink(missing_ok=True)
    return len(wanted)


def unpack(store: Store, archive: Path) -> tuple[list[str], list[str]]:
    """Merge an archive's runs, analyses and studies into *store*; existing ones are kept.

    Returns:
        Ids of the added runs, and names of the studies that exist here with other variants,
        which were not changed.

    Raises:
        BenchError: the archive is unreadable, writes outside its folder, or holds a damaged run
            or analysis.
    """
    if not archive.is_file():
        raise BenchError(f"{archive} cannot be unpacked: there is no such file")
    store.prepare()
    with tempfile.TemporaryDirectory(dir=store.root, prefix=".unpack-") as name:
        folder = Path(name)
        _extract(archive, folder)
        source = Store(folder)
        runs = sorted(path.name for path in (folder / "runs").glob("*"))
        for run in runs:
            fault = _fault(source, run)
            if fault:
                raise BenchError(f"the archive's run {run} is damaged ({fault}); nothing added")
        analyses = _sound_analyses(source)
        added = [run for run in runs if store.read_run(run) is None]
        for run in added:
            store.refuse_newer(run)
        for study in source.studies():
            store.refuse_newer_study(study.name)
        for run in added:
            publish_folder(source.folder(run), store.folder(run))
        kept = []
        for study in source.studies():
            ours = store.read_study(study.name)
            if ours is None:
                store.save_study(study)
            elif ours.variants != study.variants:
                kept.append(study.name)
        Analyses(store.root).adopt(analyses)
    return added, kept


def _sound_analyses(source: Store) -> list[AnalysisRecord]:
    """Read an unpacked archive's analyses; a damaged one is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        records, broken = Analyses(source.root).read()
    if broken:
        reason = broken[0].removeprefix(f"{source.root}/")
        raise BenchError(f"the archive's {reason}; nothing added")
    return records


def _extract(archive: Path, folder: Path) -> None:
    """Extract the expected files below *folder*; refuse an archive with any other."""

    def take(name: str, content: IO[bytes]) -> None:
        parts = name.split("/")
        if len(parts) != _DEPTHS.get(parts[0]) or not all(map(_is_plain, parts)):
            raise BenchError(
                f"{archive} is refused: it holds {name!r}, "
                "which is no file of a run, analysis or study"
            )
        target = folder.joinpath(*parts)
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("xb") as file:
            shutil.copyfileobj(content, file)

    try:
        read_files(archive, take, most_bytes=_LARGEST_RATIO * archive.stat().st_size + _SMALL_BYTES)
    except TarballError as error:
        raise BenchError(f"{archive} cannot be unpacked: {error}") from None


def _is_plain(part: str) -> bool:
    """Return whether a path component is a plain name, on every operating system."""
    return part[:1] not in {"", "."} and part.isprintable() and not set(part) & set('\\:*?"<>|')


def _fault(store: Store, run: str) -> str | None:
    """Return what of an unpacked run is damaged, or is not of it; None if nothing is."""
    record = store.read_run(run)
    if record is None:
        return "run.json"
    damaged = damaged_file(store.folder(run), record.files)
    if damaged:
        return damaged
    if not run.endswith(f"-{request_hash(record.request)}"):
        return "run.json answers another request"
    return next(
        (f.name for f in store.folder(run).iterdir() if f.name not in {"run.json", *record.files}),
        None,
    )
