"""Lists of hashes of pictures that must not be in a pool, such as those that hotlines and platforms exchange.

A list is read where it is: nothing of it is copied, and nobody is told more of it than its name, how many hashes of
which kind it holds, and the digest of the file. How files are written is told in `hash_formats.py`.
"""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, field_validator

from curate.config import Execution, Settings, absolute_path
from curate.errors import SourceError
from curate.sources.hash_formats import SIZES, UNREADABLE, AmbiguousKind, read_hashes

MAX_HASHES = 200_000_000
"""Hashes of a list at most: 6.4 GB of memory."""
NUM_TOLD = 5
"""Lines that are named of those that hold no hash."""
Radius = Annotated[int, Field(ge=0, le=63)]
"""Bits of 256 in which two perceptual hashes may differ."""


class HashList(Settings):
    """A file of hashes of pictures that must not be in the pool."""

    name: str = Field(pattern=r"^[\w.-]+$", max_length=100)
    """Name of the list in tables and reports, and the detail of what it rejects."""
    path: Annotated[str, Execution()] = Field(min_length=1)
    """A local file: text with a hash a line, CSV or TSV with a head, JSON or JSON lines (VICS, ThreatExchange,
    StopNCII), plain or compressed by gzip. Known by its content, so it may move; it is never copied."""
    kind: Literal["auto", "md5", "sha1", "sha256", "pdq"] = "auto"
    """Of which kind hashes are that do not say so themselves; auto: by their length, which tells all but SHA-256 and
    PDQ apart."""
    radius: Radius = 31
    """Bits of 256 in which PDQ hashes may differ, 0..63; 31 is what those who exchange them use."""
    least_quality: Annotated[int, Field(ge=0, le=100)] = 50
    """Images are compared by PDQ from this quality of their hash on, 0..100: below it pictures are so smooth that
    their hashes say little, and its authors advise 50."""
    oriented: bool = True
    """Whether PDQ hashes also mean mirrored and turned copies of their pictures, which takes them five bits off."""
    with_copies: bool = False
    """Whether all images go that are copies of a listed one, or copies of these."""
    max_unreadable: Annotated[float, Field(ge=0, le=1), Execution()] = 0.01
    """Share of the entries, 0..1, that may be no hashes; these are counted and told. Of more the list is an error."""

    @field_validator("path")
    @classmethod
    def _local(cls, path: str) -> str:
        if re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", path):
            raise ValueError("a URL; copy the list to this machine, and give that path")
        return absolute_path(path)

    def check(self) -> None:
        """Raise unless there is such a file.

        Raises:
            ConfigError: there is none.
        """
        if not Path(self.path).exists():
            raise self.field_error("path", f"={self.path}: no such file; give the list {self.name!r}, or take it out")

    def read(self) -> "ListedHashes":
        """All hashes of the list.

        Raises:
            ConfigError: there is no such file, or nothing says whether its hashes are SHA-256 or PDQ.
            SourceError: it cannot be read, holds no hash that is compared, or too much else.
        """
        self.check()
        try:
            return _read(Path(self.path), self)
        except AmbiguousKind as error:
            raise self.field_error("kind", f"=auto: list {self.name!r}: {error}") from error
        except SourceError as error:
            raise SourceError(f"list {self.name!r}: {error}") from error


@dataclass(frozen=True)
class ListedHashes:
    """What a list holds."""

    hashes: Mapping[str, np.ndarray]
    """By kind, the distinct hashes in ascending order: (N, bytes of the kind) uint8."""
    others: Mapping[str, int]
    """By kind, hashes that are not compared."""
    unreadable: int
    """Entries that are no hashes."""
    first: tuple[int, ...]
    """Lines of the first of them."""

    @property
    def counts(self) -> dict[str, int]:
        """Distinct hashes by kind."""
        return {kind: len(rows) for kind, rows in self.hashes.items()}


def _read(path: Path, given: HashList) -> ListedHashes:
    held = {kind: bytearray() for kind in SIZES}
    others, unreadable, first, number = Counter[str](), 0, list[int](), 0
    for number, (line, kind, value) in enumerate(read_hashes(path, None if given.kind == "auto" else given.kind), 1):
        if value:
            held[kind] += value
        elif kind == UNREADABLE:
            unreadable += 1
            first += [line] if len(first) < NUM_TOLD else []
        else:
            others[kind] += 1
        if number > MAX_HASHES:
            raise SourceError(f"more than {MAX_HASHES:,} hashes; split the file into several lists")
    _check(number, unreadable, first, given)
    hashes = {kind: _distinct(value, SIZES[kind]) for kind, value in held.items() if value}
    if not hashes:
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in others.most_common()) or "nothing"
        raise SourceError(f"holds no hash that is compared ({', '.join(SIZES)}), but {kinds}")
    return ListedHashes(hashes, dict(others.most_common()), unreadable, tuple(first))


def _check(entries: int, unreadable: int, first: list[int], given: HashList) -> None:
    if unreadable > given.max_unreadable * entries:
        lines = ", ".join(map(str, first)) + (", ..." if unreadable > len(first) else "")
        sizes = ", ".join(f"{2 * size} ({kind})" for kind, size in SIZES.items())
        raise SourceError(
            f"{unreadable:,} of {entries:,} entries are no hashes, on line {lines}; needed are hexadecimal digits, "
            f"{sizes}. Mend the list, set its kind, or raise max_unreadable={given.max_unreadable:g}"
        )


def _distinct(value: bytearray, size: int) -> np.ndarray:
    """(N, size) uint8 in ascending order."""
    rows = np.frombuffer(value, np.dtype((np.void, size)))
    found: np.ndarray = np.unique(rows).view(np.uint8).reshape(-1, size)
    return found
