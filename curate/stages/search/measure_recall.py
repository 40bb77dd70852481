"""MeasureRecall: which share of the true pairs of sampled queries a search has found.

Images that edges of similarity 1 tie together count as one: FindNeighbors lets the first stand for all of them. Which
images that concerns only the pairs tell, so that a round reads them, by groups of parts, for ties of the images that
are known to matter, and the next one for ties of those, until none is new. What a round keeps does not grow with the
pool: pairs of the sampled images, and of those that equal them.
"""

from collections.abc import Iterator
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa

from curate.engine.cost import Assumptions, Demand, Shape, Shapes, edge_bytes
from curate.engine.demands import folded, grouped
from curate.engine.figures import Figures
from curate.engine.finished import Finished
from curate.engine.show import Numbers, Section, Text
from curate.engine.stage import Batches, Input, IteratedFold, num_groups, parts_of_group, scan_partials, whole
from curate.engine.table import Table
from curate.ops.copies.components import connected_components
from curate.ops.search.recall import recall
from curate.stages.search.neighbors import FindNeighbors
from curate.stages.search.pairs import read_pairs
from curate.tables import NEIGHBORS, RECALL, TRUTH, VECTORS

PARTIAL = pa.schema([NEIGHBORS.field("query_id"), NEIGHBORS.field("image_id"), pa.field("tie", pa.bool_())])
ROUND = [pa.field("finished", pa.bool_()), pa.field("member", pa.int64())]
STATE = pa.schema([*ROUND, *(field.with_nullable(True) for field in RECALL)])
"""Images that matter; in the last round the recall instead."""
ROUNDS = 2.5
"""Rounds that it takes mostly: two where images that equal others are tied to one of them, three where several lists
tie them to several."""
MEMBER_BYTES = 8
"""Bytes of an image that matters."""
MAX_ROUNDS = 1000
"""More than a chain of ties is long."""
TITLE = "Recall of the searches"
"""Title of the report's section, and of the card's line."""


class RecallFigures(Figures):
    """How many of the true pairs a search has found."""

    recall: float | None = None
    """Share of the true pairs that were found, 0..1; null: none are known."""
    recall_stderr: float | None = None
    """Standard error of the recall; null: none is known."""
    recall_pairs: int = 0
    """True pairs that were looked for."""


