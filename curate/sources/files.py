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
import re
import stat
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import fsspec

from curate.errors import SourceError, first_line
from curate.retrying import describe_error, is_permanent, retry
from curate.sources.suffixes import begins_as_image, compressed_as, is_hidden
from curate.sources.uri import decode_uri, encode_uri, is_remote
from curate.text import decode_text, iterate_lines

log = logging.getLogger(__name__)

_HEAD_BYTES = 512
_HEADERS = frozenset({"path", "file", "filename", "file_name", "filepath", "file_path", "uri", "url", "key"}) | {
    f"image{word}" for word in ("", "_path", "_file", "_name", "_url", "_uri", "_id", "path", "url", "id")
}
"""Names of a column that holds paths, in the first line of a table that was given as a list."""


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
    gone, and remote ones unseen, are yielded without a length: reading tells. A name is the bytes of its line; blanks
    around it are taken off where nothing has the name with them. UTF-16 and UTF-32 are read where a byte order mark
    says so.

    Raises:
        SourceError: the list cannot be read, or is no list.
    """
    parent = os.fsencode(path.rsplit("/", 1)[0])
    for written in _listed_lines(path):
        line = _without_blanks(written, parent)
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
        SourceError: it cannot be opened, or is no regular file.
    """
    remote = is_remote(uri)
    try:
        return retry(lambda: open_remote(uri) if remote else _open_local(uri), where=uri, remote=remote)
    except Exception as error:
        if not is_permanent(error):
            raise
        raise SourceError(
            f"{uri}: cannot be opened ({describe_error(error)}); bring the file back or make it readable, or leave it "
            "out of the source"
        ) from error


def why_no_url(uri: str) -> str | None:
    """What keeps an encoded URL from being one that could be opened at all; None: nothing."""
    try:
        url = decode_uri(uri).decode()
        protocol = urlsplit(url).scheme
    except ValueError as error:
        return first_line(error)
    if "::" in url:
        return "chained URLs are not supported"
    if protocol not in fsspec.available_protocols():
        return f"the protocol {protocol!r} is not known"
    return "it holds control characters" if re.search(r"[\x00-\x1f\x7f]", url) else None


def open_remote(uri: str) -> Any:
    """Open a file of an object store or web server; errors come as its library raises them."""
    fs, path = _filesystem(decode_uri(uri).decode())
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


def _without_blanks(line: bytes, parent: bytes) -> bytes:
    """The name that a line means: a file's may end in blanks, but mostly an editor left them there."""
    bare = line.strip()
    if bare == line or (not is_remote(bare.decode(errors="replace")) and os.path.lexists(os.path.join(parent, line))):
        return line
    return bare


def _listed_lines(path: str) -> Iterator[bytes]:
    where = encode_uri(os.fsencode(path))
    with open_file(where) as file:
        what = _why_no_list(file.read(_HEAD_BYTES))
        if what is not None:
            raise _no_list(where, what)
        file.seek(0)
        lines = (line for line in iterate_lines(file) if line.strip())
        try:
            first = next(lines, b"")
            if _is_header(first) and not os.path.lexists(os.path.join(os.path.dirname(os.fsencode(path)), first)):
                raise _no_list(where, f"its first line, {encode_uri(first[:80])!r}, is the header of a table")
            yield from [first] if first else []
            yield from lines
        except ValueError as error:
            raise _no_list(where, str(error)) from error


def _no_list(where: str, what: str) -> SourceError:
    return SourceError(
        f"{where}: not a list of paths: {what}; a list is a text file with one path or URL a line, and nothing else"
    )


def _why_no_list(head: bytes) -> str | None:
    """What a file that was given as a list is instead, by its first bytes; None: it may be one."""
    suffix = compressed_as(head)
    if suffix:
        return f"its content is compressed ({suffix[1:]})"
    if head.startswith(b"PAR1"):
        return "it is a Parquet file"
    if head[257:262] == b"ustar":
        return "it is a tar archive"
    if begins_as_image(head):
        return "it is a picture"
    text = decode_text(head, errors="replace").lstrip().lower()
    if text.startswith(("<!doctype", "<html", "<?xml", "<head", "<body")):
        return "it is a page of HTML or XML"
    return "it is JSON" if text.startswith(('{"', '[{"', '["')) else None


def _is_header(line: bytes) -> bool:
    """Whether a line names the columns of a table (CSV, TSV), and no file."""
    cells = re.split(r"[,;\t]", line.decode(errors="replace"))
    return any(cell.strip(" \"'").lower() in _HEADERS for cell in cells)


def _filesystem(url: str) -> tuple[Any, str]:
    if "::" in url:
        raise SourceError(f"{url}: chained URLs are not supported; give the last one, without `...::`")
    try:
        fs, path = fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise SourceError(f"{url}: {describe_error(error)}; install the fsspec package of that protocol") from error
    return fs, path


def _find_remote(url: str) -> Iterator[File]:
    fs, path = _filesystem(url)
    try:
        found = retry(lambda: _list_remote(fs, path), where=url, remote=True)
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
    except FileNotFoundError:
        return {}
    return {path: info} if info.get("type") == "file" else dict(fs.find(path, detail=True))


def _remote_uri(fs: Any, name: str) -> str:
    return encode_uri(fs.unstrip_protocol(name).encode())


def _remote_facts(info: dict[str, Any]) -> tuple[int | None, int | None]:
    """Length and modification time, as far as the store tells."""
    names = ("mtime", "LastModified", "updated", "last_modified", "created")
    when: Any = next((info[name] for name in names if info.get(name) is not None), None)
    seconds = when.timestamp() if hasattr(when, "timestamp") else when
    modified = int(seconds * 1_000_000_000) if isinstance(seconds, int | float) else None
    return info.get("size"), modified
