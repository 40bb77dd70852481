"""BuildLists: vectors regrouped by their nearest coarse centroids, so that pairs are found one list at a time.

The difficulty of finding all similar pairs is that N images have N x N of them, and that neither all vectors nor an
index of them fit into the memory of one process. So vectors are grouped as in faiss's inverted file (IVF): each is
stored in the list of its nearest centroid and is also sent, as a query, to the `num_probes` lists nearest to it. Here
the queries are sent beside the stored vectors instead of being kept for later. A list with its queries is then a
join that needs nothing else (`FindNeighbors`): exact within the list, a matrix product on CPU or GPU, and each list is
read once. Searching query by query through an index took three times as long at equal recall
(`python -m benchmarks join`), and needs the whole index in memory.

Neighbors whose lists a query does not probe are lost. How many that are is measured on sampled queries, whose true
neighbors are known by brute force (`FindTruth`): half of them choose the smallest `num_probes` that reaches the wanted
recall, the other half judge it. Lists that are too large for one task are split, see `list_grid.py`.
"""

import math
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self

import numpy as np
import pyarrow as pa
from pydantic import Field

from curate.config import Execution
from curate.engine.cost import ID_BYTES, Assumptions, Demand, Shape, Shapes
from curate.engine.demands import Sent, by_process, one_process, shuffled
from curate.engine.image_ids import Parts
from curate.engine.shuffle import Scattered, partition, row_bytes
from curate.engine.stage import Batches, Input, Shuffle, each, whole
from curate.engine.store import Store
from curate.engine.table import Table
from curate.ops.clusters.coarse import CoarseLists, nearest_lists
from curate.ops.images.hashes import dihedral
from curate.ops.search.recall import choose_num_probes, list_rank
from curate.ops.vectors import pack, to_float32
from curate.stages.search.centroids import lists_of, num_leaves, read_lists
from curate.stages.search.list_grid import ListGrid
from curate.stages.search.pairs import read_pairs
from curate.stages.search.vectors import (
    HASHES,
    Role,
    Vectors,
    num_forms,
    read_vectors,
    read_views,
    vector_spec,
    vectors_shape,
)
from curate.tables import CATALOG, CENTROIDS, ROLES, TRUTH, VECTORS, lists_schema

ROWS_PER_PART = 262_144
"""Rows of a part of lists, stored vectors and queries together, at about which the cutting aims."""
AUTO_PROBES = 4
"""Lists that a query probes where nothing tells how many it takes."""
MAX_PROBES = 32
"""Lists that a query probes at most by `auto`."""
MIN_PAIRS = 50
"""True pairs that it takes to choose the number of probes."""
PLACED_BYTES, PLACE_BYTES = 13, 4
"""Bytes of an image id and a list in memory, and compressed."""
LISTS_SKEW = 2.0
"""Products within lists of uneven length, relative to those within lists of equal length."""
ROWS_AT_ONCE = 16_384
"""Rows that are sent to their lists together: 64 MB of vectors of 2,048 dimensions."""
GROUPS = 16
"""Groups of lists, about, with whose lists a vector is compared to find the nearest ones."""


