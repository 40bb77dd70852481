"""The files under a local folder, in bytewise order: in runs, which one process finds and others go through.

The order must be the same on every machine and in every year, since the place of an image in it becomes its id. Folders
are therefore sorted by the bytes of their entries, whatever the locale, and names need not be text.

A web crawl has folders of millions of files and trees deeper than Python's stack. So the walk does not recurse, and it
asks for names alone: a folder is cut into runs of names, told by the first and the last of them, between the folders in
it. Whoever goes through a run lists its folder again (about a microsecond a name) and asks for what costs more: sizes,
times, links, what lies beside. While a folder is cut its names are held, some 90 bytes each; after that a few hundred
bytes for each of its runs and 60 for each folder in it.
"""

# ruff: noqa: PTH110, PTH112, PTH113, PTH114, PTH116, PTH118, PTH207
# Paths are bytes here, which pathlib does not take: a name need not be text.

import glob
import logging
import os
import stat
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from curate.errors import SourceError
from curate.retrying import describe_error, retry
from curate.sources.description_tables import METADATA
from curate.sources.files import RUN, File, fixed_part, holds_run
from curate.sources.left_out import LINK_OUT, LONG_KEY, leave_out, leave_outside
from curate.sources.limits import MAX_NAME_BYTES
from curate.sources.roots import Roots
from curate.sources.suffixes import PARQUET, is_hidden
from curate.sources.uri import decode_uri, encode_uri

if TYPE_CHECKING:
    from curate.sources.beside import Around, Surroundings

log = logging.getLogger(__name__)

RUN_NAMES = 16_384
"""Files of a run at most."""
_TABLES = tuple(name.encode() for name in METADATA)


class Run(NamedTuple):
    """The files of one folder between two of its entries; texts are encoded by `curate.sources.uri`."""

    folder: str
    prefix: str
    """Path of the folder from the source, with a slash at its end; "": the source itself."""
    after: str
    """The entry that it begins behind; "": it begins with the first one."""
    upto: str | None
    """The entry that it ends with; None: the last one."""
    tables: tuple[int, ...]
    """Folders around this one that hold a table which may describe its images, as steps upwards, nearest first."""
    state: tuple[int, ...]
    """What changes with its content: the folder's modification time, and size and time of an archive."""
    names: int
    """Files, when it was found."""


class Path(NamedTuple):
    """A local file that was named, by a path or by a pattern."""

    uri: str
    key: str


class Listing(NamedTuple):
    """What one listing of local files carries along."""

    skipped: Counter[str]
    around: "Surroundings | None"
    """Gathers what describes the images of each folder; None: nobody asks."""
    roots: Roots
    """Where links may lead to."""
    apart: Callable[[bytes], bool] | None = None
    """Names of archives, each of which ends a run."""


def find_local(root: bytes, name: bytes, listing: Listing) -> Iterator[Run | Path]:
    """What lies at a path: the runs of a folder, or a file."""
    try:
        found = os.stat(root)
    except OSError as error:
        raise SourceError(
            f"{encode_uri(root)}: {describe_error(error)}; give the path of a folder, a tar, a Parquet file, a glob "
            "of them, or a .txt list"
        ) from error
    if stat.S_ISDIR(found.st_mode):
        if holds_run(root):
            raise SourceError(
                f"{encode_uri(root)}: is a workdir of curate; give its pictures, as {encode_uri(root)}/shards/data"
            )
        yield from walk(root, b"", listing)
    elif stat.S_ISREG(found.st_mode):
        yield Path(encode_uri(root), encode_uri(name))
    else:
        raise SourceError(
            f"{encode_uri(root)}: neither a folder nor a regular file; give a folder, a tar, a Parquet file "
            "or a .txt list"
        )


def find_glob(pattern: bytes, listing: Listing) -> Iterator[Run | Path]:
    """What a pattern matches, in the order of the matches: files, and the runs of folders."""
    if b"**" in pattern.split(b"/"):
        raise SourceError(
            f"{encode_uri(pattern)}: ** is not supported; give the folder, it is read with all its subfolders"
        )
    matches = sorted(glob.glob(pattern))
    if not matches:
        raise SourceError(f"{encode_uri(pattern)}: nothing matches; check the pattern (on a command line, quote it)")
    fixed = os.fsencode(fixed_part(os.fsdecode(pattern)))
    for match in matches:
        name = os.path.relpath(match, fixed)
        if not listing.roots.may_read(match):
            leave_outside(listing.skipped, encode_uri(name), match)
        elif os.path.isdir(match):
            yield from walk(match, name + b"/", listing)
        else:
            yield Path(encode_uri(match), encode_uri(name))


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


