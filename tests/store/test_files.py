"""Atomic file operations: whole or not there, and one line when the disk refuses."""

from __future__ import annotations

import errno
import os
import stat

import pytest

from bench.store import locks
from bench.store.files import StorageError, publish_folder, remove_folder, write_atomically
from bench.store.workspace import workspace


@pytest.fixture
def full_disk(monkeypatch):
    """Every fsync says that the disk is full."""

    def refuse(_descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", refuse)


def test_a_file_is_written_with_its_folders(tmp_path):
    path = tmp_path / "a" / "b.json"
    write_atomically(path, b"1")
    write_atomically(path, b"22")
    assert path.read_bytes() == b"22"
    assert [p.name for p in path.parent.iterdir()] == ["b.json"]


def test_a_file_has_the_users_usual_permissions(tmp_path):
    (tmp_path / "usual").write_bytes(b"")
    write_atomically(tmp_path / "ours", b"")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "usual").stat().st_mode


@pytest.mark.usefixtures("full_disk")
def test_a_full_disk_leaves_the_old_file_and_no_other(tmp_path, entries):
    path = tmp_path / "b.json"
    path.write_bytes(b"old")
    with pytest.raises(StorageError, match=r"cannot write .*b.json: the disk is full; free some"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert entries(tmp_path) == {"b.json"}


@pytest.mark.usefixtures("full_disk")
def test_a_folder_that_cannot_be_synced_is_not_published(tmp_path):
    partial, final = tmp_path / "run.partial", tmp_path / "run"
    partial.mkdir()
    (partial / "file").write_bytes(b"content")
    with pytest.raises(StorageError, match="the disk is full"):
        publish_folder(partial, final)
    assert not final.exists()


def test_a_folder_takes_the_place_of_an_older_one(tmp_path):
    partial, final = tmp_path / "run.partial", tmp_path / "run"
    for folder, content in ((final, "old"), (partial, "new")):
        folder.mkdir()
        (folder / content).write_text(content)
    publish_folder(partial, final)
    assert [p.name for p in final.iterdir()] == ["new"]
    assert [p.name for p in tmp_path.iterdir()] == ["run"]


def test_a_removed_folder_leaves_nothing(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "file").write_text("content")
    remove_folder(tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ("file/inside", "a file stands where a folder is needed; choose another"),
        ("x" * 300 + "/inside", "File name too long"),
    ],
)
def test_an_impossible_place_is_one_line(place, reason, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=reason) as refusal:
        write_atomically(tmp_path / place, b"")
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("reason", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_lock_is_a_lease_where_files_cannot_be_locked(reason, tmp_path, monkeypatch):
    """Folders can: Linux locks them itself if the file system has no locks, such as NFS's."""

    def flock(descriptor, _operation):
        if stat.S_ISREG(os.fstat(getattr(descriptor, "fileno", lambda: descriptor)()).st_mode):
            raise OSError(reason, os.strerror(reason))

    monkeypatch.setattr("fcntl.flock", flock)
    path = tmp_path / "locks" / "run.lock"
    with locks.hold(path) as ours:
        assert ours
        with locks.hold(path, wait=False) as second:
            assert not second
        assert [p.suffix for p in path.parent.iterdir()] == [".lease"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.parametrize("flock", [True, False])
def test_the_workspace_of_a_killed_process_is_removed_by_the_next(flock, tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "knows_flock", lambda _folder: flock)
    root = tmp_path / "runs" / "exports"
    with workspace(root) as living:
        pid = os.fork()
        if not pid:
            try:
                with workspace(root) as folder:
                    (folder / "half").touch()
                    os._exit(0)  # as if it were killed
            finally:
                os._exit(1)
        os.waitpid(pid, 0)
        assert len(list(root.iterdir())) == 2
        with workspace(root) as other:
            assert set(root.iterdir()) == {living, other}
    assert not list(root.iterdir())
