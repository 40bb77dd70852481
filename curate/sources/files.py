"""The files under a path, in bytewise order: a folder, one file, a glob, a list of paths; local or by fsspec.

The order must be the same on every machine and in every year, since the place of an image in it becomes its id. Folders
are therefore sorted by the bytes of their entries, whatever the locale, and names need not be text. A web crawl has
folders of millions of files and trees deeper than Python's stack, so the walk holds the entries of the folders that it
is inside of, and does not recurse.
"""

# ruff: noqa: PTH110, PTH112, PTH113, PTH116, PTH118, PTH119, PTH120, PTH207
# Paths are bytes here, which pathlib does not take: a name need not be text.

import glob
import json
import logging
import os
import posixpath
import re
import stat
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

import fsspec
from fsspec.asyn import AsyncFileSystem
from fsspec.spec import AbstractFileSystem

from curate.counting import note
from curate.errors import SourceError, SourceLost, first_line
from curate.filesystems import open_ranges
from curate.opening import NotRegularFile, open_regular
from curate.ranges import Span, plan_blocks
from curate.retrying import describe_error, find_cause, is_permanent, retry
from curate.sources.braces import expand_braces, has_braces
from curate.sources.left_out import LINK_OUT, LONG_KEY, leave_out, leave_outside
from curate.sources.limits import MAX_NAME_BYTES
from curate.sources.network import network, open_filesystem
from curate.sources.roots import Roots, own_folder
from curate.sources.secrets import strip_secrets
from curate.sources.suffixes import PARQUET, begins_as_image, compressed_as, is_hidden
from curate.sources.uri import decode_uri, encode_uri, is_remote, local_path
from curate.text import decode_text, iterate_lines

if TYPE_CHECKING:
    from curate.sources.beside import Around, Surroundings

log = logging.getLogger(__name__)

MAX_WEB_FOLDERS = 100_000
"""Pages of folders of a web server that are followed."""
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
    around: "Around | None" = None
    """What lies in its folder; None: the folder was not listed, or nobody asked."""

    @property
    def name(self) -> bytes:
        """The last step of its path."""
        last = self.key[self.key.rfind("/") + 1 :]
        return decode_uri(last) if "\\" in last else last.encode()


def find_files(
    path: str, *, skipped: Counter[str], around: "Surroundings | None" = None, roots: Sequence[str] = ()
) -> Iterator[File]:
    """Every file under a folder or URL, the file itself, or the matches of a glob, in bytewise order of keys.

    Braces stand for several paths, which are taken in bash's order, unless a file of that very name is there. Hidden
    files and folders, sockets, pipes, devices and workdirs of curate are left out, and counted in `skipped`, as are
    links that lead out of the source and of `roots`. Other links are followed; one to a folder unless that folder
    contains it or was reached by another link already.

    Args:
        around: gathers what describes the images of each folder; None: nobody asks.
        roots: folders beside the source that links may lead to.

    Raises:
        SourceError: nothing is there, or a folder cannot be listed.
    """
    remote = is_remote(path)
    if has_braces(path) and not (_is_there(path) if remote else os.path.lexists(os.fsencode(path))):
        fixed = os.path.dirname(path[: path.index("{")])
        for expanded in expand_braces(path):
            for file in find_files(expanded, skipped=skipped, around=around, roots=roots):
                yield file._replace(key=_key_below(fixed, expanded, file))
        return
    if remote:
        yield from _find_remote(path, skipped, around)
        return
    root = os.fsencode(path)
    listing = _Listing(skipped, around, Roots([own_folder(root, listed=False)], roots))
    if _is_glob(path) and not os.path.lexists(root):
        yield from _find_glob(root, listing)
        return
    yield from _find_local(root, os.path.basename(root), listing)


def _key_below(fixed: str, expanded: str, file: File) -> str:
    """The key of a file that braces led to: its path from the folder above the first of them."""
    below = (_fixed_part(expanded) if _is_glob(expanded) else expanded.rstrip("/"))[len(fixed) :].lstrip("/")
    whole = posixpath.join(encode_uri(os.fsencode(below)), file.key)
    return whole if file.uri.endswith(f"/{whole}") else encode_uri(os.fsencode(below))  # else the path is the file


