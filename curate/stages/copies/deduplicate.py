"""Deduplicate: components of copies, and what stays of each."""

from collections import Counter
from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from curate.engine.cost import Assumptions, Demand, Shape, Shapes, catalog_parts
from curate.engine.demands import folded, one_process
from curate.engine.figures import Figures
from curate.engine.finished import Finished, ImagePlace, pick
from curate.engine.image_ids import Parts
from curate.engine.numbers import count, plural, share
from curate.engine.show import Block, Check, FlowStep, Heading, Pages, Section, Text, gallery, without_empty
from curate.engine.stage import Batches, Fold, Input, whole
from curate.engine.table import Table
from curate.engine.tallies import Tally, plain, tally_batch
from curate.ops.codes import names_of
from curate.ops.copies.duplicates import Chains, Judged, deduplicate
from curate.ops.copies.graph import KINDS, AcceptedImages, CatalogParts, Oversized
from curate.stages.copies.contamination import ImageSet, copy_edges, curated_warning
from curate.stages.copies.copy_groups import (
    CopyGroups,
    columns_of,
    copy_galleries,
    curated_gallery,
    heldout_galleries,
)
from curate.stages.copies.doubt_crowds import DoubtCrowds
from curate.stages.copies.exact import FindExact
from curate.stages.copies.resolve_decisions import read_decided
from curate.stages.copies.verdict_tally import VerdictTally
from curate.stages.images.pictures import accepted_mask
from curate.stages.images.usable import Usable, is_rejected
from curate.stages.screening.rejected import read_rejected
from curate.tables import (
    CATALOG,
    CONTAMINATED,
    CURATED,
    DECIDED,
    DECISIONS,
    DUPLICATES,
    HELDOUT,
    IMAGES,
    JUDGED,
    NEIGHBORS,
    POOL,
    ROLES,
    SCREENED,
    VERDICTS,
)

GIANT_SHARE = 0.05
"""Share of the pool above which one component suggests that a loose threshold chains images together."""
GIANT_SIZE, LEAST_GIANT = 100, 20
"""Images that a component may have in a large pool before it is cut, and in any pool before it is told."""
MANY_COPIES = 0.5
"""Share of the pool above which it is told how many images are kept out as copies."""
CHAIN_SHARE = 0.5
"""Share of a component's other images that resemble the kept one, below which it looks more like a chain of images
than like copies of one picture."""
JUDGED_BYTES = 26
"""Bytes of memory that an image of the catalog takes where up to half of them lie in components of five or more, see
`ops/copies/duplicates.py`."""
JUDGED_ROWS: dict[Chains, float] = {"join": 1, "split": 2.4}
"""Rows sorted or joined for each image and for each edge."""
EDGES_READ: dict[Chains, int] = {"join": 3, "split": 8}
"""Times that the edges are read."""
IMAGES_READ: dict[Chains, int] = {"join": 2, "split": 3}
"""Times that the facts of the images are read."""
JUDGED_BY = ("image_id", "width", "height", "reject")
"""What is read of an image."""
VERDICT_BYTES = 8
"""Bytes of a row of `duplicates`."""
NUM_DROPPED = 48
"""Images that a person dropped, as many as are shown."""
NUM_MATCHES = 48
"""Curated images that resemble held-out ones, as many as are shown."""
EVIDENCE = {
    "sha256": "same bytes",
    "embedding": "by embedding",
    "aligned": "by embedding, verified by alignment",
    "hash": "by perceptual hash",
}
COPIED = {"pool": "pool images", "curated": "curated images"}
"""What a copy is one of, by the role of the image that stays."""

_CHECKED: dict[str, tuple[Check, str]] = {
    "benchmark": ("benchmarks", "copies of benchmark images"),
    "duplicate": ("copies", "copies within the dataset"),
}
"""What an image that a person kept leaves open, by the verdict that it would have."""


