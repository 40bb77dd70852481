"""Files that a person asked for: published in one step, and never in place of another one unasked."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

from curate.engine.store import Store
from curate.errors import CurateError
from curate.sources.uri import is_remote


@contextmanager
def new_file(path: str, *, overwrite: bool = False) -> Iterator[IO[bytes]]:
    """A file that appears complete or not at all.

    Args:
        path: on this machine, or a URL.
        overwrite: also in place of a file that is there.

    Raises:
        CurateError: there is one.
        WorkdirError: it cannot be written.
    """
    folder, slash, name = path.rpartition("/")
    store = Store(folder or slash or ".")
    if not name or store.fs.isdir(store.join(name)):
        raise CurateError(f"{path}: a folder; name a file")
    if not overwrite and store.fs.exists(store.join(name)):
        where = "object" if is_remote(path) else "file"
        raise CurateError(f"{path}: there is such a {where} already; choose another name, or add --force to replace it")
    with store.publish(name) as file:
        yield file
