"""SearchPlanted: what planted copies find in the pool, as copies that nobody planted would; see `calibrate.py`."""

from typing import Annotated, Any, ClassVar

import numpy as np
import pyarrow as pa

from curate.config import Execution
from curate.engine.cost import Assumptions, Demand, Shape, Shapes, edge_bytes
from curate.engine.image_ids import Parts
from curate.engine.stage import Batches, Fold, Input, num_groups, parts_of_group, scan_partials, whole
from curate.engine.table import Table
from curate.errors import TableError
from curate.ops.edges import Edges, merge_top_k
from curate.ops.search.knn import find_neighbors
from curate.ops.vectors import normalize, to_float32
from curate.stages.copies.copy_space import read_space
from curate.stages.copies.planted import PlantedCopies, Views, read_planted
from curate.stages.search.vectors import Vectors, read_views
from curate.tables import CATALOG, PAIRS, PLANTED, POOL, SPACE, VECTORS

PER_COPY = 8
"""Other images that a copy finds, the most similar ones, as `FindCandidates` offers."""
GIVEN_UP = 0.02
"""Share of the planted copies that are given up: below their similarity to the original nothing is searched."""


class SearchPlanted(Fold):
    """Pairs of a planted copy that judges, by the number -1 - row, and an image: its original, and what is nearest."""

    inputs: ClassVar[dict[str, Input]] = {
        "embeddings": whole(VECTORS),
        "within": whole(VECTORS, optional=True),
        "planted": whole(PLANTED),
        "space": whole(SPACE, optional=True),
        "catalog": whole(CATALOG),
    }
    pinned: ClassVar[bool] = True

    device: Annotated[str, Execution()] = "auto"
    """auto, cpu, cuda or cuda:N."""

    def output_schema(self, **inputs: Any) -> pa.Schema:
        return PAIRS

    def partial_schema(self, **inputs: Any) -> pa.Schema:
        return PAIRS

    def num_partials(self, **inputs: Any) -> int:
        return num_groups(len(inputs["embeddings"].parts()))

    def partial(
        self,
        group: int,
        *,
        embeddings: Table,
        within: Table | None,
        planted: Table,
        space: Table | None,
        catalog: Table,
    ) -> Batches:
        """What the judging copies find in some parts of the pool."""
        asking, role = read_planted(planted, half=1), Parts.of(catalog).role
        views, found = asking.views(None if space is None else read_space(space)), Edges.empty()
        for part in parts_of_group(group, len(role)):
            if role[part] == POOL:
                stored = read_views(embeddings.read(part), None, None if within is None else within.read(part))
                found = _nearest(asking, Edges.concat([found, *self._found(asking, views, stored)]))
        yield _pairs(found)

    def _found(self, asking: PlantedCopies, views: Views, stored: Vectors) -> tuple[Edges, Edges]:
        """What is nearest to the copies among some images, and which of these are their originals."""
        from curate.models.device import resolve_device

        copies = np.isin(views.rows, asking.copies())
        found = find_neighbors(
            views.vectors[copies],
            normalize(to_float32(stored.vectors, stored.spec)),
            query_ids=-1 - views.rows[copies],  # names of their own: a copy is no image of the catalog
            base_ids=np.arange(len(stored.ids)),  # positions, since an image may have two vectors
            threshold=searched_from(asking.likeness(views)),
            max_neighbors=2 * PER_COPY,
            device=str(resolve_device(self.device)),
        )
        others = Edges(found.query_ids, stored.ids[found.image_ids], found.similarity)
        return merge_top_k(others, PER_COPY + 1), _originals(asking, views, stored.ids)

    def combine(self, partials: Table | None, **tables: Any) -> Batches:
        """The originals, and of the others those nearest to each copy.

        Raises:
            TableError: no planted copy has its original among the embeddings.
        """
        assert partials is not None
        asking, pairs = read_planted(tables["planted"], half=1), Edges.empty()
        for rows in scan_partials(partials):
            pairs = _nearest(asking, Edges.concat([pairs, Edges(*(rows[name].to_numpy() for name in PAIRS.names))]))
        if not is_original(asking, pairs.query_ids, pairs.image_ids).any():
            raise TableError("no planted copy has its original in the pool; was the pool embedded?")
        yield _pairs(pairs)

    # -- telling about it ------------------------------------------------------------------------------------

    def cost(self, inputs: Shapes, given: Assumptions) -> tuple[Demand, Shape]:
        vectors, asking = inputs["embeddings"], inputs["planted"].rows / 2
        made = Shape(pool=asking * (PER_COPY + 1), row_bytes=edge_bytes(given))
        return Demand(products=2 * asking * vectors.rows * vectors.dim, read=vectors.num_bytes), made


def searched_from(likeness: np.ndarray) -> float:
    """Similarity that nearly all copies have to their original."""
    return float(np.quantile(likeness, GIVEN_UP))


def is_original(asking: PlantedCopies, query_ids: np.ndarray, image_ids: np.ndarray) -> np.ndarray:
    """(E,) bool: whether each planted copy was planted on that image."""
    found: np.ndarray = asking.image_ids[-1 - query_ids] == image_ids
    return found


def _nearest(asking: PlantedCopies, pairs: Edges) -> Edges:
    """The originals, and of the others those nearest to each copy; each pair once."""
    own = is_original(asking, pairs.query_ids, pairs.image_ids)
    others = merge_top_k(pairs.take(~own), PER_COPY)
    return merge_top_k(Edges.concat([pairs.take(own), others]), None)


def _originals(asking: PlantedCopies, views: Views, image_ids: np.ndarray) -> Edges:
    """Each copy and its original, where that is among the images, however alike they are."""
    copies = asking.copies()
    here = np.isin(asking.image_ids[copies], image_ids)
    return Edges(-1 - copies[here], asking.image_ids[copies[here]], asking.likeness(views)[here])


def _pairs(edges: Edges) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays([pa.array(column) for column in edges], schema=PAIRS)
