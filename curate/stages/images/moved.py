"""Sources of a catalog that lie elsewhere by now, and sources that were added to it.

Whoever mounts a pool at another path, or copies it to another bucket, has the same images: ids, facts, vectors and
verdicts hold, and only the places in the catalog are wrong. So a source of which nothing but `path` (and `roots`)
differs is listed where it lies now, and each image that the catalog knows is looked for there: by its key, which is its
path below the source and within its archive, its offset or row, its length, and what lies beside it. All must be there;
what is there besides is left to `--rescan`. Tasks do both (see `engine/scanning.py`), a part each; of a folder whose
images fill many parts, each of these goes through the whole listing of the folder.

Equal lengths are no proof of equal bytes. Where modification times agree too (another mount, `cp -a`, `rsync -t`), that
is taken for one, as it is by `--rescan`. Where they do not, as after a copy to a bucket, images drawn from those in
question, `NUM_CHECKED` at most in a source, are read and must have the SHA-256 that the first pass found: if one image
in twenty were another, one of 64 shows it with a probability of 96 %. Later passes and the shards compare the SHA-256
of every image that they read, so that a wrong image costs itself alone.
"""

import hashlib
import heapq
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from curate.config import differences, identity
from curate.engine.image_ids import part_of, row_of
from curate.engine.stage import Known, digest_text
from curate.engine.table import Table
from curate.errors import StaleTable
from curate.sources.config import Source, Sources
from curate.sources.reading import read_bytes
from curate.sources.urls import is_row_of_urls
from curate.tables import ROLES

logger = logging.getLogger(__name__)

NUM_CHECKED = 64
"""Images of a moved source that are read at most, where times do not tell that they are the same."""
FACTS = "images"
"""Table of all recipes that holds the SHA-256 of each image."""
PLACE = ("path", "roots")
"""Settings of a source that say where it lies."""
PLACE_COLUMNS = ("key", "offset", "row")
"""What an image of a source is known by wherever that lies."""

Place = tuple[str, int | None, int | None]


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


def lasting_home(source: str, uri: str, key: str, offset: int | None, row: int | None) -> str:
    """Where an image is looked for wherever its source lies: its folder, or what the name of its archive or table is
    within its key."""
    if offset is None and row is None:
        return f"{source}\n{key.rpartition('/')[0]}"
    name = uri.rpartition("/")[2]
    if row is not None and is_row_of_urls(uri, row):
        name = key.rpartition("#")[0]
    before, found, _ = key.partition(name)
    return f"{source}\n{before}{found}"


def find_moved(rows: pa.Table, source: Source, found: Known, schema: pa.Schema) -> pa.Table:
    """The rows of a part of a catalog as they are listed where its source lies now, in the order of the part.

    Containers may lie in any order there, as images of a later `--rescan` follow those of the first listing. So each
    is gone through once, and what the part asks for is kept.

    Args:
        schema: columns that are listed.

    Raises:
        StaleTable: an image is not there, or not the same.
    """
    places = list(zip(*(rows[name].to_pylist() for name in PLACE_COLUMNS), strict=True))
    homes: dict[str, set[Place]] = {}
    for uri, place in zip(rows["uri"].to_pylist(), places, strict=True):
        homes.setdefault(lasting_home(source.name, uri, *place), set()).add(place)
    kept, numbers, total = [schema.empty_table()], dict[Place, int](), 0
    for home, wanted in homes.items():
        for listed in found.rows_of(home, schema.names):
            there = zip(*(listed[name].to_pylist() for name in PLACE_COLUMNS), strict=True)
            taken = {place: row for row, place in enumerate(there) if place in wanted}
            numbers |= {place: total + number for number, place in enumerate(taken)}
            kept.append(listed.take(pa.array(taken.values(), pa.int64())))
            total += len(taken)
    for place in places:
        if place not in numbers:
            raise _moved_elsewhere(source, f"the image {place[0]} is not there")
    after = pa.concat_tables(kept).take(pa.array([numbers[place] for place in places], pa.int64()))
    _compare(rows, after, source)
    return after


