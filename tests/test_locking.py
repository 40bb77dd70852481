import errno
import fcntl

import pytest

from curate.errors import WorkdirError
from curate.locking import hold


def lock(folder):
    return hold(folder, setting="output", work="training")


def test_a_folder_is_held_by_one_at_a_time(tmp_path):
    with lock(tmp_path / "new"):
        with pytest.raises(WorkdirError, match="new: another training is at work here; wait for it, or set another"):
            lock(tmp_path / "new").__enter__()
        with lock(tmp_path / "other"):
            pass
    with lock(tmp_path / "new"):
        pass


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(WorkdirError, match=r"output=.*file/run: cannot be written: .*; set another output=FOLDER"):
        lock(tmp_path / "file" / "run").__enter__()


def test_a_file_system_without_locks_is_named(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(WorkdirError, match=r"cannot be locked: .*not supported; set output to a folder on a local"):
        lock(tmp_path).__enter__()
