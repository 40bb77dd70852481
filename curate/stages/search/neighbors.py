"""FindNeighbors: pairs of similar images, found inside inverted lists, one list at a time.

Vectors are sent to their lists (`BuildLists`), and a task receives those of some lists, which it joins at once: the
lists themselves are never a table. They would be the largest one of a run, several vectors an image, and beside them
there would be the pieces on the way to them. Searching anew with another threshold sends the vectors again, which is a
fourth of the work.

A list holds the images that are stored in it and the queries that probe it. All of these are compared with each other
exactly: stored images of roles that also search are joined with themselves, which computes each product
once for both directions, and queries from other lists are compared with the stored images. What a task finds of a query
in several lists is merged; the same query in the lists of another part finds a part of its neighbors there, which later
stages merge where the order matters (`RankNeighbors`).

Products are computed in blocks, on a GPU in half precision, and only propose pairs: the cosine of a proposed pair is
computed again in float32, so that the table does not depend on the device (`ops/search/knn.py`).
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, ClassVar, NamedTuple, Protocol, Self

import numpy as np
import pyarrow as pa
from pydantic import Field

from curate.config import Execution
from curate.engine.cost import Assumptions, Demand, Shape, Shapes, edge_bytes
from curate.engine.finished import Finished
from curate.engine.image_ids import Parts
from curate.engine.show import Beside, Block, Color, Heading, Histogram, Marker, Section, Series, Text
from curate.engine.shuffle import Scattered
from curate.engine.stage import Batches, Input, Shuffle, whole
from curate.engine.table import Table
from curate.models.thresholds import copy_thresholds
from curate.ops.edges import Edges, merge_top_k
from curate.ops.search.knn import find_neighbors, join_within
from curate.ops.vectors import VectorSpec, to_float32, unpack
from curate.stages.search.build_lists import LISTS_SKEW, ROWS_PER_PART, BuildLists, num_met
from curate.stages.search.find_truth import measured
from curate.stages.search.vectors import Role, vector_spec, vectors_shape
from curate.tables import HELDOUT, NEIGHBORS, ROLES, THRESHOLDS

NUM_BINS = 60
"""Bins of a histogram of similarities, from the lowest to 1."""
HASH_STEP = 4 / 256
"""Distance of the cosines that two PDQ hashes can have."""
EVIDENCE = {"embedding": "Embedding", "aligned": "Embedding, verified by alignment", "hash": "Perceptual hash (PDQ)"}
"""Kinds of pairs, for people."""
ASKED_BY: tuple[tuple[str, str, Color], ...] = (
    ("pool", "asked by the pool", "a"),
    ("curated", "by curated", "b"),
    ("heldout", "by held-out", "d"),
)
"""Role of the query, and how the histogram shows its pairs."""
THRESHOLDS_TITLE = "Similarity thresholds"
"""Title of the facts about thresholds."""


class FindNeighbors(Shuffle):
    """Pairs of a query and a stored image at or above a threshold, or the nearest of each query.

    Identical vectors would crowd out everything else: a hundred copies of one picture, some with other metadata,
    fill every place that `max_neighbors` leaves. So where a role both searches and is found, the first image (smallest
    id) of those with one vector stands for all of them, and an edge of similarity 1 ties each other one to it.
    """

    inputs: ClassVar[dict[str, Input]] = {**BuildLists.inputs, "thresholds": whole(THRESHOLDS, optional=True)}
    version: ClassVar[int] = 6

    lists: BuildLists = BuildLists()
    """Which lists a vector goes to; recipes set it."""
    threshold: Annotated[float, Field(ge=-1, le=1)] | None = None
    """Smallest cosine similarity of a pair of pool and curated images, -1..1; null: as measured, or known for the
    model."""
    heldout_threshold: Annotated[float, Field(ge=-1, le=1)] | None = None
    """Smallest cosine similarity of a pair with a held-out image, -1..1; null: as measured, or known for the model."""
    max_neighbors: Annotated[int, Field(ge=1)] = 64
    """Largest number of pairs of a query in each part of the lists, the most similar first; ties to identical images
    do not count."""
    queries: tuple[Role, ...] = ("pool", "curated", "heldout")
    """Roles whose images search."""
    answers: tuple[Role, ...] = ("pool", "curated")
    """Roles whose images are found."""
    device: Annotated[str, Execution()] = "auto"
    """Where similarities are computed: auto, cpu, cuda or cuda:N; those that are stored are exact in float32 on any."""

    def output_schema(self, **inputs: Any) -> pa.Schema:
        spec = vector_spec(inputs["embeddings"], inputs["hashes"])
        if inputs.get("thresholds") is None:
            self._with_thresholds(spec)  # an unknown model is an error before any compute
        return NEIGHBORS

    def piece_schema(self, **inputs: Any) -> pa.Schema:
        return self.lists.output_schema(**inputs)

    def resolve(self, previous: Mapping[str, Any] | None = None, **inputs: Any) -> Self:
        found = self.model_copy(update={"lists": self.lists.resolve(**inputs)})
        if inputs.get("thresholds") is None:
            given = [inputs[name] for name in ("embeddings", "hashes")]
            return found._with_thresholds(vector_spec(*(None if table is None else table.schema() for table in given)))
        chosen = measured(inputs["thresholds"], threshold="floor", heldout_threshold="floor")
        return found.model_copy(update={name: v for name, v in chosen.items() if getattr(self, name) is None})

    def resources(self) -> dict[str, float]:
        return super().resources() or self.lists.resources()

    def num_parts(self, **inputs: Any) -> int:
        return self.lists.num_parts(**inputs)

    def _with_thresholds(self, spec: VectorSpec) -> Self:
        if self.threshold is not None and self.heldout_threshold is not None:
            return self
        known = copy_thresholds(spec.model, threshold=self.threshold, heldout_threshold=self.heldout_threshold)
        return self.model_copy(update={"threshold": known.threshold, "heldout_threshold": known.heldout_threshold})

    def scattered_bytes(self, pieces: pa.Schema, **inputs: Any) -> float:
        return self.lists.scattered_bytes(pieces, **inputs)

    def scatter(self, part: int, *, thresholds: Table | None, **inputs: Any) -> Iterator[Scattered]:
        yield from self.lists.scatter(part, **inputs)

    def run(self, part: int, *, pieces: pa.Table, catalog: Table, thresholds: Table | None, **known: Any) -> Batches:
        spec = VectorSpec.of(pieces.schema)
        lists = pa.Table.from_batches(self.lists.run(part, pieces=pieces, catalog=catalog, **known), pieces.schema)
        del pieces  # in order of lists from here on
        parts = Parts.of(catalog)
        kind = "hash" if spec.dtype == "bits" else "embedding"
        bounds = np.flatnonzero(np.diff(lists["list_id"].to_numpy(), prepend=-1, append=-1))
        found, ties = [Edges.empty()], [Edges.empty()]
        for start, end in itertools.pairwise(bounds):
            rows, identical = self._collapse(_ListRows.of(lists.slice(start, end - start), spec, parts))
            ties.append(identical)
            found += self._join(rows, spec)
        edges = merge_top_k(_between_images(found), self.max_neighbors)
        edges = merge_top_k(_between_images([edges, *ties]), None)
        columns = [edges.query_ids, edges.image_ids, edges.similarity.astype(np.float32)]
        kinds = pa.array([kind] * edges.num_edges, pa.string())
        yield pa.RecordBatch.from_arrays([*map(pa.array, columns), kinds], schema=NEIGHBORS)

    def _collapse(self, rows: "_ListRows") -> tuple["_ListRows", Edges]:
        """One row for each vector that a role has several times in a list, and the ties of the others to it."""
        both = [number for number, role in enumerate(ROLES) if role in self.queries and role in self.answers]
        first = _first_of_vector(rows)
        repeats = np.flatnonzero((first != np.arange(len(first))) & np.isin(rows.role, both))
        if len(repeats) == 0:
            return rows, Edges.empty()
        others = repeats[rows.stored[repeats]]
        tied = Edges(rows.ids[others], rows.ids[first[others]], np.ones(len(others), np.float32))
        return rows.take(np.delete(np.arange(len(first)), repeats)), tied

    def _join(self, rows: "_ListRows", spec: VectorSpec) -> Iterator[Edges]:
        """The edges within one list: stored images among themselves, then the queries from other lists.

        Rows are joined by their positions, since an image may have two; stored ones are in order of their ids.
        """
        from curate.models.device import resolve_device

        at = np.arange(len(rows.ids))
        base = rows.stored & np.isin(rows.role, [ROLES.index(role) for role in self.answers])
        if not base.any():
            return
        x, k, device = to_float32(rows.vectors, spec), self._rows_each(rows.ids[base]), str(resolve_device(self.device))
        for asking, threshold in self._askers(rows.role):
            within = bool(asking[base].all())
            if within:
                among = join_within(x[base], at[base], threshold=threshold, max_neighbors=k, device=device)
                yield among.named(rows.ids, rows.ids)
            others = asking & ~base if within else asking
            if others.any():
                asked = find_neighbors(
                    x[others],
                    x[base],
                    query_ids=at[others],
                    base_ids=at[base],
                    threshold=threshold,
                    max_neighbors=k,
                    device=device,
                )
                yield asked.named(rows.ids, rows.ids)

    def _rows_each(self, stored_ids: np.ndarray) -> int:
        """Rows that hold the nearest images of a query: where images have two vectors, also its own other one."""
        repeated = len(np.unique(stored_ids)) < len(stored_ids)
        return 2 * self.max_neighbors + 1 if repeated else self.max_neighbors

    def _askers(self, role: np.ndarray) -> Iterator[tuple[np.ndarray, float]]:
        """(mask of queries, their threshold), held-out images apart from the others."""
        assert self.threshold is not None
        assert self.heldout_threshold is not None
        asks = np.isin(role, [ROLES.index(name) for name in self.queries])
        heldout = role == HELDOUT
        for mask, threshold in ((asks & ~heldout, self.threshold), (asks & heldout, self.heldout_threshold)):
            if mask.any():
                yield mask, threshold

    # -- telling about it ------------------------------------------------------------------------------------

    def cost(self, inputs: Shapes, given: Assumptions) -> tuple[Demand, Shape]:
        sending, lists = self.lists.cost(inputs, given)
        pairs = given.pairs if inputs.get("hashes") is None else given.hash_pairs
        found = pairs * min(lists.rows, given.num_images(self.queries))
        if self.threshold == -1:  # as many in every part where an image looks
            met = num_met(self.lists.expected_probes(lists.lists), lists.parts)
            found = self.max_neighbors * met * vectors_shape(inputs).of(self.queries)
        made = Shape(pool=found, row_bytes=edge_bytes(given), parts=lists.parts, settles=True)
        largest = max(ROWS_PER_PART, lists.rows / max(1, lists.lists)) * LISTS_SKEW
        compared = 2 * LISTS_SKEW * lists.rows * lists.stored / max(1, lists.lists) * lists.dim
        demand = replace(
            sending,
            products=sending.products + compared,
            written=made.num_bytes,
            memory=max(sending.memory, largest * (lists.row_bytes + 4 * lists.dim)),
            n_log_n=True,
        )
        return demand, made

    def show(self, table: Table, run: Finished) -> Iterator[Section]:
        if not _is_judged_later(table, run):
            yield from similarity_section(self, table, run)

    def warn(self, table: Table, run: Finished) -> Iterator[str]:
        if not _is_judged_later(table, run):
            yield from stricter_heldout(self.threshold, self.heldout_threshold)

    def facts(self, table: Table, run: Finished, *, digits: int = 12) -> Iterator[tuple[str, str]]:
        if self.threshold == -1:
            yield THRESHOLDS_TITLE, f"{table.name}: the {self.max_neighbors} nearest of each query"
        elif not _is_judged_later(table, run):
            yield threshold_fact(self, table)


def _between_images(found: Sequence[Edges]) -> Edges:
    """All of the edges but those of an image to itself, whose two vectors (with and without its border) are alike."""
    edges = Edges.concat(found)
    return edges.take(edges.query_ids != edges.image_ids)


class _ListRows(NamedTuple):
    """The rows of one list: stored images, then queries, each by ascending id."""

    ids: np.ndarray
    """(N,) int64"""
    stored: np.ndarray
    """(N,) bool; False: a query from another list"""
    role: np.ndarray
    """(N,) int8, number of the role"""
    vectors: np.ndarray
    """(N, width) as stored"""

    @classmethod
    def of(cls, rows: pa.Table, spec: VectorSpec, parts: Parts) -> "_ListRows":
        """From the rows of the table."""
        ids = rows["image_id"].to_numpy()
        return cls(ids, rows["home"].to_numpy(), parts.role_of(ids), unpack(rows["vector"], spec)[0])

    def take(self, rows: np.ndarray) -> "_ListRows":
        """Some of the rows."""
        return _ListRows(*(column[rows] for column in self))


def _first_of_vector(rows: _ListRows) -> np.ndarray:
    """(N,) int64: for each row the first one of equal role, equal bytes and the same kind, stored or query."""
    raw = np.ascontiguousarray(rows.vectors).view(np.uint8)
    kind = 2 * rows.role.astype(np.int64) + rows.stored
    key = _hash_rows(raw) ^ kind.astype(np.uint64)
    _, first, group = np.unique(key, return_index=True, return_inverse=True)
    found: np.ndarray = first[group]
    # Of rows that share a hash but not their bytes, each stands for itself: a repeat lost, never two images joined.
    repeats = np.flatnonzero(found != np.arange(len(found)))
    equal = (raw[repeats] == raw[found[repeats]]).all(axis=1) & (kind[repeats] == kind[found[repeats]])
    found[repeats[~equal]] = repeats[~equal]
    return found


def _hash_rows(raw: np.ndarray) -> np.ndarray:
    """(N,) uint64 of (N, width) bytes: a random linear map, which equal rows cannot differ in."""
    words = np.zeros((len(raw), -(-raw.shape[1] // 8) * 8), np.uint8)
    words[:, : raw.shape[1]] = raw
    columns = words.view(np.uint64)
    odd = np.random.default_rng(0).integers(0, 1 << 63, columns.shape[1], dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    hashed: np.ndarray = (columns * odd).sum(axis=1, dtype=np.uint64)
    return hashed


# -- similarities in the report ------------------------------------------------------------------------------


class Thresholded(Protocol):
    """A stage whose pairs are at or above one of two thresholds; null: it has none."""

    @property
    def threshold(self) -> float | None:
        """Smallest similarity of a pair of pool and curated images."""

    @property
    def heldout_threshold(self) -> float | None:
        """Smallest similarity of a pair with a held-out image."""


def threshold_fact(stage: Thresholded, table: Table) -> tuple[str, str]:
    """Title and line of the similarities from which on two images are copies, for `Stage.facts`."""
    text = f"copies from {stage.threshold:g} on, of held-out images from {stage.heldout_threshold:g} on"
    return THRESHOLDS_TITLE, f"{table.name}: {text}"


def stricter_heldout(threshold: float | None, heldout: float | None) -> Iterator[str]:
    """What to know where held-out images are compared more strictly than the pool is with itself."""
    if threshold is not None and heldout is not None and heldout > threshold:
        yield (
            f"Images count as copies of held-out ones from a similarity of {heldout:g} on, as copies within the pool "
            f"from {threshold:g} on: the result may hold copies of benchmark images that would go as copies of each "
            f"other. Set copies.heldout_threshold to {threshold:g} at most, or leave it out"
        )


def similarity_section(stage: Thresholded, table: Table, run: Finished) -> Iterator[Section]:
    """How similar the pairs of a table of neighbors are, beside the thresholds that made them copies."""
    sample = run.sample(table, ["query_id", "similarity", "kind"])
    if len(sample.rows) == 0:
        return
    similarity, query = sample.rows["similarity"].to_numpy(), sample.rows["query_id"].to_numpy()
    kind = sample.rows["kind"][0].as_py()
    markers = _markers(stage)
    low = min([float(similarity.min()), *(marker.at for marker in markers)])
    edges = bin_edges(low, kind=kind, anchor=markers[0].at if markers else low)
    series = [
        Series(name, np.histogram(similarity[mask], edges)[0], color)
        for role, name, color in ASKED_BY
        if (mask := run.has_role(query, role)).any()
    ]
    chart: list[Block] = [
        Heading(f"{EVIDENCE.get(kind, kind)}: {table.name}"),
        Histogram(edges, series, markers, x_label="cosine similarity"),
    ]
    if sample.note:
        chart.append(Text(sample.note))
    text = (
        "Only pairs at or above the lower of the two thresholds are stored, so the plots of copies begin there. A pair "
        "counts once for each image that found it."
    )
    yield Section("Similarity of the pairs", (Text(text), Beside((tuple(chart),))))


def bin_edges(low: float, *, kind: str, anchor: float) -> np.ndarray:
    """Bins from `low` to 1, one bound on the threshold `anchor`; those of hashes hold one distance each.

    The halves of a PDQ hash are above and below its median, so two hashes differ in an even number of bits.
    """
    if kind == "hash":
        return np.arange(np.floor(low / HASH_STEP), 1 / HASH_STEP + 2) * HASH_STEP - HASH_STEP / 2
    step = max(1 - low, 1e-3) / NUM_BINS
    first = anchor - np.ceil((anchor - low) / step) * step
    number = int(np.ceil((1 - first) / step + 1e-6))
    return np.asarray(first + np.arange(number + 1) * step)


def _markers(stage: Thresholded) -> list[Marker]:
    own, heldout = stage.threshold, stage.heldout_threshold
    if own is None or own <= -1:
        return []
    found = [Marker(f"threshold {own:g}", own, "ink")]
    if heldout is not None and heldout != own:
        found.append(Marker(f"held-out threshold {heldout:g}", heldout, "d"))
    return found


def _is_judged_later(table: Table, run: Finished) -> bool:
    """Whether stages that read these pairs apply thresholds of their own: the search was a loose one."""
    readers = (
        stage for stage, other in run.tables if table.name in other.complete_manifest().inputs.get("neighbors", [])
    )
    return any("threshold" in type(stage).model_fields for stage in readers)
