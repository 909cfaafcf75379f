"""Exports and measurements: killed and refused at every write, and files that rot."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess

import pytest

from bench.errors import BenchError
from bench.export.files import load
from bench.measurement.compared_speeds import load_speeds
from bench.store import files
from bench.store.exports import Exports
from bench.store.files import Disk
from bench.store.measurements import Measurements, read_samples


def export(root, run, disk=None, **more):
    from bench.api import export_onnx

    files.disk = disk or Disk()
    export_onnx(run, results=root, threads=1, **more)


def measure(root, disk=None):
    from bench.api import measure as throughput

    files.disk = disk or Disk()
    throughput(
        "resnet8", results=root, device="cpu", threads=1, input_size=8, max_seconds=0.2,
        processes=1, options={"width": 4}, backends=("eager",), batch_sizes=(1,),
    )  # fmt: skip


class Work:
    """Something to be disturbed, and what must hold after it was."""

    def __init__(self, root, fork, tiny, disk, folder):
        self.root, self.fork, self.disk, self.folder = root, fork, disk, folder
        self.run = tiny.request(tiny.bystander).run_id
        self.runs = lambda: tiny.contents(root / "runs")
        self.before = self.runs()

    def begin(self, disk=None, **more):
        return self.fork(lambda: self.do(disk, **more))

    def check(self):
        """Check what is there; then do it again, after which it is whole and alone there."""
        found = self.sound()
        assert self.runs() == self.before
        assert self.begin().wait() == 0, said(self.folder)
        self.complete(found)
        assert {p.name for p in self.store.root.iterdir()} == self.sound()
        locks = {p.name for p in (self.root / "locks").iterdir()}
        assert not {name for name in locks if name.startswith(f".{self.store.root.name}-")}
        assert self.runs() == self.before
        return found

    def forget(self):
        shutil.rmtree(self.store.root)


class Export(Work):
    def prepare(self):
        self.store = Exports(self.root)
        assert self.begin().wait() == 0, said(self.folder)
        self.made = self.sound()
        assert len(self.made) == 1

    def do(self, disk, **more):
        export(self.root, self.run, disk, **more)

    def sound(self):
        return {r.export for r in self.store.records() if self.store.checked_file(r)}

    def complete(self, found):
        assert found in (set(), self.made)
        assert self.sound() == self.made


class Measurement(Work):
    def prepare(self):
        self.store = Measurements(self.root)

    def do(self, disk):
        measure(self.root, disk)

    def sound(self):
        records = list(self.store.records())
        assert all(read_samples(self.store.folder(r.measurement)) for r in records)
        return {r.measurement for r in records}

    def complete(self, found):
        assert len(self.sound() - found) == 1


@pytest.fixture
def work(root, fork, tiny, faults, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))

    def make(kind):
        made = {"export": Export, "measurement": Measurement}[kind](
            root, fork, tiny, faults.disk, tmp_path
        )
        made.prepare()
        return made

    return make


def said(folder):
    found = [folder / name for name in ("traceback", "refusal")]
    return "".join(path.read_text() for path in found if path.exists())


def at_every_operation(work, fault, tmp_path, *, codes, **more):
    """Inject at operation 1, 2, … until there are no more; returns how often, and the finished."""
    times = finished = 0
    while True:
        met = tmp_path / "met"
        met.unlink(missing_ok=True)
        code = work.begin(work.disk(times + 1, fault, met), **more).wait()
        if not met.exists():
            assert code == 0, said(tmp_path)
            return times, finished
        assert code in codes, said(tmp_path)
        times += 1
        finished += bool(work.check())
        if not more:
            work.forget()
        assert times < 200


@pytest.mark.parametrize("kind", ["export", "measurement", "export over an older one"])
def test_killed_at_every_operation(kind, work, faults, ledger, tmp_path):
    made = work(kind.split()[0])
    more = {"force": True} if "older" in kind else {}
    if not more and kind == "export":
        made.forget()
    times, finished = at_every_operation(
        made, faults.die, tmp_path, codes={-signal.SIGKILL}, **more
    )
    assert times > 12
    ledger(
        f"kill -9 at every operation of the store, {kind}", times,
        f"{finished} times complete, otherwise remade; nothing left behind",
        "the one in progress",
    )  # fmt: skip


@pytest.mark.parametrize("kind", ["export", "measurement"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_refused_at_every_operation(number, kind, work, faults, ledger, tmp_path):
    made = work(kind)
    if kind == "export":
        made.forget()
    # What refuses to be removed at the end is removed by the next one.
    times, _ = at_every_operation(made, faults.refuse(number), tmp_path, codes={0, 2})
    assert times > 12
    words = (tmp_path / "refusal").read_text()
    assert words.startswith("cannot write ")
    assert "\n" not in words
    ledger(
        f"{errno.errorcode[number]} at every operation of the store, {kind}", times,
        "one line that names the file and the fix, exit code 2; remade, nothing left behind",
        "the one in progress",
    )  # fmt: skip


@pytest.mark.parametrize("kind", ["export", "measurement"])
def test_disk_really_full(kind, work, ledger, tmp_path):
    if os.geteuid() != 0:
        pytest.skip("needs root, to mount a small disk")
    made = work(kind)
    room = made.store.root
    shutil.rmtree(room, ignore_errors=True)
    room.mkdir()
    times = 0

    def mount(kib, *options):
        words = ",".join([*options, f"size={kib}k"])
        subprocess.run(["mount", "-t", "tmpfs", "-o", words, "bench", room], check=True)

    mount(4)
    try:
        for kib in range(4, 200, 8 if kind == "export" else 4):
            mount(kib, "remount")
            code = made.begin().wait()
            assert code in {0, 2}, said(tmp_path)
            if code == 0:
                break
            times += 1
            assert "the disk is full; free some space" in (tmp_path / "refusal").read_text()
            assert not list(room.iterdir())
        mount(100_000, "remount")
        made.check()
    finally:
        subprocess.run(["umount", room], check=True)
    assert times > 1
    ledger(
        f"a real full disk during {kind} (tmpfs, larger each time)", times,
        "one line, exit code 2, nothing left behind; remade once there was space",
        "the one in progress",
    )  # fmt: skip


@pytest.mark.filterwarnings("ignore:passing over")
def test_every_damaged_file_of_an_export_is_noticed_and_made_anew(
    work, root, fork, tiny, faults, ledger, tmp_path
):
    made = work("export")
    (name,) = made.made
    store, folder = Exports(root), root / "exports" / name
    (record,) = store.records()
    assert fork(lambda: tiny.train(root)).wait() == 0
    other = tmp_path / "other"
    assert fork(lambda: export(other, "resnet8", options={"width": 4}, input_size=8)).wait() == 0
    (foreign,) = (other / "exports").iterdir()
    runs, times = tiny.contents(root / "runs"), 0
    for file in sorted(p.name for p in folder.iterdir()):
        for damage in faults.damages.values():
            damage(folder / file, foreign / file)
            assert store.find(record.request) is None
            with pytest.raises(BenchError) as no:
                store.checked_file(record)
            assert file in str(no.value)
            if file == "model.onnx":
                with pytest.raises(BenchError, match=r"model\.onnx"):
                    load(folder / file)
            times += 1
            assert fork(lambda: export(root, tiny.request(tiny.bystander).run_id)).wait() == 0, (
                said(tmp_path)
            )
            assert store.find(record.request).export == name
            assert load(folder / "model.onnx")
            assert {p.name for p in (root / "exports").iterdir()} == made.made
    assert tiny.contents(root / "runs") == runs
    ledger(
        f"each file of an export: {', '.join(faults.damages)}", times,
        "refused by checksum, the file named; the same command remade it, same bytes",
        "nothing",
    )  # fmt: skip


@pytest.mark.filterwarnings("ignore:passing over")
def test_every_damaged_file_of_a_measurement_is_noticed(work, root, faults, ledger, tmp_path):
    made = work("measurement")
    for _ in range(2):
        assert made.begin().wait() == 0, said(tmp_path)
    store = Measurements(root)
    first, second = (store.folder(r.measurement) for r in store.records())
    whole, times = tmp_path / "whole", 0
    shutil.copytree(first, whole)
    for file in sorted(p.name for p in whole.iterdir()):
        for damage in faults.damages.values():
            damage(first / file, second / file)
            with pytest.raises(BenchError) as refusal:
                read_samples(first)
            assert file in str(refusal.value)
            if file == "measurement.json":
                assert [r.measurement for r in store.records()] == [second.name]
                with pytest.raises(BenchError):
                    load_speeds(first)
                with pytest.raises(BenchError):
                    store.find(first.name)
            times += 1
            shutil.rmtree(first)
            shutil.copytree(whole, first)
    shutil.rmtree(second)
    (first / "samples.csv").write_bytes(b"")
    assert made.begin().wait() == 0
    assert len(list(store.records())) == 2  # asked for again, measured again
    ledger(
        f"each file of a measurement: {', '.join(faults.damages)}", times,
        "refused by checksum, the file named; measured again on request", "that measurement",
    )  # fmt: skip
