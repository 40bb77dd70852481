"""Sources of a catalog that lie elsewhere by now, and sources that were added to it.

Whoever mounts a pool at another path, or copies it to another bucket, has the same images: ids, facts, vectors and
verdicts hold, and only the places in the catalog are wrong. So a source of which nothing but `path` (and `roots`)
differs is listed where it lies now, and each image that the catalog knows is looked for there: by its key, which is its
path below the source and within its archive, its offset or row, its length, and what lies beside it. All must be there;
what is there besides is left to `--rescan`.

Equal lengths are no proof of equal bytes. Where modification times agree too (another mount, `cp -a`, `rsync -t`), that
is taken for one, as it is by `--rescan`. Where they do not, as after a copy to a bucket, images drawn from those in
question, `NUM_CHECKED` at most in a source, are read and must have the SHA-256 that the first pass found: if one image
in twenty were another, one of 64 shows it with a probability of 96 %. Later passes and the shards compare the SHA-256
of every image that they read, so that a wrong image costs itself alone.
"""

import hashlib
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.config import differences, identity
from curate.engine.image_ids import CatalogFigures, part_of
from curate.engine.table import Table
from curate.errors import StaleTable
from curate.sources.config import Source, Sources
from curate.sources.found import Found
from curate.sources.listing import list_source
from curate.sources.reading import read_bytes
from curate.tables import ROLES

logger = logging.getLogger(__name__)

NUM_CHECKED = 64
"""Images of a moved source that are read at most, where times do not tell that they are the same."""
MAX_STRANGE = 1_000_000
"""Images that may be listed at the new place beyond those that were recognized, before the search is given up."""
FACTS = "images"
"""Table of all recipes that holds the SHA-256 of each image."""
PLACE = ("path", "roots")
"""Settings of a source that say where it lies."""

MakeRows = Callable[[int, str, Source, list[Found]], pa.Table]


@dataclass(frozen=True)
class SourceChanges:
    """How the sources of a config differ from those of a catalog, as far as the catalog can follow."""

    moved: tuple[tuple[str, Source], ...]
    """(role, source) of those that lie elsewhere."""
    added: tuple[tuple[str, Source], ...]
    """(role, source) of those that it does not list."""
    others: tuple[tuple[str, Any, Any], ...]
    """(field, then, now) of what differs besides, which it cannot follow."""

    @classmethod
    def between(cls, before: Mapping[str, Any], sources: Sources) -> "SourceChanges":
        """From the sources in the config of a catalog to those of now; a source is known by its name."""
        known = {one["name"]: (role, one) for role in ROLES for one in before.get(role) or ()}
        moved, added, others = [], [], list[tuple[str, Any, Any]]()
        for role, source in sources.by_role():
            if source.name not in known:
                added.append((role, source))
                continue
            found = list(_settings_that_differ(known[source.name], role, source))
            if found:
                moved.append((role, source))
            others += [(f"sources.{role}.{source.name}.{key}", *values) for key, *values in found if key not in PLACE]
        names = [source.name for _, source in sources.by_role()]
        if [name for name in names if name in known] != list(known):
            others.append(("names of the sources", list(known), names))
        return cls(tuple(moved), tuple(added), tuple(others))


def _settings_that_differ(
    before: tuple[str, Mapping[str, Any]], role: str, source: Source
) -> Iterator[tuple[str, Any, Any]]:
    then_role, then = before
    yield from differences({"role": then_role, **then}, {"role": role, **identity(source)})


def move_parts(known: Table, role: str, source: Source, make_rows: MakeRows) -> Iterator[tuple[int, pa.Table]]:
    """(part number, rows) of a source in a catalog, with the places where its images lie now.

    Raises:
        StaleTable: what lies there is not what the catalog lists.
        SourceError: nothing can be listed there.
    """
    figures = CatalogFigures.of(known)
    number = figures.sources.index(source.name)
    listing, check = _Listing(known, source), _Check(known, source)
    total = 0
    for part in (part for part, of in enumerate(figures.part_source) if of == number):
        before = known.read(part)
        items = [listing.take(row) for row in before.to_pylist()]
        after = make_rows(part, role, source, items)
        check.add(before, after)
        total += len(items)
        yield part, after
    checked = check.finish()
    logger.info(
        "%s: source %s moved to %s: its %d images were recognized by name, place, length and %s; nothing made of them "
        "is made again",
        known.name,
        source.name,
        source.path,
        total,
        f"the SHA-256 of {checked} that were read" if checked else "modification time",
    )