class DeduplicateFigures(Figures):
    """Verdicts and components, counted."""

    kept: int
    """Images of the pool that stay."""
    duplicate: int
    """Images kept out as copies of another."""
    benchmark: int
    """Images kept out since their component resembles a held-out image."""
    copies_by_evidence: dict[str, dict[str, int]]
    """Copies by the role of the image that stays, then by the kind of evidence, the most frequent first."""
    component_sizes: dict[int, int]
    """Number of components by their size in images."""
    largest_component: int
    """Images of the largest component."""
    largest_direct: int
    """Of the images of that component that go, those whose evidence leads to the image that stays."""
    largest_kept: int = 1
    """Images of that component that stay: one, several of a burst, or none."""
    more_of_bursts: int = 0
    """Frames of bursts that stay beside one of each."""
    dropped: int = 0
    """Images that a person dropped."""
    kept_by_decision: dict[str, int] = Field(default_factory=dict)
    """Images that stay by decision of a person alone, by the verdict that they would have: duplicate or benchmark."""
    screened: int = 0
    """Images that a rule rejects, or that go with a copy that one rejects."""
    with_copies: int = 0
    """Those of them that go with a copy."""
    saved: dict[str, int] = Field(default_factory=dict)
    """Images that a rule rejects and that stay since a person keeps them, by reason."""
    curated_heldout: int
    """Curated images that resemble a held-out one; they stay."""


class DeduplicateTally(VerdictTally):
    """What a part adds to these; components are counted by the process that judges."""

    columns: ClassVar[tuple[str, ...]] = ()

    images_by_size: dict[str, int] = Field(default_factory=dict)
    """Images by the size of their component."""
    evidence: dict[str, dict[str, int]] = Field(default_factory=dict)
    """Copies by the role of the image that stays, then by the kind of evidence."""
    largest_component: int = 0
    largest_direct: int = 0
    largest_kept: int = 0
    surviving: int = 0
    """Components of which an image stays that no person kept."""
    kept_by_decision: dict[str, int] = Field(default_factory=dict)
    """Images that a person alone kept, by the verdict that they would have."""


class ScreenedTally(Tally):
    """What the process that judges counts of images that rules reject; without rules there is none in the footers."""

    saved: dict[str, int] = Field(default_factory=dict)
    """Images that a rule rejects and a person keeps, by reason."""
    with_copies: int = 0
    """Images that go with a copy which a rule rejects."""

    @classmethod
    def of_combined(cls, table: Table) -> Self:
        """Of a complete table: what `combine` counted is with part 0."""
        known = next((part.tally for part in table.parts()), {})
        return cls.model_validate({name: known[name] for name in cls.model_fields if name in known})


