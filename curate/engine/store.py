"""A workdir on any fsspec file system: files published in one step, tables by name.

Files are written under a temporary name and published at once, so a reader never sees half of one.

A folder `.update` or `.sweep` of a workdir is a store that lies over it: what is written or removed there leaves the
workdir as it is, what is read there and is not in the folder itself is the workdir's. So whatever works on a workdir
can work beside it, table by table and part by part, without a copy of what does not change. Files of work in progress
(names that begin with `_`, but for manifests) are never those of the workdir. `put_in_place` ends it: every file moves
to its place in the workdir.
"""

import contextlib
import errno
import os
import shutil
import tempfile
import uuid
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from fsspec.implementations.local import LocalFileSystem

from curate import counting
from curate.engine.held_files import HeldFiles
from curate.errors import TableError, WorkdirError
from curate.filesystems import PATTERN_SIGNS, S3, Explained, open_filesystem, protocols_of
from curate.locking import hold
from curate.sealed_json import dump_sealed, load_sealed

if TYPE_CHECKING:
    from curate.engine.table import Table

_held: dict[str, HeldFiles] = {}
"""By path of a workdir that this process alone writes to."""
TEMPORARY = ".tmp-"
"""How the names of files begin that are not published yet."""
UPDATE, SWEEP = ".update", ".sweep"
"""Folders of a workdir that are stores which lie over it: what an update has made so far, and what a sweep tries."""
MANIFEST = "_table.json"
"""The file of a table that says what made it, its parts and figures."""


