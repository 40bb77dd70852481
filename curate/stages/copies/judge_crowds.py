"""JudgeCrowds: the pairs of look-alikes that stand out of what both images resemble; see `crowd_members.py`."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, Self

import numpy as np
import pyarrow as pa
from pydantic import Field

from curate.engine.cost import Assumptions, Demand, Shape, Shapes
from curate.engine.figures import Figures
from curate.engine.finished import Finished
from curate.engine.image_ids import Parts
from curate.engine.numbers import count, plural
from curate.engine.show import Block, Gallery, Heading, Picture, Section, Text
from curate.engine.stage import Batches, Input, Map, each, whole
from curate.engine.table import Table
from curate.models.thresholds import verification
from curate.ops.copies.alignment import alignment_score
from curate.ops.copies.crowds import standing_out
from curate.stages.copies.find_crowds import TITLE
from curate.stages.copies.measure_crowds import read_surroundings, usual_surroundings
from curate.stages.copies.verified_pairs import least_similarity
from curate.stages.copies.verify_copies import VerifyCopies
from curate.tables import CATALOG, CROWD_PAIRS, HELDOUT, NEIGHBORS, SURROUNDINGS

NUM_PAIRS = 6
"""Pairs that count, and pairs that do not, as many of each as are shown."""


class JudgeFigures(Figures):
    """How many pairs of look-alikes count."""

    tried: int
    """Pairs that were aligned."""
    alike: int
    """Those that would be copies anywhere else."""
    counted: int
    """Those of them that stand out."""


class JudgeCrowds(Map):
    """Keeps the pairs that would count anywhere else, and stand out of the crowds that their images are in."""

    inputs: ClassVar[dict[str, Input]] = {
        "aligned": each(CROWD_PAIRS),
        "surroundings": whole(SURROUNDINGS),
        "catalog": whole(CATALOG),
    }

    spreads: Annotated[float, Field(gt=0)] = 7.0
    """Standard deviations by which a pair of pool and curated images must stand out, > 0."""
    heldout_spreads: Annotated[float, Field(gt=0)] = 5.0
    """The same for a pair with a held-out image, > 0: less, since a miss costs more than an image."""
    threshold: Annotated[float, Field(ge=-1, le=1)] | None = None
    """Least score of a pair of pool and curated images, -1..1; null: the value known for the model."""
    heldout_threshold: Annotated[float, Field(ge=-1, le=1)] | None = None
    """Least score of a pair with a held-out image, -1..1; null: the value known for the model."""
    weight: Annotated[float, Field(gt=0)] = VerifyCopies().weight
    """Weight of the correlation beside the cosine in the score, > 0."""
    model: str = ""
    """Id of the copy-detection model that the thresholds belong to; recipes set it."""

    def output_schema(self, **inputs: Any) -> pa.Schema:
        return NEIGHBORS

    def resolve(self, previous: Mapping[str, Any] | None = None, **inputs: Any) -> Self:
        if self.threshold is not None and self.heldout_threshold is not None:
            return self
        known = verification(self.model)
        chosen = {"threshold": known.threshold, "heldout_threshold": known.heldout_threshold}
        return self.model_copy(update={name: value for name, value in chosen.items() if getattr(self, name) is None})

    def run(self, part: int, *, aligned: pa.Table, surroundings: Table, catalog: Table) -> Batches:
        score, alike, counts = self._judged(aligned, surroundings, Parts.of(catalog))
        kept = aligned.filter(pa.array(alike & counts))
        kinds = pa.array(["aligned"] * len(kept), pa.string())
        columns = [kept["query_id"], kept["image_id"], pa.array(score[alike & counts]), kinds]
        yield from pa.table(columns, schema=NEIGHBORS).to_batches()

    def _judged(
        self, aligned: pa.Table, surroundings: Table, parts: Parts
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(E,) the score of each pair, whether it would count anywhere else, whether it stands out."""
        query, image = aligned["query_id"].to_numpy(), aligned["image_id"].to_numpy()
        correlation = aligned["correlation"].to_numpy()
        score = alignment_score(aligned["similarity"].to_numpy(), correlation, weight=self.weight)
        known, usual = read_surroundings(surroundings), usual_surroundings(surroundings)
        height = standing_out(known, query, image, correlation, usual=usual)
        least = np.where(parts.role_of(query) == HELDOUT, self.heldout_spreads, self.spreads)
        return score, score >= least_similarity(self, aligned, parts), height >= least

    def summarize(self, table: Table, **inputs: Any) -> JudgeFigures:
        parts, tried, alike = Parts.of(inputs["catalog"]), 0, 0
        for rows in inputs["aligned"].scan():
            score = alignment_score(rows["similarity"].to_numpy(), rows["correlation"].to_numpy(), weight=self.weight)
            tried, alike = tried + len(rows), alike + int((score >= least_similarity(self, rows, parts)).sum())
        return JudgeFigures(tried=tried, alike=alike, counted=table.num_rows())

    # -- telling about it ------------------------------------------------------------------------------------

    def cost(self, inputs: Shapes, given: Assumptions) -> tuple[Demand, Shape]:
        """A tenth of the pairs of look-alikes are copies."""
        pairs: Shape = inputs["aligned"]
        made = Shape(pool=pairs.rows / 10)
        return Demand(rows=2 * pairs.rows, read=2 * pairs.num_bytes, written=made.num_bytes), made

    def show(self, table: Table, run: Finished) -> Iterator[Section]:
        found = JudgeFigures.of(table)
        if not found.tried:
            return
        text = (
            f"{plural(found.tried, 'pair')} of such images were laid over each other. {count(found.alike)} would be "
            f"copies anywhere else; {count(found.counted)} of them stand out of what both images resemble, and do."
        )
        yield Section(TITLE, (Text(text), *self._galleries(table, run)))

    def _galleries(self, table: Table, run: Finished) -> Iterator[Block]:
        """Some pairs that count, and the most alike of those that do not."""
        names = ["query_id", "image_id", "similarity"]
        counted = run.sample(table, names).rows.sort_by([("similarity", "ascending")]).slice(0, NUM_PAIRS).to_pylist()
        if counted:
            yield Heading("Pairs that stand out, the least alike first")
            yield from (_pair(row, "counts") for row in counted)
        (aligned,), (around,) = run.inputs_of(table, "aligned"), run.inputs_of(table, "surroundings")
        rows = run.sample(aligned, CROWD_PAIRS.names).rows
        score, alike, counts = self._judged(rows, around, run.parts)
        left = np.flatnonzero(alike & ~counts)
        left = left[np.argsort(-score[left], kind="stable")][:NUM_PAIRS]
        if len(left):
            yield Heading("Pairs that do not, the most alike first")
            yield from (_pair(rows.slice(at, 1).to_pylist()[0], "does not count") for at in left.tolist())


def _pair(row: dict[str, Any], verdict: str) -> Gallery:
    text = f"{row['similarity']:.3f}, {verdict}"
    return Gallery((Picture(row["query_id"]), Picture(row["image_id"], (text,))), group=True)