class Deduplicate(Fold):
    """Self- and relative deduplication; the edges come with their thresholds applied, those of equal bytes among them.

    One process makes the state: 20 to 35 bytes an image of the catalog, one batch of edges and one part of `images`.
    """

    inputs: ClassVar[dict[str, Input]] = {
        "catalog": whole(CATALOG),
        "images": whole(IMAGES),
        "neighbors": whole(NEIGHBORS, many=True),
        "contaminated": whole(CONTAMINATED),
        "decided": whole(DECIDED, optional=True),
        "scores": whole(SCREENED, added=True),
    }
    version: ClassVar[int] = 3
    parts_like: ClassVar[str | None] = "catalog"
    state_by_image: ClassVar[bool] = True
    tally: ClassVar[type[Tally] | None] = DeduplicateTally
    explained_as: ClassVar[str] = "copies"
    tells_from: ClassVar[tuple[str, ...]] = ("neighbors",)

    chains: Chains = "split"
    """Where a and b are a pair, b and c, and so on. split: in components of five images or more an image goes only for
    one that it is a pair with, or with which it has a pair in common; join: for the preferred one of all that hang
    together."""
    keep_every: Annotated[int, Field(ge=2)] | None = None
    """Of components of more than so many images, counting equal bytes once, one stays of so many; null: one of each.
    Recipes set it by `copies.frames`."""
    oversized: Oversized | None = None
    """A stricter threshold inside components that are too large; null: a warning alone."""

    def output_schema(self, **inputs: Any) -> pa.Schema:
        return DUPLICATES if inputs["decided"] is None else JUDGED

    def combine(self, partials: Table | None, **tables: Any) -> Batches:
        parts, schema = Parts.of(tables["catalog"]), self.output_schema(decided=tables["decided"])
        decided = read_decided(tables["decided"])
        rejected = read_rejected(tables["scores"], decided)
        found = deduplicate(
            CatalogParts(parts.role, parts.rank, parts.rows),
            lambda: map(_accepted, tables["images"].scan(list(JUDGED_BY))),
            lambda: copy_edges(tables["neighbors"]),
            oversized=self.oversized,
            chains=self.chains,
            keep_every=self.keep_every,
            decided=decided,
            screened=rejected.screened,
        )
        counts = _Counts(parts, saved=rejected.saved)
        for judged in found:
            batch = _batch(judged, schema)
            counts.add(pa.Table.from_batches([batch]))
            yield batch
        yield tally_batch(counts.tally(), schema)
        if tables["scores"] is not None:
            yield tally_batch(counts.screened(), schema)

    def summarize(self, table: Table, **inputs: Any) -> DeduplicateFigures:
        found, parts = DeduplicateTally.of(table), Parts.of(inputs["catalog"])
        sizes = sorted((int(size), images) for size, images in found.images_by_size.items())
        return DeduplicateFigures(
            **{verdict: found.verdicts.get(verdict, 0) for verdict in VERDICTS},
            copies_by_evidence={
                role: dict(Counter(found.evidence[role]).most_common()) for role in ROLES if role in found.evidence
            },
            component_sizes={size: images // size for size, images in sizes},
            largest_component=found.largest_component,
            largest_direct=found.largest_direct,
            largest_kept=found.largest_kept,
            more_of_bursts=found.kept - sum(found.kept_by_decision.values()) - found.surviving,
            kept_by_decision=found.kept_by_decision,
            **plain(ScreenedTally.of_combined(table)),
            curated_heldout=sum(p.rows for p in inputs["contaminated"].parts() if parts.role[p.number] == CURATED),
        )

    # -- telling about it ------------------------------------------------------------------------------------

    def cost(self, inputs: Shapes, given: Assumptions) -> tuple[Demand, Shape]:
        images, edges = inputs["images"], sum(table.rows for table in inputs["neighbors"])
        made = Shape(pool=given.images, row_bytes=VERDICT_BYTES, parts=catalog_parts(inputs), columns=8)
        demand = Demand(
            serial_rows=JUDGED_ROWS[self.chains] * (images.rows + edges),
            written=made.num_bytes,
            memory=JUDGED_BYTES * images.rows,
        )
        passes = IMAGES_READ[self.chains]
        read = [images.scanned(passes, share=images.share(JUDGED_BY), ranges=2)]
        read += [table.scanned(EDGES_READ[self.chains]) for table in inputs["neighbors"]]
        return Demand.phases([demand, one_process(read), folded(None, made, made, by_image=True)]), made

    def flow(self, table: Table, run: Finished, before: FlowStep | None) -> Iterator[FlowStep]:
        figures = DeduplicateFigures.of(table)
        drops = [
            (f"copies of {COPIED.get(role, role)}, {EVIDENCE.get(kind, kind)}", number)
            for role, kinds in figures.copies_by_evidence.items()
            for kind, number in kinds.items()
        ]
        drops += [("by your decision", figures.dropped)] if figures.dropped else []
        drops += [("copies of what a rule rejects", figures.with_copies)] if figures.with_copies else []
        drops.sort(key=lambda drop: -drop[1])
        notes = [f"{plural(figures.more_of_bursts, 'more frame')} of bursts among them"] * (figures.more_of_bursts > 0)
        by_decision = sum(figures.kept_by_decision.values())
        notes += [f"{plural(by_decision, 'image')} kept by your decision"] if by_decision else []
        left, note = figures.kept + figures.benchmark, "; ".join(notes)
        yield FlowStep("not copies", left, drops=tuple(drops), note=note, kept_out="as copies", station=True)
        if run.parts.num_images(["heldout"]):
            touching = ("in a group of copies that holds a held-out image", figures.benchmark)
            heldout = Usable.of(run, "heldout")
            note = "" if heldout is None or not heldout.lost else f"compared with {heldout.used}"
            why = "for held-out images"
            yield FlowStep("clean", figures.kept, drops=(touching,), note=note, kept_out=why, station=True)

    def headline(self, table: Table, run: Finished) -> str:
        return f"{count(DeduplicateFigures.of(table).kept)} kept"

    def checks(self, table: Table, run: Finished) -> Iterator[Check]:
        yield "copies"
        if run.parts.num_images(["heldout"]):
            yield "benchmarks"

    def gaps(self, table: Table, run: Finished) -> Iterator[tuple[Check, str]]:
        """Held-out images that could not be compared, frames, and copies that only a search by likeness finds."""
        heldout = Usable.of(run, "heldout")
        if heldout is not None and heldout.lost:
            text = f"{count(heldout.lost)} of {plural(heldout.listed, 'held-out image')}"
            yield "benchmarks", f"copies of benchmark images: {text} could not be compared ({heldout.why})"
        figures = DeduplicateFigures.of(table)
        for verdict, number in figures.kept_by_decision.items():
            check, of = _CHECKED[verdict]
            yield check, f"{of}: {plural(number, 'image')} kept by decision of a person"
        if figures.more_of_bursts:
            yield "copies", f"copies among frames of bursts, of which about one of {self.keep_every} stays"
        pairs = [run.stage_of(pairs) for pairs in run.inputs_of(table, "neighbors")]
        if pairs and all(isinstance(stage, FindExact) for stage in pairs):
            yield "copies", "copies within the dataset beside those of equal bytes"
            if run.parts.num_images(["heldout"]):
                yield "benchmarks", "copies of benchmark images beside those of equal bytes"

    def facts(self, table: Table, run: Finished, *, digits: int = 12) -> Iterator[tuple[str, str]]:
        heldout = Usable.of(run, "heldout")
        if heldout is not None:
            missing = f"; not {heldout.why}" if heldout.lost else ""
            yield "Held-out images", f"{heldout.used} could be compared{missing}"

    def warn(self, table: Table, run: Finished) -> Iterator[str]:
        """Of much that goes, and of curated images unless a selection tells of those that it holds."""
        figures, size = DeduplicateFigures.of(table), table.num_rows()
        if figures.duplicate > MANY_COPIES * size:
            yield (
                f"{table.name}: {count(figures.duplicate)} of {plural(size, 'image')} "
                f"({share(figures.duplicate, size)}) are kept out as copies. If these are more than you expect, look "
                "at the groups, and at what each threshold would keep: `curate sweep`"
            )
        if figures.largest_component > max(LEAST_GIANT, GIANT_SHARE * size):
            yield f"{table.name}: {self._chain_warning(figures, size)}"
        if "benchmark" in figures.kept_by_decision:
            number = plural(figures.kept_by_decision["benchmark"], "image")
            yield f"{table.name}: {number} kept by your decision though the group resembles a held-out image"
        if figures.curated_heldout and not _is_selected(run):
            yield curated_warning(figures.curated_heldout)

    def _chain_warning(self, figures: DeduplicateFigures, num_images: int) -> str:
        """What to look at, and what to do."""
        found = f"one component holds {figures.largest_component} of {num_images} images"
        most = GIANT_SIZE if figures.largest_component > GIANT_SIZE else LEAST_GIANT
        remedy = f"{self.field_error('oversized', '')}={{size: {most}, threshold: 0.95}}"
        if figures.largest_kept > 1:
            kind = f"taken for a burst, of which {figures.largest_kept} images stay"
        else:
            direct = figures.largest_direct / max(1, figures.largest_component - figures.largest_kept)
            kind = f"and {direct:.0%} of them resemble the image that stays: they may well be copies of one picture"
            if direct < CHAIN_SHARE and self.chains == "join":
                kind = f"and {direct:.0%} of them resemble the image that stays: they hang together as a chain"
                remedy = f"{self.field_error('chains', '')}=split"
            elif direct < CHAIN_SHARE:
                kind = f"and {direct:.0%} of them resemble the image that stays, the others one of these"
        return (
            f"{found}, {kind}. Look at it in the report; if these are different pictures, raise the threshold, or cut "
            f"such components: {remedy}"
        )

    def show(self, table: Table, run: Finished) -> Iterator[Section]:
        sample = run.sample(table, columns_of(table))
        figures, groups = DeduplicateFigures.of(table), CopyGroups.of(sample.rows)
        if len(groups.sizes):
            found = f"{plural(figures.duplicate, 'image')} kept out as copies. " if sample.whole else ""
            where = "" if sample.whole else " in the sample"
            largest = f"The largest has {plural(figures.largest_component, 'image')}."
            bursts = f"Of bursts {figures.more_of_bursts} more frames stay. " if figures.more_of_bursts else ""
            text = f"{found}{plural(len(groups.sizes), 'group')} of copies{where}. {largest} {bursts}{sample.note}"
            yield Section("Copies", (Text(text.strip()), *copy_galleries(groups, run)))
        shown = without_empty([*heldout_galleries(sample.rows, run), *_curated(run)])
        if shown:
            heldout = Usable.of(run, "heldout")
            compared = "" if heldout is None else f" Compared: {heldout.used}."
            text = (
                f"{plural(figures.benchmark, 'image')} of the pool kept out: where one image of a group of copies "
                f"resembles a held-out image, the whole group is.{compared} {sample.note}"
            )
            yield Section("Held-out images", (Text(text.strip()), *shown))
        if figures.with_copies:
            text = f"{plural(figures.with_copies, 'image')} kept out with a copy that a rule rejects."
            yield Section("Copies of what a rule rejects", (Text(text),))
        if figures.dropped:
            dropped = sample.rows.filter(pc.equal(sample.rows["verdict"], "dropped"))["image_id"].to_numpy()
            pictures = pick(dropped, NUM_DROPPED, run.rng("dropped by decision"))
            heading = Heading(f"by your decision: {plural(figures.dropped, 'image')}")
            yield Section("Dropped", (heading, gallery(pictures, total=figures.dropped)))

    def explain(self, image: ImagePlace, table: Table, run: Finished) -> Iterator[str]:
        if image.role != "pool":
            yield from _explain_outside(image, table, run)
            return
        for row in run.rows_of(image, table):
            yield from _explain_verdict(image, row, table, run)


# -- rows ----------------------------------------------------------------------------------------------------


def _accepted(rows: pa.Table) -> AcceptedImages:
    good = rows.filter(pa.array(accepted_mask(rows)))
    pixels = good["width"].to_numpy().astype(np.int64) * good["height"].to_numpy()
    return AcceptedImages(good["image_id"].to_numpy(), pixels)


def _batch(found: Judged, schema: pa.Schema) -> pa.RecordBatch:
    kept = found.partner_ids < 0
    columns = [
        pa.array(found.image_ids),
        pa.array(found.component_ids),
        pa.array(found.component_size.astype(np.int32)),
        names_of(found.verdict, VERDICTS),
        pa.array(found.partner_ids, mask=kept),
        pa.array(found.similarity, pa.float32(), mask=kept),
        names_of(np.where(kept, -1, found.kind), KINDS),
        pa.array(found.direct, mask=kept),
        names_of(found.decision, DECISIONS),
    ]
    return pa.RecordBatch.from_arrays(columns[: len(schema)], schema=schema)


def _counts(column: pa.ChunkedArray) -> Counter[Any]:
    return Counter({entry["values"]: entry["counts"] for entry in column.value_counts().to_pylist()})


class _Counts:
    """What the process that judges counts of its rows; memory: a bit an image of the catalog."""

    def __init__(self, parts: Parts, *, saved: dict[str, int]) -> None:
        self._parts, self._largest, self._saved = parts, _Largest(), saved
        self._sizes, self._evidence = Counter[int](), {role: Counter[str]() for role in ROLES}
        self._surviving = ImageSet(parts)  # components, by their smallest image
        self._by_decision, self._with_copies = Counter[str](), 0

    def add(self, rows: pa.Table) -> None:
        self._sizes += _counts(rows["component_size"])
        copies = rows.filter(pc.equal(rows["verdict"], "duplicate"))
        role = self._parts.role_of(copies["partner_id"].to_numpy().astype(np.int64))
        for number in np.unique(role).tolist():
            self._evidence[ROLES[number]] += _counts(copies.filter(pa.array(role == number))["kind"])
        self._largest.add(rows)
        screened = rows.filter(pc.equal(rows["verdict"], "screened"))
        self._with_copies += len(screened) - screened["partner_id"].null_count
        kept = rows.filter(pc.equal(rows["verdict"], "kept"))
        again = kept["partner_id"].is_valid()  # what it would have gone for
        self._surviving.add(kept.filter(pc.invert(again))["component_id"].to_numpy())
        role = self._parts.role_of(kept["partner_id"].drop_null().to_numpy().astype(np.int64))
        self._by_decision += Counter(np.where(role == HELDOUT, "benchmark", "duplicate").tolist())

    def tally(self) -> DeduplicateTally:
        return DeduplicateTally(
            images_by_size={str(size): images for size, images in sorted(self._sizes.items())},
            evidence={role: dict(found) for role, found in self._evidence.items() if found},
            largest_component=self._largest.size,
            largest_direct=self._largest.direct,
            largest_kept=self._largest.kept,
            surviving=self._surviving.count(self._parts, POOL),
            kept_by_decision=dict(sorted(self._by_decision.items())),
        )

    def screened(self) -> ScreenedTally:
        """What rules did."""
        return ScreenedTally(saved=self._saved, with_copies=self._with_copies)


class _Largest:
    """The largest component, the first of those of one size."""

    def __init__(self) -> None:
        self.size, self.component, self.direct, self.kept = 0, -1, 0, 0

    def add(self, rows: pa.Table) -> None:
        size, component = rows["component_size"].to_numpy(), rows["component_id"].to_numpy()
        if len(size) and size.max() > self.size:
            self.size, self.component, self.direct = int(size.max()), int(component[size.argmax()]), 0
            self.kept = 0
        mine = rows.filter(pa.array(component == self.component))
        self.direct += pc.sum(mine["direct"], min_count=0).as_py()
        self.kept += pc.sum(pc.equal(mine["verdict"], "kept"), min_count=0).as_py()


# -- curated images that resemble held-out ones --------------------------------------------------------------


def curated_matches(run: Finished) -> np.ndarray:
    """(M, 2) int64: pairs of a curated image and the held-out one that it is most alike, the most similar pair first.

    From the pairs that deduplication read; none where the run has not come to it.
    """
    judged = run.only(Deduplicate)
    pairs, similarity = [np.empty((0, 2), np.int64)], [np.empty(0, np.float32)]
    for table in run.inputs_of(judged[1], "neighbors") if judged else []:
        rows = run.sample(table, ["query_id", "image_id", "similarity"]).rows
        query, image = rows["query_id"].to_numpy(), rows["image_id"].to_numpy()
        mask = run.has_role(query, "heldout") & run.has_role(image, "curated")
        pairs.append(np.stack([image[mask], query[mask]], axis=1))
        similarity.append(rows["similarity"].to_numpy()[mask])
    ordered = np.concatenate(pairs)[np.argsort(-np.concatenate(similarity), kind="stable")]
    _, first = np.unique(ordered[:, 0], return_index=True)
    found: np.ndarray = ordered[np.sort(first)]
    return found


def _is_selected(run: Finished) -> bool:
    """Whether a selection was made, which then tells of the curated images that it holds."""
    from curate.stages.selection.select import Select  # the room above reads this one

    return run.only(Select) is not None


def _curated(run: Finished) -> Iterator[Block]:
    matches = curated_matches(run)
    galleries = tuple(curated_gallery(curated, heldout) for curated, heldout in matches[:NUM_MATCHES].tolist())
    yield from (
        Heading("Curated images that resemble held-out ones"),
        Pages(galleries, more=len(matches) - len(galleries)),
    )


# -- one image -----------------------------------------------------------------------------------------------


def _explain_outside(image: ImagePlace, table: Table, run: Finished) -> Iterator[str]:
    """Of a curated or held-out image: the pool images that went because of it."""
    if is_rejected(run, image):
        yield "not compared, since it was rejected: copies of it may be in the result"
        return
    told = run.rows_where(table, "partner_id", image.image_id)
    gone = [row["image_id"] for row in told if row["verdict"] in ("duplicate", "benchmark", "screened")]
    heldout = image.role == "heldout"
    if len(gone) == 1:
        because = "its group touches it" if heldout else "its group consists of copies of it"
    else:
        because = "their groups touch it" if heldout else "their groups are copies of it"
    yield f"{plural(len(gone), 'pool image')} dropped, as {because}"
    yield from run.name_images(gone)


def _explain_verdict(image: ImagePlace, row: dict[str, Any], table: Table, run: Finished) -> Iterator[str]:
    group = run.rows_where(table, "component_id", row["component_id"])
    num_kept = sum(member["verdict"] == "kept" and member["partner_id"] is None for member in group)
    if row["partner_id"] is None:
        yield _explain_alone(row, num_kept)
    else:
        heldout = run.has_role(np.array([row["partner_id"]]), "heldout")[0]
        told = {"kept": "kept by your decision, though", "dropped": "dropped by your decision, and"}
        told["screened"] = "left out since a rule takes copies too:"
        begin = told.get(row["verdict"], f"dropped as {row['verdict']}:")
        yield f"{begin} {_because(row, num_kept, heldout=heldout)} {run.name_image(row['partner_id'])}"
        yield _explain_evidence(row, table, run, heldout=heldout)
    others = [member["image_id"] for member in group if member["image_id"] != image.image_id]
    if others:
        yield f"its group has {plural(len(group), 'image')}; the others are"
        yield from run.name_images(others)


def _explain_alone(row: dict[str, Any], num_kept: int) -> str:
    """Of an image that goes for no other."""
    if row["verdict"] == "screened":
        return "left out by a rule; whatever is a copy of it is judged without it"
    if row["verdict"] == "dropped":
        return "dropped by your decision"
    if row.get("decision") == "represent":
        return "kept: it represents its group by your decision"
    return "kept" if num_kept == 1 else f"kept, as {num_kept} frames of its burst are"


def _because(row: dict[str, Any], num_kept: int, *, heldout: bool) -> str:
    """What the image that stays is to one that goes."""
    if heldout:
        return "its group touches the held-out image"
    if row["direct"]:
        return "a copy of"
    if row["verdict"] == "screened":
        return "its group holds"
    return "of the frames of its burst that stay, the nearest is" if num_kept > 1 else "its group is represented by"


def _explain_evidence(row: dict[str, Any], table: Table, run: Finished, *, heldout: bool) -> str:
    if not row["direct"]:
        found = "the bytes of" if row["kind"] == "sha256" else f"similarity {row['similarity']:.4f} by {row['kind']} to"
        return f"{found} another image of its group"
    if row["kind"] == "sha256":
        return "the bytes are the same"
    limit = _threshold(row["kind"], table, run, heldout=heldout)
    needed = "" if limit is None else f", the threshold is {limit:g}"
    return f"similarity {row['similarity']:.4f} by {row['kind']}{needed}"


def _threshold(kind: str, table: Table, run: Finished, *, heldout: bool) -> float | None:
    """Least similarity of a pair of this kind, by the stage that found such pairs; None: that stage is not known."""
    for pairs in run.inputs_of(table, "neighbors"):
        if run.sample(pairs, ["kind"], max_rows=1).rows["kind"].to_pylist()[:1] == [kind]:
            stage = run.stage_of(pairs)
            if isinstance(stage, DoubtCrowds):  # it passes on what a search found
                stage = next((run.stage_of(given) for given in run.inputs_of(pairs, "neighbors")), None)
            found: float | None = getattr(stage, "heldout_threshold" if heldout else "threshold", None)
            return found
    return None
