"""DrawMap: a sample of what was embedded in two dimensions, for the map of the report."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from curate.engine.cost import ID_BYTES, Assumptions, Demand, Shape, Shapes
from curate.engine.demands import folded, grouped
from curate.engine.finished import Finished
from curate.engine.image_ids import Parts, part_of
from curate.engine.numbers import plural
from curate.engine.show import Coloring, PointMap, Section, Text
from curate.engine.stage import Batches, Fold, Input, num_groups, parts_of_group, scan_partials, whole
from curate.engine.table import Table
from curate.ops.random_keys import random_keys
from curate.ops.selection.projection import project_pca, project_umap
from curate.ops.vectors import VectorSpec, normalize, to_float32, unpack
from curate.tables import ASSIGNMENTS, CATALOG, CURATED, DUPLICATES, MAP, POOL, ROLES, SELECTION, VECTORS

SAMPLED = pa.schema(
    [
        pa.field("key", pa.uint64(), nullable=False),
        *(field for field in MAP if field.name not in ("x", "y")),
        pa.field("vector", pa.binary(), nullable=False),
    ]
)
"""Images of a sample, with (D,) float32 of unit norm, and their random keys: those of the smallest keys stay."""
NUM_COLORED = 10
"""Clusters, or sources, that have a color of their own: those of most points."""
VERDICT_BYTES, LEAF_BYTES = 2.5, 4
"""Bytes of a row's id with its verdict, and with its cluster."""
VERDICTS = {
    "selected": "selected",
    "kept": "not selected",
    "duplicate": "kept out as a copy",
    "benchmark": "kept out for a held-out image",
    "dropped": "kept out by your decision",
    "screened": "kept out by a rule",
    "curated": "curated, not selected",
}
"""Verdicts of the map as the report calls them."""
HOW = {
    "pca": "Laid out by PCA: the two directions in which the images differ most.",
    "umap": "Laid out by UMAP: images near each other are alike; how far others are from each other tells little.",
}


