"""Retrieval by sample: the pool images nearest to each curated image."""

from collections.abc import Mapping
from typing import Annotated, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from curate.config import Settings
from curate.engine.image_ids import Parts, part_of
from curate.engine.table import Table
from curate.ops.codes import names_of
from curate.stages.selection.retrieved import retrieved_rows, source_names

AUTO_K = 4
"""Images of a query in the paper, for all curated sets but ImageNet-1k."""


class BySample(Settings):
    """Retrieves the k nearest pool images of each curated image."""

    k: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    """Pool images retrieved for each curated image; auto: 4 as in the paper, or all where fewer are left. The paper
    has 32 for ImageNet-1k."""
    k_per_set: dict[str, Annotated[int, Field(ge=1)]] = Field(default_factory=dict)
    """Another k for single curated sources, by their names."""
    refill: bool = False
    """Whether an image serves one query only, while the other queries go on to their next nearest image."""

    @property
    def default_k(self) -> int:
        """Images of a query of a source without a k of its own, where enough are left."""
        return AUTO_K if self.k == "auto" else self.k

    @property
    def largest_k(self) -> int:
        """The largest k of any source."""
        return max([self.default_k, *self.k_per_set.values()])

    def k_of(self, source: str) -> int:
        """Images of a query of this source."""
        return self.k_per_set.get(source, self.default_k)


def rows_by_sample(part: int, k_of_set: Mapping[str, int], parts: Parts, nearest: Table) -> pa.Table:
    """Rows of `retrieved` of one pool part: the images among the k nearest of a query.

    Args:
        k_of_set: images of a query, of each curated source that retrieves by sample.
        nearest: as `GroupByImage` makes it: its part has the neighbors that lie in the part of the catalog.
    """
    k, rows = np.array([k_of_set.get(name, 0) for name in parts.source]), nearest.read(part)
    query_part = part_of(rows["query_id"].to_numpy())
    chosen = np.flatnonzero(rows["rank"].to_numpy() < k[query_part])
    sets = names_of(parts.rank[query_part[chosen]], source_names(parts))
    return retrieved_rows(*rows.take(chosen).columns[:3], origin="sample", sets=sets)
