"""Retrieval by cluster: pool images of the clusters that enough curated images fell into.

The difficulty is that a cluster gives a bounded number of its images to each set, drawn from parts that no task sees
together. A first pass therefore counts, for each set, the leaves that it hits and finds one limit a leaf (see
`ops/selection/draws.py`); the task of a part then compares its own images with the limits. So the state between them
has a row for each leaf that a set hits, whatever the number of images.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from curate.config import Settings
from curate.engine.image_ids import Parts
from curate.engine.stage import Batches
from curate.engine.table import Table
from curate.ops.codes import names_of
from curate.ops.random_keys import nearest_keys, random_keys
from curate.ops.selection.draws import Draws, Keyed, draw_smallest
from curate.ops.selection.retrieval import cluster_draws
from curate.stages.clusters.leaves import LIMITS, count_leaves, limit_rows
from curate.stages.selection.retrieved import curated_sets, retrieved_rows
from curate.tables import ASSIGNMENTS, POOL

SET_LIMITS = pa.schema([*LIMITS, pa.field("query_id", pa.int64(), nullable=False)])
"""Purpose: the set; group: the leaf; query_id: the query of the set that is nearest to the leaf's centroid."""


class ByCluster(Settings):
    """Retrieves images from every cluster that holds more than `min_queries` images of a curated source."""

    min_queries: Annotated[int, Field(ge=0)] = 3
    """Curated images that a cluster must exceed: it needs strictly more."""
    per_cluster: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    """Images retrieved from a cluster at most; auto: half of the mean number of pool images of a cluster. The paper
    has 10,000."""
    max_per_set: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    """Images retrieved for a curated source at most; auto: no such limit. The paper has 1,000,000."""
    order: Literal["random", "nearest"] = "random"
    """Which images of a cluster come first: random ones, or those nearest to its centroid."""

    def with_caps(self, left: int, num_clusters: int) -> "ByCluster":
        """The same with `auto` replaced, where `left` pool images lie in `num_clusters` clusters.

        Raises:
            ConfigError: a cap is larger than the pool that is left.
        """
        given = {"per_cluster": self.per_cluster, "max_per_set": self.max_per_set}
        for name, value in given.items():
            if value != "auto" and value > left:
                text = f"={value}: {left} pool images are left; set it to {left} or less, or to auto"
                raise self.field_error(name, text)
        auto = {"per_cluster": max(1, left // max(1, num_clusters) // 2), "max_per_set": max(1, left)}
        return self.model_copy(update={name: auto[name] for name, value in given.items() if value == "auto"})


@dataclass(frozen=True)
class SetHits:
    """The leaves that one curated source draws from."""

    name: str
    """Name of the source."""
    leaves: np.ndarray
    """(H,) int64, ascending"""
    sizes: np.ndarray
    """(H,) int64, pool images of each leaf"""
    draws: np.ndarray
    """(H,) int64, pool images to draw from each leaf"""
    central: np.ndarray
    """(H,) int64, the query that is nearest to the leaf's centroid"""


@dataclass(frozen=True)
class ClusterRoute:
    """The route over the tables of one run; its draws follow from ids and seed, so both passes agree on them."""

    how: ByCluster
    """The settings, caps resolved."""
    seed: int
    assignments: Table
    parts: Parts

    # -- the limits ------------------------------------------------------------------------------------------

    def limits(self, names: Sequence[str], *, max_bytes: int) -> Batches:
        """Rows of `SET_LIMITS` for the curated sources that retrieve by cluster."""
        hits = self._hits(names)
        if not hits:
            return
        first = np.cumsum([0, *(len(hit.leaves) for hit in hits)])  # groups of all sets, one after the other
        draws = draw_smallest(
            lambda: self._candidates(hits, first),
            np.concatenate([hit.sizes for hit in hits]),
            np.concatenate([hit.draws for hit in hits]),
            max_bytes=max_bytes,
        )
        for hit, start in zip(hits, first, strict=False):
            mine = Draws(*(column[start : start + len(hit.leaves)] for column in draws))
            rows = limit_rows(hit.name, mine)
            place = rows["group"].to_numpy()
            columns = [*rows.set_column(1, "group", pa.array(hit.leaves[place], pa.int32())), hit.central[place]]
            yield pa.RecordBatch.from_arrays(list(map(pa.array, columns)), schema=SET_LIMITS)

    def _hits(self, names: Sequence[str]) -> list[SetHits]:
        if not names:
            return []
        sizes, numbers = count_leaves(self.assignments, self.parts.numbers(POOL)), curated_sets(self.parts)
        return [self._hit(name, sizes, numbers[name]) for name in names]

    def _hit(self, name: str, sizes: np.ndarray, numbers: Sequence[int]) -> SetHits:
        queries = pa.concat_tables(self.assignments.read(number) for number in numbers)
        ids, leaf, similarity = (queries[column].to_numpy() for column in ASSIGNMENTS.names)
        num_queries = np.bincount(leaf, minlength=len(sizes))
        sizes = np.pad(sizes, (0, len(num_queries) - len(sizes)))
        assert isinstance(self.how.per_cluster, int)
        assert isinstance(self.how.max_per_set, int)
        draws = cluster_draws(
            num_queries,
            sizes,
            min_queries=self.how.min_queries,
            per_cluster=self.how.per_cluster,
            max_per_set=self.how.max_per_set,
        )
        leaves = np.flatnonzero(draws)
        central = _most_central(leaf, similarity, ids, len(sizes))
        return SetHits(name, leaves, sizes[leaves], draws[leaves], central[leaves])

    def _candidates(self, hits: Sequence[SetHits], first: np.ndarray) -> Iterator[Keyed]:
        for part in self.parts.numbers(POOL):
            rows = self.assignments.read(part)
            for hit, start in zip(hits, first, strict=False):
                place, mine = _places(hit.leaves, rows["cluster_id"].to_numpy())
                yield Keyed(start + place, self._keys(hit.name, rows)[mine], rows["image_id"].to_numpy()[mine])

    def _keys(self, name: str, rows: pa.Table) -> np.ndarray:
        """The order in which a set draws; each set has its own, so that they overlap no more than chance has it."""
        ids, purpose = rows["image_id"].to_numpy(), f"retrieve {name}"
        if self.how.order == "random":
            return random_keys(ids, seed=self.seed, purpose=purpose)
        return nearest_keys(rows["similarity"].to_numpy(), ids, seed=self.seed, purpose=purpose)

    # -- the rows of a part ----------------------------------------------------------------------------------

    def rows(self, part: int, names: Sequence[str], state: pa.Table) -> Iterator[pa.Table]:
        """Rows of `retrieved` of one pool part, from the limits of all sets."""
        if not names:
            return
        rows = self.assignments.read(part)
        for name in names:
            mine = state.filter(pc.equal(state["purpose"], name))
            draws = Draws(*(mine[column].to_numpy() for column in LIMITS.names[2:]))
            place, inside = _places(mine["group"].to_numpy(), rows["cluster_id"].to_numpy())
            keyed = Keyed(place, self._keys(name, rows)[inside], rows["image_id"].to_numpy()[inside])
            drawn = draws.repeats(keyed) > 0
            chosen = rows.take(np.flatnonzero(inside)[drawn])
            queries = pa.array(mine["query_id"].to_numpy()[place[drawn]])
            sets = names_of(np.zeros(len(chosen), np.int32), [name])
            yield retrieved_rows(queries, chosen["image_id"], chosen["similarity"], origin="cluster", sets=sets)


def _places(leaves: np.ndarray, leaf: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(M,) int64 places in the ascending `leaves` of those images whose leaf is among them, and (N,) bool who is."""
    place = np.searchsorted(leaves, leaf)
    inside = place < len(leaves)
    inside[inside] = leaves[place[inside]] == leaf[inside]
    return place[inside], inside


def _most_central(leaf: np.ndarray, similarity: np.ndarray, ids: np.ndarray, num_leaves: int) -> np.ndarray:
    """(K,) int64: of each leaf the query nearest to its centroid; -1 where it has none."""
    best = np.full(num_leaves, -1, np.int64)
    order = np.lexsort((-ids, similarity))  # the last write wins: most similar, then smallest id
    best[leaf[order]] = ids[order]
    return best
