"""The files under a path, in bytewise order: a folder, one file, a glob, a list of paths; local or by fsspec.

The order must be the same on every machine and in every year, since the place of an image in it becomes its id. Folders
are therefore sorted by the bytes of their entries, whatever the locale, and names need not be text. A web crawl has
folders of millions of files and trees deeper than Python's stack, so the walk holds the entries of the folders that it
is inside of, and does not recurse.
"""

# ruff: noqa: PTH112, PTH116, PTH118, PTH119, PTH120, PTH123, PTH207
# Paths are bytes here, which pathlib does not take: a name need not be text.

import glob
import logging
import os
import stat
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

from fsspec.asyn import AsyncFileSystem
from fsspec.spec import AbstractFileSystem

from curate.errors import SourceError, SourceLost
from curate.retrying import describe_error, find_cause, is_permanent, retry
from curate.sources.network import network, open_filesystem
from curate.sources.suffixes import is_hidden
from curate.sources.uri import decode_uri, encode_uri, is_remote

log = logging.getLogger(__name__)


class File(NamedTuple):
    """A file of a source: an image, an archive of images, or something else."""

    uri: str
    """Encoded absolute path or URL."""
    key: str
    """Encoded path relative to the source."""
    length: int | None
    """Bytes; None: unknown, or the file cannot be looked at."""
    modified: int | None
    """Modification time, ns since the epoch; None: unknown."""


def find_files(path: str, *, skipped: Counter[str]) -> Iterator[File]:
    """Every file under a folder or URL, the file itself, or the matches of a glob, in bytewise order of keys.

    Hidden files and folders, sockets, pipes and devices are left out, and counted in `skipped`. Links to
    files are followed; a link to a folder is followed unless that folder contains it or was reached by
    another link already.

    Raises:
        SourceError: nothing is there, or a folder cannot be listed.
    """
    if is_remote(path):
        yield from _find_remote(path)
        return
    root = os.fsencode(path)
    if _is_glob(path) and not os.path.lexists(root):
        yield from _find_glob(root, skipped)
        return
    yield from _find_local(root, os.path.basename(root), skipped)


def find_listed(path: str, *, skipped: Counter[str]) -> Iterator[File]:
    """The files that a text file names, one path or URL a line, in the order of the lines.

    Relative paths are taken from the folder of the list. A folder stands for its files. Local files that are
    gone, and remote ones unseen, are yielded without a length: reading tells.

    Raises:
        SourceError: the list cannot be read.
    """
    parent = os.fsencode(path.rsplit("/", 1)[0])
    for line in _listed_lines(path):
        entry = line if is_remote(line.decode(errors="replace")) else os.path.join(parent, line)
        if is_remote(entry.decode(errors="replace")):
            yield File(encode_uri(entry), encode_uri(line), None, None)
        elif os.path.isdir(entry):
            yield from _walk(os.path.normpath(entry), line.rstrip(b"/") + b"/", skipped)
        else:
            yield from _one_file(os.path.normpath(entry), line, skipped)


def open_file(uri: str) -> Any:
    """Open a file for reading bytes at any offset.

    Raises:
        SourceLost: it is gone, or may not be opened.
        SourceUnavailable: it cannot be opened now.
        SourceError: it is no regular file.
    """
    remote = is_remote(uri)
    try:
        return retry(
            lambda: open_remote(uri) if remote else _open_local(uri),
            where=uri,
            remote=remote,
            patience=network().patience,
        )
    except SourceError:
        raise
    except Exception as error:
        cause = find_cause(error, remote=remote)
        if cause is None or not cause.permanent:
            raise
        raise SourceLost(
            f"{uri}: cannot be opened ({cause.text}); bring the file back or make it readable, or leave it out of the "
            "source",
            cause.text,
        ) from error


def open_remote(uri: str) -> Any:
    """Open a file of an object store or web server; errors come as its library raises them."""
    fs, path = open_filesystem(decode_uri(uri).decode())
    return fs.open(path, "rb")


def _open_local(uri: str) -> Any:
    path = decode_uri(uri)
    if not stat.S_ISREG(os.stat(path).st_mode):  # opening a pipe would wait for ever
        raise SourceError(f"{uri}: not a regular file; leave it out of the source")
    return open(path, "rb")


