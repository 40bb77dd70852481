"""ResolveDecisions: which images the lines of `decisions.csv` mean.

A line names images as people do, and the stages that apply it know ids. What a line says of an image it says of one
picture, of which the catalog may hold several files:

- `not-copies` speaks of pictures, so that it holds for all images of the same bytes.
- `keep` and `represent` want one image, so that of several of the same bytes that one line names they mean the
  preferred one: that of the lowest source rank, then the smallest id.
- `drop` means every image that the line names.

A line may name images that the catalog does not have yet, or that were rejected. It counts once they are there and
good. Lines that name no image, or several, may be typing errors: the run tells of them.
"""

import hashlib
import itertools
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, Any, ClassVar, NamedTuple

import numpy as np
import pyarrow as pa
from pydantic import Field

from curate.config import Execution, Settings
from curate.decisions import Decision, last_ones
from curate.engine.cost import ID_BYTES, Assumptions, Demand, Shape, Shapes
from curate.engine.demands import folded, grouped, one_process
from curate.engine.figures import Figures
from curate.engine.finished import Finished, ImagePlace
from curate.engine.image_ids import Parts, part_of
from curate.engine.numbers import plural
from curate.engine.show import Numbers, Section, Text
from curate.engine.stage import Batches, Fold, Input, num_groups, parts_of_group, scan_partials, whole
from curate.engine.table import Table
from curate.engine.tallies import Tally, tally_batch
from curate.errors import ConfigError
from curate.ops.copies.decided import Decided
from curate.sources.entries import Entries, few, hint, normalize_entry, shown_entry
from curate.stages.images.pictures import accepted_mask
from curate.tables import CATALOG, CURATED, DECIDED, DECISIONS, HELDOUT, IMAGES, NEIGHBORS, POOL

logger = logging.getLogger(__name__)
NUM_KEPT = 1000
"""Entries that figures name at most, of each kind."""
NUM_SHOWN = 100
"""Entries that the report shows."""
MAX_PAIRS = 1_000_000
"""Pairs that the lines may mean: a line with two archives is a mistake."""
MAX_NEAR = 3
"""Keys at most that are told of an entry that names no image."""
NAMES = ("source", "key", "uri")
FACTS = ("image_id", "sha256", "reject")
NAMES_SHARE = 0.8
"""Share of the catalog's bytes that names take."""
DECIDED_BYTES, HIT_BYTES = 12, 44
"""Bytes of a row of the table, and of an image that an entry names."""
HIT = pa.schema(
    [
        pa.field("entry", pa.int32()),
        pa.field("image_id", pa.int64()),
        pa.field("sha256", pa.binary(32)),
        pa.field("accepted", pa.bool_()),
        pa.field("near", pa.string()),
    ]
)
"""Images that entries name, and keys that end with one that names no image of the part."""


class EntryHits(Settings):
    """What one entry named."""

    images: int = 0
    """Images of the catalog."""
    named_so: tuple[str, ...] = ()
    """Where it named none: keys of images of that name within a folder or archive, a few of them."""


class DecisionTally(Tally):
    """What the lines mean, counted by the process that reads them."""

    lines: dict[str, int] = Field(default_factory=dict)
    """Lines by decision, without those that later ones replace."""
    images: dict[str, int] = Field(default_factory=dict)
    """Images by decision; of pairs each image once."""
    entries: dict[str, EntryHits] = Field(default_factory=dict)
    """By entry, in alphabetical order; the first ones where there are many, those that named none or several first."""
    num_entries: int = 0
    none: int = 0
    """Entries that named no image."""
    several: int = 0
    """Entries that named more than one."""
    overruled: int = 0
    """Images about which lines say different things; the last one counts."""
    idle: int = 0
    """Images that are named and were rejected, or have a role in which the decision does nothing."""
    equal: int = 0
    """Pairs that a line calls no copies and that have equal bytes."""

    def warnings(self) -> Iterator[str]:
        """What to look at."""
        entries = self.entries.items()
        if self.none:
            told = (f"{shown_entry(entry)}{hint(found.named_so)}" for entry, found in entries if not found.images)
            yield f"decisions: {self.none} of {self.num_entries} entries match no image: {few(told, self.none)}"
        if self.several:
            told = (f"{shown_entry(entry)} ({found.images})" for entry, found in entries if found.images > 1)
            yield f"decisions: {self.several} of {self.num_entries} entries match several images: " + few(
                told, self.several
            )
        if self.overruled:
            yield f"decisions: {plural(self.overruled, 'image')} with lines that contradict each other; the last counts"
        if self.idle:
            yield (
                f"decisions: {plural(self.idle, 'named image')} for which the decision does nothing: rejected, held "
                "out, or a curated one that is to represent a group"
            )
        if self.equal:
            pairs = plural(self.equal, "pair")
            yield f"decisions: {pairs} with equal bytes, which are copies whatever was decided; drop one of them"


