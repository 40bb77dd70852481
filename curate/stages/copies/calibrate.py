"""CalibrateCopies: the thresholds from which on two images are copies, measured with copies planted in the pool.

Half of the planted images judge (the other half fitted the copy space). Each of their copies searches the whole pool.
What it finds above a threshold is right if it is its original, and wrong if it is another picture. Copies that the pool
already holds are neither: images that can be laid over the original (`ops/copies/alignment.py`), or are as like it as
half of its copies are, are left out of the count, and counted as wrong in a second curve, which bounds the precision
from below. In pools full of copies the threshold errs on the strict side.
"""

from typing import Annotated, Any, ClassVar, NamedTuple

import numpy as np
import pyarrow as pa
from pydantic import Field

from curate.config import Execution
from curate.engine.stage import Batches, Fold, Input, each, whole
from curate.engine.store import Table
from curate.errors import ConfigError
from curate.models.device import resolve_device
from curate.ops.copies.alignment import align
from curate.ops.search.knn import find_neighbors
from curate.ops.vectors import VectorSpec, normalize, to_float32, unpack
from curate.stages.copies.copyspace import read_space
from curate.stages.copies.plant import Planted, read_planted
from curate.stages.images.catalog import parts_of
from curate.tables import CATALOG, PLANTED, ROLES, SPACE, THRESHOLDS, VECTORS

POOL = ROLES.index("pool")
ALIGNED = 0.5
"""Correlation in the best alignment from which on two images may be copies, whatever the embedding says."""
ALIKE = 0.5
"""Share of the planted copies that are less like their original than an image that may be one."""
PER_COPY = 8
"""Other images that a copy finds in a part at most."""
GIVEN_UP = 0.05
"""Share of the planted copies that are given up: below their similarity to the original nothing is searched."""
CURVE_POINTS = 200
FOUND = pa.schema(
    [
        pa.field("original", pa.bool_(), nullable=False),
        pa.field("similarity", pa.float32(), nullable=False),
        pa.field("unclear", pa.bool_(), nullable=False),
    ]
)
"""What copies find in one part."""


class CalibrateCopies(Fold):
    """Thresholds at a stated precision, and the curves that they come from."""

    inputs: ClassVar[dict[str, Input]] = {
        "embeddings": each(VECTORS),
        "pictures": each(VECTORS),
        "planted": whole(PLANTED),
        "space": whole(SPACE, optional=True),
        "catalog": whole(CATALOG),
    }
    pinned: ClassVar[bool] = True

    precision: Annotated[float, Field(gt=0.5, lt=1)] = 0.99
    """Of the pairs that planted copies find, within the pool."""
    heldout_precision: Annotated[float, Field(gt=0.5, lt=1)] = 0.98
    """The same for pairs with held-out images: less, since a miss costs more than an image."""
    device: Annotated[str, Execution()] = "auto"
    """auto, cpu, cuda or cuda:N."""

    def output_schema(self, **inputs: Any) -> pa.Schema:
        return THRESHOLDS

    def partial_schema(self, **inputs: Any) -> pa.Schema:
        return FOUND

    def num_parts(self, **inputs: Any) -> int:
        return 1

    def partial(
        self,
        part: int,
        *,
        embeddings: pa.Table,
        pictures: pa.Table,
        planted: Table,
        space: Table | None,
        catalog: Table,
    ) -> Batches:
        if parts_of(catalog).role[part] != POOL:
            return
        asking, device = _asking(planted, space), str(resolve_device(self.device))
        spec, small = VectorSpec.of(embeddings.schema), VectorSpec.of(pictures.schema)
        stored, rows = unpack(embeddings["vector"], spec)
        ids = embeddings["image_id"].to_numpy()[rows]
        x = normalize(to_float32(stored, spec))
        copies, likeness = np.flatnonzero(asking.number > 0), likeness_of_copies(asking)
        edges = find_neighbors(
            asking.vectors[copies],
            x,
            query_ids=-1 - np.arange(len(copies)),  # names of their own: a copy is no image of the catalog
            base_ids=ids,
            threshold=searched_from(likeness),
            max_neighbors=PER_COPY,
            device=device,
        )
        shows = asking.image_ids[copies[-1 - edges.query_ids]]
        other = np.flatnonzero(edges.image_ids != shows)
        luma, small_rows = unpack(pictures["vector"], small)
        place = np.searchsorted(pictures["image_id"].to_numpy()[small_rows], edges.image_ids[other])
        originals = np.flatnonzero(asking.number == 0)
        own = originals[np.searchsorted(asking.image_ids[originals], shows[other])]
        correlation = align(asking.pictures[own], to_float32(luma[place], small), device=device)
        alike = np.einsum("nd,nd->n", asking.vectors[own], x[np.searchsorted(ids, edges.image_ids[other])])
        unclear = may_be_copies(correlation, alike, likeness)
        columns = [np.zeros(len(other), bool), edges.similarity[other].astype(np.float32), unclear]
        yield pa.RecordBatch.from_arrays(list(map(pa.array, columns)), schema=FOUND)
        here = np.flatnonzero(np.isin(asking.image_ids[copies], ids))
        found = x[np.searchsorted(ids, asking.image_ids[copies[here]])]
        similarity = np.einsum("nd,nd->n", asking.vectors[copies[here]], found).astype(np.float32)
        columns = [np.ones(len(here), bool), similarity, np.zeros(len(here), bool)]
        yield pa.RecordBatch.from_arrays(list(map(pa.array, columns)), schema=FOUND)

    def combine(self, partials: Table | None, **tables: Any) -> Batches:
        assert partials is not None
        rows = pa.concat_tables([FOUND.empty_table(), *map(partials.read, sorted(partials.committed()))])
        original, similarity, unclear = (rows[name].to_numpy() for name in FOUND.names)
        floor = searched_from(likeness_of_copies(_asking(tables["planted"], tables["space"])))
        curve = precision_curve(similarity, original, unclear, floor=floor)
        chosen = {
            use: choose(curve, wanted)
            for use, wanted in (("pool", self.precision), ("heldout", self.heldout_precision))
        }
        shown = np.unique(np.linspace(0, len(curve.threshold) - 1, CURVE_POINTS).astype(int))
        picked = [*chosen.items(), *(("", int(row)) for row in shown)]
        at = np.array([row for _, row in picked])
        columns = [
            pa.array([use or None for use, _ in picked], pa.string()),
            *(pa.array(column[at].astype(np.float32)) for column in curve),
        ]
        yield pa.RecordBatch.from_arrays(columns, schema=THRESHOLDS)

    def summarize(self, table: Table, **inputs: Any) -> dict[str, Any]:
        rows = table.read_all().to_pylist()
        names = ("threshold", "precision", "precision_low", "recall")
        return {row["use"]: {name: round(row[name], 5) for name in names} for row in rows if row["use"] is not None}


