"""The folder that a data set is written to: empty, or an unfinished one of the same images, which then is finished."""

import contextlib
import json
import os
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from curate.engine.store import TEMPORARY, Store
from curate.errors import CurateError, WorkdirError

UNFINISHED = ".curate-unfinished.json"
"""Lies in the folder until the data set is complete: says what it is to be."""


class Output:
    """A folder on this machine, or a URL."""

    def __init__(self, place: str, *, resumed: bool) -> None:
        self.store = Store(place)
        self.resumed = resumed
        """Whether an earlier writing has left files."""
        self._folder = ""

    @classmethod
    @contextlib.contextmanager
    def claim(cls, place: str, what: Mapping[str, Any]) -> "Iterator[Output]":
        """The folder for one data set; at the end of the block it is complete.

        Args:
            what: tells this data set from every other one; JSON-ready.

        Raises:
            CurateError: the folder holds something else.
        """
        found = cls(place, resumed=False)
        before = found.store.read_bytes(UNFINISHED)
        wanted = json.dumps(what, sort_keys=True).encode()
        if before is None and found._holds_files():
            raise CurateError(f"{place}: not empty; choose an empty or new folder: nothing in it is replaced")
        if before is not None and before != wanted:
            raise CurateError(
                f"{place}: an unfinished data set of other images, another format or other settings; finish it with "
                "the command that began it, remove the folder, or choose another one"
            )
        found.resumed = before is not None
        if found.resumed:
            found.store.remove_leftovers()
        else:
            found.store.write_bytes(UNFINISHED, wanted)
        yield found
        found.store.remove_file(UNFINISHED)

    def _holds_files(self) -> bool:
        if self.store.is_local:
            path = Path(self.store.path)
            if path.exists() and not path.is_dir():
                raise CurateError(f"{path}: a file; name a folder")
            return path.exists() and any(not file.name.startswith(TEMPORARY) for file in path.iterdir())
        return bool(self.store.fs.find(self.store.path, maxdepth=2))

    def has(self, name: str, num_bytes: int | None = None) -> bool:
        """Whether an earlier writing has left this file, of so many bytes where that is known."""
        if not self.resumed:
            return False
        try:
            size = self.store.fs.info(self.store.join(name))["size"]
        except (FileNotFoundError, NotADirectoryError):
            return False
        return num_bytes is None or bool(size == num_bytes)

    def put(self, name: str, data: bytes) -> None:
        """A small file, complete or not at all; unlike `publish` it does not wait for the disk, see `has`."""
        path = self.store.join(name)
        if not self.store.is_local:
            self.store.fs.pipe_file(path, data)
            return
        temporary = self._beside(path)
        try:
            temporary.write_bytes(data)
            temporary.replace(path)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise WorkdirError(f"{path}: cannot be written ({error.strerror}); run the same command again") from error

    def link(self, name: str, target: bytes, *, hard: bool) -> None:
        """A link to a file of this machine.

        Raises:
            CurateError: the folder is none of this machine, or on another file system than the file.
        """
        if not self.store.is_local:
            raise CurateError(f"{self.store.root}: links can be made on this machine alone; leave --link out")
        path = self.store.join(name)
        temporary = self._beside(path)
        try:
            (os.link if hard else os.symlink)(target, os.fsencode(temporary))
        except OSError as error:
            where = os.fsdecode(target)
            raise CurateError(
                f"{path}: no link to {where} can be made ({error.strerror}); take --link symbolic or copies"
            ) from error
        temporary.replace(path)

    def publish(self, name: str) -> contextlib.AbstractContextManager[IO[bytes]]:
        """A large file, complete or not at all."""
        return self.store.publish(name)

    def _beside(self, path: str) -> Path:
        """Where a file is written before it gets its name; its folder is made."""
        folder, _, _ = path.rpartition("/")
        if folder != self._folder:  # files of one folder mostly follow each other
            Path(folder).mkdir(parents=True, exist_ok=True)
            self._folder = folder
        return Path(folder) / f"{TEMPORARY}{uuid.uuid4().hex}"
