"""Trying again after errors that may pass, and telling them from those that will not."""

import errno
import logging
import time
from collections.abc import Callable
from typing import TypeVar

from curate.errors import SourceError, foreign_text

ATTEMPTS = 4
"""How often work is tried in all."""
FIRST_WAIT = 0.5
"""Seconds before the second attempt; doubled before each further one."""

_PERMANENT = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)
_PERMANENT_ERRNO = frozenset({errno.ELOOP, errno.ENAMETOOLONG, errno.EINVAL, errno.ENODEV, errno.ENXIO})

ResultT = TypeVar("ResultT")
log = logging.getLogger(__name__)


def is_permanent(error: Exception) -> bool:
    """Whether the same attempt would fail again: not there, not allowed, not a file, or refused (HTTP 4xx)."""
    status = getattr(error, "status", None)
    if isinstance(status, int):
        return 400 <= status < 500 and status not in (408, 425, 429)
    if isinstance(error, OSError):
        return isinstance(error, _PERMANENT) or error.errno in _PERMANENT_ERRNO
    return False


def is_damage(error: Exception) -> bool:
    """Whether Arrow met wrong bytes or a lost file, rather than a disk or a connection that may recover.

    Arrow's own errors of reading are plain `OSError` without a number.
    """
    if isinstance(error, OSError):
        return is_permanent(error) or (type(error) is OSError and error.errno is None)
    return True


def retry(work: Callable[[], ResultT], *, where: str, remote: bool = False) -> ResultT:
    """Do `work`; where it fails by an error that may pass, do it again after growing waits.

    Args:
        where: what is read, for the message.
        remote: other errors than OSError may pass too (libraries of object stores have their own).

    Raises:
        SourceError: it failed `ATTEMPTS` times.
        OSError: an error that will not pass, as it came.
    """
    wait = FIRST_WAIT
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return work()
        except SourceError:
            raise
        except Exception as error:
            if is_permanent(error) or not (remote or isinstance(error, OSError)):
                raise
            if attempt == ATTEMPTS:
                raise gave_up(where, error) from error
            log.warning("%s: %s; attempt %d of %d", where, describe_error(error), attempt, ATTEMPTS)
        time.sleep(wait)
        wait *= 2
    raise AssertionError("unreachable")


def gave_up(where: str, error: Exception) -> SourceError:
    """The error of a read that failed at every attempt."""
    return SourceError(
        f"{where}: {describe_error(error)}, {ATTEMPTS} times in a row; check the disk or the connection, then run "
        "the same command again: finished parts are kept"
    )


def describe_error(error: Exception) -> str:
    """An error in one line that is equal in every run: in the words of the operating system where it has some."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return f"{type(error).__name__}: {foreign_text(error)}".rstrip(": ")
