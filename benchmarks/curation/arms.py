"""Training sets of equal size from one pool: at random, at random of what is no copy, balanced, retrieved, and ideal.

The recipes curate the pool as they would any folder and never see a label; retrieval is given a few labeled pictures of
each class as its queries, as the curated sets of LVD-142M are. The ideal set is drawn by what the benchmark alone
knows: different pictures of all classes as evenly as there are, no junk. It is a bound for curation: where it gains
nothing over the random set, trainings of this length cannot tell good sets from bad ones.
"""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from benchmarks.curation.crawl import NO_CLASS, Crawl, encode, write_files
from benchmarks.curation.sets import LabeledSet
from curate.engine.freshness import Flags
from curate.engine.store import Store
from curate.recipe import load_config
from curate.running import run_config

IDEAL = "ideal"
ARMS = ("random", "deduplicated", "hierarchical", "retrieval", IDEAL)
FIRST = ARMS[0]
"""The one that the others stand beside."""
RECIPES = ("hierarchical", "lvd142m")
QUERIES = 10
"""Labeled pictures of each class that retrieval is given, at most."""
SPARE = 2.0
"""Pictures that retrieval is asked for, for each that is wanted: some queries find the same."""


def choose(
    folder: Path, chosen: LabeledSet, pool: Crawl, labeled: np.ndarray, *, target: int, seed: int
) -> dict[str, np.ndarray]:
    """Rows of the pool for each training set, in rising order; all have as many as the smallest could get.

    Args:
        folder: gets the pool's files and the runs; what is finished there is not done again.
        chosen: the set.
        pool: made of it.
        labeled: rows of the set whose labels are known.
        target: pictures wanted.
        seed: seed of draws and runs.
    """
    write_files(folder / "pool", pool.files)
    balanced = _run(folder, "hierarchical", chosen, [f"select.balance.target={target}"], seed=seed)
    queries = _queries(chosen, labeled, seed=seed)
    write_files(folder / "seeds", encode(chosen.images[queries]))
    each = max(1, math.ceil(SPARE * target / len(queries)))
    retrieving = [*_retrieving(folder), f"retrieval.retrieve.sample.k={each}"]
    retrieval = _run(folder, "lvd142m", chosen, retrieving, seed=seed)
    store = Store(str(balanced))
    kept = store.table("duplicates").read_all(["image_id", "verdict"]).to_pylist()
    found = {
        "random": np.arange(len(pool.files)),
        "deduplicated": _rows(store, {row["image_id"] for row in kept if row["verdict"] == "kept"}),
        "hierarchical": _rows(store, _ids(store, "selection")),
        "retrieval": _rows(Store(str(retrieval)), _ids(Store(str(retrieval)), "selection")),
    }
    size = min(target, *map(len, found.values()))
    rng = np.random.default_rng([7, seed])
    drawn = {arm: np.sort(rng.choice(rows, size, replace=False)) for arm, rows in found.items()}
    return drawn | {IDEAL: draw_ideal(pool, size, rng)}


def draw_ideal(pool: Crawl, size: int, rng: np.random.Generator) -> np.ndarray:
    """Rows of `size` different pictures or of all that there are, as evenly over the classes as these allow."""
    different = np.flatnonzero((pool.copy_of == np.arange(len(pool.files))) & (pool.labels != NO_CLASS))
    different = rng.permutation(different)
    labels = pool.labels[different]
    turn = np.empty(len(different), np.int64)  # how many of its class come before it
    for label in np.unique(labels):
        mine = np.flatnonzero(labels == label)
        turn[mine] = np.arange(len(mine))
    return np.sort(different[np.argsort(turn, kind="stable")[:size]])


def _retrieving(folder: Path) -> list[str]:
    """The recipe of LVD-142M with models that are packaged, by sample alone."""
    return [
        f"sources.curated={folder / 'seeds'}",
        "sources.heldout=null",
        "copies.embed={model: lite0-copy}",
        "copies.neighbors={}",
        "copies.hashes=true",
        "retrieval.embed.model=lite0",
        "retrieval.clusters.levels=auto_flat",
        "retrieval.retrieve.route=sample",
        "retrieval.retrieve.sample.refill=true",
        "select.include_curated=false",
    ]


def _run(folder: Path, recipe: str, chosen: LabeledSet, changes: list[str], *, seed: int) -> Path:
    """The workdir of a finished run."""
    workdir = folder / recipe
    given = [f"sources.pool={folder / 'pool'}", f"workdir={workdir}", f"seed={seed}"]
    run_config(load_config(recipe, [*given, *changes, *_meant_for(recipe, chosen.curation)]), Flags())
    return workdir


def _meant_for(recipe: str, changes: Sequence[str]) -> Iterator[str]:
    """The changes of one recipe: `RECIPE:key=value` is one of that alone, `key=value` of either."""
    for change in changes:
        name, _, rest = change.partition(":")
        if name not in RECIPES:
            yield change
        elif name == recipe:
            yield rest


def _queries(chosen: LabeledSet, labeled: np.ndarray, *, seed: int) -> np.ndarray:
    rng = np.random.default_rng([11, seed])
    by_class = [labeled[chosen.labels[labeled] == label] for label in range(len(chosen.classes))]
    return np.sort(np.concatenate([rng.permutation(rows)[:QUERIES] for rows in by_class]))


def _ids(store: Store, table: str) -> set[int]:
    return set(store.table(table).read_all(["image_id"])["image_id"].to_pylist())


def _rows(store: Store, image_ids: set[int]) -> np.ndarray:
    """Rows of the pool of some images of a run, in rising order."""
    catalog = store.table("catalog").read_all(["image_id", "role", "key"]).to_pylist()
    wanted = [row for row in catalog if row["role"] == "pool" and row["image_id"] in image_ids]
    return np.sort(np.array([int(Path(row["key"]).stem) for row in wanted], np.int64))