class DrawMap(Fold):
    """A random sample of the embedded images, projected to two dimensions, with what became of each.

    Vectors are read once, by groups of parts. Memory: the sample and one part.
    """

    inputs: ClassVar[dict[str, Input]] = {
        "embeddings": whole(VECTORS),
        "catalog": whole(CATALOG),
        "duplicates": whole(DUPLICATES),
        "assignments": whole(ASSIGNMENTS, optional=True),
        "selection": whole(SELECTION, optional=True),
    }

    num_images: Annotated[int, Field(ge=2, le=20_000)] = 1500
    """Images of the map."""
    projection: Literal["pca", "umap"] = "pca"
    """How vectors become points. pca: the two directions in which they differ most; umap: neighbors stay neighbors, by
    the package of the extra `map`."""
    seed: int | None = None
    """Seed of the sample; null: the seed of the run."""

    def output_schema(self, **inputs: Any) -> pa.Schema:
        return MAP

    def state_schema(self, **inputs: Any) -> pa.Schema:
        return MAP

    def partial_schema(self, **inputs: Any) -> pa.Schema:
        return SAMPLED

    def num_partials(self, **inputs: Any) -> int:
        return num_groups(len(inputs["embeddings"].parts()))

    def partial(self, group: int, *, catalog: Table, **tables: Table | None) -> Batches:
        """The images of the smallest keys among those of some parts."""
        parts = Parts.of(catalog)
        found = SAMPLED.empty_table()
        for part in parts_of_group(group, len(parts.role)):
            if parts.role[part] in (POOL, CURATED):
                found = self._smallest([found, self._of_part(part, ROLES[parts.role[part]], tables)])
        yield from found.combine_chunks().to_batches()

    def _smallest(self, tables: list[pa.Table]) -> pa.Table:
        return pa.concat_tables(tables).sort_by("key").slice(0, self.num_images)

    def _of_part(self, part: int, role: str, tables: dict[str, Table | None]) -> pa.Table:
        """The rows of `SAMPLED` of one part."""
        embeddings = tables["embeddings"]
        assert embeddings is not None
        rows = embeddings.read(part)
        spec = VectorSpec.of(rows.schema)
        stored, valid = unpack(rows["vector"], spec)
        ids = rows["image_id"].to_numpy()[valid]
        keys = random_keys(ids, seed=self.seed or 0, purpose="map")
        first = np.sort(np.argsort(keys, kind="stable")[: self.num_images])
        x = normalize(to_float32(stored[first], spec))
        columns = {
            "key": pa.array(keys[first]),
            "image_id": pa.array(ids[first]),
            "cluster": _looked_up(ids[first], tables["assignments"], part, "cluster_id"),
            "verdict": _verdicts(ids[first], role, part, tables),
            "vector": pa.array([row.tobytes() for row in x], pa.binary()),
        }
        return pa.table({name: columns[name] for name in SAMPLED.names}).cast(SAMPLED)

    def combine(self, partials: Table | None, **tables: Any) -> Batches:
        assert partials is not None
        found = SAMPLED.empty_table()
        for rows in scan_partials(partials):
            found = self._smallest([found, rows])
        found = found.sort_by("image_id")
        vectors = [np.frombuffer(vector, np.float32) for vector in found["vector"].to_pylist()]
        x = np.stack(vectors) if vectors else np.empty((0, 2), np.float32)
        places = project_umap(x, seed=self.seed or 0) if self.projection == "umap" else project_pca(x)
        for name, column in (("x", 0), ("y", 1)):
            found = found.append_column(MAP.field(name), pa.array(places[:, column]))
        yield from found.select(MAP.names).combine_chunks().cast(MAP).to_batches()

    # -- telling about it ------------------------------------------------------------------------------------

    def cost(self, inputs: Shapes, given: Assumptions) -> tuple[Demand, Shape]:
        """Of the vectors all columns are read, of what tells of them those alone that are shown."""
        vectors, judged = inputs["embeddings"], inputs["duplicates"]
        leaves, chosen = inputs.get("assignments"), inputs.get("selection")
        size, groups = min(self.num_images, vectors.rows), grouped(vectors)
        made = Shape(pool=size, row_bytes=ID_BYTES + 2 * 4 + 3)
        sampled = Shape(pool=min(groups * self.num_images, vectors.rows), row_bytes=4 * vectors.dim + 18, parts=groups)
        read = [vectors.scanned(), judged.scanned(share=min(1, VERDICT_BYTES / max(1, judged.row_bytes)))]
        read += [] if leaves is None else [leaves.scanned(share=min(1, LEAF_BYTES / max(1, leaves.row_bytes)))]
        read += [] if chosen is None else [chosen.scanned(share=min(1, ID_BYTES / max(1, chosen.row_bytes)))]
        small = min(size, vectors.dim)
        demand = Demand(
            rows=vectors.rows,
            serial_products=2 * size * vectors.dim * small + 10 * small**3,
            memory=2 * self.num_images * vectors.dim * 4,
        )
        return Demand.phases([demand, *read, folded(sampled, made, made)]), made

    def show(self, table: Table, run: Finished) -> Iterator[Section]:
        rows = table.read_all()
        if len(rows) < 2:
            return
        ids = rows["image_id"].to_numpy()
        clusters = [None if one is None else f"cluster {one}" for one in rows["cluster"].to_pylist()]
        verdicts = [self._verdict(one, run, table) for one in rows["verdict"].to_pylist()]
        sources = [run.parts.source[part] for part in part_of(ids).tolist()]
        found = (("verdict", verdicts), ("cluster", clusters), ("source", sources))
        colorings = [coloring(name, values) for name, values in found if len(set(values)) > 1 or name == "verdict"]
        points = PointMap(ids, rows["x"].to_numpy(), rows["y"].to_numpy(), tuple(colorings))
        named = ", ".join(vectors.name for vectors in run.inputs_of(table, "embeddings"))
        which = "A random sample of" if len(rows) == self.num_images else "All"
        text = f"{which} {plural(len(rows), 'image')} of {named}, a point each. {HOW[self.projection]}"
        yield Section("Map", (Text(text), points), first=True)

    def _verdict(self, verdict: str, run: Finished, table: Table) -> str:
        """A verdict in words: where nothing was selected yet, what is kept stays."""
        return "kept" if verdict == "kept" and not run.inputs_of(table, "selection") else VERDICTS[verdict]


def coloring(name: str, values: Sequence[str | None]) -> Coloring:
    """The most frequent values as labels, the most frequent first; of equal ones the first by name."""
    numbers = Counter(value for value in values if value is not None)
    labels = sorted(numbers, key=lambda value: (-numbers[value], value))[:NUM_COLORED]
    codes = {label: code for code, label in enumerate(labels)}
    return Coloring(name, tuple(labels), np.array([codes.get(value or "", -1) for value in values], np.int64))


def _looked_up(ids: np.ndarray, table: Table | None, part: int, column: str) -> pa.Array:
    """The values of a column for images of one part; null where the table has no row of them."""
    if table is None:
        return pa.nulls(len(ids))
    rows = table.read(part, ["image_id", column]).combine_chunks()
    return rows[column].take(pc.index_in(pa.array(ids), value_set=rows["image_id"]))


def _verdicts(ids: np.ndarray, role: str, part: int, tables: Mapping[str, Table | None]) -> pa.Array:
    """What became of images of one part."""
    if role == ROLES[POOL]:
        judged = pc.fill_null(_looked_up(ids, tables["duplicates"], part, "verdict"), "kept")
    else:
        judged = pa.array([role] * len(ids), pa.string())
    selected = pc.is_valid(_looked_up(ids, tables["selection"], part, "repeats"))
    return pc.if_else(selected, "selected", judged)