class _Names(NamedTuple):
    """The entries of a folder, sorted; folders with a slash at the end, so that `a-b` comes before `a/`."""

    names: list[bytes]
    linked: frozenset[bytes]
    """Those that are links."""
    identity: tuple[int, int]
    """(device, inode), the same for every path that leads to the folder."""
    modified: int


class _Open(NamedTuple):
    """A folder whose runs and folders are being gone through."""

    path: bytes
    prefix: bytes
    steps: Iterator[Run | tuple[bytes, bool]]
    """Runs, and (name, whether it is a link) of folders."""
    inside: frozenset[tuple[int, int]]
    """(device, inode) of the folder and of those around it."""
    tables: tuple[int, ...]
    """As of `Run`, of the folders in it."""


def walk(root: bytes, prefix: bytes, listing: Listing) -> Iterator[Run]:
    """The runs under a folder, in bytewise order of relative paths; however deep, without recursion.

    What concerns folders is counted here: hidden ones, links that are not followed, workdirs.
    """
    skipped = listing.skipped
    links = _Links(skipped)
    stack = _enter(root, prefix, None, listing)
    while stack:
        folder = stack[-1]
        step = next(folder.steps, None)
        if step is None:
            stack.pop()
            continue
        if isinstance(step, Run):
            yield _with_archive(step) if listing.apart is not None else step
            continue
        name, linked = step
        path, key = os.path.join(folder.path, name), folder.prefix + name
        if is_hidden(os.fsdecode(name)):
            leave_out(skipped, "hidden folder", encode_uri(key))
        elif len(path) >= MAX_NAME_BYTES:  # which no system call takes
            leave_out(skipped, LONG_KEY, encode_uri(key))
        elif linked and not listing.roots.may_read(path):
            leave_outside(skipped, encode_uri(key), path)
        elif not linked or links.may_follow(path, folder.inside, _identity(path)):
            stack += _enter(path, key + b"/", folder, listing)


def _enter(path: bytes, prefix: bytes, above: _Open | None, listing: Listing) -> list[_Open]:
    """The folder to go through; none where it holds what a run of curate made."""
    found = _list_folder(path)
    if _has(found.names, RUN) and holds_run(path):
        leave_out(listing.skipped, "workdir of curate", encode_uri(prefix or path))
        return []
    around = () if above is None else tuple(up + 1 for up in above.tables)
    own = any(_has(found.names, table) for table in _TABLES)
    inside = frozenset() if above is None else above.inside
    steps = _cut(path, prefix, found, () if above is None else above.tables, listing.apart)
    here = (1, *around) if own else around
    del found  # the names of the folders around are not held
    return [_Open(path, prefix, iter(steps[0]), inside | {steps[1]}, here)]


def _cut(
    path: bytes, prefix: bytes, found: _Names, tables: tuple[int, ...], apart: Callable[[bytes], bool] | None
) -> tuple[list[Run | tuple[bytes, bool]], tuple[int, int]]:
    """The runs and folders of a folder, in order; and its identity."""
    steps: list[Run | tuple[bytes, bool]] = []
    folder, key, after, names = encode_uri(path), encode_uri(prefix), b"", 0

    def end(upto: bytes | None) -> None:
        nonlocal after, names
        if names:
            last = None if upto is None else encode_uri(upto)
            steps.append(Run(folder, key, encode_uri(after), last, tables, (found.modified,), names))
        after, names = upto or b"", 0

    for name in found.names:
        if name.endswith(b"/"):
            end(name)
            steps.append((name.rstrip(b"/"), name.rstrip(b"/") in found.linked))
        else:
            names += 1
            if names == RUN_NAMES or (apart is not None and apart(name)):
                end(name)
    end(None)
    return steps, found.identity


def _with_archive(run: Run) -> Run:
    """A run with the size and time of the archive that ends it."""
    if run.upto is None or run.upto.endswith("/"):
        return run
    try:
        found = os.stat(decode_uri(os.path.join(run.folder, run.upto)))
    except OSError:  # going through it tells what is wrong
        return run
    return run._replace(state=(*run.state, found.st_size, found.st_mtime_ns))