def _find_local(root: bytes, name: bytes, skipped: Counter[str]) -> Iterator[File]:
    try:
        found = os.stat(root)
    except OSError as error:
        raise SourceError(
            f"{encode_uri(root)}: {describe_error(error)}; give the path of a folder, a tar, a Parquet file, a glob "
            "of them, or a .txt list"
        ) from error
    if stat.S_ISDIR(found.st_mode):
        yield from _walk(root, b"", skipped)
    elif stat.S_ISREG(found.st_mode):
        yield File(encode_uri(root), encode_uri(name), found.st_size, found.st_mtime_ns)
    else:
        raise SourceError(
            f"{encode_uri(root)}: neither a folder nor a regular file; give a folder, a tar, a Parquet file "
            "or a .txt list"
        )


def _is_glob(path: str) -> bool:
    return glob.has_magic(path)


def _find_glob(pattern: bytes, skipped: Counter[str]) -> Iterator[File]:
    if b"**" in pattern.split(b"/"):
        raise SourceError(
            f"{encode_uri(pattern)}: ** is not supported; give the folder, it is read with all its subfolders"
        )
    matches = sorted(glob.glob(pattern))
    if not matches:
        raise SourceError(f"{encode_uri(pattern)}: nothing matches; check the pattern (on a command line, quote it)")
    fixed = os.fsencode(_fixed_part(os.fsdecode(pattern)))
    for match in matches:
        name = os.path.relpath(match, fixed)
        if os.path.isdir(match):
            yield from _walk(match, name + b"/", skipped)
        else:
            yield from _one_file(match, name, skipped)


class _Links:
    """The folders that were reached by links so far.

    A link to a folder around itself would never end, and n folders that all link to each other would be walked along
    n! ways. So a folder is followed once by a link, and never from inside itself.
    """

    def __init__(self, skipped: Counter[str]) -> None:
        self.skipped = skipped
        self.followed: set[tuple[int, int]] = set()

    def may_follow(self, path: bytes, above: frozenset[tuple[int, int]], here: tuple[int, int]) -> bool:
        """Whether the folder at `path`, which is `here`, may be entered from inside the folders `above`."""
        if here in above:
            reason = "link to a folder around it"
        elif here in self.followed:
            reason = "another link to the same folder"
        else:
            self.followed.add(here)
            return True
        self.skipped[reason] += 1
        log.warning("%s: %s, not followed", encode_uri(path), reason)
        return False


class _Open(NamedTuple):
    """A folder whose entries are being gone through."""

    path: bytes
    prefix: bytes
    entries: Iterator[tuple[bytes, bool]]
    inside: frozenset[tuple[int, int]]
    """(device, inode) of the folder and of those around it."""


def _walk(root: bytes, prefix: bytes, skipped: Counter[str]) -> Iterator[File]:
    """Files under a folder, in bytewise order of their relative paths; however deep, without recursion."""
    links = _Links(skipped)
    stack = [_enter(root, prefix, frozenset())]
    while stack:
        folder = stack[-1]
        entry = next(folder.entries, None)
        if entry is None:
            stack.pop()
            continue
        name, linked = entry[0].rstrip(b"/"), entry[1]
        path, is_folder = os.path.join(folder.path, name), entry[0].endswith(b"/")
        if is_hidden(os.fsdecode(name)):
            skipped["hidden folder" if is_folder else "hidden file"] += 1
        elif not is_folder:
            yield from _one_file(path, folder.prefix + name, skipped)
        elif not linked or links.may_follow(path, folder.inside, _identity(path)):
            stack.append(_enter(path, folder.prefix + name + b"/", folder.inside))


def _enter(path: bytes, prefix: bytes, above: frozenset[tuple[int, int]]) -> _Open:
    try:
        entries, here = retry(lambda: _scan(path), where=encode_uri(path))
    except OSError as error:
        raise SourceError(
            f"{encode_uri(path)}: the folder cannot be listed ({describe_error(error)}); make it readable, or move it "
            "out of the source"
        ) from error
    return _Open(path, prefix, iter(entries), above | {here})


def _scan(folder: bytes) -> tuple[list[tuple[bytes, bool]], tuple[int, int]]:
    """Sorted (name, is a link) of the entries, and (device, inode) of the folder.

    Folders have a trailing slash, as in the keys: `a-b` sorts before `a/x`, and `a` alone would come before both.
    """
    with os.scandir(folder) as entries:
        names = [(e.name + b"/" if _is_folder(e) else e.name, e.is_symlink()) for e in entries]
    return sorted(names), _identity(folder)


