"""FindJunk: images of a crawl that show nothing, left out where clusters are balanced.

Junk forms clusters of its own: screens of text, gradients, patterns, placeholders. A balanced draw takes as many images
of each cluster as of any other, so it raises the share of junk. Junk betrays itself by how alike it is to its nearest
neighbors: generated pictures far more than photographs once copies are gone, pictures of nothing far less. So an image
is junk where its density (mean cosine to its nearest neighbors, see `measure_density.py`), or the mean density of its
leaf, lies beyond what is usual in the pool: where log(1 - density) is outside median +- z * 1.4826 * MAD, in which MAD
is the median distance to the median. The logarithm asks how many times nearer the neighbors are, which tells dense
modes from the dense end of photographs.

Medians need no sorting of all images: each part counts its densities in the bins of a histogram, and those add up.
Where half of the pool lies nearer than the first bin tells, as with a backbone that has collapsed, nothing is junk.
"""

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, NamedTuple, Self

import numpy as np
import pyarrow as pa
from pydantic import Field

from curate.engine.cost import ID_BYTES, Assumptions, Demand, Shape, Shapes
from curate.engine.demands import folded
from curate.engine.figures import Figures
from curate.engine.finished import Finished, ImagePlace, pick
from curate.engine.image_ids import Parts
from curate.engine.numbers import plural
from curate.engine.show import LIST_KEPT, Block, Heading, Histogram, Marker, Section, Series, Text, gallery
from curate.engine.stage import Batches, Fold, Input, each, scan_partials, whole
from curate.engine.table import Table
from curate.engine.tallies import Tally, tally_batch
from curate.tables import ASSIGNMENTS, CATALOG, DENSITY, JUNK, POOL

BINS = 4000
"""Bins of the histogram of log(1 - density), whose median and MAD decide."""
NEAREST, FARTHEST = 1e-3, 2.0
"""1 - density that the first and the last bin hold."""
NORMAL = 1.4826
"""Standard deviation of a normal distribution, in its MADs."""
LEAST_MAD = 0.02
"""MAD of log(1 - density) that is assumed at least: 2 % of the distance to the neighbors is nothing that one sees."""
NUM_BINS = 60
"""Bins of the histogram in the report."""
SHOWN = 48
"""Pictures of each kind in the report."""

PARTIAL = pa.schema(
    [
        pa.field("leaf", pa.bool_()),
        pa.field("number", pa.int32()),
        pa.field("images", pa.int64()),
        pa.field("density", pa.float64()),
    ]
)
"""What a part adds: images and the sum of their densities, by leaf (`leaf` is true) and by bin of the histogram."""

STATE = pa.schema(
    [
        pa.field("cluster_id", pa.int32()),
        pa.field("coherence", pa.float32()),
        pa.field("low", pa.float64()),
        pa.field("high", pa.float64()),
    ]
)
"""Leaves with images and their mean densities; in each row, the bounds of what is usual."""


class Bounds(NamedTuple):
    """Densities from `low` to `high` are usual in the pool."""

    low: float
    high: float


class JunkFigures(Figures):
    """What was found to be junk."""

    junk: int
    """Images that are junk."""
    too_alike: int
    """Those of them that are more alike to their neighbors than is usual."""
    low: float
    """Smallest usual density, a cosine."""
    high: float
    """Largest usual density, a cosine."""


LEAF_BYTES = 14
"""Bytes of what a part adds to a leaf."""
COHERENCE_BYTES = 7
"""Bytes of a leaf in the state: its number, in order, and a mean."""


class JunkTally(Tally):
    """Junk among the images of a part."""

    columns: ClassVar[tuple[str, ...]] = ("junk",)

    junk: int = 0
    """Images that are junk."""

    @classmethod
    def count(cls, rows: pa.Table) -> Self:
        return cls(junk=int(np.count_nonzero(rows["junk"].to_numpy())))


class FoundJunkTally(JunkTally):
    """What a part adds to the figures."""

    columns: ClassVar[tuple[str, ...]] = ()
    most = 1

    too_alike: int = 0
    """Those of them that are more alike to their neighbors than is usual."""
    bounds: tuple[Bounds, ...] = ()
    """What is usual, the same in all parts."""