def _compare(before: pa.Table, after: pa.Table, source: Source) -> None:
    """Raise where an image has another length by now, or other descriptions beside it."""
    columns = [table[name].to_pylist() for name in ("length", "sidecars") for table in (before, after)]
    for key, length, now, beside, beside_now in zip(before["key"].to_pylist(), *columns, strict=True):
        if None not in (length, now) and length != now:
            raise _moved_elsewhere(source, f"the image {key} has {now:,} bytes instead of {length:,}")
        if beside != beside_now:
            raise _moved_elsewhere(source, f"the image {key} has other descriptions beside it")


class Drawn(NamedTuple):
    """What moving a part tells: JSON-ready."""

    images: int
    """Images of the part."""
    doubtful: int
    """Those whose modification times do not tell that they are the same."""
    image_ids: list[int]
    """Some of these: the ids whose digests are least, so that the least of all parts are drawn from all images in
    question with equal probability."""


def draw_doubtful(before: pa.Table, after: pa.Table) -> Drawn:
    """Draw images whose modification times differ, from the rows of a part as they were and as they will be."""
    same = pc.equal(before["modified"], after["modified"]).fill_null(False).to_numpy()
    doubtful = before["image_id"].to_numpy()[~same].tolist()
    return Drawn(len(before), len(doubtful), _least(doubtful))


def _least(image_ids: Iterable[int]) -> list[int]:
    return heapq.nsmallest(NUM_CHECKED, image_ids, key=lambda image_id: digest_text(str(image_id)))


def check_moved(known: Table, moved: Table, source: Source, drawn: Sequence[Drawn]) -> None:
    """Read some images of a source whose modification times do not tell that they are the same.

    Args:
        moved: holds the rows of the source as they will be.
        drawn: what `draw_doubtful` gave of each part.

    Raises:
        StaleTable: one of them is another image, or nobody knows what they were.
    """
    total, doubtful = sum(one.images for one in drawn), sum(one.doubtful for one in drawn)
    asked = _least(image_id for one in drawn for image_id in one.image_ids)
    facts = known.store.table(FACTS)
    if asked and not facts.is_complete():
        raise _moved_elsewhere(
            source,
            f"the modification times of {doubtful:,} images differ, and {FACTS} does not tell yet what they were; copy "
            "them with their times (cp -a, rsync -t)",
        )
    checked = sum(_is_same(facts, moved, source, image_id) for image_id in sorted(asked))
    if asked and not checked:
        raise _moved_elsewhere(
            source,
            f"modification times differ, and none of {len(asked)} images could be had to compare them with the first "
            "pass",
        )
    logger.info(
        "%s: source %s moved to %s: its %d images were recognized by name, place, length and %s; nothing made of them "
        "is made again",
        known.name,
        source.name,
        source.path,
        total,
        f"the SHA-256 of {checked} that were read" if checked else "modification time",
    )


def _is_same(facts: Table, moved: Table, source: Source, image_id: int) -> bool:
    """Whether an image is known and was read; raises where it is another one."""
    part, row = part_of(image_id), row_of(image_id)
    sha256 = facts.read(part, ["sha256"])["sha256"][row].as_py()
    if sha256 is None:
        return False
    listed = moved.read(part).slice(row, 1)
    (read,) = read_bytes(listed, source, damaged=True)
    key = listed["key"][0].as_py()
    if read.data is None:
        raise _moved_elsewhere(source, f"the image {key} cannot be read ({read.error})")
    if hashlib.sha256(read.data).digest() != sha256:
        raise _moved_elsewhere(source, f"the image {key} is another one (other SHA-256)")
    return True


def _moved_elsewhere(source: Source, why: str) -> StaleTable:
    return StaleTable(
        f"catalog was made with another configuration: source {source.name} is now {source.path}, where {why}. "
        "Put the old path back, choose another workdir (--workdir DIR), or run again with --rebuild catalog to list it "
        "anew (what depends on it follows)"
    )
