"""Inspect: facts and a verdict for every image of the catalog."""

import json
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from curate.config import Execution, Settings
from curate.engine.cost import ID_BYTES, Assumptions, Demand, Shape, Shapes
from curate.engine.figures import Figures
from curate.engine.finished import Finished, ImagePlace, pick
from curate.engine.image_ids import Parts, part_of, row_of
from curate.engine.show import LIST_REJECTED, Beside, Blocks, Examples, FlowStep, Heading, Picture, Section, Text
from curate.engine.stage import Input, each
from curate.engine.table import Table
from curate.engine.tallies import Tally
from curate.errors import TooManyRejects, TooManyUnavailable
from curate.ops.images.hashes import HASH_BYTES, pdq
from curate.ops.images.inspect import ImageLimits, Inspected
from curate.sources.read import UNAVAILABLE, Read
from curate.sources.values import LEFT_OUT
from curate.stages.images.advice import advise
from curate.stages.images.few_bits import warn_of_few_bits
from curate.stages.images.image_tally import ImageTally
from curate.stages.images.pictures import PictureStage, Seen
from curate.tables import CATALOG, CURATED, HELDOUT, IMAGES, POOL, REJECT_REASONS, ROLES

WIDTHS = {
    "image_id": ID_BYTES,
    "sha256": 32,
    "num_bytes": 2.5,
    "width": 1.5,
    "height": 1.5,
    "pdq": HASH_BYTES,
    "pdq_quality": 1,
    "luma_std": 4,
    "smoothness": 4,
    "reject": 0.1,
}
"""Bytes of a row of `images` by column, beside those that depend on the images: the others take next to nothing."""
COLUMNS = 15
"""Columns of `images`."""
NUM_SHOWN = 48
"""Rejected images that the report shows of each reason."""
MEANING = {
    "unavailable": "kept away by an error that may pass: no verdict, the next run reads them again",
    "unreadable": "could not be had from its source",
    "empty": "no bytes",
    "not_an_image": "no known image format",
    "unsupported": "a known format, or a kind of one, that is not read",
    "too_large": "more pixels, bytes or memory to decode than allowed",
    "too_slow": "decoding takes more CPU time than allowed",
    "truncated": "the data end early",
    "corrupt": "the data do not decode",
    "extreme_aspect": "far taller than wide, or wider than tall",
    "too_small": "too few pixels on the short side",
    "uniform": "one color all over",
    "noise": "neighboring pixels are unrelated",
}


logger = logging.getLogger(__name__)


class LostImages(Settings):
    """Images of a role that could not be used, whatever the reason."""

    reasons: dict[str, int]
    """Reason to images, the most frequent first."""
    first: tuple[int, ...]
    """Ids of the first of them."""


class LeftOut(Settings):
    """Images whose own columns lost values of one kind."""

    images: int
    """How many."""
    example: str
    """Key of the first of them, with its source."""


class InspectFigures(Figures):
    """Verdicts, counted."""

    accepted: int
    """Images that were not rejected."""
    rejected: dict[str, dict[str, int]]
    """By role, then by reason: images, the most frequent reason first."""
    lost: dict[str, LostImages] = Field(default={})
    """By role, curated and heldout: images that are not there to compare with, or to add."""
    unavailable: dict[str, int] = Field(default_factory=dict)
    """By role: images that an error which may pass kept away; neither accepted nor rejected."""
    left_out: dict[str, LeftOut] = Field(default_factory=dict)
    """By kind of value (`curate.sources.values.LEFT_OUT`), the most frequent first."""

    def rejected_of(self, role: str) -> Counter[str]:
        """Reason to images of a role."""
        return Counter(self.rejected.get(role, {}))


