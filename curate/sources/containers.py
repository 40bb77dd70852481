"""Where the files of a source lie, told in small containers: one process finds them, others go through their files.

A container is a run of files in one folder, an archive, some lines of a list, or whatever is found in one piece. It is
small and goes through JSON, so that tasks on other machines go through the files of a source side by side. All files
of all containers, in order, are the files of the source: whoever lists in one process does just that.
"""

# ruff: noqa: PTH112, PTH116, PTH119, PTH120
# Paths are bytes here, which pathlib does not take: a name need not be text.

import os
import posixpath
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from curate.sources.beside import Around, Neighbors
from curate.sources.braces import expand_braces, has_braces
from curate.sources.files import File, fixed_part, is_glob, is_there
from curate.sources.folders import Listing, OpenFolders, Path, Run, find_glob, find_local, one_file, walk
from curate.sources.left_out import LONG_KEY, leave_out, leave_outside
from curate.sources.limits import MAX_NAME_BYTES
from curate.sources.lists import read_list
from curate.sources.remote import find_remote
from curate.sources.roots import Roots, own_folder
from curate.sources.secrets import strip_secrets
from curate.sources.suffixes import IMAGE, suffix_of
from curate.sources.uri import decode_uri, encode_uri, is_remote

if TYPE_CHECKING:
    from curate.sources.beside import Surroundings

LINES = 4096
"""Lines of a list in one container at most."""


class Lines(NamedTuple):
    """Lines of a list."""

    entries: tuple[tuple[str, str | None], ...]
    """(URL, key), without secrets; (path, None): a local file or folder, yet to be looked at."""
    state: tuple[int, ...] = ()
    """Size and time of a local archive."""


class Tree(NamedTuple):
    """All that a URL leads to, in one piece."""

    url: str


class Object(NamedTuple):
    """A file of a web server or object store, and what of the files beside it its format asks for."""

    uri: str
    key: str
    length: int | None
    modified: int | None
    beside: Neighbors | None


class Objects(NamedTuple):
    """Files of web servers and object stores that were listed already."""

    files: tuple[Object, ...]


Body = Run | Path | Lines | Tree | Objects


class Container(NamedTuple):
    """Some files of a source, which follow each other in its order."""

    body: Body
    path: str | None = None
    """The path that led to it: of the source, or one that its braces stand for; None: a line of a list."""
    fixed: str | None = None
    """The folder above the first brace, from which keys are taken; None: there were no braces."""

    def pack(self) -> list[Any]:
        """As a value for JSON."""
        return [type(self.body).__name__, self.path, self.fixed, *self.body]

    @classmethod
    def unpack(cls, packed: Sequence[Any]) -> "Container":
        """The container that `pack` was called for."""
        name, path, fixed, *values = packed
        if name == Objects.__name__:
            files = [
                Object(u, k, n, m, None if beside is None else Neighbors(*beside)) for u, k, n, m, beside in values[0]
            ]
            return cls(Objects(tuple(files)), path, fixed)
        forms: dict[str, Any] = {form.__name__: form for form in (Run, Path, Lines, Tree)}
        return cls(forms[name](*values), path, fixed)

    def weight(self) -> int:
        """About how many files or members have to be gone through."""
        match self.body:
            case Run(names=names, state=state):
                return names + sum(_members(size) for size in state[1:2])
            case Lines(entries=entries, state=state):
                return len(entries) + sum(_members(size) for size in state[:1])
            case Objects(files=files):
                return len(files) + sum(_members(file.length or 0) for file in files) // SIDE_BY_SIDE
        return 1


MEMBER_BYTES = 50_000
"""Bytes of a member of an archive, where a guess is needed."""


SIDE_BY_SIDE = 8
"""Archives of an object store that a task gets where a local one would be enough: it waits more than it works."""


def _members(num_bytes: int) -> int:
    return num_bytes // MEMBER_BYTES


class Finding(NamedTuple):
    """How the files of a source are found."""

    skipped: Counter[str]
    """Counts what is left out, by reason."""
    around: "Surroundings | None" = None
    """Gathers what describes the images of each folder; None: nobody asks."""
    roots: Sequence[str] = ()
    """Folders beside the source that its links, and the lines of a list, may lead to."""
    apart: Callable[[str], bool] | None = None
    """Whether a file is a container of its own, by its name or URL; None: none is."""

    def listing(self, own: Sequence[bytes]) -> Listing:
        """For local files below these folders."""
        apart = self.apart
        by_name = None if apart is None else lambda name: apart(os.fsdecode(name))
        return Listing(self.skipped, self.around, Roots(own, self.roots), by_name)


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
    finding = Finding(skipped, around, roots)
    yield from files_of(find_containers(path, finding), finding)


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
    finding = Finding(skipped, around, roots)
    yield from files_of(find_lines(path, finding), finding, listed_in=path)


def find_containers(path: str, finding: Finding) -> Iterator[Container]:
    """The containers of the files under a path, in order; arguments and errors as of `find_files`."""
    if has_braces(path) and not (is_there(path) if is_remote(path) else os.path.lexists(os.fsencode(path))):
        fixed = os.path.dirname(path[: path.index("{")])
        for expanded in expand_braces(path):
            for container in find_containers(expanded, finding):
                yield container._replace(fixed=fixed)
        return
    if is_remote(path):
        bodies: Iterator[Body] = iter([Tree(path)]) if finding.apart is None else _find_objects(path, finding)
    else:
        root = os.fsencode(path)
        listing = finding.listing([own_folder(root, listed=False)])
        as_glob = is_glob(path) and not os.path.lexists(root)
        bodies = find_glob(root, listing) if as_glob else find_local(root, os.path.basename(root), listing)
    for body in bodies:
        yield Container(body, path)