def _moved_elsewhere(known: Table, source: Source, why: str) -> StaleTable:
    return StaleTable(
        f"{known.name} was made with another configuration: source {source.name} is now {source.path}, where {why}. "
        f"Put the old path back, choose another workdir, or run again with --rebuild {known.name} to list it anew "
        "(what depends on it follows)"
    )


class _Listing:
    """What is listed at the new place, handed out by what the catalog knows.

    Parts hold images in the order of a listing, those of a later `--rescan` behind those of the first. So the listing
    is followed along, and only images that come too early are held: those that were added later, and new ones.
    """

    def __init__(self, known: Table, source: Source) -> None:
        self._known, self._source = known, source
        self._found = list_source(source, skipped=Counter())
        self._early: dict[tuple[Any, ...], Found] = {}
        self._taken = 0

    def take(self, row: Mapping[str, Any]) -> Found:
        """The image of a row of the catalog.

        Raises:
            StaleTable: it is not there, or not the same.
        """
        wanted = _place(row["key"], row["offset"], row["row"])
        found = self._early.pop(wanted, None)
        while found is None:
            item = next(self._found, None)
            if item is None or len(self._early) > self._taken + MAX_STRANGE:
                raise self._lacks(row, "is not there")
            place = _place(item.key, item.offset, item.row)
            if place == wanted:
                found = item
            else:
                self._early[place] = item
        if None not in (found.length, row["length"]) and found.length != row["length"]:
            raise self._lacks(row, f"has {found.length:,} bytes instead of {row['length']:,}")
        beside = None if row["sidecars"] is None else [tuple(one.values()) for one in row["sidecars"]]
        if beside != (None if found.sidecars is None else [tuple(one) for one in found.sidecars]):
            raise self._lacks(row, "has other descriptions beside it")
        self._taken += 1
        return found

    def _lacks(self, row: Mapping[str, Any], what: str) -> StaleTable:
        return _moved_elsewhere(self._known, self._source, f"the image {row['key']} {what}")


def _place(key: str, offset: int | None, row: int | None) -> tuple[Any, ...]:
    """What an image is known by wherever its source lies."""
    return key, offset, row


class _Check:
    """Draws images whose modification times do not tell that they are the same, and reads them."""

    def __init__(self, known: Table, source: Source) -> None:
        self._known, self._source = known, source
        self._rng = np.random.default_rng(0)
        self._drawn: list[tuple[int, pa.Table]] = []
        """(row in its part, its row of the catalog) of each."""
        self._doubtful = 0

    def add(self, before: pa.Table, after: pa.Table) -> None:
        """Rows of a part as they were and as they will be: those in doubt are drawn with equal probability."""
        same = pc.equal(before["modified"], after["modified"]).fill_null(False).to_numpy()
        for row in np.flatnonzero(~same).tolist():
            self._doubtful += 1
            place = len(self._drawn) if len(self._drawn) < NUM_CHECKED else int(self._rng.integers(self._doubtful))
            if place < NUM_CHECKED:
                self._drawn[place : place + 1] = [(row, after.slice(row, 1))]

    def finish(self) -> int:
        """Read what was drawn; returns how many images that were.

        Raises:
            StaleTable: one of them is another image, or nobody knows what they were.
        """
        if not self._drawn:
            return 0
        facts = self._known.store.table(FACTS)
        if not facts.is_complete():
            raise _moved_elsewhere(
                self._known,
                self._source,
                f"the modification times of {self._doubtful:,} images differ, and {FACTS} "
                "does not tell yet what they were; copy them with their times (cp -a, rsync -t)",
            )
        checked = sum(self._is_same(facts, row, listed) for row, listed in self._drawn)
        if not checked:
            raise _moved_elsewhere(
                self._known,
                self._source,
                f"modification times differ, and none of {len(self._drawn)} images could be "
                "had to compare them with the first pass",
            )
        return checked

    def _is_same(self, facts: Table, row: int, listed: pa.Table) -> bool:
        """Whether an image is known and was read; raises where it is another one."""
        part = part_of(listed["image_id"][0].as_py())
        sha256 = facts.read(part, ["sha256"])["sha256"][row].as_py()
        if sha256 is None:
            return False
        (read,) = read_bytes(listed, self._source, damaged=True)
        if read.data is None:
            key = listed["key"][0].as_py()
            raise _moved_elsewhere(self._known, self._source, f"the image {key} cannot be read ({read.error})")
        if hashlib.sha256(read.data).digest() != sha256:
            key = listed["key"][0].as_py()
            raise _moved_elsewhere(self._known, self._source, f"the image {key} is another one (other SHA-256)")
        return True