class Inspect(PictureStage):
    """Reads and decodes each image: SHA-256, size, format, PDQ hash, quality figures, and why it is rejected."""

    inputs: ClassVar[dict[str, Input]] = {"catalog": each(CATALOG)}
    version: ClassVar[int] = 4
    leads: ClassVar[bool] = True
    tally: ClassVar[type[Tally] | None] = ImageTally
    explained_as: ClassVar[str] = "inspected"

    limits: ImageLimits = ImageLimits()
    """What an image of the pool must be. Curated and held-out images are used whatever their size, shape and content,
    within the limits of what decoding may cost."""
    decode_side: Annotated[int, Field(ge=64)] = 256
    """Pixels of the short side that decoding keeps at least: facts and hashes are those of the picture at that
    size, so it must suffice for every embedding of the pass. Smaller is faster for large JPEG files."""
    max_reject_fraction: Annotated[float, Field(ge=0, le=1), Execution()] = 0.5
    """Share of all images above which rejects stop the run."""

    def output_schema(self, **inputs: Any) -> pa.Schema:
        return IMAGES

    def first_pass(self) -> tuple[ImageLimits, int]:
        return self.limits, self.decode_side

    def prepare(self, seen: Seen) -> dict[str, Any]:
        hashed = None if seen.picture is None else pdq(seen.picture)
        within = None if seen.within_border is None else pdq(seen.within_border)[0]
        return image_row(seen.read, seen.inspected, hashed, within=within)

    def summarize(self, table: Table, **inputs: Any) -> InspectFigures:
        parts, tallies = Parts.of(inputs["catalog"]), ImageTally.by_part(table)
        by_role = {
            role: ImageTally.sum(tallies[part] for part in parts.numbers(number)) for number, role in enumerate(ROLES)
        }
        reasons = {role: Counter(found.rejected) for role, found in by_role.items()}
        unavailable = {role: count for role, found in reasons.items() if (count := found.pop(UNAVAILABLE, 0))}
        total, rows = sum(reasons.values(), Counter[str]()), table.num_rows()
        if rows and sum(unavailable.values()) == rows:
            raise TooManyUnavailable(
                f"{table.name}: none of {rows} images could be had ({_example(table)}); check the connection, then "
                "run the same command again: it reads them again"
            )
        pool = [part.number for part in table.parts() if parts.role[part.number] == POOL]
        listed = parts.num_images([ROLES[POOL]]) - unavailable.get(ROLES[POOL], 0)
        none_left = sum(reasons[ROLES[POOL]].values()) == listed > 0
        if none_left or total.total() > self.max_reject_fraction * rows:
            allowed = "so none of the pool is left" if none_left else f"more than {self._fraction()} allows"
            go_on = "" if none_left else f", or run again with {self.field_error('max_reject_fraction', '=1')}"
            raise TooManyRejects(
                f"{table.name}: {total.total()} of {rows} images were rejected ({dict(total.most_common())}), "
                f"{allowed}; "
                f"{'; '.join(advise(table, pool, self.limits))}; look at the columns reject and detail of "
                f"{table.store.root}/{table.name}{go_on}"
            )
        counted = {role: dict(found.most_common()) for role, found in reasons.items() if found}
        figures = InspectFigures(
            accepted=rows - total.total() - sum(unavailable.values()),
            rejected=counted,
            unavailable=unavailable,
            lost=_lost(by_role),
            left_out=_left_out(ImageTally.sum(tallies), inputs["catalog"]),
        )
        for text in _left_out_sentences(figures):
            logger.warning("%s: %s", table.name, text)
        return figures

    def _fraction(self) -> str:
        return str(self.field_error("max_reject_fraction", f"={self.max_reject_fraction}"))

    def cost(self, inputs: Shapes, given: Assumptions) -> tuple[Demand, Shape]:
        listed: Shape = inputs["catalog"]
        widths = {**WIDTHS, "pdq_within_border": given.bordered * HASH_BYTES, "extra": given.own_bytes}
        made = listed._replace(row_bytes=sum(widths.values()), columns=COLUMNS, widths=widths)
        return Demand(written=made.num_bytes).with_reading(made.rows, given), made

    def flow(self, table: Table, run: Finished, before: FlowStep | None) -> Iterator[FlowStep]:
        figures = InspectFigures.of(table)
        pool, curated = figures.rejected_of("pool"), figures.rejected_of("curated")
        away = figures.unavailable.get(ROLES[POOL], 0)
        listed = run.parts.num_images([ROLES[CURATED]]) or None
        reasons = [(reason.replace("_", " "), number) for reason, number in pool.most_common() if number]
        drops = (*reasons, *([("could not be had, an error that may pass", away)] if away else []))
        left = run.parts.num_images([ROLES[POOL]]) - sum(number for _, number in drops)
        lost = curated.total() + figures.unavailable.get(ROLES[CURATED], 0)
        yield FlowStep("usable", left, listed and listed - lost, drops, kept_out="as unusable", station=True)

    def facts(self, table: Table, run: Finished, *, digits: int = 12) -> Iterator[tuple[str, str]]:
        from curate.stages.images.usable import Usable  # it reads this stage's figures

        curated = Usable.of(run, "curated")
        if curated is not None and curated.lost:
            yield "Curated images", f"{curated.used} could be used; not {curated.why}"

    def warn(self, table: Table, run: Finished) -> Iterator[str]:
        """Of images that may yet come, and of trusted images that are missing: the result is not what these are for."""
        from curate.stages.images.usable import Usable

        away = sum(InspectFigures.of(table).unavailable.values())
        if away:
            yield (
                f"{away:,} of {table.num_rows():,} images could not be had: a server or disk kept them away. They are "
                "no part of this result; the same command reads exactly these again"
            )
        mend = f"Mend or remove these files, then run again with --rebuild {table.name}"
        heldout, curated = Usable.of(run, "heldout"), Usable.of(run, "curated")
        if heldout is not None and heldout.lost:
            yield (
                f"{heldout.used} could be compared with the pool, so the result may hold copies of the others "
                f"({heldout.why}). {mend}."
            )
        if curated is not None and curated.lost:
            yield f"{curated.used} could be used; the others are not in the result ({curated.why}). {mend}."
        yield from warn_of_few_bits(table, run)
        yield from (f"{table.name}: {text}" for text in _left_out_sentences(InspectFigures.of(table)))

    def show(self, table: Table, run: Finished) -> Iterator[Section]:
        figures = InspectFigures.of(table)
        total: Counter[str] = sum(map(Counter, figures.rejected.values()), Counter[str]())
        total[UNAVAILABLE] = sum(figures.unavailable.values())
        total = +total
        if not total:
            return
        rows = run.sample(table, ["image_id", "reject", "detail"]).rows
        rows = rows.filter(rows["reject"].is_valid())
        reasons: list[Blocks] = []
        for reason in (reason for reason in REJECT_REASONS if total[reason]):
            mine = rows.filter(pc.equal(rows["reject"], reason))
            chosen = pick(np.arange(len(mine)), NUM_SHOWN, run.rng(f"dropped {reason}"))
            shown = [Picture(row["image_id"], (row["detail"] or "",)) for row in mine.take(chosen).to_pylist()]
            images = f"{total[reason]:,} image{'' if total[reason] == 1 else 's'}"
            title = Heading(f"{reason.replace('_', ' ')}: {images}")
            examples = Examples(tuple(shown), more=total[reason] - len(shown), rest=LIST_REJECTED)
            reasons.append((title, Text(MEANING[reason]), examples))
        yield Section("Kept out", (Beside(tuple(reasons)),))

    def why_open(self, table: Table, part: int, rows: Sequence[int]) -> list[str]:
        details: list[str] = table.read(part, ["detail"])["detail"].take(list(rows)).to_pylist()
        return details

    def explain(self, image: ImagePlace, table: Table, run: Finished) -> Iterator[str]:
        found = table.read(image.part).slice(image.place, 1).to_pylist()[0]
        if found["reject"] == UNAVAILABLE:
            yield f"not had yet: {found['detail']}; the next run reads it again"
        else:
            yield "accepted" if found["reject"] is None else f"rejected: {found['reject']}: {found['detail']}"
        size = f"{found['width']} x {found['height']}" if found["width"] is not None else "size unknown"
        length = f"{found['num_bytes']:,} bytes" if found["num_bytes"] is not None else "no bytes"
        yield f"{found['format'] or 'format unknown'}, {size}, {length}"
        if found["sha256"] is not None:
            yield f"sha256 {found['sha256'].hex()}"
        if found["left_out"]:
            yield f"left out of its own columns: {'; '.join(LEFT_OUT.get(kind, kind) for kind in found['left_out'])}"
        if found["extra"] is not None:
            yield f"own columns {found['extra']}"


