"""CalibrateCopies: the rule by which two images are copies, measured with copies planted in the pool.

The rule is the default's (`verified_pairs.py`): a search finds pairs of a loose cosine, those of a strict one count,
and the others count if one picture can be laid over the other. What belongs to a model or a pool is measured: from
which cosine on copies are found, from which on images look alike, from which on nothing must be verified, and how well
two pictures must agree.

Half of the planted images judge (the other half fitted the copy space). Each of their copies searches the whole pool
(`SearchPlanted`) and is laid over what it finds. Its original is right, another picture is wrong. The difficulty is
that the pool holds copies already, of which nobody knows: they are found as well, and are no mistakes. Images that lie
over the copy beyond doubt, or over the original too, are therefore left out of the count. Of copies that the pool holds
some are still counted as wrong, so in pools full of them the rule errs on the strict side.
"""

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar

import numpy as np
import pyarrow as pa
from pydantic import Field

from curate.config import Settings
from curate.engine.cost import Assumptions, Demand, Shape, Shapes
from curate.engine.figures import Figures
from curate.engine.finished import Finished
from curate.engine.numbers import count
from curate.engine.show import Cell, Curves, Line, Numbers, Section, Text
from curate.engine.stage import Batches, Fold, Input, each, read_partials, whole
from curate.engine.table import Table
from curate.engine.threads import one_blas_thread
from curate.ops.copies.features import LocalFeatures
from curate.ops.copies.precision import PrecisionCurve, lowest_threshold, precision_curve
from curate.ops.copies.registration import register, registration_score
from curate.stages.copies.copy_space import read_space
from curate.stages.copies.extract_features import read_features
from curate.stages.copies.plant import PlantFigures
from curate.stages.copies.planted import PlantedCopies, read_planted
from curate.stages.copies.search_planted import PER_COPY, is_original, searched_from
from curate.tables import FEATURES, PAIRS, PLANTED, SPACE, THRESHOLDS

LEAST_SCORE = 0.3
"""Score of two pictures laid over each other below which no rule counts them."""
DOUBTLESS = 0.8
"""Score from which on an image that a copy finds is one itself, which the pool holds already: distinct photographs
reach 0.55."""
LIKELY = 0.45
"""The same of such an image and the original."""
ALIKE = 0.25
"""Share of the planted copies that are less like their original than images that look alike."""
SURE = 0.998
"""Lower confidence bound of the precision from which on a cosine decides alone."""
NEVER = 1.0
"""Cosine from which on nothing must be verified, where no other is sure enough."""
COSINES = ("floor", "alike", "sure")
"""Uses of the cosines that are measured."""
CURVE_POINTS = 200
"""Points of the curve that are stored."""
PAIR_BYTES = 10
"""Bytes of a found pair."""
FOUND = pa.schema(
    [
        pa.field("original", pa.bool_(), nullable=False),
        pa.field("similarity", pa.float32(), nullable=False),
        pa.field("score", pa.float32(), nullable=False),
        pa.field("unclear", pa.bool_(), nullable=False),
    ]
)
"""What copies find in one part."""


class MeasuredThreshold(Settings):
    """A chosen threshold, and what it gives on planted copies."""

    threshold: float
    """Score from which on a pair counts."""
    precision: float
    """Share of the found pairs that are right, of those that are clear."""
    precision_low: float
    """Its lower confidence bound."""
    recall: float
    """Share of the planted copies that find their original."""


class CalibrationFigures(Figures):
    """The chosen thresholds."""

    pool: MeasuredThreshold
    """For pairs of pool and curated images."""
    heldout: MeasuredThreshold
    """For pairs with a held-out image."""
    floor: float
    """Cosine from which on pairs are found."""
    alike: float
    """Cosine from which on images look alike."""
    sure: float
    """Cosine from which on pairs count unverified; 1: none does."""