class Curve(NamedTuple):
    """What a threshold would give, by descending threshold."""

    threshold: np.ndarray
    """(T,) float, values of the similarity; a pair counts at or above"""
    precision: np.ndarray
    """(T,) of the pairs that are clear"""
    precision_low: np.ndarray
    """(T,) with all that are unclear as wrong"""
    recall: np.ndarray
    """(T,) of the pairs of a copy and its original"""


def precision_curve(
    similarity: np.ndarray, original: np.ndarray, unclear: np.ndarray, *, floor: float = -np.inf
) -> Curve:
    """Precision and recall at every value of `similarity` that is not below `floor`.

    Args:
        similarity: (N,) float, of pairs.
        original: (N,) bool, right pairs.
        unclear: (N,) bool, of the others, those that may be right.
        floor: wrong pairs below it were not searched, so that nothing is known there.

    Raises:
        ConfigError: there is no right pair.
    """
    if not original.any():
        raise ConfigError("copies.threshold=auto: no planted copy has its original in the pool; was it embedded?")
    order = np.argsort(-similarity, kind="stable")
    value, right, doubt = similarity[order], np.cumsum(original[order]), np.cumsum(unclear[order])
    ends = np.append(value[1:] < value[:-1], True) & (value >= floor)  # equal values are taken together or not at all
    taken = np.arange(1, len(order) + 1)[ends]
    right, doubt = right[ends], doubt[ends]
    clear = taken - doubt
    precision = np.where(clear > 0, right / np.maximum(1, clear), 1.0)  # of nothing, nothing is wrong
    return Curve(value[ends], precision, right / taken, right / original.sum())


def choose(curve: Curve, precision: float) -> int:
    """Row of the lowest threshold that keeps the precision.

    Raises:
        ConfigError: none does; the message names the best.
    """
    good = np.flatnonzero((curve.precision >= precision) & (curve.recall > 0))
    if len(good) == 0:
        raise ConfigError(
            f"copies.threshold=auto: no threshold reaches a precision of {precision:g} on copies planted in this pool, "
            f"the best is {curve.precision[curve.recall > 0].max():.3f}; lower "
            "copies.calibration.thresholds.precision, or use another model"
        )
    return int(good[-1])


def likeness_of_copies(asking: Planted) -> np.ndarray:
    """(C,) float32: cosine of each copy to its original."""
    copies, originals = np.flatnonzero(asking.number > 0), np.flatnonzero(asking.number == 0)
    own = originals[np.searchsorted(asking.image_ids[originals], asking.image_ids[copies])]
    cosine: np.ndarray = np.einsum("nd,nd->n", asking.vectors[copies], asking.vectors[own])
    return cosine


def searched_from(likeness: np.ndarray) -> float:
    """Similarity that nearly all copies have to their original."""
    return float(np.quantile(likeness, GIVEN_UP))


def may_be_copies(correlation: np.ndarray, alike: np.ndarray, likeness: np.ndarray) -> np.ndarray:
    """(N,) bool: other images that no one could count as mistakes.

    Args:
        correlation: (N,) with the original, in the best alignment.
        alike: (N,) cosine to the original.
        likeness: (C,) cosine of planted copies to theirs.
    """
    return (correlation >= ALIGNED) | (alike >= np.quantile(likeness, ALIKE))


def _asking(planted: Table, space: Table | None) -> Planted:
    """The half that judges, in the space that is searched."""
    found = read_planted(planted, half=1)
    return found if space is None else found._replace(vectors=read_space(space).project(found.vectors))
