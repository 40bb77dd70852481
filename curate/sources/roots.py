"""Where the files of a source may lie: below the source itself, and below the folders that its setting `roots` names.

Lists, archives that were unpacked, and folders come from strangers. A line `/etc/passwd`, or a link to a private
picture, would put files of this machine into a data set that is published. So a path in a list, and a link in a folder,
is followed, with all links on its way resolved, only to where the user has pointed: the folder of the source (of a
list: the folder that the list lies in) and the folders of `roots`. What the user himself named (the path of a source,
which may be a link) is never questioned.

Paths in tables are no names: a key tells where a file lies below the deepest of these folders, so that it holds neither
names of users nor folders of one machine, and does not depend on what else a list names.
"""

# ruff: noqa: PTH114, PTH118, PTH119, PTH120
# Paths are bytes here, which pathlib does not take: a name need not be text.

import os
import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from curate.sources.braces import expand_braces, has_braces
from curate.sources.suffixes import suffix_of
from curate.sources.uri import is_remote

if TYPE_CHECKING:
    from curate.sources.config import Source

_CACHED_FOLDERS = 1024
MAX_NAMED = 100
"""Paths of braces that are roots of their own while pictures are read; the listing takes each as its own anyway."""


class Roots:
    """The folders that the files of a source may lie in; answers take links into account.

    Args:
        own: the source's own folders, or files that the user named; none: the source is remote.
        others: those of the setting `roots`.
    """

    def __init__(self, own: Iterable[bytes], others: Sequence[str] = ()) -> None:
        named = [(path, b"") for path in own]
        labels = _labels(others)
        named += [(os.fsencode(path), label) for path, label in zip(others, labels, strict=True)]
        self._places = [(_bare(path), _bare(os.path.realpath(path)), label) for path, label in named]
        self._resolved: dict[bytes, bytes] = {}

    def hold(self, path: bytes) -> bool:
        """Whether a file or folder lies below one of them, all links resolved; whether it is there does not matter."""
        return self._inside(self._real(path))

    def may_read(self, path: bytes) -> bool:
        """Whether a file of a folder that was listed may be read: as `hold`, and a link may lead to its neighbors."""
        real = self._real(path)
        neighbors = self._folder(os.path.dirname(path)).rstrip(b"/") + b"/"
        return self._inside(real) or (real.startswith(neighbors) and os.path.islink(path))

    def key_of(self, path: bytes) -> bytes:
        """The path from the deepest of them that holds it, as it is named or else with its links resolved.

        Where several folders are in `roots`, the name of the one comes first, so that equal paths below two of them
        stay apart.
        """
        for written, real in ((path, False), (self._real(path), True)):
            below = [(place[real], place[2]) for place in self._places if _is_below(written, place[real])]
            if below:
                place, label = max(below, key=lambda found: len(found[0]))
                return (label + b"/" if label else b"") + written[len(place) :].lstrip(b"/")
        raise ValueError(f"{path!r} lies in no root")

    def _inside(self, real: bytes) -> bool:
        return any(_is_below(real, place) for _, place, _ in self._places)

    def _real(self, path: bytes) -> bytes:
        if os.path.islink(path):
            return os.path.realpath(path)
        folder, name = os.path.split(path)
        return os.path.join(self._folder(folder), name)

    def _folder(self, folder: bytes) -> bytes:
        """A folder without links; remembered, since files of one folder follow each other."""
        found = self._resolved.get(folder)
        if found is None:
            found = os.path.realpath(folder)
            if len(self._resolved) >= _CACHED_FOLDERS:
                self._resolved.clear()
            self._resolved[folder] = found
        return found


def _bare(path: bytes) -> bytes:
    return path.rstrip(b"/")


def _is_below(path: bytes, place: bytes) -> bool:
    return path.startswith(place) and (len(path) == len(place) or path[len(place) : len(place) + 1] == b"/")


def _labels(roots: Sequence[str]) -> list[bytes]:
    """What the keys of files in each root begin with: nothing where there is one, else its name, made unique."""
    if len(roots) < 2:
        return [b""] * len(roots)
    labels: list[bytes] = []
    for root in roots:
        name, number = os.fsencode(os.path.basename(root.rstrip("/")) or "root"), 2
        label = name
        while label in labels:
            label, number = b"%s-%d" % (name, number), number + 1
        labels.append(label)
    return labels


def is_list(source: "Source") -> bool:
    """Whether the source is a text file of paths and URLs."""
    return source.format == "list" or suffix_of(source.path) == ".txt"


@lru_cache(maxsize=64)
def roots_of(source: "Source") -> Roots:
    """Where the files of a source may lie, for whoever reads them."""
    if is_remote(source.path):
        return Roots((), source.roots)
    path = os.fsencode(source.path)
    if not has_braces(source.path) or os.path.lexists(path):
        return Roots([own_folder(path, listed=is_list(source))], source.roots)
    named = dict.fromkeys(own_folder(os.fsencode(one), listed=is_list(source)) for one in expand_braces(source.path))
    if len(named) > MAX_NAMED:  # all are asked for each file: the folder around them, and what links lead out of it
        fixed = os.path.dirname(path[: path.index(b"{")])
        inside = Roots([fixed])
        named = dict.fromkeys([fixed, *(one for one in named if not inside.hold(one))])
    return Roots(named, source.roots)


def own_folder(path: bytes, *, listed: bool) -> bytes:
    """The folder of a source of that path: itself; the fixed part of a pattern; of a list, the folder around it."""
    magic = re.search(rb"[*?\[]", path)
    if magic and not os.path.lexists(path):
        return os.path.dirname(path[: magic.start()])
    return os.path.dirname(path) if listed else path
