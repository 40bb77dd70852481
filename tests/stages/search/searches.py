"""Searches over planted vectors, and what was found."""

from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow as pa

from curate.engine.finished import Finished, open_finished
from curate.engine.pipeline import Pipeline, Ref
from curate.engine.stage import Batches, Input, Map, each
from curate.engine.store import Store
from curate.engine.table import Table
from curate.ops.images.hashes import dihedral
from curate.stages.search.build_lists import BuildLists
from curate.stages.search.find_truth import FindTruth
from curate.stages.search.fit_lists import FitLists
from curate.stages.search.measure_recall import MeasureRecall
from curate.stages.search.neighbors import FindNeighbors
from curate.stages.search.sample_queries import SampleQueries
from curate.stages.search.vectors import HASHES
from curate.tables import CATALOG, NEIGHBORS, THRESHOLDS
from tests.stages.planted import GivenVectors, PlantedCatalog, all_vectors, given_table, make, planted

SEARCH = FindNeighbors(threshold=0.8, heldout_threshold=0.7, max_neighbors=10_000)


def finished(p: Pipeline) -> Finished:
    """The tables that a pipeline has made, as the report sees them."""
    return open_finished(p.store, "toy", {"seed": 0}, p.steps)


def ref(p: Pipeline, name: str) -> Ref:
    """A table that a pipeline has declared, as the input of another."""
    return next(Ref(name, step.schemas[name]) for step in p.steps if name in step.stages)


def join(root: Path, *, num_lists: int, num_probes: int | str, search: FindNeighbors, **build: object) -> Pipeline:
    """Tables of a search over planted vectors, made."""
    p, catalog, vectors = planted(root)
    stored = {"stored": build["stored"]} if "stored" in build else {}
    centroids = p.add("centroids", FitLists(num_lists=num_lists, **stored), embeddings=vectors, catalog=catalog)
    built = BuildLists(num_probes=num_probes, **build)
    add_search(p, search, built, embeddings=vectors, centroids=centroids, catalog=catalog)
    make(p)
    return p


def add_search(p: Pipeline, search: FindNeighbors, build: BuildLists, **inputs: Ref | None) -> None:
    """Declare `neighbors`, and `lists`: what the search joins, which recipes do not store."""
    p.add("lists", build, **{name: ref for name, ref in inputs.items() if name in BuildLists.inputs})
    p.add("neighbors", search.model_copy(update={"lists": build}), **inputs)


def found_pairs(p: Pipeline) -> dict[tuple[int, int], float]:
    """(query, image) -> similarity of the table `neighbors`."""
    rows = p.store.table("neighbors").read_all().to_pylist()
    return {(r["query_id"], r["image_id"]): r["similarity"] for r in rows}


def joined(root: Path, **how: object):
    """(query, image) -> similarity that the stages find, and the ids and vectors they were given."""
    p = join(root, **how)
    return found_pairs(p), *all_vectors(p)


def declare_measured(root: Path, *, num_lists: int = 6, num_queries: int = 60, **build: object) -> Pipeline:
    """A search over planted vectors whose recall is measured on sampled queries, not made yet."""
    p, catalog, vectors = planted(root)
    given = {"embeddings": vectors, "catalog": catalog}
    centroids = p.add("centroids", FitLists(num_lists=num_lists), **given)
    queries = p.add("queries", SampleQueries(num_queries=num_queries), **given)
    truth = p.add("truth", FindTruth(threshold=0.8, max_neighbors=500), queries=queries, **given)
    sample = {"queries": queries, "truth": truth}
    search = FindNeighbors(max_neighbors=500, threshold=0.8, heldout_threshold=0.8)
    add_search(p, search, BuildLists(**build), centroids=centroids, **sample, **given)
    p.add("recall", MeasureRecall(), neighbors=Ref("neighbors", NEIGHBORS), **sample)
    return p


Given = list[list[tuple[float, ...] | None]]


