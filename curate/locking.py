"""One process at a time in a folder or with a file: an advisory lock, which the system drops with the process."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from curate.errors import WorkdirError

LOCK = ".lock"
"""Name of the file that is locked; it stays behind, empty, and marks the folder as one of curate's."""


@contextmanager
def hold(folder: Path, *, setting: str, work: str) -> Iterator[None]:
    """Hold `folder`, made where it is missing, until the end of the block; a killed process lets go of it too.

    Args:
        folder: on a file system of this machine or one that passes locks on, such as NFS 4.
        setting: the configuration key that names the folder, such as `output`, for errors.
        work: what goes on in the folder, such as `training`, for errors.

    Raises:
        WorkdirError: another process holds the folder, or it cannot be made, written or locked.
    """
    import fcntl  # missing on Windows, where the other modules still import

    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise WorkdirError(f"{setting}={folder}: cannot be written: {error}; set another {setting}=FOLDER") from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise WorkdirError(
                f"{setting}={folder}: another {work} is at work here; wait for it, or set another {setting}=FOLDER"
            ) from error
        except OSError as error:
            raise WorkdirError(
                f"{setting}={folder}: cannot be locked: {error}; set {setting} to a folder on a local disk"
            ) from error
        yield
    finally:
        os.close(handle)


@contextmanager
def waiting(file: Path) -> Iterator[None]:
    """Hold a lock for the moment that a change takes, after whoever holds it now.

    Args:
        file: that is locked, made where it is missing; it stays behind, empty.

    Raises:
        WorkdirError: it cannot be made or locked.
    """
    import fcntl

    try:
        handle = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise WorkdirError(
            f"{file}: cannot be written: {error.strerror}; make its folder, or write elsewhere"
        ) from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError as error:
            raise WorkdirError(f"{file}: cannot be locked: {error.strerror}; choose a local disk") from error
        yield
    finally:
        os.close(handle)