def find_listed(
    path: str, *, skipped: Counter[str], around: "Surroundings | None" = None, roots: Sequence[str] = ()
) -> Iterator[File]:
    """The files that a text file names, one path or URL a line, in the order of the lines.

    Relative paths are taken from the folder of the list. A folder stands for its files. Local files that are
    gone, and remote ones unseen, are yielded without a length: reading tells. A name is the bytes of its line; blanks
    around it are taken off where nothing has the name with them. UTF-16 and UTF-32 are read where a byte order mark
    says so.

    A path that leads out of the folder of the list and of `roots`, by itself or by links, is left out, whether anything
    is there or not. The key of a local file is its path from the folder that holds it.

    Args:
        around: as of `find_files`.
        roots: folders beside that of the list in which its paths may lie.

    Raises:
        SourceError: the list cannot be read, or is no list.
    """
    own = [] if is_remote(path) else [os.fsencode(path.rsplit("/", 1)[0])]
    listing = _Listing(skipped, around, Roots(own, roots))
    for number, (line, entry) in enumerate(_read_list(path), 1):
        uri, key = (strip_secrets(encode_uri(name), line=number) for name in (entry, line))
        if len(entry) > MAX_NAME_BYTES:
            leave_out(skipped, LONG_KEY, key)
        elif not is_remote(entry.decode(errors="replace")):
            yield from _find_entry(os.path.normpath(entry), listing)
        else:
            yield File(uri, key, None, None)


def _find_entry(entry: bytes, listing: "_Listing") -> Iterator[File]:
    """The file that a line of a list names, or those of the folder."""
    if not listing.roots.hold(entry):
        leave_outside(listing.skipped, encode_uri(entry), entry)
        return
    key = listing.roots.key_of(entry)
    if os.path.isdir(entry):
        yield from _walk(entry, key.rstrip(b"/") + b"/" if key else b"", listing)
    else:
        yield from _one_file(entry, key if key and not key.endswith(b"/") else key + os.path.basename(entry), listing)


def list_entries(path: str) -> Iterator[str]:
    """What the lines of a list name, as `find_listed` counts them: URLs with their secrets; others need not be text."""
    for _, entry in _read_list(path):
        yield entry.decode(errors="replace")


def _read_list(path: str) -> Iterator[tuple[bytes, bytes]]:
    """(the line, what it names) of a list."""
    parent = os.fsencode(path.rsplit("/", 1)[0])
    for written in _listed_lines(path):
        line = os.fsencode(local_path(os.fsdecode(_without_blanks(written, parent))))
        yield line, line if is_remote(line.decode(errors="replace")) else os.path.join(parent, line)