class DecisionFigures(Figures):
    """What the lines of the file mean."""

    found: DecisionTally


class ResolveDecisions(Fold):
    """Which images the decisions of a run mean. Memory: the images that they name."""

    inputs: ClassVar[dict[str, Input]] = {
        "catalog": whole(CATALOG),
        "images": whole(IMAGES),
        "exact": whole(NEIGHBORS),
    }
    tally: ClassVar[type[Tally] | None] = DecisionTally
    explained_as: ClassVar[str] = "decided"
    pins_are_data: ClassVar[bool] = True

    given: Annotated[tuple[Decision, ...], Execution()] = ()
    """The lines of the file; known by their content, see `pins`."""

    def output_schema(self, **inputs: Any) -> pa.Schema:
        return DECIDED

    def partial_schema(self, **inputs: Any) -> pa.Schema:
        return HIT

    def pins(self) -> dict[str, str]:
        """Of the lines what they decide: notes change nothing."""
        said = (f"{one.decision}\t{normalize_entry(one.image)}\t{normalize_entry(one.other)}" for one in self.given)
        return {"decisions": hashlib.sha256("\n".join(said).encode("utf-8", "surrogatepass")).hexdigest()}

    def num_partials(self, **inputs: Any) -> int:
        return num_groups(len(inputs["catalog"].parts()))

    @property
    def _entries(self) -> list[str]:
        """What the lines name, in order."""
        return sorted({normalize_entry(text) for one in self.given for text in (one.image, one.other) if text})

    def partial(self, group: int, *, catalog: Table, images: Table, exact: Table) -> Batches:
        number = {entry: place for place, entry in enumerate(self._entries)}
        entries = Entries(frozenset(number))
        for part in parts_of_group(group, len(catalog.parts())):
            rows, facts = catalog.read(part, list(NAMES)), images.read(part, [*FACTS, *entries.columns[1:]])
            hits = sorted({(number[hit.entry], hit.row) for hit in entries.hits(rows, facts)})
            yield _hit_rows(hits, facts)
            found = {entry for entry, _ in hits}
            missed = Entries(frozenset(entry for entry, place in number.items() if place not in found))
            yield _near_rows((number[entry], key) for entry, key in missed.endings(rows, most=MAX_NEAR))

    def combine(self, partials: Table | None, **tables: Any) -> Batches:
        assert partials is not None
        meant = _Meant(self._entries, pa.concat_tables(scan_partials(partials)), Parts.of(tables["catalog"]))
        meant.read(self.given)
        meant.spread(tables["exact"])
        yield meant.rows()
        lines = _count(one.decision for one in last_ones(self.given))
        yield tally_batch(meant.tally().model_copy(update={"lines": lines}), DECIDED)

    def summarize(self, table: Table, **inputs: Any) -> DecisionFigures:
        found = DecisionTally.of(table)
        for text in found.warnings():
            logger.warning("%s", text)
        return DecisionFigures(found=found)

    # -- telling about it ------------------------------------------------------------------------------------

    def cost(self, inputs: Shapes, given: Assumptions) -> tuple[Demand, Shape]:
        """Names and hashes of all images are looked up; the table holds what the lines name."""
        catalog, images, exact = inputs["catalog"], inputs["images"], inputs["exact"]
        made = Shape(pool=len(self.given), row_bytes=DECIDED_BYTES, columns=3)
        hits = Shape(pool=len(self.given), row_bytes=HIT_BYTES, parts=grouped(catalog), columns=5)
        read = [catalog.scanned(share=NAMES_SHARE), images.scanned(share=images.share(FACTS), ranges=2)]
        demand = Demand(rows=catalog.rows, written=made.num_bytes)
        alone = one_process([exact.scanned(2, share=2 * ID_BYTES / max(2 * ID_BYTES, exact.row_bytes))])
        return Demand.phases([demand, *read, alone, folded(hits, made, made)]), made

    def facts(self, table: Table, run: Finished, *, digits: int = 12) -> Iterator[tuple[str, str]]:
        lines = DecisionFigures.of(table).found.lines
        told = ", ".join(f"{number} {name}" for name, number in lines.items())
        yield "Decisions of a person", f"{plural(sum(lines.values()), 'line')}: {told}"

    def warn(self, table: Table, run: Finished) -> Iterator[str]:
        yield from DecisionFigures.of(table).found.warnings()

    def show(self, table: Table, run: Finished) -> Iterator[Section]:
        figures = DecisionFigures.of(table).found
        counts = tuple((name, number, figures.images.get(name, 0)) for name, number in figures.lines.items())
        odd_first = sorted(figures.entries.items(), key=lambda named: named[1].images == 1)
        entries = tuple((shown_entry(entry), found.images) for entry, found in odd_first[:NUM_SHOWN])
        part = "" if len(entries) == figures.num_entries else f", {len(entries)} of them below"
        text = Text(f"{plural(figures.num_entries, 'entry', 'entries')} in the file of decisions{part}.")
        heads = ("decision", "lines", "images"), ("entry", "images it names")
        yield Section("Your decisions", (Numbers(heads[0], counts), text, Numbers(heads[1], entries)))

    def explain(self, image: ImagePlace, table: Table, run: Finished) -> Iterator[str]:
        rows = run.rows_where(table, "image_id", image.image_id)
        rows += [row for row in run.rows_where(table, "other_id", image.image_id) if row not in rows]
        for row in rows:
            if row["other_id"] is None:
                yield "by you: a copy of none" if row["decision"] == "not-copies" else f"by you: {row['decision']}"
            else:
                other = row["other_id"] if row["image_id"] == image.image_id else row["image_id"]
                yield f"by you: no copy of {run.name_image(other)}"