class CalibrateCopies(Fold):
    """Measures the rule at a stated precision, and the curve that it comes from."""

    inputs: ClassVar[dict[str, Input]] = {
        "features": each(FEATURES),
        "found": whole(PAIRS),
        "planted": whole(PLANTED),
        "space": whole(SPACE, optional=True),
    }
    version: ClassVar[int] = 2
    pinned: ClassVar[bool] = True

    precision: Annotated[float, Field(gt=0.5, lt=1)] = 0.99
    """Precision of the pairs that planted copies find within the pool, 0.5..1: its lower confidence bound, where enough
    copies are planted."""
    heldout_precision: Annotated[float, Field(gt=0.5, lt=1)] = 0.98
    """The same for pairs with held-out images, 0.5..1: less, since a miss costs more than an image."""

    def output_schema(self, **inputs: Any) -> pa.Schema:
        return THRESHOLDS

    def partial_schema(self, **inputs: Any) -> pa.Schema:
        return FOUND

    def partial(self, part: int, *, features: pa.Table, found: Table, planted: Table, space: Table | None) -> Batches:
        """What the judging copies find in one part of the pool, laid over it."""
        with one_blas_thread():
            yield self._laid_over(features, found.read_all(), read_planted(planted, half=1))

    def _laid_over(self, features: pa.Table, pairs: pa.Table, asking: PlantedCopies) -> pa.RecordBatch:
        """What copies find among images whose features are known."""
        images = {row["image_id"]: read_features(row) for row in features.to_pylist() if row["points"] is not None}
        pairs = pairs.filter(pa.array(np.isin(pairs["image_id"].to_numpy(), list(images))))
        own = is_original(asking, pairs["query_id"].to_numpy(), pairs["image_id"].to_numpy())
        judge = _Registered(asking, images)
        rows = list(zip(pairs["query_id"].to_pylist(), pairs["image_id"].to_pylist(), own.tolist(), strict=True))
        scores = np.array([judge.score(-1 - query, image) for query, image, _ in rows], np.float32)
        unclear = [
            not original and (score >= DOUBTLESS or (score >= LEAST_SCORE and judge.own(-1 - query, image) >= LIKELY))
            for (query, image, original), score in zip(rows, scores, strict=True)
        ]
        columns = [own, pairs["similarity"].to_numpy(), scores, np.array(unclear, bool)]
        return pa.RecordBatch.from_arrays(list(map(pa.array, columns)), schema=FOUND)

    def combine(self, partials: Table | None, **tables: Any) -> Batches:
        """The chosen values, then points of the curve.

        Raises:
            ConfigError: no score reaches the precision.
        """
        assert partials is not None
        original, similarity, score, unclear = (read_partials(partials)[name].to_numpy() for name in FOUND.names)
        asking = read_planted(tables["planted"], half=1)
        likeness = asking.likeness(asking.views(None if tables["space"] is None else read_space(tables["space"])))
        floor = searched_from(likeness)
        offered = similarity >= floor
        curve = precision_curve(np.where(offered, score, -1), original, unclear, floor=LEAST_SCORE)
        chosen = {"pool": self._choose(curve, "precision"), "heldout": self._choose(curve, "heldout_precision")}
        cosines = {
            "floor": floor,
            "alike": float(np.quantile(likeness, ALIKE)),
            "sure": _sure(similarity, original, unclear),
        }
        shown = np.unique(np.linspace(0, len(curve.threshold) - 1, CURVE_POINTS).astype(int))
        uses = pa.array([*chosen, *[None] * len(shown)], pa.string())
        at = np.array([*chosen.values(), *shown])
        values = (pa.array(column[at].astype(np.float32)) for column in curve)
        yield pa.RecordBatch.from_arrays([uses, *values], schema=THRESHOLDS)
        nothing = pa.array([np.nan] * len(cosines), pa.float32())
        known = [pa.array(list(cosines)), pa.array(list(cosines.values()), pa.float32())]
        yield pa.RecordBatch.from_arrays([*known, nothing, nothing, nothing], schema=THRESHOLDS)

    def _choose(self, curve: PrecisionCurve, field: str) -> int:
        wanted: float = getattr(self, field)
        try:
            return lowest_threshold(curve, wanted)
        except ValueError as error:
            text = f"={wanted:g}: {error} on copies planted in this pool; lower it, or use another model"
            raise self.field_error(field, text) from error

    def summarize(self, table: Table, **inputs: Any) -> CalibrationFigures:
        rows = {row["use"]: row for row in table.read_all().to_pylist() if row["use"] is not None}
        names = MeasuredThreshold.model_fields
        chosen = {
            use: MeasuredThreshold(**{name: round(rows[use][name], 5) for name in names}) for use in ("pool", "heldout")
        }
        return CalibrationFigures(**chosen, **{use: round(rows[use]["threshold"], 5) for use in COSINES})

    # -- telling about it ------------------------------------------------------------------------------------

    def cost(self, inputs: Shapes, given: Assumptions) -> tuple[Demand, Shape]:
        pairs: Shape = inputs["found"]
        return Demand(pairs=2 * pairs.rows, scratch=pairs.rows * PAIR_BYTES), Shape(pool=CURVE_POINTS)

    def show(self, table: Table, run: Finished) -> Iterator[Section]:
        planted = [PlantFigures.of(copies) for copies in run.inputs_of(table, "planted")]
        copies = "".join(f"{count(made.copies)} copies of {count(made.images)}" for made in planted) or "copies of"
        found = CalibrationFigures.of(table)
        sure = (
            "no pair counts unverified" if found.sure >= NEVER else f"from {found.sure:.3f} on pairs count unverified"
        )
        text = (
            f"Measured with {copies} images of this pool: chains of web edits, half of which judge. A copy searches "
            f"the pool from a cosine of {found.floor:.3f} on, and is laid over the {PER_COPY} nearest images that it "
            f"finds; {sure}. Its original is right, another picture is wrong; images that lie over the original too "
            "may be copies that the pool already holds, and are left out. At least: the lower confidence bound of the "
            "precision, 95 %, as if pairs were independent."
        )
        yield Section("Thresholds, measured", (_chart(table), _chosen(found), Text(text)))


