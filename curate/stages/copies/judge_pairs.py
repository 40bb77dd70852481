"""JudgePairs: which of the registered pairs are copies; see `verified_pairs.py` and `crowd_members.py`."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, NamedTuple, Self

import numpy as np
import pyarrow as pa
from pydantic import Field

from curate.engine.cost import Assumptions, Demand, Shape, Shapes, edge_bytes
from curate.engine.demands import by_process
from curate.engine.figures import Figures
from curate.engine.finished import Finished
from curate.engine.image_ids import Parts
from curate.engine.numbers import count, plural
from curate.engine.show import Block, Gallery, Heading, Pages, Picture, Section, Text
from curate.engine.stage import Batches, Input, Map, each, whole
from curate.engine.table import Table
from curate.engine.tallies import Tally, tally_batch
from curate.models.thresholds import REGISTRATION
from curate.ops.copies.crowds import standing_out
from curate.ops.copies.registration import registration_score
from curate.stages.copies.crowd_members import CrowdMembers, members_read
from curate.stages.copies.find_crowds import TITLE
from curate.stages.copies.measure_crowds import read_surroundings, usual_surroundings
from curate.stages.copies.verified_pairs import least_similarity
from curate.stages.search.find_truth import measured
from curate.stages.search.neighbors import THRESHOLDS_TITLE, similarity_section, stricter_heldout, threshold_fact
from curate.tables import CATALOG, CROWDS, HELDOUT, NEIGHBORS, REGISTERED, SURROUNDINGS, THRESHOLDS

NUM_PAIRS = 24
"""Pairs that count, and pairs that do not, as many of each as are shown."""


class JudgeFigures(Figures):
    """How many of the registered pairs count."""

    tried: int
    """Pairs that were laid over each other."""
    counted: int
    """Those that count."""
    crowded: int
    """Of the tried ones, pairs that touch a crowd."""
    crowded_alike: int
    """Those of them that would be copies anywhere else."""
    crowded_counted: int
    """Those of these that stand out."""


class JudgeTally(Tally):
    """Pairs of one part, see `JudgeFigures`."""

    tried: int = 0
    counted: int = 0
    crowded: int = 0
    crowded_alike: int = 0
    crowded_counted: int = 0


class _Verdicts(NamedTuple):
    """(E,) each, of registered pairs."""

    score: np.ndarray
    """float32, see `registration_score`"""
    crowded: np.ndarray
    """bool, whether it touches a crowd"""
    alike: np.ndarray
    """bool, whether it would count anywhere else"""
    counts: np.ndarray
    """bool"""


class JudgePairs(Map):
    """Keeps the pairs whose pictures agree; in crowds those that also stand out of what both images resemble."""

    inputs: ClassVar[dict[str, Input]] = {
        "registered": each(REGISTERED),
        "crowds": whole(CROWDS, optional=True),
        "surroundings": whole(SURROUNDINGS, optional=True),
        "thresholds": whole(THRESHOLDS, optional=True),
        "catalog": whole(CATALOG),
    }
    tally: ClassVar[type[Tally] | None] = JudgeTally
    tells_from: ClassVar[tuple[str, ...]] = ("registered", "crowds", "surroundings")

    threshold: Annotated[float, Field(ge=-1, le=1)] = REGISTRATION.threshold
    """Least score of a pair of pool and curated images, -1..1: the agreement of both pictures, and 0.125 more for each
    time that the points which agree are twice as many as four."""
    heldout_threshold: Annotated[float, Field(ge=-1, le=1)] = REGISTRATION.heldout_threshold
    """Least score of a pair with a held-out image, -1..1."""
    least_cosine: Annotated[float, Field(ge=-1, le=1)] | None = None
    """Least cosine of a pair of pool and curated images, whatever its score, -1..1; null: any that was tried. Recipes
    set it by `copies.threshold`."""
    heldout_least_cosine: Annotated[float, Field(ge=-1, le=1)] | None = None
    """The same of a pair with a held-out image, by `copies.heldout_threshold`."""
    crowd_agreement: Annotated[float, Field(ge=-1, le=1)] = 0.3
    """Least agreement of 9 of 10 tiles, for a pair of images in crowds, -1..1: there the points of a common layout
    agree anyway."""
    spreads: Annotated[float, Field(gt=0)] = 7.0
    """Standard deviations by which such a pair must stand out, > 0."""
    heldout_spreads: Annotated[float, Field(gt=0)] = 5.0
    """The same for a pair with a held-out image, > 0: less, since a miss costs more than an image."""

    def output_schema(self, **inputs: Any) -> pa.Schema:
        return NEIGHBORS

    def resolve(self, previous: Mapping[str, Any] | None = None, **inputs: Any) -> Self:
        return self.model_copy(update=measured(inputs.get("thresholds"), threshold="pool", heldout_threshold="heldout"))

    def run(
        self,
        part: int,
        *,
        registered: pa.Table,
        crowds: Table | None,
        surroundings: Table | None,
        catalog: Table,
        thresholds: Table | None,
    ) -> Batches:
        found = self._judged(registered, crowds, surroundings, Parts.of(catalog))
        kept = registered.filter(pa.array(found.counts))
        kinds = pa.array(["aligned"] * len(kept), pa.string())
        columns = [kept["query_id"], kept["image_id"], pa.array(found.score[found.counts]), kinds]
        yield tally_batch(_tally(found), NEIGHBORS)
        yield from pa.table(columns, schema=NEIGHBORS).to_batches()

    def _judged(self, pairs: pa.Table, crowds: Table | None, surroundings: Table | None, parts: Parts) -> _Verdicts:
        query, image = pairs["query_id"].to_numpy(), pairs["image_id"].to_numpy()
        least_agreement = pairs["least_agreement"].to_numpy()
        score = registration_score(pairs["agreement"].to_numpy(), pairs["num_points"].to_numpy())
        alike = (score >= least_similarity(self, pairs, parts)) & self._near_enough(pairs, parts)
        if crowds is None or surroundings is None:
            return _Verdicts(score, np.zeros(len(score), bool), alike, alike)
        known, usual = read_surroundings(surroundings), usual_surroundings(surroundings)
        height = standing_out(known, query, image, least_agreement, usual=usual)
        least = np.where(parts.role_of(query) == HELDOUT, self.heldout_spreads, self.spreads)
        crowded = CrowdMembers.of(crowds).touch(pairs)
        stands_out = (height >= least) & (least_agreement >= self.crowd_agreement)
        return _Verdicts(score, crowded, alike, alike & (stands_out | ~crowded))

    def _near_enough(self, pairs: pa.Table, parts: Parts) -> np.ndarray:
        """(E,) bool: pairs whose cosine may count."""
        own, heldout = (-1.0 if one is None else one for one in (self.least_cosine, self.heldout_least_cosine))
        asked_by_heldout = parts.role_of(pairs["query_id"].to_numpy()) == HELDOUT
        least = np.where(asked_by_heldout, heldout, own).astype(np.float32)
        found: np.ndarray = pairs["similarity"].to_numpy() >= least
        return found

    def summarize(self, table: Table, **inputs: Any) -> JudgeFigures:
        return JudgeFigures(**JudgeTally.of(table).model_dump())

    # -- telling about it ------------------------------------------------------------------------------------

    def cost(self, inputs: Shapes, given: Assumptions) -> tuple[Demand, Shape]:
        """A tenth of the doubtful pairs are copies."""
        pairs: Shape = inputs["registered"]
        made = Shape(pool=pairs.rows / 10, row_bytes=edge_bytes(given), parts=pairs.parts)
        demand = Demand(rows=pairs.rows, written=made.num_bytes)
        around = inputs.get("surroundings")
        known = [members_read(inputs)] + ([] if around is None else [by_process([around.scanned()])])
        return Demand.sum([demand, *known]), made

    def facts(self, table: Table, run: Finished, *, digits: int = 12) -> Iterator[tuple[str, str]]:
        yield threshold_fact(self, table)
        for whose, least in (("copies", self.least_cosine), ("held-out images", self.heldout_least_cosine)):
            if least is not None:
                yield THRESHOLDS_TITLE, f"{table.name}: {whose} from a cosine of {least:g} on"

    def warn(self, table: Table, run: Finished) -> Iterator[str]:
        yield from stricter_heldout(self.least_cosine, self.heldout_least_cosine)

    def show(self, table: Table, run: Finished) -> Iterator[Section]:
        yield from similarity_section(self, table, run)
        found = JudgeFigures.of(table)
        if not found.crowded:
            return
        text = (
            f"{plural(found.crowded, 'pair')} of such images were laid over each other. {count(found.crowded_alike)} "
            f"would be copies anywhere else; {count(found.crowded_counted)} of them stand out of what both images "
            "resemble, and do."
        )
        yield Section(TITLE, (Text(text), *self._galleries(table, run)))

    def _galleries(self, table: Table, run: Finished) -> Iterator[Block]:
        """Some pairs of look-alikes that count, and the most alike of those that do not."""
        inputs = {name: run.inputs_of(table, name) for name in ("registered", "crowds", "surroundings")}
        (registered,), (crowds,), (around,) = inputs.values()
        rows = run.sample(registered, REGISTERED.names).rows
        found = self._judged(rows, crowds, around, run.parts)
        for title, verdict, mask, strongest in (
            ("Pairs that stand out, the least alike first", "counts", found.counts, 1),
            ("Pairs that do not, the most alike first", "does not count", found.alike & ~found.counts, -1),
        ):
            all_ = np.flatnonzero(mask & found.crowded)
            chosen = all_[np.argsort(strongest * found.score[all_], kind="stable")][:NUM_PAIRS]
            pairs = tuple(_pair(rows.slice(at, 1).to_pylist()[0], verdict) for at in chosen.tolist())
            yield from (Heading(title), Pages(pairs, more=len(all_) - len(pairs)))


def _tally(found: _Verdicts) -> JudgeTally:
    masks = (found.counts, found.crowded, found.crowded & found.alike, found.crowded & found.counts)
    counts = [len(found.score), *(int(mask.sum()) for mask in masks)]
    return JudgeTally(**dict(zip(JudgeTally.model_fields, counts, strict=True)))


def _pair(row: dict[str, Any], verdict: str) -> Gallery:
    text = f"{row['least_agreement']:.3f}, {verdict}"
    return Gallery((Picture(row["query_id"]), Picture(row["image_id"], (text,))), group=True)
