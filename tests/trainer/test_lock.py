import fcntl

import pytest

from curate.errors import WorkdirError
from curate.trainer.lock import lock


def test_a_folder_is_held_by_one_at_a_time(tmp_path):
    with lock(tmp_path / "new"):
        with pytest.raises(WorkdirError, match="new: another training is at work here; wait for it, or give this one"):
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
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(WorkdirError, match=r"cannot be locked: .*not supported; set output to a local folder"):
        lock(tmp_path).__enter__()


def test_folder_of_something_else_is_refused_and_left_alone(tmp_path):
    (tmp_path / "holiday.jpg").write_bytes(b"1")
    with pytest.raises(WorkdirError, match="not empty, and no training of curate"), lock(tmp_path):
        pass
    assert [p.name for p in tmp_path.iterdir()] == ["holiday.jpg"]