def read_decided(table: Table | None) -> Decided | None:
    """What the table says, as deduplication takes it; None: the run has no decisions."""
    if table is None:
        return None
    rows = table.read_all()
    ids, other = rows["image_id"].to_numpy(), rows["other_id"]
    pairs = other.is_valid().to_numpy()
    named = {name: ids[~pairs & (rows["decision"].to_numpy() == name)] for name in DECISIONS}
    apart = np.stack([ids[pairs], other.drop_null().to_numpy()], axis=1)
    return Decided(named["keep"], named["drop"], named["represent"], named["not-copies"], apart)


# -- rows ----------------------------------------------------------------------------------------------------


def _hit_rows(hits: Sequence[tuple[int, int]], facts: pa.Table) -> pa.RecordBatch:
    rows = np.array([row for _, row in hits], np.int64)
    chosen = facts.take(rows).combine_chunks()
    columns = [
        pa.array([entry for entry, _ in hits], pa.int32()),
        chosen["image_id"].combine_chunks(),
        chosen["sha256"].combine_chunks(),
        pa.array(accepted_mask(chosen)),
        pa.nulls(len(hits), pa.string()),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=HIT)


def _near_rows(near: Iterable[tuple[int, str]]) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist([{"entry": entry, "near": key} for entry, key in near], schema=HIT)


def _count(names: Iterable[str]) -> dict[str, int]:
    found = Counter(names)
    return {name: found[name] for name in DECISIONS if found[name]}


class _Named(NamedTuple):
    """An image that an entry names."""

    image_id: int
    sha256: bytes | None
    accepted: bool
    role: int
    order: tuple[int, int]
    """The smaller, the rather it is preferred to others of equal bytes."""


