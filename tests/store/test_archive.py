"""Carrying runs to another machine: merged by hash, refused when damaged or malicious."""

from __future__ import annotations

import dataclasses
import gzip
import io
import json
import tarfile

import pytest

from bench.errors import BenchError
from bench.store import Store
from bench.store.analyses import Analyses
from bench.store.archive import pack, unpack
from bench.store.exports import ExportRecord, Exports
from bench.store.files import sha256_of
from bench.store.measurements import MeasurementRecord, Measurements
from bench.store.records import StudyRecord, seal
from builders import make_study


@pytest.fixture
def there(tmp_path):
    """Another machine's results folder."""
    return Store(tmp_path / "there")


@pytest.fixture
def archive(tmp_path):
    return tmp_path / "runs.tar.gz"


@pytest.fixture
def runs(store, finish):
    """Two finished runs, to be packed."""
    return [finish(store, seed) for seed in (0, 1)]


def keep(store, *runs):
    study = make_study({"a": runs})
    store.save_study(study)
    return study


def test_runs_and_their_studies_arrive_as_they_were(store, there, archive, entries, runs):
    study = keep(store, *runs)
    assert pack(store, runs, archive) == (2, 0, 0)
    assert unpack(there, archive) == (sorted(runs), [], [])
    assert [there.read_run(run) for run in runs] == [store.read_run(run) for run in runs]
    assert there.read_tensors(runs[1], "model.safetensors")["weight"].tolist() == [1, 2, 3]
    assert there.read_study("mine") == study
    assert entries(there.root) == entries(store.root)
    assert entries(archive.parent) >= {"runs.tar.gz", "there", "bench-runs"}
    assert not [p for p in archive.parent.iterdir() if p.name.startswith(".")]


def test_runs_merge_by_hash(store, there, archive, finish, runs):
    own = finish(there, seed=2)
    before = there.folder(finish(there, seed=0)).stat().st_ino
    pack(store, runs, archive)
    assert unpack(there, archive) == ([runs[1]], [], [])
    assert {r.run for r in there.runs()} == {*runs, own}
    assert there.folder(runs[0]).stat().st_ino == before
    assert unpack(there, archive) == ([], [], [])


@pytest.mark.parametrize("place", ["run", "study"])
def test_what_a_newer_version_wrote_stays_and_nothing_is_added(
    store, there, archive, finish, runs, place
):
    keep(store, *runs)
    keep(there, finish(there, seed=1))
    path = (
        there.folder(runs[1]) / "run.json" if place == "run" else there.root / "studies/mine.json"
    )
    values = json.loads(path.read_text())
    del values["checksum"]
    path.write_text(json.dumps({**values, "format_version": 9}))
    before = {p: p.read_bytes() for p in there.root.rglob("*") if p.is_file()}
    pack(store, runs, archive)
    with pytest.raises(BenchError, match="was written by a newer bench"):
        unpack(there, archive)
    assert {p: p.read_bytes() for p in there.root.rglob("*") if p.is_file()} == before


def test_a_study_that_differs_stays_as_it_is_here(store, there, archive, finish, runs):
    keep(store, *runs)
    here = keep(there, finish(there, seed=5))
    pack(store, runs, archive)
    assert unpack(there, archive)[1] == ["mine"]
    assert there.read_study("mine") == here


def test_single_runs_join_those_that_are_here(store, there, archive, finish, runs):
    def single(where, **variants):
        studies = {
            name: {"reference": None, "runs": {str(seed): run for seed, run in seeds.items()}}
            for name, seeds in variants.items()
        }
        where.save_study(StudyRecord("adhoc", "?", studies))

    own = finish(there, seed=5)
    single(store, resnet20={0: runs[0], 5: runs[1]}, plain20={1: runs[1]})
    single(there, resnet20={5: own})
    pack(store, runs, archive)
    assert unpack(there, archive).kept == []
    found = {name: entry["runs"] for name, entry in there.read_study("adhoc").variants.items()}
    assert found == {"resnet20": {"0": runs[0], "5": own}, "plain20": {"1": runs[1]}}


def test_only_the_runs_asked_for_are_packed(store, there, archive, runs):
    keep(store, runs[1])
    pack(store, runs[:1], archive)
    unpack(there, archive)
    assert [r.run for r in there.runs()] == runs[:1]
    assert there.studies() == []


def lesion(store, run, accuracy=0.5):
    rows = {"lesions": [{"run": run, "lesion": "drop", "test_accuracy": accuracy}]}
    return Analyses(store.root).publish("lesion", {"run": run}, rows, {})


