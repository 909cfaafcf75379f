"""Pack results into one archive, and merge it into the results folder of another machine."""

from __future__ import annotations

import shutil
import tarfile
import tempfile
import warnings
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from bench.errors import BenchError, warn
from bench.store.analyses import Analyses
from bench.store.exports import ExportRecord, Exports, read_export
from bench.store.files import damaged_file, make_folder, publish_folder, storage_errors
from bench.store.measurements import Measurements, read_measurement
from bench.store.records import reading
from bench.store.runs import Store
from bench.studies import ADHOC
from bench.studies.run_request import request_hash
from bench.system.tarball import TarballError, read_files

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from bench.store.analyses import AnalysisRecord

# runs/ID/FILE, studies/NAME.json, analyses/KIND-HASH.json, exports/SHA/FILE, measurements/ID/FILE
_DEPTHS = {"runs": 3, "studies": 2, "analyses": 2, "exports": 3, "measurements": 3}
_KINDS = ("exports", "measurements")  # their folders have a record each
# Weights hardly compress: an archive that expands more than this is malicious.
_LARGEST_RATIO = 100
_SMALL_BYTES = 1 << 26


class Packed(NamedTuple):
    """Numbers of what was packed."""

    runs: int
    exports: int
    measurements: int


class Unpacked(NamedTuple):
    """What was added.

    Attributes:
        runs: their ids.
        kept: names of the studies that exist here with other variants, which were not changed.
        others: exports and measurements, such as `exports/SHA`.
    """

    runs: list[str]
    kept: list[str]
    others: list[str]


def pack(store: Store, runs: Collection[str] | None, archive: Path, *, made: bool = True) -> Packed:
    """Write finished runs and what was made of them into one archive.

    That is their analyses, exports and measurements, and the studies that refer to them.

    Args:
        store: the results folder.
        runs: ids; None for all runs, exports and measurements, also those of other networks.
        archive: the file to write.
        made: with exports and measurements.

    Raises:
        BenchError: a run is missing or damaged, or the archive cannot be written. Damaged exports
            and measurements are passed over with a warning.
    """
    wanted = [record.run for record in store.runs()] if runs is None else sorted(set(runs))
    paths: list[Path] = []
    for run in wanted:
        run_record = store.read_run(run)
        if run_record is None:
            raise BenchError(f"no finished run '{run}' in {store.root}")
        damaged = damaged_file(store.folder(run), run_record.files)
        if damaged:
            raise BenchError(f"run {run} is damaged ({damaged}); nothing was packed")
        paths += [store.folder(run) / name for name in ("run.json", *run_record.files)]
    packed: Counter[str] = Counter()
    for folder, of in _made(store) if made else ():
        if runs is None or of & set(wanted):
            names, fault = _content(folder)
            if fault:
                warn(f"passing over {folder}: it is damaged ({fault})")
            else:
                packed[folder.parent.name] += 1
                paths += [folder / name for name in names]
    analyses = Analyses(store.root)
    _write(
        archive,
        [
            *paths,
            *(
                store.root / "studies" / f"{study.name}.json"
                for study in store.studies()
                if study.runs & set(wanted)
            ),
            *(analyses.file(record.analysis) for record in analyses.of(wanted)),
        ],
        store.root,
    )
    return Packed(len(wanted), *(packed[kind] for kind in _KINDS))


def _write(archive: Path, paths: Iterable[Path], root: Path) -> None:
    """Write files, named as below *root*, into an archive that is whole or absent."""
    partial = archive.with_name(f".{archive.name}.partial")
    make_folder(archive.parent, option="")
    with storage_errors(archive, option=""):
        try:
            with tarfile.open(partial, "w:gz") as tar:
                for path in paths:
                    tar.add(path, path.relative_to(root).as_posix())
            partial.replace(archive)
        finally:
            partial.unlink(missing_ok=True)