class BuildLists(Shuffle):
    """Stores each vector in its list and sends it, as a query, to the lists nearest to it.

    An image within a border has two: its own, and one of what the border surrounds.
    """

    inputs: ClassVar[dict[str, Input]] = {
        "embeddings": each(VECTORS, optional=True),
        "hashes": each(HASHES, optional=True),
        "within": each(VECTORS, optional=True),
        "centroids": whole(CENTROIDS),
        "catalog": whole(CATALOG),
        "queries": whole(VECTORS, optional=True),
        "truth": whole(TRUTH, optional=True),
    }
    version: ClassVar[int] = 4

    stored: tuple[Role, ...] = ("pool", "curated")
    """Roles whose images the lists store, to be found."""
    queries: tuple[Role, ...] = ("pool", "curated", "heldout")
    """Roles whose images look for neighbors."""
    num_probes: int | Literal["auto"] = "auto"
    """Number of lists that a query probes; auto: the fewest that find `target_recall` of the pairs of sampled queries,
    or 4 where too few pairs are known, and for hashes; never more than there are."""
    target_recall: Annotated[float, Field(gt=0, lt=1)] = 0.985
    """Share of the pairs above the threshold that `num_probes: auto` aims at, 0..1."""
    dihedral: bool = True
    """Hashes only: an image also looks for its mirrored and turned copies."""
    borders: bool = True
    """Hashes only: an image within a border is also looked up without it."""
    max_list_rows: Annotated[int, Field(ge=1)] = ROWS_PER_PART
    """Largest number of images, about, that a list stores, and of queries that probe it. A larger list, such as that
    of a picture with millions of copies, is split into a grid of lists."""
    device: Annotated[str, Execution()] = "auto"
    """Where the nearest lists are searched: auto, cpu, cuda or cuda:N."""

    def output_schema(self, **inputs: Any) -> pa.Schema:
        spec = vector_spec(inputs["embeddings"], inputs["hashes"])
        return lists_schema(spec.dim, dtype=spec.dtype, model=spec.model, weights=spec.weights)

    def piece_schema(self, **inputs: Any) -> pa.Schema:
        return self.output_schema(**inputs)

    def resolve(self, previous: Mapping[str, Any] | None = None, **inputs: Any) -> Self:
        num_lists = num_leaves(inputs["centroids"])
        if self.num_probes == "auto":
            return self.model_copy(update={"num_probes": min(self._choose_probes(inputs), num_lists)})
        if not 1 <= self.num_probes <= num_lists:
            raise self.field_error(
                "num_probes",
                f"={self.num_probes}: there are {num_lists} lists; set it from 1 to {num_lists}, or to auto",
            )
        return self

    def _choose_probes(self, inputs: Mapping[str, Any]) -> int:
        """What `auto` stands for."""
        if inputs["embeddings"] is None or inputs.get("truth") is None:
            return AUTO_PROBES
        pairs, lists = read_pairs(inputs["queries"], inputs["truth"], half=0), read_lists(inputs["centroids"])
        if len(pairs.ids) < MIN_PAIRS:
            return AUTO_PROBES
        rank = list_rank(pairs.query, pairs.image, lists.centroids)
        if set(self.queries) >= set(self.stored):  # either image of a pair may find the other
            rank = np.minimum(rank, list_rank(pairs.image, pairs.query, lists.centroids))
        return choose_num_probes(rank, target=self.target_recall, most=min(MAX_PROBES, len(lists.centroids)))

    def num_parts(self, **inputs: Any) -> int:
        hashed = inputs["hashes"] is not None
        num_lists = self._grid(inputs["centroids"], inputs["catalog"], hashed=hashed).num_lists
        return -(-num_lists // self._lists_per_part(inputs["catalog"], num_lists, hashed=hashed))

    def _grid(self, centroids: Table, catalog: Table, *, hashed: bool) -> ListGrid:
        """Which lists are split, by their share of the fitting sample; none where there are no queries."""
        _, sampled = known_lists(centroids)
        if not self.queries:
            return ListGrid.of(np.ones(len(sampled), np.int64))
        parts = Parts.of(catalog)
        most = max(parts.num_images(self.stored), self._probes_each(hashed=hashed) * parts.num_images(self.queries))
        expected = sampled / max(1, sampled.sum()) * most
        return ListGrid.of(np.maximum(1, np.ceil(expected / self.max_list_rows)).astype(int))

    def _probes_each(self, *, hashed: bool) -> int:
        """Lists that an image probes, in all its forms."""
        assert isinstance(self.num_probes, int)
        return self.num_probes * num_forms(hashed=hashed, dihedral=self.dihedral)

    def _lists_per_part(self, catalog: Table, num_lists: int, *, hashed: bool) -> int:
        parts = Parts.of(catalog)
        rows = parts.num_images(self.stored) + self._probes_each(hashed=hashed) * parts.num_images(self.queries)
        return max(1, round(ROWS_PER_PART * num_lists / max(1, rows)))

    def scattered_bytes(self, pieces: pa.Schema, **inputs: Any) -> float:
        parts, hashed = Parts.of(inputs["catalog"]), inputs["hashes"] is not None
        asking = self._probes_each(hashed=hashed) * parts.num_images(self.queries)
        return float(row_bytes(pieces) * (parts.num_images(self.stored) + asking))

    def scatter(
        self,
        part: int,
        *,
        embeddings: pa.Table | None,
        hashes: pa.Table | None,
        within: pa.Table | None,
        centroids: Table,
        catalog: Table,
        **sample: Table | None,
    ) -> Iterator[Scattered]:
        hashed, role = hashes is not None, ROLES[Parts.of(catalog).role[part]]
        listed = read_views(embeddings, hashes, within) if self.borders else read_vectors(embeddings, hashes)
        grid = self._grid(centroids, catalog, hashed=hashed)
        per_part = self._lists_per_part(catalog, grid.num_lists, hashed=hashed)
        store, search = role in self.stored, role in self.queries
        forms = self._forms(listed) if search else listed.vectors[None]
        placed = self._place(listed, forms, known_lists(centroids)[0], grid, store=store, search=search)
        for start in range(0, len(placed.list_id), ROWS_AT_ONCE):
            some = _Placed(*(column[start : start + ROWS_AT_ONCE] for column in placed))
            yield from partition(some.table(listed, forms), some.list_id // per_part)

    def _place(
        self, listed: Vectors, forms: np.ndarray, lists: CoarseLists, grid: ListGrid, *, store: bool, search: bool
    ) -> "_Placed":
        """Every (list, vector) that the vectors of one part give rise to.

        Args:
            forms: (F, N, width) the vectors in each form in which they search, as they are first.
        """
        from curate.models.device import resolve_device

        assert isinstance(self.num_probes, int)
        device, found = str(resolve_device(self.device)), [_Placed.none()]
        for number, form in enumerate(forms):
            x = to_float32(form, listed.spec)
            near = nearest_lists(x, lists, self.num_probes if search else 1, device=device)
            own = np.full(len(x), -1)
            if store and number == 0:
                rows, list_id = grid.stored(near[:, 0], listed.ids)
                found.append(_Placed.of(list_id, rows, number, stored=True))
                own = grid.meeting(near[:, 0], listed.ids)
            if search:
                rows, list_id = grid.queried(near, listed.ids)
                elsewhere = list_id != own[rows]  # there it is stored, and is compared with the others anyway
                found.append(_Placed.of(list_id[elsewhere], rows[elsewhere], number, stored=False))
        return _Placed(*(np.concatenate(columns) for columns in zip(*found, strict=True)))

    def _forms(self, listed: Vectors) -> np.ndarray:
        """(F, N, width) the vectors in each form in which they search, as they are first."""
        if listed.spec.dtype == "bits" and self.dihedral:
            return dihedral(listed.vectors).transpose(1, 0, 2)
        return listed.vectors[None]

    def run(self, part: int, *, pieces: pa.Table, centroids: Table, catalog: Table, **sample: Table | None) -> Batches:
        order = np.lexsort((pieces["image_id"].to_numpy(), ~pieces["home"].to_numpy(), pieces["list_id"].to_numpy()))
        yield from pieces.take(order).to_batches()

    # -- telling about it ------------------------------------------------------------------------------------

    def expected_probes(self, num_lists: int) -> int:
        """Lists that a query probes, for the laws of cost."""
        return min(num_lists, AUTO_PROBES if self.num_probes == "auto" else self.num_probes)

    def cost(self, inputs: Shapes, given: Assumptions) -> tuple[Demand, Shape]:
        vectors, lists = vectors_shape(inputs), inputs["centroids"].lists
        probes = self.expected_probes(lists)
        hashed, vector = inputs.get("hashes") is not None, vectors.row_bytes - ID_BYTES
        forms = num_forms(hashed=hashed, dihedral=self.dihedral)
        stored, asking = vectors.of(self.stored), vectors.of(self.queries)
        both = vectors.of(tuple(role for role in self.queries if role in self.stored))
        rows = stored + asking * probes * forms - both
        compared = min(lists, (1 + GROUPS) * math.sqrt(lists))
        made = Shape(pool=rows, row_bytes=vectors.row_bytes + 1, dim=vectors.dim, lists=lists, stored=stored)
        made = made._replace(parts=max(1, min(lists, round(rows / ROWS_PER_PART))))
        largest = max(ROWS_PER_PART, rows / max(1, lists)) * LISTS_SKEW
        demand = Demand(
            products=2 * (stored + asking * forms) * compared * vectors.dim,
            rows=2 * rows,
            written=made.num_bytes,
            memory=largest * made.row_bytes * 3,
            settles=True,  # more probes find as many pairs in more lists, up to MAX_PROBES
            note=f"{lists} lists, {probes} probes",
        )
        # A row travels as it lies in memory: its id, its list and its vector. Hashes are compressed, and one that
        # probes several lists of a part takes its bytes once.
        once = num_met(probes, made.parts) / probes
        each = once * vector + PLACE_BYTES if hashed else vector + PLACED_BYTES
        # Their way is laid out for all images of the catalog, whether they have a vector or not.
        listed = given.num_images(self.stored) + probes * forms * given.num_images(self.queries)
        held = (vector + PLACED_BYTES) * listed / max(1, rows)
        sent = Sent(rows, vectors.parts, made.parts, each, memory_bytes=held, raw=not hashed)
        centroids = by_process([inputs["centroids"].scanned()])
        # One process chooses the number of probes.
        sample = [inputs[name].scanned() for name in ("queries", "truth") if inputs.get(name) is not None]
        return Demand.phases([demand, shuffled(sent, given), centroids, one_process(sample)]), made


def num_met(probes: float, parts: float) -> float:
    """Parts of a table of lists that the probes of a query fall into, on average."""
    return parts * (1 - (1 - 1 / parts) ** probes)


def known_lists(centroids: Table) -> tuple[CoarseLists, np.ndarray]:
    """The centroids of the lists, and (K,) int64 the vectors of the fitting sample in each.

    A process reads them once, not once a part: 65,536 lists of 512 dimensions are 134 MB.
    """
    content = tuple(part.content for part in centroids.parts())
    return _known_lists(centroids.store.address, centroids.name, content)


@lru_cache(maxsize=1)
def _known_lists(root: str, name: str, content: tuple[str, ...]) -> tuple[CoarseLists, np.ndarray]:
    """`content` of the parts tells one table from another of that name."""
    rows = Store(root).table(name).read_all()
    return lists_of(rows), rows["num_images"].to_numpy()[rows["level"].to_numpy() == 0]


class _Placed(NamedTuple):
    """Vectors of a part in lists, by their places: there are many more of them than vectors."""

    list_id: np.ndarray
    """(M,) int32"""
    stored: np.ndarray
    """(M,) bool; False: a query"""
    rows: np.ndarray
    """(M,) int32, places of the vectors"""
    form: np.ndarray
    """(M,) int8, in which form each is there"""

    @classmethod
    def of(cls, list_id: np.ndarray, rows: np.ndarray, form: int, *, stored: bool) -> "_Placed":
        """Vectors of one form."""
        same = np.full(len(rows), stored), np.full(len(rows), form, np.int8)
        return cls(list_id.astype(np.int32), same[0], rows.astype(np.int32), same[1])

    @classmethod
    def none(cls) -> "_Placed":
        """No vectors, with the right dtypes."""
        return cls.of(np.empty(0, np.int32), np.empty(0, np.int32), 0, stored=False)

    def table(self, listed: Vectors, forms: np.ndarray) -> pa.Table:
        """As rows of a table of lists."""
        spec = listed.spec
        schema = lists_schema(spec.dim, dtype=spec.dtype, model=spec.model, weights=spec.weights)
        columns = [self.list_id, self.stored, listed.ids[self.rows]]
        return pa.Table.from_arrays([*map(pa.array, columns), pack(forms[self.form, self.rows])], schema=schema)