def found_among(
    root: Path,
    roles: tuple[str, ...],
    vectors: Given,
    *,
    within: Given | None = None,
    fit: FitLists | None = None,
    build: BuildLists | None = None,
    **search: object,
):
    """(query, image) -> similarity of images whose vectors are given, part by part; of some also those within."""
    p = Pipeline(Store(root), seed=0)
    catalog = p.add("catalog", PlantedCatalog(roles=roles, rows=len(vectors[0])))
    given = p.add("vectors", GivenVectors(vectors=tuple(map(tuple, vectors))), catalog=catalog)
    second = None
    if within is not None:
        second = p.add("within", GivenVectors(vectors=tuple(map(tuple, within))), catalog=catalog)
    centroids = p.add("centroids", fit or FitLists(), embeddings=given, catalog=catalog)
    sent = {"embeddings": given, "within": second, "centroids": centroids, "catalog": catalog}
    add_search(p, FindNeighbors(**search), build or BuildLists(), **sent)
    make(p)
    return {pair: round(similarity, 5) for pair, similarity in found_pairs(p).items()}


class GivenHashes(Map):
    """A table like `images`, as far as its hashes go; those within borders are empty where there is none."""

    inputs: ClassVar[dict[str, Input]] = {"catalog": each(CATALOG)}
    hashes: tuple[tuple[str, ...], ...]
    within: tuple[tuple[str, ...], ...] = ()

    def output_schema(self, **inputs: object) -> pa.Schema:
        return HASHES

    def run(self, part: int, *, catalog: pa.Table) -> Batches:
        hashes = [bytes.fromhex(text) for text in self.hashes[part]]
        kind = HASHES.field("pdq").type
        texts = self.within[part] if self.within else ("",) * len(hashes)
        within = pa.array([bytes.fromhex(text) if text else None for text in texts], kind)
        columns = [catalog["image_id"].combine_chunks(), pa.array(hashes, kind), within]
        yield pa.RecordBatch.from_arrays(columns, schema=HASHES)


def hashed(
    root: Path, hashes: np.ndarray, *, num_parts: int, within: dict[int, np.ndarray] | None = None
) -> tuple[Pipeline, Ref, Ref]:
    """A pipeline of pool parts with `catalog` and `images` declared; `hashes` (N, 32) are dealt to them in order.

    Args:
        within: by number of an image its hash within a border.
    """
    p, rows = Pipeline(Store(root), seed=0), len(hashes) // num_parts
    catalog = p.add("catalog", PlantedCatalog(roles=("pool",) * num_parts, rows=rows))
    parts = hashes.reshape(num_parts, rows, -1)
    texts = tuple(tuple(row.tobytes().hex() for row in part) for part in parts)
    known = within or {}
    inside = tuple(
        tuple(known[n].tobytes().hex() if n in known else "" for n in range(part * rows, (part + 1) * rows))
        for part in range(num_parts)
    )
    return p, catalog, p.add("images", GivenHashes(hashes=texts, within=inside), catalog=catalog)


def turned_copies(seed: int, *, num_pictures: int, num_images: int) -> np.ndarray:
    """(num_images, 32) uint8: hashes of mirrored and turned copies of few pictures, many of them equal."""
    rng = np.random.default_rng(seed)
    pictures = rng.integers(0, 256, (num_pictures, 32)).astype(np.uint8)
    copies = dihedral(pictures)[rng.integers(0, num_pictures, num_images), rng.integers(0, 8, num_images)]
    flips = np.zeros((num_images, 32), np.uint8)  # some copies differ by a bit, too
    flips[np.arange(num_images), rng.integers(0, 32, num_images)] = rng.integers(0, 2, num_images)
    return copies ^ flips


def given_thresholds(root: Path, *, pool: float, heldout: float, floor: float) -> Table:
    """A table as `CalibrateCopies` makes it: the chosen thresholds among points of a curve, then cosines."""
    chosen = ((None, 0.1), ("pool", pool), ("heldout", heldout), (None, 0.2), ("floor", floor))
    columns = dict.fromkeys(THRESHOLDS.names[2:], 0.9)
    rows = [{"use": use, "threshold": threshold, **columns} for use, threshold in chosen]
    return given_table(root, "thresholds", THRESHOLDS, [rows])