def _is_folder(entry: os.DirEntry[bytes]) -> bool:
    """False also for a link that leads nowhere or to itself: reading it tells what is wrong."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def _identity(path: bytes) -> tuple[int, int]:
    """(device, inode), the same for every path that leads to a folder."""
    found = os.stat(path)
    return found.st_dev, found.st_ino


def _one_file(path: bytes, key: bytes, skipped: Counter[str]) -> Iterator[File]:
    try:
        found = os.stat(path)
    except OSError:  # a dangling link, a file one may not look at: reading says what is wrong
        yield File(encode_uri(path), encode_uri(key), None, None)
        return
    if stat.S_ISREG(found.st_mode):
        yield File(encode_uri(path), encode_uri(key), found.st_size, found.st_mtime_ns)
    else:
        skipped["pipe, socket or device"] += 1


def _listed_lines(path: str) -> Iterator[bytes]:
    with open_file(encode_uri(os.fsencode(path))) as text:
        for line in text:
            if line.strip():
                yield line.rstrip(b"\r\n")


def _find_remote(url: str) -> Iterator[File]:
    try:
        fs, path = open_filesystem(url)
        found = retry(lambda: _list_remote(fs, path), where=url, remote=True, patience=network().patience)
    except SourceError:
        raise
    except Exception as error:  # libraries of object stores raise their own kinds
        raise SourceError(f"{url}: cannot be listed ({describe_error(error)}); check the URL and the access") from error
    if not found:
        raise SourceError(f"{url}: nothing is there; check the URL")
    root = _fixed_part(path) if _is_glob(path) else path.rstrip("/")
    for name in sorted(found, key=str.encode):
        key = name.removeprefix(root).lstrip("/") or name.rsplit("/", 1)[-1]
        if not any(is_hidden(step) for step in key.split("/")):
            yield File(_remote_uri(fs, name), encode_uri(key.encode()), *_remote_facts(found[name]))


def _fixed_part(pattern: str) -> str:
    """The folder above the first step of a glob that varies."""
    return os.path.dirname(pattern[: min(pattern.find(c) for c in "*?[" if c in pattern)])


def _list_remote(fs: Any, path: str) -> dict[str, dict[str, Any]]:
    if _is_glob(path):
        matches: dict[str, dict[str, Any]] = fs.glob(path, detail=True)
        return {name: info for name, info in matches.items() if info.get("type") != "directory"}
    try:
        info = fs.info(path)
    except FileNotFoundError as error:
        if not is_permanent(error, remote=True):  # fsspec's words for a server that is busy or away
            raise
        return {}
    if info.get("type") == "file":
        return {path: info}
    own_way = type(fs).find is not AbstractFileSystem.find or getattr(type(fs), "_find", None) not in (None, _WALKING)
    return dict(fs.find(path, detail=True)) if own_way else _walk_remote(fs, path)


_WALKING = AsyncFileSystem._find


def _walk_remote(fs: Any, path: str) -> dict[str, dict[str, Any]]:
    """What `find` gives, where that is fsspec's own walk: it leaves out folders that cannot be listed, whatever the
    reason. Here one that is busy is an error, and one that is gone is left out."""
    found: dict[str, dict[str, Any]] = {}
    folders, seen = [path], {path.rstrip("/")}
    while folders:
        folder = folders.pop()
        try:
            entries = retry(lambda: fs.ls(folder, detail=True), where=folder, remote=True, patience=network().patience)  # noqa: B023
        except FileNotFoundError as error:
            if folder == path:
                raise
            log.warning("%s: gone while its folder was listed (%s)", folder, describe_error(error))
            continue
        for entry in entries:
            name = entry["name"].rstrip("/")
            if entry.get("type") != "directory":
                found[entry["name"]] = entry
            elif name not in seen:
                seen.add(name)
                folders.append(name)
    return found


def _remote_uri(fs: Any, name: str) -> str:
    return encode_uri(fs.unstrip_protocol(name).encode())


def _remote_facts(info: dict[str, Any]) -> tuple[int | None, int | None]:
    """Length and modification time, as far as the store tells."""
    names = ("mtime", "LastModified", "updated", "last_modified", "created")
    when: Any = next((info[name] for name in names if info.get(name) is not None), None)
    seconds = when.timestamp() if hasattr(when, "timestamp") else when
    modified = int(seconds * 1_000_000_000) if isinstance(seconds, int | float) else None
    return info.get("size"), modified
