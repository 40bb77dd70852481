"""CalibrateCopies: the thresholds from which on two images are copies, measured with copies planted in the pool.

Half of the planted images judge (the other half fitted the copy space). Each of their copies searches the whole pool.
What it finds above a threshold is right if it is its original, and wrong if it is another picture. The difficulty is
that the pool holds copies already, of which nobody knows: they are found as well, and are no mistakes. Images that can
be laid over the original (`ops/copies/alignment.py`), or are as like it as half of its copies are, are therefore left
out of the count, and counted as wrong in a second curve, which bounds the precision from below. In pools full of
copies the threshold errs on the strict side.
"""

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, NamedTuple

import numpy as np
import pyarrow as pa
from pydantic import Field

from curate.config import Execution, Settings
from curate.engine.cost import Assumptions, Demand, Shape, Shapes
from curate.engine.figures import Figures
from curate.engine.finished import Finished
from curate.engine.image_ids import Parts
from curate.engine.numbers import count
from curate.engine.show import Cell, Curves, Line, Numbers, Section, Text
from curate.engine.stage import Batches, Fold, Input, each, read_partials, whole
from curate.engine.table import Table
from curate.errors import TableError
from curate.ops.copies.alignment import align
from curate.ops.copies.precision import PrecisionCurve, lowest_threshold, precision_curve
from curate.ops.search.knn import find_neighbors
from curate.ops.vectors import VectorSpec, normalize, to_float32, unpack
from curate.stages.copies.copy_space import read_space
from curate.stages.copies.plant import PlantFigures
from curate.stages.copies.planted import PlantedCopies, read_planted
from curate.tables import CATALOG, PLANTED, POOL, SPACE, THRESHOLDS, VECTORS

ALIGNED = 0.5
"""Correlation in the best alignment from which on two images may be copies, whatever the embedding says."""
ALIKE = 0.5
"""Share of the planted copies that are less like their original than an image that may be one."""
PER_COPY = 8
"""Other images that a copy finds in a part at most."""
GIVEN_UP = 0.05
"""Share of the planted copies that are given up: below their similarity to the original nothing is searched."""
CURVE_POINTS = 200
"""Points of the curve that are stored."""
PART_ROWS = 65_536
"""Images of a part, as the cost law assumes."""
PAIR_BYTES = 6
"""Bytes of a found pair."""
FOUND = pa.schema(
    [
        pa.field("original", pa.bool_(), nullable=False),
        pa.field("similarity", pa.float32(), nullable=False),
        pa.field("unclear", pa.bool_(), nullable=False),
    ]
)
"""What copies find in one part."""


class MeasuredThreshold(Settings):
    """A chosen threshold, and what it gives on planted copies."""

    threshold: float
    """Similarity from which on a pair counts."""
    precision: float
    """Share of the found pairs that are right, of those that are clear."""
    precision_low: float
    """The same with all unclear pairs as wrong."""
    recall: float
    """Share of the planted copies that find their original."""


class CalibrationFigures(Figures):
    """The chosen thresholds."""

    pool: MeasuredThreshold
    """For pairs of pool and curated images."""
    heldout: MeasuredThreshold
    """For pairs with a held-out image."""


