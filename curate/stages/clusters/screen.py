"""MeasureDensity and Screen: images that only a crawl holds, left out where clusters are balanced.

Junk forms clusters of its own: screens of text, gradients, patterns, placeholders. A balanced draw takes as many images
of each cluster, so that it raises their share. They betray themselves by how alike they are to their neighbours:
generated pictures far more than photographs once copies are gone, pictures of nothing far less. So an image is junk
where its density (mean cosine to its nearest neighbours), or its leaf's mean of it, lies beyond what the pool is like:
where log(1 - density) is outside median +- z * 1.4826 * MAD, in which MAD is the median distance to the median. The
logarithm asks how many times nearer its neighbours are, which tells dense modes from the dense end of photographs.
"""

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, NamedTuple

import numpy as np
import pyarrow as pa
from pydantic import Field

from curate.engine.deal import deal
from curate.engine.stage import Batches, Fold, Input, Shuffle, each, whole
from curate.engine.store import Table
from curate.ops.edges import Edges, merge_top_k
from curate.stages.images.catalog import parts_of
from curate.tables import ASSIGNMENTS, CATALOG, DENSITY, NEIGHBORS, ROLES, SCREENED

POOL = ROLES.index("pool")
BINS = 4000
"""Of the histogram of log(1 - density), whose median and MAD decide."""
NEAREST, FARTHEST = 1e-3, 2.0
"""1 - density that the first and the last bin hold."""
NORMAL = 1.4826
"""Standard deviations of a normal distribution in a MAD."""
LEAST_MAD = 0.02
"""Below which densities differ by nothing that one could see: 2 % of the distance."""
PARTIAL = pa.schema(
    [
        pa.field("leaf", pa.bool_()),
        pa.field("number", pa.int32()),
        pa.field("images", pa.int64()),
        pa.field("density", pa.float64()),
    ]
)
"""What a part adds: by leaf its images and the sum of their densities; by bin of the histogram its images."""
STATE = pa.schema(
    [
        pa.field("cluster_id", pa.int32()),
        pa.field("coherence", pa.float32()),
        pa.field("low", pa.float32()),
        pa.field("high", pa.float32()),
    ]
)
"""Leaves with images, and the bounds."""


class MeasureDensity(Shuffle):
    """Mean cosine of each pool image to its nearest neighbours, gathered from all lists that it looked in."""

    inputs: ClassVar[dict[str, Input]] = {"neighbors": each(NEIGHBORS), "catalog": whole(CATALOG)}

    num_neighbors: Annotated[int, Field(ge=1)] = 5
    """Nearest images of which the mean is taken."""

    def output_schema(self, **inputs: Any) -> pa.Schema:
        return DENSITY

    def piece_schema(self, **inputs: Any) -> pa.Schema:
        return pa.schema(list(NEIGHBORS)[:3])

    def num_parts(self, **inputs: Any) -> int:
        return len(inputs["catalog"].parts())

    def scatter(self, part: int, *, neighbors: pa.Table, catalog: Table) -> Iterator[tuple[int, pa.RecordBatch]]:
        yield from deal(neighbors.select(NEIGHBORS.names[:3]), neighbors["query_id"].to_numpy() >> 32)

    def run(self, part: int, *, pieces: pa.Table, catalog: Table) -> Batches:
        edges = Edges(*(pieces[name].to_numpy() for name in NEIGHBORS.names[:3]))
        near = merge_top_k(edges, self.num_neighbors)  # a pair may have been found in several lists
        images, place = np.unique(near.query_ids, return_inverse=True)
        total = np.bincount(place, near.similarity.astype(np.float64), minlength=len(images))
        mean = total / np.maximum(1, np.bincount(place, minlength=len(images)))
        yield pa.RecordBatch.from_arrays([pa.array(images), pa.array(mean.astype(np.float32))], schema=DENSITY)


class Bounds(NamedTuple):
    """Densities that are like the pool's."""

    low: float
    high: float


