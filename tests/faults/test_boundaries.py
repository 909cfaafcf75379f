"""A fault at every single operation of the store: killed there, refused there, power lost there."""

from __future__ import annotations

import errno
import os
import random
import shutil
import signal
from pathlib import Path

import pytest

from bench.store import Store, files
from bench.store.files import Disk


def train_with(disk, tiny, root, **more):
    files.disk = disk
    tiny.train(root, **more)


def at_every_operation(begin, check, forget, *, end, every=1):
    """Inject at operation 1, 2, … until a run has no more; returns how often, and the finished."""
    times = finished = 0
    while (code := begin(1 + every * times).wait()) != 0:
        assert code == end
        times += 1
        finished += check()
        forget()
        assert times < 500
    return times, finished


@pytest.mark.parametrize("force", [False, True])
def test_killed_at_every_operation(force, root, fork, tiny, faults, invariants, forget, ledger):
    def begin(at):
        if force:  # there is a finished run to replace
            assert fork(lambda: tiny.train(root)).wait() == 0
        return fork(lambda: train_with(faults.disk(at, faults.die), tiny, root, force=force))

    times, finished = at_every_operation(begin, invariants, forget, end=-signal.SIGKILL)
    assert times > 25
    ledger(
        f"kill -9 at every operation of the store, training{' again over a finished run' * force}",
        times, f"{finished} times the run was complete, otherwise resumed; always bitwise equal",
        "nothing",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("number", "every"),
    [(errno.ENOSPC, 1), (errno.EROFS, 6), (errno.EACCES, 6), (errno.EIO, 6)],
)
def test_refused_at_every_operation(
    number, every, root, fork, tiny, faults, invariants, forget, ledger, tmp_path
):
    times, _ = at_every_operation(
        lambda at: fork(lambda: train_with(faults.disk(at, faults.refuse(number)), tiny, root)),
        invariants, forget, end=2, every=every,
    )  # fmt: skip
    said = (tmp_path / "refusal").read_text()
    assert said.startswith("cannot write ")
    assert "\n" not in said
    ledger(
        f"{errno.errorcode[number]} at every operation of the store, in steps of {every}", times,
        "one line that names the file and the fix, exit code 2; resumed, bitwise equal", "nothing",
    )  # fmt: skip


class Volatile(Disk):
    """Knows what would be left after a power loss: what was fsynced, and where it was named."""

    def __init__(self, base, at, target, rng=None):
        self.base, self.at, self.target, self.rng = base, at, target, rng
        self.count, self.content, self.names = 0, {}, {}
        for folder, _, _ in os.walk(base):
            self._keep(folder)

    def _keep(self, folder):
        self.names[Path(folder).stat().st_ino] = {
            entry.name: (entry.inode(), entry.is_dir()) for entry in os.scandir(folder)
        }
        for entry in os.scandir(folder):
            if entry.is_file() and self.count == 0:
                self.content[entry.inode()] = Path(entry).read_bytes()

    def _count(self):
        self.count += 1
        if self.count == self.at:
            self.lose_power()

    def lose_power(self):
        self.target.mkdir()
        self._restore(self.base.stat().st_ino, self.base, self.target)
        os._exit(9)

    def _restore(self, inode, now, target):
        entries = self.names.get(inode, {})
        if self.rng and now and self.rng.random() < 0.5:  # more may have reached the disk
            entries = {e.name: (e.inode(), e.is_dir()) for e in os.scandir(now)}
        for name, (child, is_folder) in entries.items():
            path = now / name if now and (now / name).exists() else None
            if is_folder:
                (target / name).mkdir()
                self._restore(child, path, target / name)
            else:
                content = self.content.get(child, b"")
                if self.rng and path and child not in self.content and path.stat().st_ino == child:
                    whole = path.read_bytes()
                    content = whole[: self.rng.choice([0, len(whole) // 2, len(whole)])]
                (target / name).write_bytes(content)

    def make_folder(self, path):
        self._count()
        super().make_folder(path)
        self.names.setdefault(path.stat().st_ino, {})

    def write(self, path, content):
        self._count()
        super().write(path, content)
        self.content.pop(path.stat().st_ino, None)  # the number may have been another file's

    def sync_file(self, path):
        self._count()
        super().sync_file(path)
        self.content[path.stat().st_ino] = path.read_bytes()

    def sync_folder(self, path):
        self._count()
        super().sync_folder(path)
        self._keep(path)

    def rename(self, source, target):
        self._count()
        super().rename(source, target)

    def remove_file(self, path):
        self._count()
        super().remove_file(path)

    def remove_tree(self, path):
        self._count()
        for folder, _, _ in os.walk(path):
            self.names.pop(Path(folder).stat().st_ino, None)
        super().remove_tree(path)


@pytest.mark.parametrize("more", ["nothing", "anything"])
def test_power_lost_at_every_operation(
    more, root, fork, tiny, invariants, forget, ledger, tmp_path
):
    """*more*: what else than the fsynced reached the disk."""
    lost = tmp_path / "lost"
    times = finished = 0
    while True:
        target = lost / "results"
        shutil.rmtree(lost, ignore_errors=True)

        def work(at=times + 1):
            rng = random.Random(at) if more == "anything" else None
            train_with(Volatile(root.parent, at, lost, rng), tiny, root)

        code = fork(work).wait()
        if code == 0:
            break
        assert code == 9, (tmp_path / "traceback").read_text()
        times += 1
        finished += invariants(target)
        forget()
    assert times > 25
    ledger(
        f"power lost at every operation ({more} that was not fsynced was kept)", times,
        f"{finished} times the run was complete, otherwise resumed; always bitwise equal",
        "nothing",
    )  # fmt: skip


@pytest.mark.parametrize("force", [False, True])
def test_what_has_returned_survives_a_power_loss(force, root, fork, tiny, undisturbed, tmp_path):
    def work():
        disk = Volatile(root.parent, -1, tmp_path / "lost")
        train_with(disk, tiny, root)
        if force:
            tiny.train(root, force=True)
        disk.lose_power()

    assert fork(work).wait() == 9, (tmp_path / "traceback").read_text()
    left = tmp_path / "lost" / "results"
    assert tiny.outcome(left) == undisturbed
    assert [p.name for p in Store(left).folder(tiny.request().run_id).iterdir()]