class FindJunk(Fold):
    """Which pool images are junk, by their density and their leaf's."""

    inputs: ClassVar[dict[str, Input]] = {
        "density": each(DENSITY),
        "assignments": each(ASSIGNMENTS),
        "catalog": whole(CATALOG),
    }
    parts_like: ClassVar[str | None] = "catalog"
    version: ClassVar[int] = 2
    tally: ClassVar[type[Tally] | None] = FoundJunkTally
    explained_as: ClassVar[str] = "junk"

    z: Annotated[float, Field(gt=0)] = 2.5
    """Distance from the pool's median beyond which images are junk, in standard deviations of the bulk."""
    low: Annotated[float, Field(ge=-1, le=1)] | None = None
    """Smallest usual density, a cosine; null: as `z` says."""
    high: Annotated[float, Field(ge=-1, le=1)] | None = None
    """Largest usual density, a cosine; null: as `z` says."""

    def output_schema(self, **inputs: Any) -> pa.Schema:
        return JUNK

    def partial_schema(self, **inputs: Any) -> pa.Schema:
        return PARTIAL

    def state_schema(self, **inputs: Any) -> pa.Schema:
        return STATE

    def partial(self, part: int, *, density: pa.Table, assignments: pa.Table, catalog: Table) -> Batches:
        if Parts.of(catalog).role[part] != POOL:
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
        histogram, size, density = np.zeros(BINS), np.zeros(0), np.zeros(0)  # of bins, and of leaves
        for rows in scan_partials(partials):
            by_leaf = rows["leaf"].to_numpy()
            number, images, total = (rows[name].to_numpy() for name in PARTIAL.names[1:])
            histogram[number[~by_leaf]] += images[~by_leaf]  # no number is there twice
            leaf, more = number[by_leaf], max(0, int(number[by_leaf].max(initial=-1)) + 1 - len(size))
            size, density = np.pad(size, (0, more)), np.pad(density, (0, more))
            size[leaf] += images[by_leaf]
            density[leaf] += total[by_leaf]
        leaves = np.flatnonzero(size)
        coherence = density[leaves] / size[leaves]
        columns = [leaves.astype(np.int32), coherence.astype(np.float32)]
        columns += [np.full(len(leaves), value) for value in self.bounds(histogram)]
        yield pa.RecordBatch.from_arrays(list(map(pa.array, columns)), schema=STATE)

    def bounds(self, histogram: np.ndarray) -> Bounds:
        """Of densities in bins, those that are not given."""
        found = bounds_of(histogram, self.z)
        return Bounds(found.low if self.low is None else self.low, found.high if self.high is None else self.high)

    def run(self, part: int, state: pa.Table, **tables: Any) -> Batches:
        density, assignments, catalog = (tables[name] for name in self.inputs)
        if Parts.of(catalog).role[part] != POOL or len(assignments) == 0:
            return
        ids, leaf = assignments["image_id"].to_numpy(), assignments["cluster_id"].to_numpy()
        measured = _densities(density, ids)
        coherence, bounds = np.full(len(ids), np.nan, np.float32), self.bounds(np.zeros(BINS))
        if len(state):
            known = state["cluster_id"].to_numpy()
            place = np.minimum(np.searchsorted(known, leaf), len(known) - 1)
            coherence = np.where(known[place] == leaf, state["coherence"].to_numpy()[place], coherence)
            bounds = Bounds(*(state[name][0].as_py() for name in Bounds._fields))
        low, high = map(np.float32, bounds)
        junk = (measured < low) | (measured > high) | (coherence < low) | (coherence > high)
        columns = [
            pa.array(ids),
            pa.array(measured, mask=np.isnan(measured)),
            pa.array(coherence, mask=np.isnan(coherence)),
            pa.array(junk),
        ]
        yield pa.RecordBatch.from_arrays(columns, schema=JUNK)
        alike = junk & ((measured > high) | (coherence > high))
        yield tally_batch(FoundJunkTally(too_alike=int(alike.sum()), bounds=(bounds,)), JUNK)

    # -- telling about it ------------------------------------------------------------------------------------

    def summarize(self, table: Table, **inputs: Any) -> JunkFigures:
        found = FoundJunkTally.of(table)
        bounds = found.bounds[0] if found.bounds else self.bounds(np.zeros(BINS))
        low, high = (round(bound, 4) for bound in bounds)
        return JunkFigures(junk=found.junk, too_alike=found.too_alike, low=low, high=high)

    def cost(self, inputs: Shapes, given: Assumptions) -> tuple[Demand, Shape]:
        density, leaves = inputs["density"], inputs["assignments"]
        made = density._replace(row_bytes=ID_BYTES + 8, columns=4)
        by_leaf = min(leaves.lists, leaves.rows / leaves.parts)  # leaves that the images of a part are in
        found = Shape(pool=by_leaf * leaves.parts, row_bytes=LEAF_BYTES, parts=leaves.parts)
        state = Shape(pool=leaves.lists, row_bytes=COHERENCE_BYTES)
        demand = Demand(rows=2 * density.rows, written=made.num_bytes)
        return Demand.phases([demand, folded(found, state, made)]), made

    def show(self, table: Table, run: Finished) -> Iterator[Section]:
        sample, figures = run.sample(table, JUNK.names), JunkFigures.of(table)
        ids, junk = (sample.rows[name].to_numpy() for name in ("image_id", "junk"))
        density, coherence = (sample.rows[name].fill_null(np.nan).to_numpy() for name in ("density", "coherence"))
        if not np.isfinite(density).any():
            return
        text = (
            f"{plural(figures.junk, 'image')} kept out of the balanced draw, {figures.too_alike} of them as more alike "
            "than pictures of this pool are once copies are gone, the others as like nothing else. Retrieval and "
            "curated sets take no notice. If you want them: a larger junk.find.z, or junk=null. "
        )
        blocks: list[Block] = [_chart(density, junk, figures), Text((text + sample.note).rstrip())]
        alike = (density > figures.high) | (coherence > figures.high)
        for title, mask in (("too alike", junk & alike), ("like nothing else", junk & ~alike)):
            if mask.any():
                shown = pick(ids[mask], SHOWN, run.rng(f"junk {title}"))
                blocks += [Heading(f"Kept out: {title}"), gallery(shown, total=int(mask.sum()), rest=LIST_KEPT)]
        yield Section("Kept out of the balanced draw", tuple(blocks))

    def warn(self, table: Table, run: Finished) -> Iterator[str]:
        figures = JunkFigures.of(table)
        if (figures.low, figures.high) != (-1, 1) or self.low is not None or self.high is not None:
            return
        density = run.sample(table, ["density"]).rows["density"].drop_null().to_numpy()
        if len(density) and np.median(density) > 1 - 2 * NEAREST:
            yield (
                f"{table.name}: half of the pool's images have a cosine of {np.median(density):.4f} or more to their "
                "nearest neighbors, so that nothing tells junk from them, and clusters mean little: has the backbone "
                "collapsed? Choose another, or train it longer, with a KoLeo weight or a larger batch"
            )

    def explain(self, image: ImagePlace, table: Table, run: Finished) -> Iterator[str]:
        figures = JunkFigures.of(table)
        for row in run.rows_of(image, table):
            verdict = "left out of the balanced draw as junk" if row["junk"] else "like the pool"
            means = [row["density"], row["coherence"]]
            density, coherence = ("unknown" if mean is None else f"{mean:.3f}" for mean in means)
            yield f"{verdict}: mean cosine to its neighbors {density}, in its cluster {coherence}"
            yield f"usual is {figures.low:.3f} to {figures.high:.3f}"


