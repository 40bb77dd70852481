"""ReadOrigin: what a picture and its server say of its use and its making.

Owners reserve their rights in several ways, and whoever publishes a data set is expected to look for all that machines
can read: headers of the server (`noai`, `TDM-Reservation`), a column of the list, the XMP in the file, and Content
Credentials where their package is asked for. What is found stands in the columns, so that rules and `where` may speak
of it. A picture without a word on the matter has nulls: silence is no permission, and none is read into it.
"""

from collections.abc import Iterator
from typing import Any, ClassVar, Self

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from curate.engine.cost import ID_BYTES, Assumptions, Demand, Shape, Shapes
from curate.engine.figures import Figures
from curate.engine.finished import Finished, ImagePlace
from curate.engine.numbers import count, plural
from curate.engine.table import Table
from curate.engine.tallies import Tally
from curate.ops.images.credentials import Credentials, package_version
from curate.ops.images.decoding import read_picture_credentials
from curate.ops.images.embedded import BY_MODEL, read_embedded
from curate.sources.reservations import reservation_of_columns
from curate.stages.images.pictures import Seen
from curate.stages.screening.scoring import PictureScores
from curate.tables import score

OPTED_OUT = "opted_out"
"""The column of scores that says what was found, and the reason of such a reject."""
REFUSED = ("notAllowed", "constrained")
"""Words of Content Credentials on training that keep a picture out: without its terms, a constraint is not met."""
ROW_BYTES = 2
"""Bytes of a row: most say nothing."""


class OriginTally(Tally):
    """What a part adds to the figures."""

    columns: ClassVar[tuple[str, ...]] = (OPTED_OUT, "made_by_model", "digital_source_type")

    reserved: dict[str, int] = Field(default_factory=dict)
    """Images by the way in which their rights are reserved."""
    opted_out: int = 0
    """Images that anybody reserved."""
    by_model: int = 0
    """Images that say a model made them."""
    told: int = 0
    """Images that say how they were made."""

    @classmethod
    def count(cls, rows: pa.Table) -> Self:
        found = rows[OPTED_OUT].drop_null().to_pylist()
        ways: dict[str, int] = {}
        for text in found:
            for way in dict.fromkeys(one.partition(":")[0].strip() for one in text.split("; ")):
                ways[way] = ways.get(way, 0) + 1
        by_model = pc.sum(rows["made_by_model"].cast(pa.int64())).as_py() or 0
        told = len(rows) - rows["digital_source_type"].null_count
        return cls(reserved=ways, opted_out=len(found), by_model=by_model, told=told)


class OriginFigures(Figures):
    """What was found, over all images."""

    images: int
    opted_out: int
    reserved: dict[str, int]
    by_model: int
    told: int


class ReadOrigin(PictureScores):
    """Reads reservations of rights and how a picture was made, in the pass that decodes it."""

    tally: ClassVar[type[Tally] | None] = OriginTally
    explained_as: ClassVar[str] = "origin"

    c2pa: bool = False
    """Whether to read Content Credentials (C2PA) too, which needs the package c2pa-python."""

    def columns(self) -> list[pa.Field]:
        found = [
            score(OPTED_OUT, pa.string(), "how its owner reserved the use for training, in words; null: nothing found"),
            score("digital_source_type", pa.string(), "IPTC code of how it was made, as it says; null: it does not"),
            score("made_by_model", pa.bool_(), "whether it says that a trained model made it; null: it says nothing"),
        ]
        if self.c2pa:
            model = "c2pa-python"
            found += [
                score(
                    "c2pa_signature",
                    pa.string(),
                    "valid (whoever signed), trusted, invalid or unreadable; null: no Content Credentials",
                    model=model,
                ),
                score("c2pa_generator", pa.string(), "program or device that made the claim", model=model),
                score("c2pa_signer", pa.string(), "organization of the certificate, as it says itself", model=model),
                score(
                    "c2pa_training",
                    pa.string(),
                    "allowed, constrained or notAllowed: the strictest word on training and data mining; null: none",
                    model=model,
                ),
            ]
        return found

    def score_names(self) -> tuple[str, ...]:
        return tuple(field.name for field in self.columns())

    def pins(self) -> dict[str, str]:
        return {"c2pa-python": package_version()} if self.c2pa else {}

    def prepare(self, seen: Seen) -> dict[str, Any]:
        data = seen.read.data
        told = [seen.read.reserved, reservation_of_columns(seen.read.extra)]
        if data is None:
            return {OPTED_OUT: _joined(told)}
        embedded = read_embedded(data)
        found = None
        if self.c2pa and seen.inspected is not None:
            found = read_picture_credentials(data, seen.inspected.format)
        kind = _source_type(found, embedded.source_type)
        told += [embedded.reserved, _refusal(found)]
        made = None if kind is None else kind in BY_MODEL
        row = {OPTED_OUT: _joined(told), "digital_source_type": kind, "made_by_model": made}
        if found is not None:
            row |= {f"c2pa_{name}": getattr(found, name) for name in ("signature", "generator", "signer", "training")}
        return row

    def summarize(self, table: Table, **inputs: Any) -> OriginFigures:
        found = OriginTally.of(table)
        return OriginFigures(images=table.num_rows(), **found.model_dump())

    def cost(self, inputs: Shapes, given: Assumptions) -> tuple[Demand, Shape]:
        listed: Shape = inputs["catalog"]
        made = listed._replace(row_bytes=ID_BYTES + ROW_BYTES, columns=1 + len(self.columns()), widths={})
        return Demand(written=made.num_bytes).with_reading(made.rows, given), made

    def facts(self, table: Table, run: Finished, *, digits: int = 12) -> Iterator[tuple[str, str]]:
        found = OriginFigures.of(table)
        where = ["headers of servers", "columns of lists", "XMP of pictures"] + ["C2PA"] * self.c2pa
        ways = ", ".join(f"{way}: {count(number)}" for way, number in found.reserved.items())
        told = f"{plural(found.opted_out, 'image')} of {count(found.images)}{f' ({ways})' if ways else ''}"
        yield "Opt-outs", f"looked for in {', '.join(where)}: {told}"
        yield "Made by models", f"{plural(found.by_model, 'image')} of {count(found.told)} that say how they were made"

    def explain(self, image: ImagePlace, table: Table, run: Finished) -> Iterator[str]:
        for row in run.rows_of(image, table):
            if row[OPTED_OUT] is not None:
                yield f"its use for training is reserved: {row[OPTED_OUT]}"
            if row["digital_source_type"] is not None:
                yield f"made as {row['digital_source_type']}, as it says itself"
            if row.get("c2pa_signature") is not None:
                yield f"Content Credentials of {row['c2pa_signer'] or 'nobody named'}: {row['c2pa_signature']}"


def _source_type(found: Credentials | None, embedded: str | None) -> str | None:
    """The code of Content Credentials, or of the XMP; one that says a model made it comes first."""
    told = [kind for kind in (found and found.source_type, embedded) if kind]
    return next((kind for kind in told if kind in BY_MODEL), told[0] if told else None)


def _refusal(found: Credentials | None) -> str | None:
    return f"c2pa training: {found.training}" if found is not None and found.training in REFUSED else None


def _joined(texts: list[str | None]) -> str | None:
    return "; ".join(text for text in texts if text) or None
