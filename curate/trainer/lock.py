"""One training at a time in a folder."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from curate.errors import WorkdirError


@contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Hold `folder` alone, made where it is not there; the lock of a killed process is gone with it.

    Raises:
        WorkdirError: another training holds it, it holds files of something else, or it cannot be made or locked.
    """
    if folder.is_dir() and not (folder / ".lock").exists() and any(folder.iterdir()):
        raise WorkdirError(f"output={folder}: not empty, and no training of curate; give an empty or new folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise WorkdirError(f"output={folder}: cannot be written: {error}; set another output=FOLDER") from error
    try:
        _take(handle, folder)
        yield
    finally:
        os.close(handle)


def _take(handle: int, folder: Path) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise WorkdirError(
            f"output={folder}: another training is at work here; wait for it, or give this one another folder"
        ) from error
    except OSError as error:
        raise WorkdirError(f"output={folder}: cannot be locked: {error}; set output to a local folder") from error