def open_file(uri: str, *, spans: Iterable[Span] | None = None) -> Any:
    """Open a file for reading bytes at any offset.

    Args:
        spans: ranges that will be read, of which an object store gives neighbors at once; empty: what will be read is
            found out from its end. None: it is read in order.

    Raises:
        SourceLost: it is gone, or may not be opened.
        SourceUnavailable: it cannot be opened now.
        SourceError: it is no regular file.
    """
    remote = is_remote(uri)
    try:
        return retry(
            lambda: open_remote(uri, spans=spans) if remote else _open_local(uri),
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


def why_no_url(uri: str) -> str | None:
    """What keeps an encoded URL from being one that could be opened at all; None: nothing."""
    try:
        url = decode_uri(uri).decode()
        protocol = urlsplit(url).scheme
    except ValueError as error:
        return first_line(error)
    if "::" in url:
        return "chained URLs are not supported"
    if protocol not in fsspec.available_protocols() and protocol not in fsspec.registry:
        return f"the protocol {protocol!r} is not known"
    return "it holds control characters" if re.search(r"[\x00-\x1f\x7f]", url) else None


def open_remote(uri: str, *, spans: Iterable[Span] | None = None) -> Any:
    """Open a file of an object store or web server, see `open_file`; errors come as its library raises them."""
    fs, path = open_filesystem(decode_uri(uri).decode())
    if spans is None:
        note(opens=1)
        return fs.open(path, "rb")
    return open_ranges(fs, path, blocks=plan_blocks(spans))


def file_exists(uri: str) -> bool:
    """Whether a file is there; False also where that cannot be found out."""
    if not is_remote(uri):
        return os.path.isfile(decode_uri(uri))
    return _is_there(decode_uri(uri).decode())


def _open_local(uri: str) -> Any:
    try:
        return open_regular(decode_uri(uri))
    except NotRegularFile as error:
        raise SourceError(f"{uri}: {describe_error(error)}; leave it out of the source") from error


class _Listing(NamedTuple):
    """What one listing of local files carries along."""

    skipped: Counter[str]
    around: "Surroundings | None"
    roots: Roots
    """Where links may lead to."""


def _find_local(root: bytes, name: bytes, listing: _Listing) -> Iterator[File]:
    try:
        found = os.stat(root)
    except OSError as error:
        raise SourceError(
            f"{encode_uri(root)}: {describe_error(error)}; give the path of a folder, a tar, a Parquet file, a glob "
            "of them, or a .txt list"
        ) from error
    if stat.S_ISDIR(found.st_mode):
        if _holds_run(root):
            raise SourceError(
                f"{encode_uri(root)}: is a workdir of curate; give its pictures, as {encode_uri(root)}/shards/data"
            )
        yield from _walk(root, b"", listing)
    elif stat.S_ISREG(found.st_mode):
        yield File(encode_uri(root), encode_uri(name), found.st_size, found.st_mtime_ns)
    else:
        raise SourceError(
            f"{encode_uri(root)}: neither a folder nor a regular file; give a folder, a tar, a Parquet file "
            "or a .txt list"
        )


def _is_glob(path: str) -> bool:
    return glob.has_magic(path)


def _find_glob(pattern: bytes, listing: _Listing) -> Iterator[File]:
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
        if not listing.roots.may_read(match):
            leave_outside(listing.skipped, encode_uri(name), match)
        elif os.path.isdir(match):
            yield from _walk(match, name + b"/", listing)
        else:
            yield from _one_file(match, name, listing)


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
        leave_out(self.skipped, reason, encode_uri(path))
        log.warning("%s: %s, not followed", encode_uri(path), reason)
        return False


class _Open(NamedTuple):
    """A folder whose entries are being gone through."""

    path: bytes
    prefix: bytes
    entries: Iterator[tuple[bytes, bool]]
    inside: frozenset[tuple[int, int]]
    """(device, inode) of the folder and of those around it."""
    around: "Around | None"
    """What describes the images of the folder."""
    names: Sequence[bytes]
    """All entries, sorted; folders with a slash at the end."""


def _walk(root: bytes, prefix: bytes, listing: _Listing) -> Iterator[File]:
    """Files under a folder, in bytewise order of their relative paths; however deep, without recursion."""
    skipped = listing.skipped
    links = _Links(skipped)
    stack = _enter(root, prefix, None, listing)
    while stack:
        folder = stack[-1]
        entry = next(folder.entries, None)
        if entry is None:
            stack.pop()
            continue
        name, linked = entry[0].rstrip(b"/"), entry[1]
        path, is_folder = os.path.join(folder.path, name), entry[0].endswith(b"/")
        if is_hidden(os.fsdecode(name)):
            leave_out(skipped, "hidden folder" if is_folder else "hidden file", encode_uri(folder.prefix + name))
        elif len(path) >= MAX_NAME_BYTES:  # which no system call takes
            leave_out(skipped, LONG_KEY, encode_uri(folder.prefix + name))
        elif linked and os.path.exists(path) and not listing.roots.may_read(path):
            leave_outside(skipped, encode_uri(folder.prefix + name), path)
        elif not is_folder:
            yield from _one_file(path, folder.prefix + name, listing, folder.around)
        elif not linked or links.may_follow(path, folder.inside, _identity(path)):
            stack += _enter(path, folder.prefix + name + b"/", folder, listing)


def _enter(path: bytes, prefix: bytes, above: _Open | None, listing: _Listing) -> list[_Open]:
    """The folder to go through; none where it holds what a run of curate made."""
    try:
        entries, here = retry(lambda: _scan(path), where=encode_uri(path))
    except OSError as error:
        raise SourceError(
            f"{encode_uri(path)}: the folder cannot be listed ({describe_error(error)}); make it readable, or move it "
            "out of the source"
        ) from error
    names = [name for name, _ in entries]
    if _has(names, RUN) and _holds_run(path):
        leave_out(listing.skipped, "workdir of curate", encode_uri(prefix or path))
        return []
    inside = frozenset() if above is None else above.inside
    around = None
    if listing.around is not None:
        linked = {name for name, is_link in entries if is_link}
        around = listing.around.enter(
            encode_uri(path),
            encode_uri(prefix),
            names,
            has=partial(_has, names),
            refused=partial(_why_refused, path, linked, listing.roots),
            above=None if above is None else above.around,
            shard_table=_shard_table(path, None if above is None else above.names),
        )
    return [_Open(path, prefix, iter(entries), inside | {here}, around, names)]


RUN = b"run.json"
"""File that marks a workdir of curate."""
MAX_RUN_BYTES = 16 << 20


def _holds_run(folder: bytes) -> bool:
    """Whether a folder is a workdir: it then holds tables, pictures of reports and shards, which are no source."""
    mark = os.path.join(folder, RUN)
    try:
        with open_regular(mark) as file:
            return _is_run(file.read(MAX_RUN_BYTES))
    except OSError:
        return False


def _is_run(data: bytes) -> bool:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return False
    return isinstance(found, dict) and {"layout", "recipe", "config", "tables"} <= found.keys()


def _has(names: Sequence[bytes], name: bytes) -> bool:
    place = bisect_left(names, name)
    return place < len(names) and names[place] == name


def _why_refused(folder: bytes, linked: set[bytes], roots: Roots, name: bytes) -> str | None:
    return None if name not in linked or roots.may_read(os.path.join(folder, name)) else LINK_OUT


def _shard_table(folder: bytes, beside: Sequence[bytes] | None) -> str | None:
    """The Parquet file beside a folder that has the folder's name."""
    for suffix in sorted(PARQUET):
        path = folder.rstrip(b"/") + suffix.encode()
        if os.path.isfile(path) if beside is None else _has(beside, os.path.basename(path)):
            return encode_uri(path)
    return None


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


def _one_file(path: bytes, key: bytes, listing: _Listing, around: "Around | None" = None) -> Iterator[File]:
    try:
        found = os.stat(path)
    except OSError:  # a dangling link, a file one may not look at: reading says what is wrong
        yield File(encode_uri(path), encode_uri(key), None, None, around)
        return
    if stat.S_ISREG(found.st_mode):
        yield File(encode_uri(path), encode_uri(key), found.st_size, found.st_mtime_ns, around)
    else:
        leave_out(listing.skipped, "pipe, socket or device", encode_uri(key))


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


def _is_there(url: str) -> bool:
    fs, path = open_filesystem(url)
    try:
        return bool(retry(lambda: fs.exists(path), where=url, remote=True, patience=network().patience))
    except Exception:  # then listing says what is wrong
        return False


def _find_remote(url: str, skipped: Counter[str], around: "Surroundings | None") -> Iterator[File]:
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
    folders = _RemoteFolders(fs, root, found, whole=not _is_glob(path))
    for folder in folders.find_runs(skipped):
        found = {name: info for name, info in found.items() if not name.startswith(f"{folder}/")}
    views = {} if around is None or path in found else folders.look_around(around)
    for name in sorted(found, key=str.encode):
        key = name.removeprefix(root).lstrip("/") or name.rsplit("/", 1)[-1]
        if any(is_hidden(step) for step in key.split("/")):
            leave_out(skipped, "hidden file", encode_uri(key.encode()))
        else:
            view = views.get(name.rpartition("/")[0])
            yield File(_remote_uri(fs, name), encode_uri(key.encode()), *_remote_facts(found[name]), view)


class _RemoteFolders:
    """The folders of a remote source; all names are known at once, and were asked for in one listing."""

    def __init__(self, fs: Any, root: str, found: dict[str, dict[str, Any]], *, whole: bool) -> None:
        self._fs, self._root, self._found, self._whole = fs, root, found, whole
        self._names: dict[str, list[bytes]] = {}

    def find_runs(self, skipped: Counter[str]) -> list[str]:
        """Folders that are workdirs of curate."""
        mark = f"/{RUN.decode()}"
        runs = [name.removesuffix(mark) for name in self._found if name.endswith(mark) and self._marks_run(name)]
        if self._whole and self._root in runs:
            url = _remote_uri(self._fs, self._root)
            raise SourceError(f"{url}: is a workdir of curate; give its pictures, as {url}/shards/data")
        for folder in sorted(runs):
            leave_out(skipped, "workdir of curate", self._key(folder))
        return runs

    def look_around(self, around: "Surroundings") -> dict[str, "Around"]:
        """What lies around the images of each folder; of what a glob matches, the folders are listed."""
        for name in self._found:
            folder, _, last = name.rpartition("/")
            self._names.setdefault(folder, []).append(last.encode())
        if not self._whole:
            self._names = {folder: self._list(folder) for folder in self._names}
        for folder in list(self._names):
            above = folder.rpartition("/")[0]
            while above not in self._names and f"{above}/".startswith(f"{self._root}/"):
                self._names[above] = []  # a folder of folders alone hands down the tables around it
                above = above.rpartition("/")[0]
        views: dict[str, Around] = {}
        for folder in sorted(self._names):  # a folder comes before those in it
            key = self._key(folder)
            views[folder] = around.enter(
                _remote_uri(self._fs, folder),
                f"{key}/" if key else "",
                self._names[folder],
                has=partial(self._has, folder),
                refused=partial(self._why_refused, folder),
                above=views.get(folder.rpartition("/")[0]),
                shard_table=self._shard_table(folder),
            )
        return views

    def _key(self, folder: str) -> str:
        return encode_uri(folder.removeprefix(self._root).lstrip("/").encode())

    def _marks_run(self, name: str) -> bool:
        with retry(lambda: self._fs.open(name, "rb"), where=name, remote=True) as file:
            return _is_run(file.read(MAX_RUN_BYTES))

    def _list(self, folder: str) -> list[bytes]:
        try:
            entries = retry(lambda: self._fs.ls(folder, detail=False), where=folder, remote=True)
        except SourceError:
            raise
        except Exception:  # a store that gives files and no listings
            return []
        return [entry.rstrip("/").rpartition("/")[2].encode() for entry in entries]

    def _has(self, folder: str, name: bytes) -> bool:
        path = f"{folder}/{name.decode(errors='replace')}"
        if path.endswith("/"):
            return path[:-1] in self._names
        return path in self._found or (not self._whole and name in self._names.get(folder, ()))

    def _shard_table(self, folder: str) -> str | None:
        for suffix in sorted(PARQUET):
            table = _remote_uri(self._fs, folder + suffix)
            if folder + suffix in self._found or (folder == self._root and _is_there(table)):
                return table
        return None

    def _why_refused(self, folder: str, name: bytes) -> str | None:
        info = self._found.get(f"{folder}/{name.decode()}", {})
        linked = info.get("islink") or info.get("type") == "link"
        return LINK_OUT if linked else None


def _fixed_part(pattern: str) -> str:
    """The folder above the first step of a glob that varies."""
    return os.path.dirname(pattern[: min(pattern.find(c) for c in "*?[" if c in pattern)])


def _list_remote(fs: Any, path: str) -> dict[str, dict[str, Any]]:
    if _is_glob(path):
        matches: dict[str, dict[str, Any]] = fs.glob(path, detail=True)
        return {name: info for name, info in matches.items() if info.get("type") != "directory"}
    if path.startswith(("http://", "https://")) and path.endswith("/"):  # a page of links, which `info` calls a file
        return _find_on_web(fs, path)
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


def _find_on_web(fs: Any, url: str) -> dict[str, dict[str, Any]]:
    """The files that the pages of a web server's folders link to.

    Such pages also link to the folder above them and to themselves in another order (`?C=M;O=A`), so that whoever
    follows all links ends up listing the whole server: only what lies below a page is followed.
    """
    found: dict[str, dict[str, Any]] = {}
    folders, known = [url], {url}
    while folders:
        if len(known) > MAX_WEB_FOLDERS:  # a server can make up links without end
            raise SourceError(
                f"{url}: pages link to more than {MAX_WEB_FOLDERS:,} folders below it; give those of the pictures, "
                "or a list of their URLs"
            )
        folder = folders.pop()
        for entry in fs.ls(folder, detail=True):
            name: str = entry["name"]
            if not name.startswith(folder) or name == folder or "?" in name or "#" in name or "/../" in name:
                continue
            if len(name) > MAX_NAME_BYTES:
                continue
            if not name.endswith("/"):
                found[name] = entry
            elif name not in known:
                known.add(name)
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