class CalibrateCopies(Fold):
    """Measures thresholds at a stated precision, and the curves that they come from."""

    inputs: ClassVar[dict[str, Input]] = {
        "embeddings": each(VECTORS),
        "pictures": each(VECTORS),
        "planted": whole(PLANTED),
        "space": whole(SPACE, optional=True),
        "catalog": whole(CATALOG),
    }
    pinned: ClassVar[bool] = True

    precision: Annotated[float, Field(gt=0.5, lt=1)] = 0.99
    """Precision of the pairs that planted copies find within the pool, 0.5..1."""
    heldout_precision: Annotated[float, Field(gt=0.5, lt=1)] = 0.98
    """The same for pairs with held-out images, 0.5..1: less, since a miss costs more than an image."""
    device: Annotated[str, Execution()] = "auto"
    """auto, cpu, cuda or cuda:N."""

    def output_schema(self, **inputs: Any) -> pa.Schema:
        return THRESHOLDS

    def partial_schema(self, **inputs: Any) -> pa.Schema:
        return FOUND

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
        """What the judging copies find in one part of the pool."""
        if Parts.of(catalog).role[part] != POOL:
            return
        from curate.models.device import resolve_device

        asking, pool = _asking(planted, space), _PoolPart.of(embeddings, pictures)
        yield _find_others(asking, pool, device=str(resolve_device(self.device)))
        yield _find_originals(asking, pool)

    def combine(self, partials: Table | None, **tables: Any) -> Batches:
        """The chosen thresholds, then points of the curve.

        Raises:
            ConfigError: no threshold reaches the precision.
            TableError: no planted copy has its original among the embeddings.
        """
        assert partials is not None
        rows = read_partials(partials)
        original, similarity, unclear = (rows[name].to_numpy() for name in FOUND.names)
        if not original.any():
            raise TableError("no planted copy has its original in the pool; was the pool embedded?")
        floor = searched_from(likeness_of_copies(_asking(tables["planted"], tables["space"])))
        curve = precision_curve(similarity, original, unclear, floor=floor)
        chosen = {"pool": self._choose(curve, "precision"), "heldout": self._choose(curve, "heldout_precision")}
        shown = np.unique(np.linspace(0, len(curve.threshold) - 1, CURVE_POINTS).astype(int))
        uses = pa.array([*chosen, *[None] * len(shown)], pa.string())
        at = np.array([*chosen.values(), *shown])
        values = (pa.array(column[at].astype(np.float32)) for column in curve)
        yield pa.RecordBatch.from_arrays([uses, *values], schema=THRESHOLDS)

    def _choose(self, curve: PrecisionCurve, field: str) -> int:
        wanted: float = getattr(self, field)
        try:
            return lowest_threshold(curve, wanted)
        except ValueError as error:
            text = f"={wanted:g}: {error} on copies planted in this pool; lower it, or use another model"
            raise self.field_error(field, text) from error

    def summarize(self, table: Table, **inputs: Any) -> CalibrationFigures:
        rows = table.read_all().to_pylist()
        names = MeasuredThreshold.model_fields
        chosen = {
            row["use"]: MeasuredThreshold(**{name: round(row[name], 5) for name in names})
            for row in rows
            if row["use"] is not None
        }
        return CalibrationFigures(**chosen)

    # -- telling about it ------------------------------------------------------------------------------------

    def cost(self, inputs: Shapes, given: Assumptions) -> tuple[Demand, Shape]:
        vectors, asking = inputs["embeddings"], inputs["planted"].rows / 2
        found = asking * min(PER_COPY * vectors.rows / PART_ROWS, vectors.rows)
        products = 2 * asking * vectors.rows * vectors.dim
        demand = Demand(products=products, pairs=found, read=vectors.num_bytes, scratch=found * PAIR_BYTES)
        return demand, Shape(pool=CURVE_POINTS)

    def show(self, table: Table, run: Finished) -> Iterator[Section]:
        planted = [PlantFigures.of(copies) for copies in run.inputs_of(table, "planted")]
        copies = "".join(f"{count(made.copies)} copies of {count(made.images)}" for made in planted) or "copies of"
        text = (
            f"Measured with {copies} images of this pool: chains of web edits, half of which judge. A copy searches "
            "the pool; its original is right, another picture is wrong. Images that can be laid over the original may "
            "be copies that the pool already holds: they are left out of the precision, and wrong in the column after "
            "it."
        )
        yield Section("Thresholds, measured", (_chart(table), _chosen(CalibrationFigures.of(table)), Text(text)))


def _chart(table: Table) -> Curves:
    points = sorted((row for row in table.read_all().to_pylist() if row["use"] is None), key=lambda r: r["threshold"])
    at, precision, recall = (
        np.array([point[name] for point in points]) for name in ("threshold", "precision", "recall")
    )
    lines = [Line("precision", 100 * precision, "a", at), Line("recall", 100 * recall, "b", at)]
    return Curves(lines, x_label="similarity", y_label="%")