class Screen(Fold):
    """Which pool images are junk, by their density and their leaf's."""

    inputs: ClassVar[dict[str, Input]] = {
        "density": each(DENSITY),
        "assignments": each(ASSIGNMENTS),
        "catalog": whole(CATALOG),
    }

    z: Annotated[float, Field(gt=0)] = 2.5
    """How far from the pool's median junk lies, in standard deviations of the bulk."""
    low: Annotated[float, Field(ge=-1, le=1)] | None = None
    """Least density; None: as `z` says."""
    high: Annotated[float, Field(ge=-1, le=1)] | None = None
    """Largest density; None: as `z` says."""

    def output_schema(self, **inputs: Any) -> pa.Schema:
        return SCREENED

    def partial_schema(self, **inputs: Any) -> pa.Schema:
        return PARTIAL

    def state_schema(self, **inputs: Any) -> pa.Schema:
        return STATE

    def partial(self, part: int, *, density: pa.Table, assignments: pa.Table, catalog: Table) -> Batches:
        if parts_of(catalog).role[part] != POOL:
            return
        measured = _densities(density, assignments["image_id"].to_numpy())
        known = np.isfinite(measured)
        leaf, value = assignments["cluster_id"].to_numpy()[known], measured[known].astype(np.float64)
        for by_leaf, number in ((True, leaf), (False, _bin(value))):
            groups, place = np.unique(number, return_inverse=True)
            columns = [
                pa.array(np.full(len(groups), by_leaf)),
                pa.array(groups.astype(np.int32)),
                pa.array(np.bincount(place, minlength=len(groups))),
                pa.array(np.bincount(place, value, minlength=len(groups)).astype(np.float64)),
            ]
            yield pa.RecordBatch.from_arrays(columns, schema=PARTIAL)

    def combine(self, partials: Table | None, **tables: Any) -> Batches:
        assert partials is not None
        rows = pa.concat_tables([PARTIAL.empty_table(), *map(partials.read, sorted(partials.committed()))])
        by_leaf = rows["leaf"].to_numpy()
        number, images, total = (rows[name].to_numpy() for name in PARTIAL.names[1:])
        histogram = np.bincount(number[~by_leaf], images[~by_leaf], minlength=BINS)
        leaves, place = np.unique(number[by_leaf], return_inverse=True)
        size = np.bincount(place, images[by_leaf], minlength=len(leaves))
        coherence = np.bincount(place, total[by_leaf], minlength=len(leaves)) / np.maximum(1, size)
        bounds = self.bounds(histogram)
        columns = [leaves.astype(np.int32), coherence.astype(np.float32)]
        columns += [np.full(len(leaves), value, np.float32) for value in bounds]
        yield pa.RecordBatch.from_arrays(list(map(pa.array, columns)), schema=STATE)

    def bounds(self, histogram: np.ndarray) -> Bounds:
        """Of densities in bins, those that are not given."""
        found = bounds_of(histogram, self.z)
        return Bounds(found.low if self.low is None else self.low, found.high if self.high is None else self.high)

    def run(self, part: int, state: pa.Table, **tables: Any) -> Batches:
        density, assignments, catalog = (tables[name] for name in self.inputs)
        if parts_of(catalog).role[part] != POOL or len(assignments) == 0:
            return
        ids, leaf = assignments["image_id"].to_numpy(), assignments["cluster_id"].to_numpy()
        measured = _densities(density, ids)
        coherence, (low, high) = np.full(len(ids), np.nan, np.float32), (np.float32(-1), np.float32(1))
        if len(state):
            known = state["cluster_id"].to_numpy()
            place = np.minimum(np.searchsorted(known, leaf), len(known) - 1)
            coherence = np.where(known[place] == leaf, state["coherence"].to_numpy()[place], coherence)
            low, high = (state[name].to_numpy()[0] for name in Bounds._fields)
        junk = (measured < low) | (measured > high) | (coherence < low) | (coherence > high)
        columns = [
            pa.array(ids),
            pa.array(measured, mask=np.isnan(measured)),
            pa.array(coherence, mask=np.isnan(coherence)),
            pa.array(junk),
        ]
        yield pa.RecordBatch.from_arrays(columns, schema=SCREENED)

    def summarize(self, table: Table, **inputs: Any) -> dict[str, Any]:
        histogram, junk, dense = np.zeros(BINS), 0, 0
        for rows in table.scan(["density", "coherence", "junk"]):
            known = rows["density"].drop_null().to_numpy()
            histogram += np.bincount(_bin(known.astype(np.float64)), minlength=BINS)
        bounds = self.bounds(histogram)
        for rows in table.scan(["density", "coherence", "junk"]):
            mine = rows.filter(rows["junk"])
            junk += len(mine)
            highest = pa.compute.max_element_wise(mine["density"], mine["coherence"])
            dense += int((highest.to_numpy() > np.float32(bounds.high)).sum())
        return {"junk": junk, "too_alike": dense, "low": round(bounds.low, 4), "high": round(bounds.high, 4)}


def bounds_of(histogram: np.ndarray, z: float) -> Bounds:
    """Median -+ z standard deviations of the bulk of densities in the bins of `_bin`; all where there are none."""
    if histogram.sum() == 0:
        return Bounds(-1.0, 1.0)
    width = np.log(FARTHEST / NEAREST) / BINS
    centre = np.log(NEAREST) + (np.arange(BINS) + 0.5) * width
    median = float(centre[_middle(histogram)])
    order = np.argsort(np.abs(centre - median), kind="stable")
    mad = max(LEAST_MAD, float(np.abs(centre - median)[order[_middle(histogram[order])]]))
    high, low = (1 - float(np.exp(median + side * z * NORMAL * mad)) for side in (-1, 1))
    return Bounds(max(-1.0, low), high)


def _middle(counts: np.ndarray) -> int:
    """The bin that holds the median."""
    return int(np.searchsorted(np.cumsum(counts), counts.sum() / 2))


def _bin(density: np.ndarray) -> np.ndarray:
    """(N,) int64 bins of densities."""
    value = np.log(np.clip(1 - density, NEAREST, FARTHEST) / NEAREST) * (BINS / np.log(FARTHEST / NEAREST))
    return np.clip(value.astype(np.int64), 0, BINS - 1)


def _densities(density: pa.Table, ids: np.ndarray) -> np.ndarray:
    """(N,) float32 of these images; NaN where nothing was near enough to be measured."""
    known, value = density["image_id"].to_numpy(), density["density"].to_numpy()
    found = np.full(len(ids), np.nan, np.float32)
    place = np.searchsorted(known, ids)
    inside = place < len(known)
    inside[inside] = known[place[inside]] == ids[inside]
    found[inside] = value[place[inside]]
    return found
