"""Retrieve: the pool images that resemble each curated set, by sample and by cluster."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from curate.config import Execution, Settings
from curate.engine.cost import PASS_ROWS, Assumptions, Demand, Shape, Shapes, catalog_parts
from curate.engine.demands import folded, one_process
from curate.engine.figures import Figures
from curate.engine.finished import Finished, ImagePlace, pick
from curate.engine.image_ids import Parts
from curate.engine.numbers import plural
from curate.engine.show import Block, Gallery, Heading, Numbers, Pages, Picture, Section, Text
from curate.engine.stage import Batches, Fold, Input, whole
from curate.engine.table import Table
from curate.engine.tallies import Tally, tally_batch
from curate.stages.clusters.leaves import count_leaves
from curate.stages.selection.by_cluster import SET_LIMITS, ByCluster, ClusterRoute
from curate.stages.selection.by_sample import BySample, rows_by_sample
from curate.stages.selection.retrieved import ORIGINS, curated_sets, in_order
from curate.tables import ASSIGNMENTS, CATALOG, NEAREST, POOL, RETRIEVED

NUM_QUERIES, NUM_SHOWN = 18, 24
"""Queries of each route that the report shows, and pool images beside each."""
PASSES = 3
"""Times that one process reads the assignments where clusters are drawn from: to count, and twice to draw."""
LIMIT_BYTES = 20
"""Bytes of what was drawn of a leaf."""
ROW_BYTES = 10
"""Bytes of a row of `retrieved`."""
TITLES = {
    "sample": ("By sample", "The nearest pool images of a query, with their cosine to it."),
    "cluster": (
        "By cluster",
        "Images of a cluster that enough queries fell into, with their cosine to its centroid. The query shown is the "
        "one nearest to that centroid.",
    ),
}


class RouteCount(Settings):
    """What one curated set retrieved by one route."""

    retrieved: int
    """Rows: an image that several queries found counts for each."""
    unique: int
    """Images."""


class RetrieveFigures(Figures):
    """Unique images beside the total, by curated set and route."""

    unique: int
    """Images that any set retrieved by any route."""
    sets: dict[str, RouteCount]
    """By SET/ROUTE, in alphabetical order."""


class RetrieveTally(Tally):
    """Rows and images of one part, counted as a whole; no image is in two parts."""

    unique: int = 0
    """Images."""
    retrieved: dict[str, int] = Field(default_factory=dict)
    """Rows by SET/ROUTE."""
    unique_by_route: dict[str, int] = Field(default_factory=dict)
    """Images by SET/ROUTE."""

    @classmethod
    def of_part(cls, rows: pa.Table) -> Self:
        """From all rows of a part."""
        counts = [("image_id", "count"), ("image_id", "count_distinct")]
        found = {
            f"{row['set']}/{row['origin']}": (row["image_id_count"], row["image_id_count_distinct"])
            for row in rows.group_by(["set", "origin"]).aggregate(counts).to_pylist()
        }
        return cls(
            unique=pc.count_distinct(rows["image_id"]).as_py(),
            retrieved={name: number for name, (number, _) in found.items()},
            unique_by_route={name: number for name, (_, number) in found.items()},
        )


class Retrieve(Fold):
    """Chooses pool images for each curated source; large sources by sample, small ones by cluster.

    `combine` keeps a few numbers for each leaf that a set hit, in one process that passes over the assignments; `run`
    writes what was retrieved of one pool part, from the part's own assignments and its part of `nearest`, which
    `GroupByImage` makes.
    """

    inputs: ClassVar[dict[str, Input]] = {
        "catalog": whole(CATALOG),
        "nearest": whole(NEAREST, optional=True),
        "assignments": whole(ASSIGNMENTS),
    }
    version: ClassVar[int] = 2
    tally: ClassVar[type[Tally] | None] = RetrieveTally
    parts_like: ClassVar[str | None] = "catalog"
    explained_as: ClassVar[str] = "retrieved"

    route: Literal["auto", "sample", "cluster", "both"] = "auto"
    """How curated sources retrieve; auto: by sample where a source has more than `sample_min_images`, else by cluster;
    both: the union of both ways."""
    sample_min_images: int = 1_000_000
    """Images above which a curated source counts as large; the default is the paper's."""
    sample: BySample = BySample()
    """Settings of retrieval by sample."""
    cluster: ByCluster = ByCluster()
    """Settings of retrieval by cluster."""
    seed: int | None = None
    """Seed of the random order in which clusters give their images; null: the seed of the run."""
    max_bytes: Annotated[int, Field(ge=1), Execution()] = 1 << 30
    """Working memory of the draws in bytes; less means more passes over the assignments."""

    def output_schema(self, **inputs: Any) -> pa.Schema:
        if inputs["nearest"] is None and self.route != "cluster":
            raise self.field_error("route", f"={self.route}: needs the neighbors of each query; give `nearest`")
        return RETRIEVED

    def state_schema(self, **inputs: Any) -> pa.Schema:
        return SET_LIMITS

    def resolve(self, previous: Mapping[str, Any] | None = None, **inputs: Any) -> Self:
        parts = Parts.of(inputs["catalog"])
        self._check_names(set(curated_sets(parts)))
        pool = [part for part in inputs["assignments"].parts() if parts.role[part.number] == POOL]
        left = sum(part.rows for part in pool)
        self._check_k(left)
        if self.route == "sample":
            return self
        filled = 0
        if self.cluster.per_cluster == "auto":  # the driver reads 4 bytes an image
            filled = int(np.count_nonzero(count_leaves(inputs["assignments"], [part.number for part in pool])))
        return self.model_copy(update={"cluster": self.cluster.with_caps(left, filled)})

    def _check_names(self, known: set[str]) -> None:
        unknown = self.sample.k_per_set.keys() - known
        if unknown:
            text = f": {sorted(unknown)[0]!r} is no curated source; they are {sorted(known)}"
            raise self.sample.field_error("k_per_set", text)

    def _check_k(self, left: int) -> None:
        """Raise ConfigError where more images are asked for than the pool has left."""
        given = {f"k_per_set.{name}": k for name, k in self.sample.k_per_set.items()}
        if self.sample.k != "auto":
            given["k"] = self.sample.k
        field = max(given, key=given.__getitem__, default=None)
        if self.route != "cluster" and field is not None and given[field] > left:
            text = f"={given[field]}: {left} pool images are left; set it to {left} or less"
            text += ", or to auto" if field == "k" else ""
            raise self.sample.field_error(field, text)

    # -- the rows --------------------------------------------------------------------------------------------

    def combine(self, partials: Table | None, **tables: Any) -> Batches:
        route = self._cluster_route(tables)
        yield from route.limits(self._sets_by("cluster", route.parts), max_bytes=self.max_bytes)

    def run(self, part: int, state: pa.Table, **tables: Any) -> Batches:
        route, nearest = self._cluster_route(tables), tables["nearest"]
        parts = route.parts
        if parts.role[part] != POOL:
            return
        found = [RETRIEVED.empty_table()]
        by_sample = {name: self.sample.k_of(name) for name in self._sets_by("sample", parts)}
        if nearest is not None and by_sample:
            found.append(rows_by_sample(part, by_sample, parts, nearest))
        found += route.rows(part, self._sets_by("cluster", parts), state)
        rows = in_order(pa.concat_tables(found))
        yield tally_batch(RetrieveTally.of_part(rows), RETRIEVED)
        yield from rows.to_batches()

    def _cluster_route(self, tables: Mapping[str, Any]) -> ClusterRoute:
        return ClusterRoute(self.cluster, self.seed or 0, tables["assignments"], Parts.of(tables["catalog"]))

    def _sets_by(self, route: str, parts: Parts) -> list[str]:
        """Curated sources that retrieve by this route, in the order of the config."""
        sizes = {name: int(parts.rows[numbers].sum()) for name, numbers in curated_sets(parts).items()}
        return [name for name, num_images in sizes.items() if route in self._routes(num_images)]

    def _routes(self, num_images: int) -> tuple[str, ...]:
        """The routes of a curated source of so many images."""
        if self.route == "auto":
            return ("sample",) if num_images > self.sample_min_images else ("cluster",)
        return ORIGINS if self.route == "both" else (self.route,)

    def summarize(self, table: Table, **inputs: Any) -> RetrieveFigures:
        found = RetrieveTally.of(table)
        sets = {
            name: RouteCount(retrieved=number, unique=found.unique_by_route[name])
            for name, number in sorted(found.retrieved.items())
        }
        return RetrieveFigures(unique=found.unique, sets=sets)

    def rows_in(self, figures: Figures, **inputs: Any) -> int | None:
        rows: int = inputs["assignments"].num_rows()
        return rows

    # -- telling about it ------------------------------------------------------------------------------------

    def cost(self, inputs: Shapes, given: Assumptions) -> tuple[Demand, Shape]:
        """Each set asks for as many images as it has, or as were found near them.

        Where clusters are drawn from, one process passes over the assignments to count and to draw.
        """
        leaves, near = inputs["assignments"], inputs.get("nearest")
        found = 0 if near is None else near.rows
        asked = min(2 * max(given.curated, found), leaves.rows)
        made = Shape(pool=asked, row_bytes=ROW_BYTES, parts=catalog_parts(inputs), columns=5)
        passes = PASSES if self.route != "sample" else 0
        demand = Demand(
            rows=leaves.rows + found,
            serial_rows=passes * PASS_ROWS * leaves.rows,
            written=made.num_bytes,
            memory=self.max_bytes,
        )
        hit = min(leaves.lists, given.curated / (1 + self.cluster.min_queries))  # the others have no row in the state
        limits = Shape(pool=hit if passes else 0, row_bytes=LIMIT_BYTES, columns=6)
        alone = one_process([leaves.scanned(passes)])
        read = [leaves.scanned(passes > 0), *([] if near is None else [near.scanned()])]
        return Demand.phases([demand, alone, *read, folded(None, limits, made)]), made

    def show(self, table: Table, run: Finished) -> Iterator[Section]:
        counts = RetrieveFigures.of(table).sets
        head = ("curated set, route", "retrieved", "unique", "times each was found")
        rows = tuple(
            (name, found.retrieved, found.unique, f"{found.retrieved / max(1, found.unique):.2f}")
            for name, found in counts.items()
        )
        sample = run.sample(table, RETRIEVED.names)
        blocks: list[Block] = [Numbers(head, rows)]
        if sample.note:
            blocks.append(Text(sample.note))
        yield Section("Retrieved", (*blocks, *(block for name in ORIGINS for block in _route(run, sample.rows, name))))

    def explain(self, image: ImagePlace, table: Table, run: Finished) -> Iterator[str]:
        if image.role == "curated":
            rows = run.rows_where(table, "query_id", image.image_id)
            ids = [row["image_id"] for row in rows if row["origin"] == "sample"]
            yield f"asked for {plural(len(ids), 'pool image')} by sample"
            yield from run.name_images(ids)
            return
        for row in run.rows_of(image, table):
            how = "to it" if row["origin"] == "sample" else "to the centroid of their cluster"
            query = run.name_image(row["query_id"])
            yield f"by {row['origin']}, set {row['set']}: {query}, {row['similarity']:.4f} {how}"


def _route(run: Finished, rows: pa.Table, origin: str) -> Iterator[Block]:
    """Some queries of a route, each with the images that it retrieved."""
    rows = rows.filter(pc.equal(rows["origin"], origin))
    if len(rows) == 0:
        return
    title, text = TITLES[origin]
    yield Heading(title)
    yield Text(text)
    asked = np.unique(rows["query_id"].to_numpy())
    queries = pick(asked, NUM_QUERIES, run.rng(f"retrieved {origin}"))
    galleries = tuple(_query(query, rows.filter(pc.equal(rows["query_id"], query))) for query in queries.tolist())
    yield Pages(galleries, more=len(asked) - len(galleries))


def _query(query: int, rows: pa.Table) -> Gallery:
    ordered = rows.sort_by([("similarity", "descending"), ("image_id", "ascending")])
    shown = ordered.slice(0, NUM_SHOWN).to_pylist()
    first = Picture(query, ("query",), "query")
    others = [Picture(row["image_id"], (f"{row['similarity']:.3f}",)) for row in shown]
    return Gallery((first, *others), more=len(rows) - len(shown), group=True)