class _Meant:
    """What lines say of images."""

    def __init__(self, entries: Sequence[str], hits: pa.Table, parts: Parts) -> None:
        self._parts, self._of = parts, {entry: list[_Named]() for entry in entries}
        self._near = {entry: list[str]() for entry in entries}
        for row in hits.to_pylist():
            entry, image = entries[row["entry"]], row["image_id"]
            if image is None:
                self._near[entry].append(row["near"])
                continue
            part = part_of(image)
            role, order = int(parts.role[part]), (int(parts.rank[part]), image)
            self._of[entry].append(_Named(image, row["sha256"], row["accepted"], role, order))
        self._single: dict[int, str] = {}
        self._alone: set[int] = set()
        self._pairs: set[tuple[int, int]] = set()
        self._overruled: set[int] = set()
        self._idle: set[int] = set()
        self._equal: set[tuple[int, int]] = set()

    def read(self, given: Iterable[Decision]) -> None:
        """Take the lines in order."""
        for one in given:
            named = self._of[normalize_entry(one.image)]
            if one.other:
                self._read_pair(one, named, self._of[normalize_entry(one.other)])
                continue
            for image in _distinct(named) if one.decision in ("keep", "represent") else named:
                if not image.accepted or image.role not in _ROLES[one.decision]:
                    self._idle.add(image.image_id)
                    continue
                if self._single.get(image.image_id, one.decision) != one.decision:
                    self._overruled.add(image.image_id)
                self._single[image.image_id] = one.decision

    def _read_pair(self, one: Decision, named: Sequence[_Named], others: Sequence[_Named]) -> None:
        if len(named) * len(others) > MAX_PAIRS:
            raise ConfigError(
                f"decisions: {one.image},not-copies,{one.other} means {len(named) * len(others):,} pairs of images, "
                f"{MAX_PAIRS:,} are possible; name single images"
            )
        for a, b in itertools.product(named, others):
            pair = min(a.image_id, b.image_id), max(a.image_id, b.image_id)
            if a.sha256 is not None and a.sha256 == b.sha256:
                self._equal |= {pair} if a.image_id != b.image_id else set()
            elif a.accepted and b.accepted:
                self._pairs.add(pair)
            else:
                self._idle |= {image.image_id for image in (a, b) if not image.accepted}

    def spread(self, exact: Table) -> None:
        """Let `not-copies` hold for all images of the same bytes."""
        alone = [image for image, decision in self._single.items() if decision == "not-copies"]
        named = {*alone, *itertools.chain.from_iterable(self._pairs)}
        equal = _equal_to(named, exact) if named else {}
        self._alone = {image for one in alone for image in equal.get(one, (one,))}
        pairs = set[tuple[int, int]]()
        for a, b in sorted(self._pairs):
            for pair in itertools.product(equal.get(a, (a,)), equal.get(b, (b,))):
                pairs.add((min(pair), max(pair)))
            if len(pairs) > MAX_PAIRS:
                raise ConfigError(
                    f"decisions: the lines `not-copies` mean more than {MAX_PAIRS:,} pairs of images, with those of "
                    "equal bytes; leave `other` empty where an image is a copy of none"
                )
        self._pairs = pairs

    def rows(self) -> pa.RecordBatch:
        """Of the table."""
        single = [(image, -1, name) for image, name in self._single.items() if name != "not-copies"]
        found = sorted(
            [*single, *((i, -1, "not-copies") for i in self._alone), *((*p, "not-copies") for p in self._pairs)]
        )
        images, others, names = zip(*found, strict=True) if found else ((), (), ())
        other = np.array(others, np.int64)
        columns = [np.array(images, np.int64), pa.array(names, pa.string()), pa.array(other, mask=other < 0)]
        return pa.RecordBatch.from_arrays([pa.array(columns[0]), *columns[1:]], schema=DECIDED)

    def tally(self) -> DecisionTally:
        """What is told of the lines."""
        images = {entry: len(found) for entry, found in self._of.items()}
        none = [entry for entry, found in images.items() if not found]
        several = [entry for entry, found in images.items() if found > 1]
        once = [entry for entry, found in images.items() if found == 1]
        told = sorted([*none[:NUM_KEPT], *several[:NUM_KEPT], *once[:NUM_KEPT]])
        apart = {*self._alone, *itertools.chain.from_iterable(self._pairs)}
        singles = (name for name in self._single.values() if name != "not-copies")
        near = {entry: tuple(self._near[entry][:MAX_NEAR]) for entry in none[:NUM_KEPT]}
        return DecisionTally(
            images=_count([*singles, *["not-copies"] * len(apart)]),
            entries={e: EntryHits(images=images[e], named_so=near.get(e, ())) for e in told},
            num_entries=len(images),
            none=len(none),
            several=len(several),
            overruled=len(self._overruled),
            idle=len(self._idle),
            equal=len(self._equal),
        )


_ROLES = {
    "keep": (POOL, CURATED),
    "drop": (POOL, CURATED),
    "represent": (POOL,),
    "not-copies": (POOL, CURATED, HELDOUT),
}
"""In which roles an image feels a decision."""


def _distinct(named: Sequence[_Named]) -> Iterator[_Named]:
    """Of images of equal bytes and one role the preferred one."""
    seen = set[tuple[bytes | None, int]]()
    for image in sorted(named, key=lambda one: one.order):
        if image.sha256 is None or (image.sha256, image.role) not in seen:
            seen.add((image.sha256, image.role))
            yield image


def _equal_to(image_ids: Iterable[int], exact: Table) -> dict[int, tuple[int, ...]]:
    """Images, and all of the same bytes: pairs of equal bytes form stars, so that two looks find them."""
    known = np.array(sorted(image_ids), np.int64)
    for _ in range(2):
        pairs = [np.empty((0, 2), np.int64)]
        for rows in exact.scan(["query_id", "image_id"]):
            both = np.stack([rows["query_id"].to_numpy(), rows["image_id"].to_numpy()], axis=1)
            pairs.append(both[np.isin(both, known).any(axis=1)])
        found = np.concatenate(pairs)
        known = np.union1d(known, found)
    group = {image: {image} for image in known.tolist()}
    for a, b in found.tolist():
        if group[a] is not group[b]:
            group[a] |= group[b]
            for image in group[b]:
                group[image] = group[a]
    return {image: tuple(sorted(members)) for image, members in group.items()}