def unpack(store: Store, archive: Path) -> Unpacked:
    """Merge an archive's content into *store*; what exists there is kept.

    Raises:
        BenchError: the archive is unreadable, writes outside its folder, or holds something
            damaged.
    """
    if not archive.is_file():
        raise BenchError(f"{archive} cannot be unpacked: there is no such file")
    store.prepare()
    with tempfile.TemporaryDirectory(dir=store.root, prefix=".unpack-") as name:
        folder = Path(name)
        _extract(archive, folder)
        source = Store(folder)
        runs = sorted(path.name for path in (folder / "runs").glob("*"))
        others = [path for kind in _KINDS for path in sorted((folder / kind).glob("*"))]
        for path in (*map(source.folder, runs), *others):
            fault = _fault(source, path.name) if path.parent.name == "runs" else _fault_of(path)
            if fault:
                damaged = path.relative_to(folder).as_posix()
                raise BenchError(f"the archive's {damaged} is damaged ({fault}); nothing added")
        analyses = _sound_analyses(source)
        added = [run for run in runs if store.read_run(run) is None]
        for run in added:
            store.refuse_newer(run)
        for study in source.studies():
            store.refuse_newer_study(study.name)
        for run in added:
            publish_folder(source.folder(run), store.folder(run))
        kept = _merge_studies(source, store)
        Analyses(store.root).adopt(analyses)
        adopted = [path.relative_to(folder).as_posix() for path in others if _adopt(path, store)]
        return Unpacked(added, kept, adopted)


def _merge_studies(source: Store, store: Store) -> list[str]:
    """Record the studies that are not there; return the names of those that are, and differ.

    Single runs are added to those that are there.
    """
    kept = []
    for study in source.studies():
        ours = store.read_study(study.name)
        if ours is None:
            store.save_study(study)
        elif study.name == ADHOC:
            store.save_study(replace(ours, variants=_joined(ours.variants, study.variants)))
        elif ours.variants != study.variants:
            kept.append(study.name)
    return kept


def _joined(ours: dict[str, Any], others: dict[str, Any]) -> dict[str, Any]:
    """Return our variants with those, and the runs of those, that are not among them."""
    joined = others | ours
    for name in ours.keys() & others.keys():
        runs = others[name]["runs"] | ours[name]["runs"]
        joined[name] = {**ours[name], "runs": runs}
    return joined


def _adopt(path: Path, store: Store) -> bool:
    """Publish an export or a measurement; return False if it is there already."""
    if path.parent.name == "exports":
        return Exports(store.root).adopt(path)
    return Measurements(store.root).adopt(path)


def _made(store: Store) -> Iterator[tuple[Path, set[str]]]:
    """Yield the folders of all exports and measurements, each with the runs that it is of."""
    files, times = Exports(store.root), Measurements(store.root)
    for export in files.records():
        yield files.folder(export.export), {str(export.run)}
    for measured in times.records():
        rows = (*measured.rows, *measured.cold_starts)
        yield times.folder(measured.measurement), {str(row.get("run")) for row in rows}


def _fault_of(folder: Path) -> str | None:
    """Return what of an export or a measurement is damaged or no part of it; None if nothing is."""
    names, fault = _content(folder)
    return fault or next((f.name for f in folder.iterdir() if f.name not in names), None)


def _content(folder: Path) -> tuple[list[str], str | None]:
    """Return the files of an export or a measurement, and what of them is damaged, if anything."""
    kind = folder.parent.name
    file = f"{kind.removesuffix('s')}.json"
    try:
        with reading(folder / file):
            record = read_export(folder) if kind == "exports" else read_measurement(folder)
            digests = dict(record.files)
            damaged = damaged_file(folder, digests)
            if isinstance(record, ExportRecord) and not damaged:
                row = record.row
                own = folder.name == row["sha256"] == digests.get(row["file"])
                if not (own and row["status"]):
                    damaged = f"{file} is of another file"
    except BenchError as error:
        return [], str(error)
    return [file, *digests], damaged


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
                "which is no file of a run, study, analysis, export or measurement"
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