def _chart(density: np.ndarray, junk: np.ndarray, figures: JunkFigures) -> Histogram:
    """Densities (N,), NaN where unknown, of images that stay and of those that are junk (N,) bool."""
    known = np.isfinite(density)
    edges = np.linspace(min(0.0, float(density[known].min())), 1.0, NUM_BINS + 1)
    series = [
        Series("stays", np.histogram(density[~junk & known], edges)[0], "a"),
        Series("kept out", np.histogram(density[junk & known], edges)[0], "d"),
    ]
    bounds = {"low": figures.low, "high": figures.high}
    markers = [Marker(f"{name} {at:.3f}", at, "b") for name, at in bounds.items() if edges[0] < at < 1]
    return Histogram(edges, series, markers, x_label="mean cosine to neighbors", counted="images")


def bounds_of(histogram: np.ndarray, z: float) -> Bounds:
    """Median -+ z standard deviations of the bulk of densities in the bins of `_bin`.

    All densities where there are none, or where the median lies in the first bin, which does not tell how near its
    images are.
    """
    if histogram.sum() == 0 or _middle(histogram) == 0:
        return Bounds(-1.0, 1.0)
    width = np.log(FARTHEST / NEAREST) / BINS
    center = np.log(NEAREST) + (np.arange(BINS) + 0.5) * width
    median = float(center[_middle(histogram)])
    order = np.argsort(np.abs(center - median), kind="stable")
    mad = max(LEAST_MAD, float(np.abs(center - median)[order[_middle(histogram[order])]]))
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
    """(N,) float32 of these images, 1 at most; NaN where nothing was near enough to be measured."""
    known, value = density["image_id"].to_numpy(), density["density"].to_numpy()
    found = np.full(len(ids), np.nan, np.float32)
    place = np.searchsorted(known, ids)
    inside = place < len(known)
    inside[inside] = known[place[inside]] == ids[inside]
    found[inside] = np.minimum(value[place[inside]], 1)  # a cosine of equal vectors may be a rounding above 1
    return found