def test_what_was_found_out_about_the_runs_goes_with_them(store, there, archive, runs):
    packed, _ = lesion(store, runs[0]), lesion(store, runs[1])
    pack(store, runs[:1], archive)
    unpack(there, archive)
    assert Analyses(there.root).records() == [packed]
    here = lesion(there, runs[0], accuracy=0.25)  # of the same request: it stays
    unpack(there, archive)
    assert Analyses(there.root).records() == [here]


@pytest.fixture
def made(store, runs):
    """An export and a measurement of each run, and a measurement of another network."""
    exports, measurements = Exports(store.root), Measurements(store.root)
    for run in runs:
        with exports.workspace() as folder:
            (folder / "model.onnx").write_bytes(run.encode())
            sha256 = sha256_of(folder / "model.onnx")
            row = {"run": run, "file": "model.onnx", "sha256": sha256, "status": "complete"}
            exports.publish(folder, ExportRecord(sha256, {}, row))
    for run in (*runs, None):
        rows = [{"run": run}]
        measurements.publish(MeasurementRecord(measurements.new_id(), {}, rows), [])
    return exports, measurements


@pytest.mark.usefixtures("made")
@pytest.mark.parametrize("everything", [True, False])
def test_exports_and_measurements_go_with_the_runs(
    everything, store, there, archive, entries, runs
):
    counts = (2, 2, 3) if everything else (1, 1, 1)
    assert pack(store, None if everything else runs[:1], archive) == counts
    added = unpack(there, archive)
    assert len(added.others) == sum(counts[1:])
    of_runs = {record.run for record in Exports(there.root).records()}
    assert of_runs == set(runs if everything else runs[:1])
    assert len(list(Measurements(there.root).records())) == counts[2]
    assert unpack(there, archive).others == []
    if everything:
        here, added = (
            {name for name in entries(s.root) if not name.startswith("locks")}
            for s in (store, there)
        )
        assert here == added


@pytest.mark.usefixtures("made")
@pytest.mark.parametrize("part", ["exports", "measurements"])
@pytest.mark.parametrize("damage", ["a file", "the record", "another file"])
def test_a_damaged_export_or_measurement_is_neither_packed_nor_added(
    part, damage, store, there, archive, entries
):
    record = f"{part.removesuffix('s')}.json"

    def change(name, content):
        if not name.startswith(part) or (damage == "the record") != name.endswith(record):
            return name, content
        return (f"{name}x", content) if damage == "another file" else (name, content + b"x")

    pack(store, None, archive)
    repack(archive, change)
    with pytest.raises(BenchError, match=rf"the archive's {part}/.* is damaged .*nothing added"):
        unpack(there, archive)
    assert entries(there.root) == {"runs"}
    folder = next((store.root / part).glob("[!.]*"))
    counts = {"runs": 2, "exports": 2, "measurements": 3}
    if damage == "another file":
        (folder / "extra").touch()  # as systems leave; it is not packed
        (next((store.root / "runs").glob("[!.]*")) / ".DS_Store").touch()
        assert pack(store, None, archive) == tuple(counts.values())
    elif damage == "a file":
        next(f for f in folder.iterdir() if f.name != record).write_bytes(b"x")
        with pytest.warns(UserWarning, match=r"passing over .*: it is damaged"):
            packed = pack(store, None, archive)
        assert packed == tuple((counts | {part: counts[part] - 1}).values())
    else:
        return  # a record that cannot be read is passed over, with a warning
    added = unpack(there, archive)
    assert (len(added.runs), len(added.others)) == (2, 4 if damage == "a file" else 5)


@pytest.mark.parametrize(
    "row", [{}, {"sha256": "0" * 64}, {"file": "../../secret"}, {"status": None}, {"file": None}]
)
def test_an_export_whose_record_is_of_another_file_is_refused(row, store, there, archive):
    exports = Exports(store.root)
    with exports.workspace() as folder:
        (folder / "model.onnx").write_bytes(b"x")
        sha256 = sha256_of(folder / "model.onnx")
        sound = {"run": None, "file": "model.onnx", "sha256": sha256, "status": "complete"}
        exports.publish(folder, ExportRecord(sha256, {}, {**sound, **row} if row else {}))

    def whole(name, content):
        return name, content

    with tarfile.open(archive, "w:gz") as tar:
        tar.add(exports.folder(sha256), f"exports/{sha256}")
    repack(archive, whole)
    with pytest.raises(BenchError, match=r"the archive's exports/\w+ is damaged .*nothing added"):
        unpack(there, archive)
    assert not list(Exports(there.root).records())