class OpenFolders:
    """Goes through runs; the names of a folder are held while runs of it and of the folders in it follow each other."""

    def __init__(self, listing: Listing) -> None:
        self.listing = listing
        self._open: dict[bytes, tuple[_Names, Around | None]] = {}

    def files(self, run: Run) -> Iterator[File]:
        """The files of a run, in order; hidden ones, pipes and links out of the source are counted."""
        listing, skipped = self.listing, self.listing.skipped
        path, prefix = decode_uri(run.folder), decode_uri(run.prefix)
        found, around = self._enter(path, run)
        start = bisect_right(found.names, decode_uri(run.after)) if run.after else 0
        stop = len(found.names) if run.upto is None else bisect_right(found.names, decode_uri(run.upto))
        for place in range(start, stop):
            name = found.names[place]
            if name.endswith(b"/"):  # a run of its own, or it has come since
                continue
            file, key = os.path.join(path, name), prefix + name
            if around is not None and name in around.refused:
                leave_out(skipped, around.refused[name], encode_uri(key))
            if is_hidden(os.fsdecode(name)):
                leave_out(skipped, "hidden file", encode_uri(key))
            elif len(file) >= MAX_NAME_BYTES:
                leave_out(skipped, LONG_KEY, encode_uri(key))
            elif name in found.linked and os.path.exists(file) and not listing.roots.may_read(file):
                leave_outside(skipped, encode_uri(key), file)
            else:
                yield from one_file(file, key, listing, around)

    def _enter(self, path: bytes, run: Run) -> "tuple[_Names, Around | None]":
        inside = {p: held for p, held in self._open.items() if path == p or path.startswith(p.rstrip(b"/") + b"/")}
        if path not in inside:
            found = _list_folder(path)
            inside[path] = found, self._look_around(path, run, found)
        self._open = inside
        return inside[path]

    def _look_around(self, path: bytes, run: Run, found: _Names) -> "Around | None":
        if self.listing.around is None:
            return None
        roots = self.listing.roots
        return self.listing.around.enter(
            run.folder,
            run.prefix,
            found.names,
            has=partial(_has, found.names),
            refused=partial(_why_refused, path, found.linked, roots),
            above=self.listing.around.above(run.folder, run.prefix, run.tables, partial(_why_linked, roots)),
            shard_table=_shard_table(path),
        )


def _has(names: Sequence[bytes], name: bytes) -> bool:
    place = bisect_left(names, name)
    return place < len(names) and names[place] == name


def _why_refused(folder: bytes, linked: frozenset[bytes], roots: Roots, name: bytes) -> str | None:
    return None if name not in linked or roots.may_read(os.path.join(folder, name)) else LINK_OUT


def _why_linked(roots: Roots, folder: str, name: bytes) -> str | None:
    """As `_why_refused`, of a folder whose names are not at hand."""
    path = os.path.join(decode_uri(folder), name)
    return None if not os.path.islink(path) or roots.may_read(path) else LINK_OUT


def _shard_table(folder: bytes) -> str | None:
    """The Parquet file beside a folder that has the folder's name."""
    for suffix in sorted(PARQUET):
        path = folder.rstrip(b"/") + suffix.encode()
        if os.path.isfile(path):
            return encode_uri(path)
    return None


def _list_folder(folder: bytes) -> _Names:
    try:
        return retry(lambda: _scan(folder), where=encode_uri(folder))
    except OSError as error:
        raise SourceError(
            f"{encode_uri(folder)}: the folder cannot be listed ({describe_error(error)}); make it readable, or move "
            "it out of the source"
        ) from error


def _scan(folder: bytes) -> _Names:
    names, linked = [], []
    found = os.stat(folder)
    with os.scandir(folder) as entries:
        for entry in entries:
            names.append(entry.name + b"/" if _is_folder(entry) else entry.name)
            if entry.is_symlink():
                linked.append(entry.name)
    names.sort()
    return _Names(names, frozenset(linked), (found.st_dev, found.st_ino), found.st_mtime_ns)


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


def one_file(path: bytes, key: bytes, listing: Listing, around: "Around | None" = None) -> Iterator[File]:
    """A local file; none, which is counted, where it is a pipe, a socket or a device."""
    try:
        found = os.stat(path)
    except OSError:  # a dangling link, a file one may not look at: reading says what is wrong
        yield File(encode_uri(path), encode_uri(key), None, None, around)
        return
    if stat.S_ISREG(found.st_mode):
        yield File(encode_uri(path), encode_uri(key), found.st_size, found.st_mtime_ns, around)
    else:
        leave_out(listing.skipped, "pipe, socket or device", encode_uri(key))
