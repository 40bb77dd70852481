"""CountOrigins: of which sources and domains the images of the shards are, and which license and author they state.

What a publisher is asked first, and what the public summary of training content asks for (European Union, Regulation
2024/1689, article 53 (1)(d)): counted shard by shard from the sources' own columns, whatever they say. Domains are a
stranger's text and may be as many as images: of each kind of count the most frequent names stay, and what was let go is
counted as one.
"""

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, NamedTuple, Self

import pyarrow as pa

from curate.engine.cost import Assumptions, Demand, Shape, Shapes
from curate.engine.demands import folded
from curate.engine.figures import Figures
from curate.engine.finished import Finished
from curate.engine.numbers import count
from curate.engine.show import Numbers, Section, Text
from curate.engine.stage import Batches, Fold, Input, each, scan_partials
from curate.engine.table import Table
from curate.sources.attribution import TOLD, UNKNOWN, Known
from curate.stages.selection.list_rows import SHARD
from curate.tables import ORIGINS, OWN_NAMES, SHARD_ROWS

MAX_NAMES = 1 << 16
"""Names of a kind that are counted at once; a shard, and the whole, keep half as many once there are more."""
NAMES, NAME_BYTES = 1000, 60
"""Rows of the counts of a shard at most, about, and their bytes."""
IMAGES_OF_A_NAME = 10
"""Images of a shard for each of these rows, about, where there are fewer."""
SHOWN = 15
"""Names that the report shows of each kind."""
TEXT = "text"
"""Name of the count of images that come with a caption or another text."""


class Counted(NamedTuple):
    """Images, and their bytes."""

    images: int = 0
    num_bytes: int = 0

    def plus(self, other: "Counted") -> "Counted":
        """Both together."""
        return Counted(self.images + other.images, self.num_bytes + other.num_bytes)