def _chart(table: Table) -> Curves:
    points = sorted((row for row in table.read_all().to_pylist() if row["use"] is None), key=lambda r: r["threshold"])
    at, precision, recall = (
        np.array([point[name] for point in points]) for name in ("threshold", "precision", "recall")
    )
    lines = [Line("precision", 100 * precision, "a", at), Line("recall", 100 * recall, "b", at)]
    return Curves(lines, x_label="score of one picture laid over the other", y_label="%")


def _chosen(figures: CalibrationFigures) -> Numbers:
    """A row for each use."""
    uses = (("within the pool", figures.pool), ("with held-out images", figures.heldout))
    rows: list[tuple[Cell, ...]] = [
        (name, *(round(value, 3) for value in (at.threshold, at.precision, at.precision_low, at.recall)))
        for name, at in uses
    ]
    return Numbers(("pairs", "threshold", "precision", "at least", "recall"), tuple(rows))


class _Registered:
    """Scores of pictures laid over each other, each once."""

    def __init__(self, asking: PlantedCopies, images: dict[int, LocalFeatures | None]) -> None:
        self._asking, self._images = asking, images
        self._planted: dict[int, LocalFeatures] = {}
        self._scores: dict[tuple[int, int], float] = {}

    def own(self, row: int, image: int) -> float:
        """Score of the original of a planted row and an image of the pool."""
        original = self._asking.originals_of(self._asking.image_ids[row : row + 1])
        return self.score(int(original[0]), image)

    def score(self, row: int, image: int) -> float:
        """Score of the picture of a planted row and an image of the pool."""
        if (row, image) not in self._scores:
            if row not in self._planted:
                self._planted[row] = self._asking.features(row)
            of_image = self._images[image]
            assert of_image is not None
            found = register(self._planted[row], of_image)
            score = registration_score(np.array([found.agreement], np.float32), np.array([found.num_points]))
            self._scores[row, image] = float(score[0])
        return self._scores[row, image]


def _sure(similarity: np.ndarray, original: np.ndarray, unclear: np.ndarray) -> float:
    """The lowest cosine from which on no pair must be verified."""
    curve = precision_curve(similarity, original, unclear)
    good = np.flatnonzero(curve.precision_low >= SURE)
    return float(curve.threshold[good[-1]]) if len(good) else NEVER