class MeasureRecall(IteratedFold):
    """The recall of a search, on the half of the sampled queries that did not choose the number of probes."""

    inputs: ClassVar[dict[str, Input]] = {
        "neighbors": whole(NEIGHBORS),
        "queries": whole(VECTORS),
        "truth": whole(TRUTH),
    }

    both_ways: bool = True
    """Whether either image of a pair may have found the other."""

    def output_schema(self, **inputs: Any) -> pa.Schema:
        return RECALL

    def max_rounds(self) -> int:
        return MAX_ROUNDS

    def partial_schema(self, number: int = 0, **inputs: Any) -> pa.Schema:
        return PARTIAL

    def state_schema(self, **inputs: Any) -> pa.Schema:
        return STATE

    def num_partials(self, **inputs: Any) -> int:
        return num_groups(len(inputs["neighbors"].parts()))

    def partial(self, group: int, *, state: pa.Table | None, neighbors: Table, queries: Table, truth: Table) -> Batches:
        """Pairs among the images that matter, and ties to others."""
        members = _members(state, queries, truth)
        for part in parts_of_group(group, len(neighbors.parts())) if len(members) else ():
            rows = neighbors.read(part, ["query_id", "image_id", "similarity"])
            pairs, tie = _pairs(rows), rows["similarity"].to_numpy() >= 1
            known = np.isin(pairs, members)
            kept = known.all(axis=1) | (tie & known.any(axis=1))
            columns = [*pairs[kept].T, tie[kept]]
            yield pa.RecordBatch.from_arrays(list(map(pa.array, columns)), schema=PARTIAL)

    def combine(self, partials: Table | None, *, state: pa.Table | None = None, **tables: Any) -> Batches:
        assert partials is not None
        queries, truth = tables["queries"], tables["truth"]
        members, found, ties = (
            _members(state, queries, truth),
            [np.empty((0, 2), np.int64)],
            [np.empty((0, 2), np.int64)],
        )
        for rows in scan_partials(partials):
            pairs, tie = _pairs(rows), rows["tie"].to_numpy()
            found.append(np.unique(pairs, axis=0))
            ties.append(np.unique(pairs[tie], axis=0))
        reached = np.union1d(members, np.concatenate(ties))
        if len(reached) > len(members):
            yield pa.RecordBatch.from_pylist([{"finished": False, "member": i} for i in reached.tolist()], schema=STATE)
            return
        wanted = read_pairs(queries, truth, half=1).ids
        figures = self._recall(wanted, members, np.concatenate(found), np.concatenate(ties))
        yield pa.RecordBatch.from_pylist([{"finished": True, **figures.model_dump()}], schema=STATE)

    def _recall(self, wanted: np.ndarray, members: np.ndarray, found: np.ndarray, ties: np.ndarray) -> RecallFigures:
        """Of (E, 2) true pairs, by (F, 2) pairs that were found, and (T, 2) that are one image."""
        if len(wanted) == 0:
            return RecallFigures()
        group = connected_components(len(members), *np.searchsorted(members, ties).T)
        equal = np.stack([np.unique(group)] * 2, axis=1)  # an image and its equal are a pair that the tie has found
        pairs = np.concatenate([equal, group[np.searchsorted(members, found)]])
        if self.both_ways:
            wanted, pairs = np.unique(np.sort(wanted, axis=1), axis=0), np.sort(pairs, axis=1)
        standing = group[np.searchsorted(members, wanted)]
        share, error = recall(np.sort(standing, axis=1) if self.both_ways else standing, pairs)
        return RecallFigures(recall=round(share, 5), recall_stderr=round(error, 5), recall_pairs=len(wanted))

    def run(self, part: int, state: pa.Table, **tables: Any) -> Batches:
        yield from state.select(RECALL.names).cast(RECALL).to_batches()

    def summarize(self, table: Table, **inputs: Any) -> RecallFigures:
        """The one row of the table."""
        (row,) = table.read_all().to_pylist()
        return RecallFigures(**row)

    # -- telling about it ------------------------------------------------------------------------------------

    def cost(self, inputs: Shapes, given: Assumptions) -> tuple[Demand, Shape]:
        pairs, queries, truth = inputs["neighbors"], inputs["queries"], inputs["truth"]
        groups, made = grouped(pairs), Shape(pool=1, columns=3)
        known = Shape(pool=truth.rows, row_bytes=MEMBER_BYTES, columns=5)
        read = [pairs.scanned(ROUNDS), queries.scanned(groups + ROUNDS), truth.scanned(groups + ROUNDS)]
        found = Shape(pool=truth.rows, row_bytes=edge_bytes(given), parts=groups, columns=3)
        demand = Demand(rows=ROUNDS * pairs.rows)
        return Demand.phases([demand, *read, folded(found, known, made, rounds=ROUNDS)]), made

    def facts(self, table: Table, run: Finished, *, digits: int = 12) -> Iterator[tuple[str, str]]:
        found = RecallFigures.of(table)
        if found.recall is not None:
            for pairs in run.inputs_of(table, "neighbors"):
                text = f"{found.recall:.4f} +- {found.recall_stderr:.4f}, measured on a sample"
                yield TITLE, f"{pairs.name}: {text}"

    def show(self, table: Table, run: Finished) -> Iterator[Section]:
        """How much of the true pairs the search found, measured on a sample of queries by brute force."""
        found = RecallFigures.of(table)
        if found.recall is None:
            return
        text = (
            "A seeded sample of images was compared with every other one. Half of them chose how many inverted lists a "
            "query probes; the recall is that of the other half, above the threshold of the search."
        )
        head = ("search", "lists that a query probes", "recall", "true pairs")
        share = f"{found.recall:.4f} +- {found.recall_stderr:.4f}"
        rows = tuple(
            (pairs.name, _num_probes(pairs, run), share, found.recall_pairs)
            for pairs in run.inputs_of(table, "neighbors")
        )
        yield Section(TITLE, (Text(text), Numbers(head, rows)))


def _members(state: pa.Table | None, queries: Table, truth: Table) -> np.ndarray:
    """(M,) int64, ascending: the images that matter."""
    if state is not None:
        found: np.ndarray = state["member"].to_numpy()
        return found
    return np.unique(read_pairs(queries, truth, half=1).ids)


def _pairs(rows: pa.Table) -> np.ndarray:
    """(E, 2) int64, query and image."""
    return np.stack([rows["query_id"].to_numpy(), rows["image_id"].to_numpy()], axis=1)


def _num_probes(pairs: Table, run: Finished) -> int | Literal["auto"] | None:
    """Lists that a query of the search probed."""
    search = run.stage_of(pairs)
    return search.lists.num_probes if isinstance(search, FindNeighbors) else None
