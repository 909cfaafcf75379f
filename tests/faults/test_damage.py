"""Files that rot, folders that move, clocks and permissions that change under a training."""

from __future__ import annotations

import datetime as dt
import os
import shutil
import signal
import subprocess
import time

import pytest

from bench.errors import BenchError
from bench.store import Store
from bench.targets.find import load_trained
from bench.training import outcome


@pytest.mark.filterwarnings("ignore:passing over")
def test_every_damaged_file_is_noticed_named_and_made_anew(
    root, fork, tiny, faults, undisturbed, ledger, tmp_path
):
    assert fork(lambda: tiny.train(root)).wait() == 0
    store, run = Store(root), tiny.request().run_id
    other = store.folder(tiny.request(tiny.bystander).run_id)
    whole = tmp_path / "whole"
    shutil.copytree(store.folder(run), whole)
    times = 0
    for file in sorted(whole.iterdir()):
        for damage in faults.damages.values():
            damage(store.folder(run) / file.name, other / file.name)
            if file.name == "model.safetensors":
                with pytest.raises(BenchError, match="missing or damaged"):
                    load_trained(run, results=root)
            with pytest.raises(BenchError) as refusal:
                store.checked_file(run, file.name)
            assert file.name in str(refusal.value) or file.name == "run.json"
            times += 1
            shutil.rmtree(store.folder(run))
            shutil.copytree(whole, store.folder(run))
    damage = faults.damages["a flipped bit"]
    damage(store.folder(run) / "model.safetensors", None)
    store.remove_run(run)  # what the refusal says: 'bench results rm RUN', and train again
    assert fork(lambda: tiny.train(root)).wait() == 0
    assert tiny.outcome(root) == undisturbed
    kinds = ", ".join(faults.damages)
    ledger(
        f"each file of a run: {kinds}", times,
        "refused by checksum, the file named; removed and trained again, bitwise equal",
        "nothing else",
    )  # fmt: skip


def test_damaged_checkpoint_is_not_taken_up(root, fork, tiny, faults, invariants, ledger):
    store, run = Store(root), tiny.request().run_id
    path = store.partial(run) / "checkpoint.safetensors"
    other = root.parent / "other.safetensors"
    for seed, copy in ((5, other), (tiny.subject, None)):
        child = fork(lambda s=seed: tiny.train(root, s, on_event=fall))
        assert child.wait() == -signal.SIGKILL
        if copy:
            shutil.copy(store.partial(tiny.request(5).run_id) / path.name, copy)
            store.remove_run(tiny.request(5).run_id)
    whole = path.read_bytes()
    for damage in faults.damages.values():
        store.partial(run).mkdir(exist_ok=True)
        path.write_bytes(whole)
        damage(path, other)
        with (
            pytest.warns(UserWarning, match="its checkpoint is broken")
            if path.exists()
            else (pytest.MonkeyPatch.context())
        ):
            assert store.load_checkpoint(run) is None
        assert not invariants()
        store.remove_run(run)
    ledger(
        "a checkpoint: truncated, bit-flipped, emptied, another run's, removed",
        len(faults.damages),
        "refused by checksum; the run restarted from the beginning, bitwise equal",
        "the steps since the run started",
    )  # fmt: skip


def fall(event):
    if event["event"] == "epoch":
        os.kill(os.getpid(), signal.SIGKILL)


def at_first_epoch(action):
    return lambda event: action() if event["event"] == "epoch" else None


def test_folder_moved_away(root, fork, tiny, invariants, ledger, tmp_path):
    moved = tmp_path / "moved"
    child = fork(lambda: tiny.train(root, on_event=at_first_epoch(lambda: root.rename(moved))))
    assert child.wait() == 2
    assert "was moved or removed while it was written" in (tmp_path / "refusal").read_text()
    assert not root.exists()
    assert not invariants(moved)
    ledger(
        "results folder moved away during training", 1,
        "one line, exit code 2; nothing created again; resumed in the new place, bitwise equal",
        "nothing",
    )  # fmt: skip


def test_permission_lost(root, fork, tiny, invariants, ledger, tmp_path):
    folder = root / "runs" / f"{tiny.request().run_id}.partial"

    def change(flag):
        return subprocess.run(["chattr", flag, folder], check=False, capture_output=True)

    folder.mkdir()
    if change("+i").returncode != 0:
        pytest.skip("needs root, and a file system whose files can be made immutable")
    change("-i")
    assert fork(lambda: tiny.train(root, on_event=at_first_epoch(lambda: change("+i")))).wait() == 2
    change("-i")
    assert "not permitted; choose a --results" in (tmp_path / "refusal").read_text()
    assert not invariants()
    ledger(
        "write permission lost during training (chattr +i)", 1,
        "one line, exit code 2; resumed, bitwise equal", "nothing",
    )  # fmt: skip


def test_clock_set_back(root, fork, tiny, invariants, ledger):
    class Yesterday(dt.datetime):
        @classmethod
        def now(cls, tz=None):
            return dt.datetime.now(tz) - dt.timedelta(days=1)

    def set_back():
        now = time.time
        time.time = lambda: now() - 86400
        outcome.datetime = Yesterday

    assert fork(lambda: tiny.train(root, on_event=at_first_epoch(set_back))).wait() == 0
    assert invariants()
    assert Store(root).read_run(tiny.request().run_id).seconds > 0
    ledger("clock set back by a day during training", 1, "complete, bitwise equal", "nothing")


@pytest.fixture
def small_disk(tmp_path):
    """Mount a disk of so many KiB."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to mount a small disk")
    folder = tmp_path / "small"
    folder.mkdir()

    def mount(kib, options="rw"):
        remount = "remount," * folder.is_mount()
        command = ["mount", "-t", "tmpfs", "-o", f"{remount}{options},size={kib}k", "bench", folder]
        subprocess.run(command, check=True)
        return folder

    yield mount
    subprocess.run(["umount", folder], check=False)


def test_disk_really_full(small_disk, root, fork, tiny, invariants, ledger, tmp_path):
    times = 0
    folder = small_disk(100_000)
    shutil.copytree(root, folder / "results")
    used = int(subprocess.check_output(["du", "-sk", folder], text=True).split()[0])
    for spare in range(0, 200, 12):
        small_disk(used + spare)
        code = fork(lambda: tiny.train(folder / "results")).wait()
        assert code in {0, 2}, (tmp_path / "traceback").read_text()
        if code == 2:
            times += 1
            assert "the disk is full; free some space" in (tmp_path / "refusal").read_text()
        small_disk(100_000)
        invariants(folder / "results")
        Store(folder / "results").remove_run(tiny.request().run_id)
    assert times > 2
    ledger(
        "a real full disk (tmpfs, 12 KiB larger each time)", times,
        "one line, exit code 2; resumed once there was space, bitwise equal", "nothing",
    )  # fmt: skip


def test_disk_read_only(small_disk, root, fork, tiny, ledger, tmp_path):
    folder = small_disk(100_000)
    shutil.copytree(root, folder / "results")
    small_disk(100_000, "ro")
    before = tiny.contents(folder)
    assert fork(lambda: tiny.train(folder / "results")).wait() == 2
    assert "the disk is read-only; choose another" in (tmp_path / "refusal").read_text()
    assert tiny.contents(folder) == before
    ledger("a real read-only disk", 1, "one line, exit code 2; nothing changed", "nothing")