def test_a_damaged_analysis_is_refused_and_nothing_added(store, there, archive, finish, entries):
    run = finish(store)
    name = lesion(store, run).analysis
    pack(store, [run], archive)
    repack(archive, lambda n, c: (n, c.replace(b"0.5", b"0.9") if name in n else c))
    message = rf"the archive's analyses/{name}.json: .*; nothing added"
    with pytest.raises(BenchError, match=message):
        unpack(there, archive)
    assert entries(there.root) == {"runs"}


def test_a_missing_or_damaged_run_is_not_packed(store, archive, finish):
    run = finish(store)
    with pytest.raises(BenchError, match="no finished run 'x'"):
        pack(store, [run, "x"], archive)
    (store.folder(run) / "history.csv").write_text("epoch,train_loss\n1,0.0\n")
    with pytest.raises(BenchError, match=rf"run {run} is damaged \(history.csv\)"):
        pack(store, [run], archive)
    assert not archive.exists()


def test_an_archive_that_cannot_be_written_leaves_nothing(store, tmp_path, finish, entries):
    run = finish(store)
    (tmp_path / "file").write_text("")
    before = entries(tmp_path)
    with pytest.raises(BenchError, match=r"cannot write .*file: a file stands where a folder is"):
        pack(store, [run], tmp_path / "file" / "a.tar.gz")
    assert entries(tmp_path) == before


def repack(archive, change):
    """Write an archive anew with names and contents changed."""
    with tarfile.open(archive) as tar:
        files = [(m.name, tar.extractfile(m)) for m in tar.getmembers() if m.isfile()]
        contents = [(name, file.read()) for name, file in files if file]
    with tarfile.open(archive, "w:gz") as tar:
        for name, content in contents:
            kept = change(name, content)
            if kept is not None:
                member = tarfile.TarInfo(kept[0])
                member.size = len(kept[1])
                tar.addfile(member, io.BytesIO(kept[1]))


def corrupt(name, content):
    flipped = bytes([content[0] ^ 1]) + content[1:]
    return name, flipped if name.endswith("model.safetensors") else content


def forge(name, content):
    return name, content.replace(b'"complete"', b'"diverged"')


def drop(name, content):
    return None if name.endswith("history.csv") else (name, content)


@pytest.mark.parametrize(
    ("change", "file"), [(corrupt, "model.safetensors"), (forge, "run.json"), (drop, "history.csv")]
)
@pytest.mark.filterwarnings("ignore:passing over")
def test_a_damaged_run_is_refused_and_nothing_added(
    change, file, store, there, archive, entries, runs
):
    keep(store, *runs)
    pack(store, runs, archive)
    repack(archive, change)
    with pytest.raises(BenchError, match=rf"the archive's runs/.* is damaged \({file}\)"):
        unpack(there, archive)
    assert entries(there.root) == {"runs"}


NAMES = {
    "above": "../outside",
    "above from within": "runs/../../outside",
    "above from nowhere": "a/../../../outside",
    "absolute": "/tmp/outside",
    "a drive": "runs/C:outside/run.json",
    "backslashes": "runs/..\\..\\outside/run.json",
    "backslashes at the end": "runs/a/..\\..\\outside",
    "a hidden run": "runs/.outside/run.json",
    "a lock": "locks/outside.lock",
    "too deep": "runs/a/b/outside",
    "too shallow": "runs/outside",
    "a control character": "runs/outside\x1b[2J/run.json",
    "a line end": "runs/outside\n/run.json",
    "nothing": "runs//outside",
}


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_a_name_that_is_no_file_of_a_run_is_refused(name, there, archive, entries):
    with tarfile.open(archive, "w:gz") as tar:
        tar.addfile(tarfile.TarInfo(name))
    before = entries(archive.parent)
    with pytest.raises(BenchError, match=r"runs.tar.gz is refused: .*outside") as refusal:
        unpack(there, archive)
    assert str(refusal.value).isprintable()
    assert entries(archive.parent) - before == {"there", "there/runs"}


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (tarfile.SYMTYPE, "a symbolic link"),
        (tarfile.LNKTYPE, "a hard link"),
        (tarfile.CHRTYPE, "a device"),
        (tarfile.BLKTYPE, "a device"),
        (tarfile.FIFOTYPE, "a pipe"),
        (tarfile.GNUTYPE_SPARSE, "a special file|cannot be unpacked"),
        (b"Z", "a special file"),
    ],
)
@pytest.mark.parametrize("target", ["/etc/passwd", "run.json", "../../../outside"])
def test_what_is_no_plain_file_is_refused(kind, message, target, there, archive, entries):
    member = tarfile.TarInfo("runs/a/model.safetensors")
    member.type, member.linkname = kind, target
    with tarfile.open(archive, "w:gz") as tar:
        tar.addfile(member)
    before = entries(archive.parent)
    with pytest.raises(BenchError, match=message):
        unpack(there, archive)
    assert entries(archive.parent) - before == {"there", "there/runs"}