def _chosen(figures: CalibrationFigures) -> Numbers:
    """A row for each use."""
    uses = (("within the pool", figures.pool), ("with held-out images", figures.heldout))
    rows: list[tuple[Cell, ...]] = [
        (name, *(round(value, 3) for value in (at.threshold, at.precision, at.precision_low, at.recall)))
        for name, at in uses
    ]
    return Numbers(("pairs", "threshold", "precision", "at least", "recall"), tuple(rows))


# -- what planted copies find --------------------------------------------------------------------------------


class _PoolPart(NamedTuple):
    """The embedded images of one part of the pool."""

    image_ids: np.ndarray
    """(N,) int64, ascending"""
    vectors: np.ndarray
    """(N, D) float32, unit L2"""
    picture_ids: np.ndarray
    """(M,) int64, ascending: images that have a small picture"""
    pictures: np.ndarray
    """(M, S*S) as stored"""
    small: VectorSpec
    """How the small pictures are stored."""

    @classmethod
    def of(cls, embeddings: pa.Table, pictures: pa.Table) -> "_PoolPart":
        spec, small = VectorSpec.of(embeddings.schema), VectorSpec.of(pictures.schema)
        vectors, rows = unpack(embeddings["vector"], spec)
        stored, picture_rows = unpack(pictures["vector"], small)
        ids, picture_ids = embeddings["image_id"].to_numpy()[rows], pictures["image_id"].to_numpy()[picture_rows]
        return cls(ids, normalize(to_float32(vectors, spec)), picture_ids, stored, small)

    def vectors_of(self, image_ids: np.ndarray) -> np.ndarray:
        """(K, D) vectors of images that have one."""
        found: np.ndarray = self.vectors[np.searchsorted(self.image_ids, image_ids)]
        return found

    def pictures_of(self, image_ids: np.ndarray) -> np.ndarray:
        """(K, S*S) float32, small pictures of images that have one."""
        return to_float32(self.pictures[np.searchsorted(self.picture_ids, image_ids)], self.small)


def _find_others(asking: PlantedCopies, pool: _PoolPart, *, device: str) -> pa.RecordBatch:
    """What copies find beside their original."""
    copies, likeness = asking.copies(), likeness_of_copies(asking)
    edges = find_neighbors(
        asking.vectors[copies],
        pool.vectors,
        query_ids=-1 - np.arange(len(copies)),  # names of their own: a copy is no image of the catalog
        base_ids=pool.image_ids,
        threshold=searched_from(likeness),
        max_neighbors=PER_COPY,
        device=device,
    )
    shows = asking.image_ids[copies[-1 - edges.query_ids]]
    other = edges.image_ids != shows
    found, own = edges.image_ids[other], asking.originals_of(shows[other])
    correlation = align(asking.pictures[own], pool.pictures_of(found), device=device)
    alike = np.einsum("nd,nd->n", asking.vectors[own], pool.vectors_of(found))
    return _found(edges.similarity[other], may_be_copies(correlation, alike, likeness), original=False)


def _find_originals(asking: PlantedCopies, pool: _PoolPart) -> pa.RecordBatch:
    """How similar each copy is to its original, where that lies in this part."""
    copies = asking.copies()
    here = copies[np.isin(asking.image_ids[copies], pool.image_ids)]
    similarity = np.einsum("nd,nd->n", asking.vectors[here], pool.vectors_of(asking.image_ids[here]))
    return _found(similarity, np.zeros(len(here), bool), original=True)


def _found(similarity: np.ndarray, unclear: np.ndarray, *, original: bool) -> pa.RecordBatch:
    columns = [np.full(len(similarity), original), similarity.astype(np.float32), unclear]
    return pa.RecordBatch.from_arrays(list(map(pa.array, columns)), schema=FOUND)


def likeness_of_copies(asking: PlantedCopies) -> np.ndarray:
    """(C,) float32: cosine of each copy to its original."""
    copies = asking.copies()
    own = asking.originals_of(asking.image_ids[copies])
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


def _asking(planted: Table, space: Table | None) -> PlantedCopies:
    """The half that judges, in the space that is searched."""
    found = read_planted(planted, half=1)
    return found if space is None else found._replace(vectors=read_space(space).project(found.vectors))