def find_lines(path: str, finding: Finding) -> Iterator[Container]:
    """The containers of the lines of a list, in order; arguments and errors as of `find_listed`."""
    held: list[tuple[str, str | None]] = []
    listing = finding.listing(_own_of_list(path))
    for number, (line, entry) in enumerate(read_list(path), 1):
        uri, key = (strip_secrets(encode_uri(name), line=number) for name in (entry, line))
        remote = is_remote(entry.decode(errors="replace"))
        alone = finding.apart is not None and finding.apart(uri)
        name = os.path.normpath(entry)
        is_folder = not (alone or remote or suffix_of(uri) in IMAGE) and os.path.isdir(name)
        if held and (alone or is_folder or len(held) == LINES):
            yield Container(Lines(tuple(held)))
            held.clear()
        if len(entry) > MAX_NAME_BYTES:
            leave_out(finding.skipped, LONG_KEY, key)
        elif is_folder and listing.roots.hold(name):
            for run in walk(name, _prefix(listing.roots.key_of(name)), listing):
                yield Container(run)
        elif alone:
            state = () if remote else _state_of(name)
            yield Container(Lines(((uri, key) if remote else (encode_uri(name), None),), state))
        else:
            held.append((uri, key) if remote else (encode_uri(name), None))
    if held:
        yield Container(Lines(tuple(held)))


def _own_of_list(path: str) -> list[bytes]:
    """The folder that a list lies in."""
    return [] if is_remote(path) else [os.fsencode(path.rsplit("/", 1)[0])]


def _prefix(key: bytes) -> bytes:
    """What the keys of the files in a folder of that key begin with."""
    return key.rstrip(b"/") + b"/" if key else b""


def _state_of(path: bytes) -> tuple[int, ...]:
    try:
        found = os.stat(path)
    except OSError:  # going through it tells what is wrong
        return ()
    return found.st_size, found.st_mtime_ns


def _find_objects(url: str, finding: Finding) -> Iterator[Objects]:
    """The files under a URL, so that each container ends with a file that is one of its own."""
    held: list[Object] = []
    for file in find_remote(url, finding.skipped, finding.around):
        beside = Neighbors.of(file.around, file.name) if isinstance(file.around, Around) else None
        held.append(Object(file.uri, file.key, file.length, file.modified, beside))
        if (finding.apart is not None and finding.apart(file.uri)) or len(held) == LINES:
            yield Objects(tuple(held))
            held.clear()
    if held:
        yield Objects(tuple(held))


def files_of(containers: Iterator[Container], finding: Finding, *, listed_in: str | None = None) -> Iterator[File]:
    """The files of some containers, in order.

    Args:
        listed_in: the list whose lines they are; None: they are of a path.
    """
    path: str | None = None
    folders = OpenFolders(finding.listing([] if listed_in is None else _own_of_list(listed_in)))
    for container in containers:
        if container.path is not None and container.path != path:
            path = container.path
            own = [] if is_remote(path) else [own_folder(os.fsencode(path), listed=False)]
            folders = OpenFolders(finding.listing(own))
        files = _files_in(container.body, finding, folders)
        if container.fixed is None or path is None:
            yield from files
        else:
            for file in files:
                yield file._replace(key=_key_below(container.fixed, path, file))


def _files_in(body: Body, finding: Finding, folders: OpenFolders) -> Iterator[File]:
    match body:
        case Run():
            yield from folders.files(body)
        case Path(uri=uri, key=key):
            yield from one_file(decode_uri(uri), decode_uri(key), folders.listing)
        case Tree(url=url):
            yield from find_remote(url, finding.skipped, finding.around)
        case Objects(files=files):
            for one in files:
                around = None if one.beside is None else one.beside.at(one.uri)
                yield File(one.uri, one.key, one.length, one.modified, around)
        case Lines(entries=entries):
            for uri, url_key in entries:
                if url_key is None:
                    yield from _find_entry(decode_uri(uri), folders.listing)
                else:
                    yield File(uri, url_key, None, None)


def _find_entry(entry: bytes, listing: Listing) -> Iterator[File]:
    """The file that a line of a list names, or those of the folder."""
    if not listing.roots.hold(entry):
        leave_outside(listing.skipped, encode_uri(entry), entry)
        return
    key = listing.roots.key_of(entry)
    if os.path.isdir(entry):
        folders = OpenFolders(listing)
        for run in walk(entry, _prefix(key), listing):
            yield from folders.files(run)
    else:
        yield from one_file(entry, key if key and not key.endswith(b"/") else key + os.path.basename(entry), listing)


def _key_below(fixed: str, expanded: str, file: File) -> str:
    """The key of a file that braces led to: its path from the folder above the first of them."""
    below = (fixed_part(expanded) if is_glob(expanded) else expanded.rstrip("/"))[len(fixed) :].lstrip("/")
    whole = posixpath.join(encode_uri(os.fsencode(below)), file.key)
    return whole if file.uri.endswith(f"/{whole}") else encode_uri(os.fsencode(below))  # else the path is the file