def _lost(by_role: dict[str, ImageTally]) -> dict[str, LostImages]:
    """By role, the curated and held-out images without a picture."""
    return {
        role: LostImages(reasons=dict(Counter(found.rejected).most_common()), first=found.first_rejected)
        for role in (ROLES[CURATED], ROLES[HELDOUT])
        if (found := by_role[role]).rejected
    }


def _example(table: Table) -> str:
    """Why the first image of a table could not be had."""
    first = table.read(table.parts()[0].number, ["detail"])["detail"]
    return str(first[0].as_py()) if len(first) else "no reason"


def _left_out(found: ImageTally, catalog: Table) -> dict[str, LeftOut]:
    """Images and the first example by kind of value, the most frequent kind first; reads one part for each kind."""
    return {
        kind: LeftOut(images=number, example=_named(found.first_left_out[kind][0], catalog))
        for kind, number in Counter(found.left_out).most_common()
    }


def _named(image_id: int, catalog: Table) -> str:
    """Source and key of an image."""
    row = catalog.read(part_of(image_id), ["source", "key"]).slice(row_of(image_id), 1).to_pylist()[0]
    return f"{row['source']}: {row['key']}"


def _left_out_sentences(figures: InspectFigures) -> Iterator[str]:
    for kind, found in figures.left_out.items():
        images = f"{found.images:,} image{'' if found.images == 1 else 's'}"
        yield f"left out of the own columns of {images}: {LEFT_OUT.get(kind, kind)} ({kind}), as of {found.example}"


def image_row(
    read: Read, seen: Inspected | None, hashed: tuple[bytes, int] | None, *, within: bytes | None = None
) -> dict[str, Any]:
    """The columns of `tables.IMAGES` but the id.

    Args:
        seen: facts and verdict; None where the image could not be read.
        hashed: PDQ hash and its quality; None where there is no picture.
        within: PDQ hash of what a border surrounds; None where there is none.
    """
    extra = json.dumps(read.extra, ensure_ascii=False, sort_keys=True) if read.extra else None
    row = dict.fromkeys(IMAGES.names[1:]) | {"left_out": list(read.left_out) or None}
    if seen is None:
        return row | {"reject": read.reject, "detail": read.error, "extra": extra}
    facts = {name: getattr(seen, name) for name in IMAGES.names if hasattr(seen, name)}
    if hashed is not None:
        facts |= {"pdq": hashed[0], "pdq_quality": hashed[1], "pdq_within_border": within}
    return row | facts | {"extra": extra}