def test_a_link_cannot_lead_a_later_file_outside(there, archive):
    link, file = tarfile.TarInfo("runs/a"), tarfile.TarInfo("runs/a/outside")
    link.type, link.linkname = tarfile.SYMTYPE, str(archive.parent)
    with tarfile.open(archive, "w:gz") as tar:
        tar.addfile(link)
        tar.addfile(file)
    with pytest.raises(BenchError, match="it holds a symbolic link, 'runs/a'"):
        unpack(there, archive)
    assert not (archive.parent / "outside").exists()


@pytest.mark.parametrize("shape", ["one file", "one name"])
def test_a_bomb_stops_long_before_it_is_unpacked(shape, there, archive, entries):
    """Half a gigabyte of zeros, or of a file's name, in a few megabytes."""
    header = tarfile.TarInfo("runs/a/model.safetensors")
    header.type = tarfile.REGTYPE if shape == "one file" else tarfile.GNUTYPE_LONGNAME
    header.size = 2**29
    with gzip.open(archive, "wb", compresslevel=1) as stream:
        stream.write(header.tobuf(tarfile.GNU_FORMAT))
        for _ in range(2**9):
            stream.write(bytes(2**20))
        stream.write(bytes(1024))
    assert archive.stat().st_size < 4e6
    with pytest.raises(BenchError, match=r"it holds more than [\d,]+ bytes decompressed"):
        unpack(there, archive)
    assert entries(there.root) == {"runs"}


def test_a_file_that_the_record_does_not_vouch_for_is_refused(store, there, archive, finish):
    run = finish(store)
    (store.folder(run) / "extra.pkl").write_bytes(b"cos\nsystem\n.")
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(store.folder(run), f"runs/{run}")
    with pytest.raises(BenchError, match=rf"runs/{run} is damaged \(extra.pkl\)"):
        unpack(there, archive)
    assert list(there.runs()) == []


def test_a_run_under_the_name_of_another_request_is_refused(store, there, archive, finish, record):
    run = finish(store)
    other = record(seed=9).request
    forged = dataclasses.replace(store.read_run(run), request=other)
    (store.folder(run) / "run.json").write_bytes(forged.to_json())
    pack(store, [run], archive)
    with pytest.raises(BenchError, match="answers another request"):
        unpack(there, archive)


def test_a_study_with_a_path_for_a_name_is_passed_over(store, there, archive, finish, entries):
    run = finish(store)
    keep(store, run)
    pack(store, [run], archive)

    def rename(name, content):
        if not name.startswith("studies/"):
            return name, content
        values = {**json.loads(content), "name": "../../../outside"}
        return name, seal({k: values[k] for k in values.keys() - {"checksum", "format_version"}})

    repack(archive, rename)
    with pytest.warns(UserWarning, match="it holds the record of another study"):
        assert unpack(there, archive) == ([run], [], [])
    assert not any("outside" in name for name in entries(archive.parent))


@pytest.mark.filterwarnings("ignore:passing over")
@pytest.mark.parametrize("damage", ["no archive", "truncated", "a flipped byte"])
def test_an_unreadable_archive_is_one_line(damage, store, there, archive, finish):
    pack(store, [finish(store)], archive)
    content = bytearray(archive.read_bytes())
    if damage == "no archive":
        content = bytearray(b"no archive")
    elif damage == "truncated":
        content = content[: len(content) // 2]
    else:
        content[len(content) // 2] ^= 0xFF
    archive.write_bytes(content)
    with pytest.raises(BenchError, match=r"cannot be unpacked: |is damaged") as refusal:
        unpack(there, archive)
    assert "\n" not in str(refusal.value)
    assert list(there.runs()) == []


def test_a_missing_archive_makes_no_results_folder(there, archive):
    with pytest.raises(BenchError, match=r"runs.tar.gz cannot be unpacked: there is no such"):
        unpack(there, archive)
    assert not there.root.exists()
