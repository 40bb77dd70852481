"""Doubtful pairs: those that count as copies by little, and those that by little do not.

A pair may have several kinds of evidence: it is as doubtful as the strongest of them. So the pairs nearest to a
threshold of any kind are taken first, a bounded number of them, and then every table of pairs that count is read once
more for what else it says of these.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.engine.finished import Finished
from curate.engine.table import Table
from curate.ops.copies.registration import registration_score
from curate.stages.copies.deduplicate import Deduplicate
from curate.stages.copies.doubt_crowds import DoubtCrowds
from curate.stages.copies.judge_pairs import JudgePairs
from curate.tables import HELDOUT, POOL

MOST = 5_000
"""Pairs of each kind of evidence that are looked at nearer, and listed at most."""
KINDS = ("sha256", "embedding", "hash", "aligned")
"""Evidence."""
REGISTERED_AS = ("agreement", "num_points")
"""Columns of pairs that were laid over each other, which make their similarity."""


@dataclass(frozen=True)
class Doubtful:
    """Pairs about a threshold of one kind of evidence, the nearest first."""

    kind: str
    ids: np.ndarray
    """(N, 2) int64; what does not lie in the pool first, else the smaller id"""
    margin: np.ndarray
    """(N,) float32, similarity less the threshold; below 0: the pair does not count"""
    similarity: np.ndarray
    """(N,) float32"""


class _Pairs(NamedTuple):
    """(E,) each."""

    first: np.ndarray
    second: np.ndarray
    margin: np.ndarray
    similarity: np.ndarray
    kind: np.ndarray
    """int8, place of the evidence in `KINDS`"""

    def take(self, where: np.ndarray) -> "_Pairs":
        return _Pairs(*(column[where] for column in self))

    def and_those(self, others: "_Pairs") -> "_Pairs":
        return _Pairs(*(np.concatenate(columns) for columns in zip(self, others, strict=True)))

    def each_once(self, doubt: np.ndarray) -> "_Pairs":
        """Of each pair what has the least `doubt`, (E,) numbers."""
        order = np.lexsort((doubt, self.second, self.first))
        first, second = self.first[order], self.second[order]
        once = np.ones(len(order), bool)
        once[1:] = (np.diff(first) != 0) | (np.diff(second) != 0)
        return self.take(order[once])


NO_PAIRS = _Pairs(*(np.zeros(0, dtype) for dtype in (np.int64, np.int64, np.float32, np.float32, np.int8)))


@dataclass(frozen=True)
class _Evidence:
    """A table of pairs that count, or of pairs that were tried."""

    table: Table
    threshold: float
    heldout_threshold: float
    counts: bool
    """Whether every pair of the table counts."""


def find_doubtful(run: Finished, *, most: int = MOST) -> Iterator[Doubtful]:
    """By their strongest evidence, the pairs of a run that are nearest to a threshold, at most `most` of each kind.

    Memory: one part of pairs, and these.
    """
    tables = list(_evidence(run))
    nearest = NO_PAIRS
    for pairs in (pairs for table in tables for pairs in _read(run, table)):
        nearest = _nearest(nearest.and_those(pairs), most)
    known = NO_PAIRS
    for pairs in (pairs for table in tables for pairs in _read(run, table)):
        known = known.and_those(pairs.take(_are_among(pairs, nearest)))
    found = known.each_once(-known.margin)
    for kind in np.unique(found.kind[np.isfinite(found.margin)]).tolist():
        pairs = _nearest(found.take(found.kind == kind), most)
        yield Doubtful(KINDS[kind], np.stack([pairs.first, pairs.second], axis=1), pairs.margin, pairs.similarity)


def _nearest(pairs: _Pairs, most: int) -> _Pairs:
    """Of each kind of evidence the `most` pairs nearest to their threshold, the nearest first."""
    distance = np.abs(pairs.margin)
    pairs = pairs.take(np.isfinite(distance)).each_once(distance[np.isfinite(distance)])
    pairs = pairs.take(np.argsort(np.abs(pairs.margin), kind="stable"))
    kept = [np.flatnonzero(pairs.kind == kind)[:most] for kind in range(len(KINDS))]
    return pairs.take(np.sort(np.concatenate(kept)))


def _evidence(run: Finished) -> Iterator[_Evidence]:
    """Every table of pairs that deduplication went by, and those of what was tried for it and does not count."""
    judged = run.only(Deduplicate)
    for table in run.inputs_of(judged[1], "neighbors") if judged else []:
        stage, limits = run.stage_of(table), _thresholds(run, table)
        yield _Evidence(table, *limits, counts=True)
        name = "registered" if isinstance(stage, JudgePairs) else "neighbors"
        yield from (
            _Evidence(tried, *limits, counts=False)
            for tried in run.inputs_of(table, name)
            if isinstance(stage, JudgePairs | DoubtCrowds) and not tried.absent()
        )


def _thresholds(run: Finished, table: Table) -> tuple[float, float]:
    """From which similarity on pairs count, and pairs with a held-out image: at least that of the search before."""
    stage = run.stage_of(table)
    own = [getattr(stage, name, None) for name in ("threshold", "heldout_threshold")]
    found = [] if isinstance(stage, JudgePairs) else run.inputs_of(table, "neighbors")
    before = [_thresholds(run, one) for one in found]
    columns = zip(own, *before, strict=True)
    pool, heldout = (max((one for one in column if one is not None), default=-np.inf) for column in columns)
    return pool, heldout


def _read(run: Finished, evidence: _Evidence) -> Iterator[_Pairs]:
    """Pairs of a pool image with another image, by how much they pass; of those that were tried, those that fail."""
    names = ("similarity", "kind") if evidence.table.schema().get_field_index("kind") >= 0 else REGISTERED_AS
    for rows in evidence.table.scan(["query_id", "image_id", *names]):
        query, image = rows["query_id"].to_numpy(), rows["image_id"].to_numpy()
        if names is REGISTERED_AS:
            similarity = registration_score(rows["agreement"].to_numpy(), rows["num_points"].to_numpy())
            kind = np.full(len(rows), KINDS.index("aligned"), np.int8)
        else:
            similarity = rows["similarity"].to_numpy()
            kind = pc.index_in(rows["kind"], value_set=pa.array(KINDS)).to_numpy().astype(np.int8)
        role = run.parts.role_of(np.stack([query, image]))
        heldout, outside = (role == HELDOUT).any(axis=0), role != POOL
        swap = np.where(outside[0] == outside[1], query > image, outside[1])
        margin = similarity - np.where(heldout, evidence.heldout_threshold, evidence.threshold).astype(np.float32)
        pairs = _Pairs(np.where(swap, image, query), np.where(swap, query, image), margin, similarity, kind)
        yield pairs.take(~outside.all(axis=0) & (evidence.counts | (margin < 0)))


def _are_among(pairs: _Pairs, others: _Pairs) -> np.ndarray:
    """(E,) bool; `others` ascend in no order."""
    both = np.concatenate([np.stack(others[:2], axis=1), np.stack(pairs[:2], axis=1)])
    numbers = np.unique(both, axis=0, return_inverse=True)[1].reshape(-1)
    found: np.ndarray = np.isin(numbers[len(others.first) :], numbers[: len(others.first)])
    return found