class Origins:
    """Counts by kind and name."""

    def __init__(self) -> None:
        self._found: dict[str, dict[str, Counted]] = {}

    def add(self, kind: str, name: str, counted: Counted) -> None:
        """Count images of a name; of a kind with too many names the rarest become one."""
        names = self._found.setdefault(kind, {})
        names[name] = names.get(name, Counted()).plus(counted)
        if len(names) > MAX_NAMES:
            kept = dict(_largest(names)[: MAX_NAMES // 2])
            for name_, one in names.items():
                if name_ not in kept:
                    self.add("not_counted", kind, one)
            self._found[kind] = kept

    def of(self, kind: str) -> list[tuple[str, Counted]]:
        """(name, counts) of a kind, most bytes first, equal ones in order of name."""
        return _largest(self._found.get(kind, {}))

    def get(self, kind: str, name: str = "") -> Counted:
        """The counts of one name."""
        return self._found.get(kind, {}).get(name, Counted())

    def rows(self) -> pa.Table:
        """All counts as rows of `tables.ORIGINS`, in order."""
        rows = [
            {"kind": kind, "name": name, **counted._asdict()}
            for kind in sorted(self._found)
            for name, counted in self.of(kind)
        ]
        return pa.Table.from_pylist(rows, schema=ORIGINS)

    @classmethod
    def of_rows(cls, tables: Iterator[pa.Table]) -> Self:
        """The sum of such rows."""
        found = cls()
        for rows in tables:
            for row in rows.to_pylist():
                found.add(row["kind"], row["name"], Counted(row["images"], row["num_bytes"]))
        return found


def _largest(names: Mapping[str, Counted]) -> list[tuple[str, Counted]]:
    return sorted(names.items(), key=lambda item: (-item[1].num_bytes, -item[1].images, item[0]))


class OriginFigures(Figures):
    """The counts that report and card tell without reading the table."""

    images: int
    """In the shards."""
    licenses: dict[str, int]
    """License to images, most bytes first; the first of them."""
    with_license: int
    """Images whose source states a license."""
    with_author: int
    """Images whose source names an author, or tells how to attribute it."""
    domains: dict[str, int]
    """Domain to images, most bytes first; the first of them."""
    with_domain: int
    """Images whose source tells a URL."""


class CountOrigins(Fold):
    """Counts sources, domains, licenses, attribution and years of the images in the shards."""

    inputs: ClassVar[dict[str, Input]] = {
        "shards": Input(SHARD, "each", as_table=True),
        "rows": each(pa.schema([SHARD_ROWS.field("num_bytes")])),
    }

    def output_schema(self, **inputs: Any) -> pa.Schema:
        return ORIGINS

    def partial_schema(self, **inputs: Any) -> pa.Schema:
        return ORIGINS

    def partial(self, part: int, *, shards: Table, rows: pa.Table) -> Batches:
        found, done = Origins(), 0
        sizes = rows["num_bytes"].to_pylist()
        with shards.open(part) as file:
            own = [name for name in file.schema_arrow.names if name not in OWN_NAMES]
            known = Known.among(own)
            for group in range(file.num_row_groups):
                images = file.read_row_group(group, columns=["source", *known.needed]).to_pylist()
                for row in images:
                    count_image(found, row, known, Counted(1, sizes[done]))
                    done += 1
        yield from found.rows().to_batches()

    def combine(self, partials: Table | None, **tables: Any) -> Batches:
        assert partials is not None
        yield from Origins.of_rows(scan_partials(partials)).rows().to_batches()

    def summarize(self, table: Table, **inputs: Any) -> OriginFigures:
        return figures_of(origins_of(table))

    def cost(self, inputs: Shapes, given: Assumptions) -> tuple[Demand, Shape]:
        shards: Shape = inputs["shards"]
        names = min(NAMES, shards.rows / shards.parts / IMAGES_OF_A_NAME)
        made = Shape(pool=names, row_bytes=NAME_BYTES, columns=len(ORIGINS))
        found = made._replace(pool=names * shards.parts, parts=shards.parts)
        own = Demand(rows=shards.rows, read=shards.rows * given.own_bytes)  # of the pictures nothing
        return Demand.phases([own, folded(found, made, made)]), made

    def show(self, table: Table, run: Finished) -> Iterator[Section]:
        figures = OriginFigures.of(table)
        if not figures.images:
            return
        text = (
            f"Of the images in the shards, the sources state in their own columns a license of "
            f"{_share(figures.with_license, figures.images)}, an author of "
            f"{_share(figures.with_author, figures.images)}, a web address of "
            f"{_share(figures.with_domain, figures.images)}. The rest is unknown. More in shards/SUMMARY.md."
        )
        blocks = [Text(text)]
        tables = [
            Numbers((title, "images", "share"), tuple((n, i, _share(i, figures.images)) for n, i in found.items()))
            for title, found in (("license", figures.licenses), ("domain", figures.domains))
            if found
        ]
        yield Section("Licenses and domains", (*blocks, *tables))


def count_image(found: Origins, row: Mapping[str, Any], known: Known, counted: Counted) -> None:
    """Count what an image's source says of it."""
    found.add("all", "", counted)
    found.add("source", row["source"] or UNKNOWN, counted)
    found.add("license", known.license(row), counted)
    found.add("domain", known.domain(row), counted)
    found.add("year", known.year(row), counted)
    for fact in TOLD:
        if known.value(row, fact) is not None:
            found.add("has", fact, counted)
    if known.value(row, "caption") is not None:
        found.add("has", TEXT, counted)


def origins_of(table: Table) -> Origins:
    """The counts of a complete table, which is small."""
    return Origins.of_rows(table.scan())


def figures_of(found: Origins) -> OriginFigures:
    """What report and card tell of them."""
    images = found.get("all").images
    return OriginFigures(
        images=images,
        licenses={name: one.images for name, one in found.of("license")[:SHOWN]},
        with_license=images - found.get("license", UNKNOWN).images,
        with_author=max((found.get("has", fact).images for fact in ("author", "attribution", "credit")), default=0),
        domains={name: one.images for name, one in found.of("domain")[:SHOWN] if name != UNKNOWN},
        with_domain=images - found.get("domain", UNKNOWN).images,
    )


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} % ({count(part)})" if whole else "none"