class Store:
    """A workdir: tables by name, and atomic files beside them."""

    def __init__(self, root: str | Path) -> None:
        self.address = str(root)
        """What makes this store again, in another process too."""
        parent, _, last = self.address.rstrip("/").rpartition("/")
        self.below = Store(parent) if parent and last in (UPDATE, SWEEP) else None
        """The workdir that this store lies over; None: it is a workdir itself."""
        self.root: str = self.address if self.below is None else self.below.root
        """The workdir, as the user gives it."""
        fs, path = open_filesystem(self.address, error=WorkdirError)
        self.is_local = isinstance(fs, LocalFileSystem)
        self._place: str = path if self.is_local else fs.unstrip_protocol(path)
        self.path: str = self._place if self.below is None else self.below.path
        """Of the workdir, as messages tell it."""
        self.fs: Any = fs if self.is_local else Explained(fs, self.root, held=self._held_bytes)
        self._kept: dict[str, bytes | None] | None = None
        """Small files as they were read or written, while nobody else writes them."""

    @contextlib.contextmanager
    def keeping(self, *, alone: bool = False) -> Iterator[None]:
        """Within, `read_kept` reads each file once: for the driver, which alone writes manifests.

        A run asks hundreds of times what its tables are, and on an object store each answer takes a request.

        Args:
            alone: this process performs the tasks too, so that nobody else writes here: of a remote workdir, small
                files that it publishes are not asked for again, see `held_files.py`.
        """
        before, self._kept = self._kept, {} if self._kept is None else self._kept
        holds = alone and not self.is_local and self.path not in _held
        if holds:
            _held[self.path] = HeldFiles()
        try:
            yield
        finally:
            self._kept = before
            if holds:
                del _held[self.path]

    def _held_bytes(self, path: str) -> bytes | None:
        held = _held.get(self.path)
        return None if held is None else held.get(path)

    def over(self, folder: str) -> "Store":
        """The store that lies over this workdir in `folder`, whether that is there or not."""
        found = Store(f"{self.address.rstrip('/')}/{folder}")
        found.below = self  # which knows what it keeps
        return found

    def find(self, name: str) -> str:
        """Path of a file to read: this store's own, or that of the workdir below."""
        own = self.join(name)
        return own if self.below is None or not _shows_through(name) or self.fs.exists(own) else self.below.join(name)

    def exists(self, name: str) -> bool:
        """Whether there is such a file or folder."""
        own: bool = self.fs.exists(self.join(name))
        return own or (self.below is not None and _shows_through(name) and self.below.exists(name))

    def read_kept(self, name: str) -> bytes | None:
        """As `read_bytes`; what was read before is not read again where this process alone writes, see `keeping`."""
        if self._kept is None:
            return self.read_bytes(name)
        if name not in self._kept:
            self._kept[name] = self.read_bytes(name)
        return self._kept[name]

    def _forget(self, name: str) -> None:
        """Of a file or folder that changes."""
        for known in [known for known in self._kept or () if known == name or known.startswith(f"{name}/")]:
            del self._kept[known]  # type: ignore[union-attr]
        if (held := _held.get(self.path)) is not None:
            held.forget(self.join(name))

    def table(self, name: str) -> "Table":
        """The table of that name, whether it is there or not."""
        from curate.engine.table import Table

        return Table(self, name)

    def join(self, *names: str) -> str:
        return "/".join([self._place.rstrip("/"), *names])

    def read_json(self, name: str) -> Any:
        """The JSON file `name`, or None when there is none.

        Raises:
            TableError: it is damaged.
        """
        data = self.read_kept(name)
        if data is None:
            return None
        try:
            found = load_sealed(data)
        except ValueError as error:
            raise TableError(f"{self.join(name)}: damaged ({error}); remove it and run again") from error
        if found is None:  # no file of ours says so
            raise TableError(f"{self.join(name)}: damaged (it says null); remove it and run again")
        return found

    def read_bytes(self, name: str) -> bytes | None:
        """The file `name`, or None when there is none."""
        data = self.read_own(name)
        if data is None and self.below is not None and _shows_through(name):
            return self.below.read_bytes(name)
        return data

    def read_own(self, name: str) -> bytes | None:
        """As `read_bytes`, but of this store alone, whatever lies below."""
        try:
            data: bytes = self.fs.cat_file(self.join(name))
        except (FileNotFoundError, NotADirectoryError):
            return None
        return data

    def write_json(self, name: str, values: Mapping[str, Any]) -> None:
        """Publish a JSON file that carries the digest of its own text."""
        self.write_bytes(name, dump_sealed(values))

    def write_bytes(self, name: str, data: bytes) -> None:
        """Publish a whole file in one step."""
        with self.publish(name) as file:
            file.write(data)
        if self._kept is not None and name.endswith(".json"):
            self._kept[name] = data

    @contextlib.contextmanager
    def publish(self, name: str) -> Iterator[IO[bytes]]:
        """A file that appears under `name` complete or not at all: a rename on POSIX, one put elsewhere.

        Raises:
            WorkdirError: the disk is full or the workdir cannot be written.
        """
        target = self.join(name)
        self._forget(name)
        with self._temporary(target) as temporary:
            with _explain_os_errors(target):
                file = temporary.open("wb")
            try:
                with _explain_full_disk(target):  # the caller's own errors, such as a source it may not read, pass
                    yield file
                with _explain_os_errors(target):
                    file.flush()
                    os.fsync(file.fileno())
                    num_bytes = file.tell()
                    file.close()
            except BaseException:
                with contextlib.suppress(OSError):  # what was left to flush is thrown away with the file
                    file.close()
                raise
            with _explain_os_errors(target):
                if self.is_local:
                    temporary.replace(target)
                    _flush_folder(Path(target).parent)
                    counting.note(requests=1, bytes_written=num_bytes)
                else:
                    self._put(temporary, target)

    def _put(self, file: Path, target: str) -> None:
        try:
            self.fs.put_file(str(file), target)
        except FileNotFoundError as error:
            raise WorkdirError(
                f"{self.root}: no such bucket or container; make it first, or choose another workdir=URL"
            ) from error
        if (held := _held.get(self.path)) is not None:
            held.hold(target, file)

    @contextlib.contextmanager
    def _temporary(self, target: str) -> Iterator[Path]:
        """A local path to write to, gone at the end: beside a local target, so that a rename publishes it."""
        if self.is_local:
            with _explain_os_errors(target):
                Path(target).parent.mkdir(parents=True, exist_ok=True)
            temporary = Path(target).parent / f"{TEMPORARY}{uuid.uuid4().hex}"
            try:
                yield temporary
            finally:
                temporary.unlink(missing_ok=True)
        else:
            with tempfile.TemporaryDirectory() as folder:
                yield Path(folder) / "file"

    def remove(self, name: str) -> None:
        """Remove a file or folder of the store, if it is there; what lies below stays."""
        target = self.join(name)
        self._forget(name)
        if self.is_local:
            path = Path(target)
            counting.note(requests=1)
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        elif any(sign in target for sign in PATTERN_SIGNS):  # which `rm` would take for a pattern
            for path in self.fs.find(target):
                self.fs.rm_file(path)
        elif self.fs.exists(target):
            self.fs.rm(target, recursive=True)

    def remove_file(self, name: str) -> None:
        """Remove a file, if it is there; an object store is not asked first."""
        self._forget(name)
        if self.is_local:
            self.remove(name)
        else:
            with contextlib.suppress(FileNotFoundError):
                self.fs.rm_file(self.join(name))

    def remove_folders(self, name: str, folders: Collection[str]) -> bool:
        """Remove folders within a folder, those that are there; on an object store by one listing of it.

        Returns whether there was any.
        """
        if self.is_local:
            there = [folder for folder in folders if Path(self.join(name, folder)).exists()]
            for folder in there:
                self.remove(f"{name}/{folder}")
            return bool(there)
        for folder in folders:
            self._forget(f"{name}/{folder}")
        begins = tuple(f"{name}/{folder}/" for folder in folders)
        found = [path for path in self.fs.find(self.join(name)) if self._name_of(path).startswith(begins)]
        if any(sign in path for path in found for sign in PATTERN_SIGNS):
            for path in found:
                self.fs.rm_file(path)
        elif found:
            self.fs.rm(found)
        return bool(found)

    def _name_of(self, path: str) -> str:
        """The name in the workdir of a path that a listing gave."""
        root: str = self.fs._strip_protocol(self._place)
        return path[len(root.rstrip("/")) + 1 :]

    def list_files(self, name: str, begin: str = "") -> dict[str, int]:
        """Names and bytes of the files in a folder, not below, that begin so; empty where it is not there."""
        shown = self.below.list_files(name, begin) if self.below is not None and _shows_through(name) else {}
        folder = self.join(name)
        if begin and not self.is_local and protocols_of(self.fs) & S3:  # `ls` asks again where nothing is there
            listed = self.fs.find(folder, prefix=begin, detail=True).values()
        else:
            try:
                listed = self.fs.ls(folder, detail=True)
            except FileNotFoundError:
                return shown
        found = {file["name"].rsplit("/", 1)[-1]: file for file in listed if file["type"] == "file"}
        sizes = {last: file["size"] for last, file in found.items() if last.startswith(begin)}
        if (held := _held.get(self.path)) is not None:
            for last, num_bytes in sizes.items():
                held.compare(f"{folder}/{last}", num_bytes)
        return shown | sizes

    def move(self, name: str, target: str) -> None:
        """Move a file within the workdir, over one of that name; in one step on POSIX."""
        self._forget(name)
        self._forget(target)
        source, target = self.join(name), self.join(target)
        with _explain_os_errors(target):
            if self.is_local:
                Path(target).parent.mkdir(parents=True, exist_ok=True)
                Path(source).replace(target)
                counting.note(requests=1)
                _flush_folder(Path(target).parent)
            else:
                self.fs.copy(source, target)
                self.fs.rm_file(source)

    def put_in_place(self) -> None:
        """Move every file of this store to its place in the workdir below; begun and killed, it can be begun again.

        Parts come before manifests, and files at the top last. On an object store each file is copied within the store.
        """
        below = self.below
        assert below is not None
        names = [self._name_of(path) for path in self.fs.find(self._place)] if self.fs.exists(self._place) else []
        for name in sorted(names, key=lambda name: ("/" not in name, name.endswith(f"/{MANIFEST}"), name)):
            if any(step.startswith("_") and step != MANIFEST for step in name.split("/")):
                continue  # of work in progress
            below._forget(name)
            source, target = self.join(name), below.join(name)
            with _explain_os_errors(target):
                if self.is_local:
                    Path(target).parent.mkdir(parents=True, exist_ok=True)
                    Path(source).replace(target)
                else:
                    self.fs.copy(source, target)
                    self.fs.rm_file(source)

    def remove_leftovers(self) -> None:
        """Remove temporary files that a killed run left; only while no other run holds the workdir."""
        if self.is_local:
            for leftover in Path(self._place).rglob(f"{TEMPORARY}*"):
                leftover.unlink(missing_ok=True)

    def lock(self) -> contextlib.AbstractContextManager[None]:
        """Hold the workdir alone; object stores have no locks.

        Raises:
            WorkdirError: another process holds it, or the folder cannot be made.
        """
        return hold(Path(self.path), setting="workdir", work="run") if self.is_local else contextlib.nullcontext()


def _flush_folder(folder: Path) -> None:
    """Have the names in a folder on the disk: after a power loss a rename may be undone, or leave an empty file."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):  # some file systems flush no folders
            raise
    finally:
        os.close(handle)


def _shows_through(name: str) -> bool:
    """Whether a file or folder of the workdir is seen in a store over it: not where it is work in progress."""
    return not any(step.startswith("_") and step != MANIFEST for step in name.split("/"))


@contextlib.contextmanager
def _explain_full_disk(target: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise WorkdirError(
                f"{target}: no space left; free some or move the workdir, then run the same command again: "
                "every committed part is kept"
            ) from error
        raise


@contextlib.contextmanager
def _explain_os_errors(target: str) -> Iterator[None]:
    try:
        with _explain_full_disk(target):
            yield
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.ENOENT):
            raise WorkdirError(
                f"{target}: cannot be written ({error.strerror}); choose another workdir (--workdir DIR)"
            ) from error
        raise
