"""RankWithin: the first half of SemDeDup, the similarity of the images of a cluster, found once.

SemDeDup drops images that a backbone finds alike. Its result hangs on one threshold that nobody knows beforehand, and
the search costs far more than the verdicts. So the search stores, for each image, how like it is to the most similar
one of those that are preferred to it; `DropSimilar` applies a threshold to that, and another threshold costs no search.

Source: Abbas et al. 2023, arXiv:2303.09540.
"""

import itertools
from collections.abc import Iterator
from typing import Any, ClassVar, Self

import numpy as np
import pyarrow as pa
from pydantic import Field

from curate.config import Settings
from curate.engine.cost import Assumptions, Demand, Shape, Shapes
from curate.engine.figures import Figures
from curate.engine.finished import Finished
from curate.engine.show import Curves, Line, Numbers, Section, Text
from curate.engine.stage import Batches, Input, Map, each, whole
from curate.engine.table import Table
from curate.engine.tallies import Tally
from curate.ops.copies.semdedup import Keep, most_similar_before, preference
from curate.ops.vectors import VectorSpec, normalize, to_float32, unpack
from curate.stages.copies.drop_similar import DropSimilar
from curate.stages.search.build_lists import LISTS_SKEW
from curate.stages.search.centroids import read_centroids
from curate.tables import CENTROIDS, LISTS, RANKED

SWEEP = (0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3)
"""Values of eps of which the figures tell what would be kept."""
RANKED_BYTES = 32
"""Bytes of a row of the ranking."""


class KeptAtEps(Settings):
    """What one threshold would keep."""

    eps: float
    """Images of cosine above 1 - eps count as the same."""
    kept: int
    """Images that would be left."""


class RankFigures(Figures):
    """What several thresholds would keep."""

    sweep: tuple[KeptAtEps, ...]
    """By ascending eps."""


class RankTally(Tally):
    """Images that thresholds would drop."""

    columns = ("similarity",)

    dropped: dict[str, int] = Field(default_factory=dict)
    """By eps, as text."""

    @classmethod
    def count(cls, rows: pa.Table) -> Self:
        found = np.sort(rows["similarity"].drop_null().to_numpy())
        dropped = len(found) - np.searchsorted(found, 1 - np.array(SWEEP), side="right")
        return cls(dropped=dict(zip(map(str, SWEEP), dropped.tolist(), strict=True)))


class RankWithin(Map):
    """Finds for every image of a cluster the one most like it among those that are preferred to it.

    The lists hold each image in the list of its cluster alone, and no queries. Memory: a part of the lists, and 64 MB
    of products.
    """

    inputs: ClassVar[dict[str, Input]] = {"lists": each(LISTS), "centroids": whole(CENTROIDS)}

    tally: ClassVar[type[Tally] | None] = RankTally

    keep: Keep = "hard"
    """Which image of several similar ones is preferred. hard: the farthest from the centroid, as in the paper; easy:
    the closest; random."""
    seed: int | None = None
    """Seed of `keep: random`; null: the run's seed."""

    def output_schema(self, **inputs: Any) -> pa.Schema:
        return RANKED

    def run(self, part: int, *, lists: pa.Table, centroids: Table) -> Batches:
        """The images of each cluster of a part, in order of preference."""
        centers, spec = normalize(read_centroids(centroids)), VectorSpec.of(lists.schema)
        number = lists["list_id"].to_numpy()
        for start, stop in _runs(number):
            rows = lists.slice(start, stop - start)
            x = normalize(to_float32(unpack(rows["vector"], spec)[0], spec))
            yield self._rank(rows["image_id"].to_numpy(), x, int(number[start]), centers)

    def _rank(self, ids: np.ndarray, x: np.ndarray, cluster: int, centers: np.ndarray) -> pa.RecordBatch:
        order = preference(x @ centers[cluster], ids, keep=self.keep, seed=self.seed or 0)
        similarity, place = most_similar_before(x[order])
        first = place < 0
        columns = [
            pa.array(ids[order]),
            pa.array(np.full(len(ids), cluster, np.int32)),
            pa.array(np.arange(len(ids), dtype=np.int32)),
            pa.array(similarity, mask=first),
            pa.array(ids[order][place], mask=first),
        ]
        return pa.RecordBatch.from_arrays(columns, schema=RANKED)

    def summarize(self, table: Table, **inputs: Any) -> RankFigures:
        dropped, rows = RankTally.of(table).dropped, table.num_rows()
        return RankFigures(sweep=tuple(KeptAtEps(eps=eps, kept=rows - dropped.get(str(eps), 0)) for eps in SWEEP))

    # -- telling about it ------------------------------------------------------------------------------------

    def cost(self, inputs: Shapes, given: Assumptions) -> tuple[Demand, Shape]:
        lists: Shape = inputs["lists"]
        products = 2 * LISTS_SKEW * lists.rows * lists.rows / max(1, lists.lists) * lists.dim
        made = Shape(pool=lists.rows, row_bytes=RANKED_BYTES)
        return Demand(products=products, rows=lists.rows, written=made.num_bytes), made

    def show(self, table: Table, run: Finished) -> Iterator[Section]:
        sweep, total = RankFigures.of(table).sweep, max(1, table.num_rows())
        eps, kept = np.array([one.eps for one in sweep]), np.array([100 * one.kept / total for one in sweep])
        chart = Curves([Line("kept", kept, "a", eps)], x_label="eps", y_label="images kept, %", from_zero=True)
        rows = ((one.eps, one.kept, round(share, 1)) for one, share in zip(sweep, kept.tolist(), strict=True))
        numbers = Numbers(("eps", "kept", "share, %"), tuple(rows))
        chosen = [
            f"eps {stage.eps:g}"
            for stage, judged in run.made_by(DropSimilar)
            if any(ranked.name == table.name for ranked in run.inputs_of(judged, "ranked"))
        ]
        this_run = f"This run: {', '.join(chosen)}. " if chosen else ""
        text = (
            f"An image goes if its cosine to a preferred one of its cluster exceeds 1 - eps. {this_run}The "
            "similarities are stored: another eps makes the verdicts and what follows again, not the search."
        )
        yield Section("Images alike to the backbone", (chart, numbers, Text(text)))


def _runs(values: np.ndarray) -> Iterator[tuple[int, int]]:
    """(start, stop) of each run of equal values, which are >= 0."""
    return itertools.pairwise(np.flatnonzero(np.diff(values, prepend=-1, append=-1)).tolist())
