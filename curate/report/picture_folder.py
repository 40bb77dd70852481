"""The folder beside a page for the pictures that the page cannot hold."""

import hashlib
import re
from concurrent.futures import Future, ThreadPoolExecutor

from curate.engine.store import Store

WRITERS = 8
"""Files that are written at once: an object store answers each within a tenth of a second."""
_NAME = re.compile(r"[0-9a-f]{24}\.jpg")
"""What `name_of` makes."""


class PictureFolder:
    """Files by a digest of their bytes: what an earlier page has left there is not written again."""

    def __init__(self, store: Store, name: str) -> None:
        """
        Args:
            name: of the folder in the workdir.
        """
        self._store, self._name = store, name
        self._there = set(store.list_files(name))
        self._used: set[str] = set()
        self._writing: list[Future[None]] = []
        self._writers = ThreadPoolExecutor(WRITERS, "picture")

    @property
    def relative(self) -> str:
        """Its name as a page beside it sees it."""
        return self._name.rsplit("/", 1)[-1]

    def put(self, jpeg: bytes) -> str:
        """The file name of a picture, which is written as long as `finish` was not called."""
        name = name_of(jpeg)
        if name not in self._used | self._there:
            self._writing.append(self._writers.submit(self._store.write_bytes, f"{self._name}/{name}", jpeg))
        self._used.add(name)
        return name

    def finish(self) -> None:
        """Wait until everything is written."""
        self._writers.shutdown()
        for written in self._writing:
            written.result()

    def remove_others(self) -> None:
        """Remove what this page does not show."""
        if self._there and not self._used:
            self._store.remove(self._name)
            return
        for name in sorted(self._there - self._used):
            self._store.remove_file(f"{self._name}/{name}")


def remove_unnamed(store: Store, folder: str, page: str) -> None:
    """Remove the pictures that a page does not name; of an update, its page could not remove those it replaces."""
    there, named = store.list_files(folder).keys(), set(_NAME.findall(page))
    if not there & named:
        store.remove(folder)
        return
    for name in sorted(there - named):
        store.remove_file(f"{folder}/{name}")


def name_of(jpeg: bytes) -> str:
    """A file name that tells the bytes."""
    return f"{hashlib.sha256(jpeg).hexdigest()[:24]}.jpg"
