"""The cells of a benchmark, computed once: those that its file has already are read."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.curation.arms import ARMS, FIRST, choose
from benchmarks.curation.cells import INITIAL, Cell, append_cell, read_cells, read_out, train_on
from benchmarks.curation.crawl import NO_CLASS, Crawl, make_crawl
from benchmarks.curation.sets import LabeledSet, Rows
from benchmarks.longtail import class_entropy

RESULTS = "results.jsonl"
LENGTHS = (1, 2)
"""Factors on the iterations of a set."""


@dataclass(frozen=True)
class Setting:
    """What is the same for all seeds."""

    target: int | None = None
    """Pictures of a training set; None: as many as the largest class of the pool has, and at least two a class."""
    iterations: int | None = None
    """Of the shorter training; None: those of the set."""
    curation: tuple[str, ...] = ()
    """`key=value` changes of the recipes, `RECIPE:key=value` of one."""
    training: tuple[str, ...] = ()
    """`key=value` changes of the trainings' config."""

    def digest(self, chosen: LabeledSet) -> str:
        """Of all that decides a result."""
        facts = asdict(self) | {"set": chosen.digest, "config": chosen.config, "changes": [*chosen.training]}
        facts |= {"recipes": [*chosen.curation], "own iterations": chosen.iterations}
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def bench_curation(
    workdir: str | Path,
    chosen: LabeledSet,
    *,
    seeds: Sequence[int] = range(5),
    arms: Sequence[str] = ARMS,
    lengths: Sequence[int] = LENGTHS,
    setting: Setting | None = None,
) -> list[Cell]:
    """The cells of all seeds, arms and lengths; those that a file in the workdir has already are not computed again.

    Args:
        workdir: gets `results.jsonl`, and a folder for each seed with pool, runs and trainings.
        chosen: the set.
        seeds: seeds of pools, runs and trainings.
        arms: some of `ARMS`.
        lengths: factors on the iterations.
        setting: None: the defaults.
    """
    setting = setting or Setting()
    place, digest = Path(workdir), setting.digest(chosen)
    found = read_cells(place / RESULTS)
    wanted = {(digest, seed, arm, n) for seed in seeds for arm, n in _trainings(chosen, setting, arms, lengths)}
    for seed in seeds:
        missing = {key for key in wanted - found.keys() if key[1] == seed}
        if not missing:
            continue
        for cell in _run_seed(place / f"{digest}-seed-{seed}", chosen, setting, seed, missing):
            append_cell(place / RESULTS, cell)
            found[cell.key] = cell
    return [found[key] for key in sorted(wanted, key=lambda key: (key[1], key[3], key[2]))]


def _trainings(
    chosen: LabeledSet, setting: Setting, arms: Sequence[str], lengths: Sequence[int]
) -> Iterator[tuple[str, int]]:
    """(arm, iterations) of the cells of a seed."""
    yield INITIAL, 0
    for length in lengths:
        for arm in arms:
            yield arm, length * (setting.iterations or chosen.iterations)


class _Prepared(NamedTuple):
    """One seed: its pool, and the training sets that come of it."""

    folder: Path
    chosen: LabeledSet
    setting: Setting
    seed: int
    rows: Rows
    pool: Crawl
    sets: dict[str, np.ndarray]


def _run_seed(
    folder: Path, chosen: LabeledSet, setting: Setting, seed: int, missing: set[tuple[str, int, str, int]]
) -> Iterator[Cell]:
    rows = chosen.split()
    pool = make_crawl(chosen, rows.pool, seed=seed)
    target = setting.target or max(_head(pool), 2 * len(chosen.classes))
    changed = replace(chosen, curation=(*chosen.curation, *setting.curation))
    sets = choose(folder, changed, pool, rows.labeled, target=target, seed=seed)
    ready = _Prepared(folder, chosen, setting, seed, rows, pool, sets)
    for _, _, arm, iterations in sorted(missing, key=lambda key: (key[3], key[2])):
        yield _run_cell(ready, arm, iterations)


def _head(pool: Crawl) -> int:
    """Different pictures of the largest class."""
    originals = pool.labels[pool.copy_of == np.arange(len(pool.labels))]
    return int(np.bincount(originals[originals != NO_CLASS]).max())


def _run_cell(ready: _Prepared, arm: str, iterations: int) -> Cell:
    chosen, pool = ready.chosen, ready.pool
    members = ready.sets[FIRST if arm == INITIAL else arm]
    files = [pool.files[row] for row in members.tolist()]
    place = ready.folder / f"{arm}-{iterations}"
    initial, trained = train_on(
        place, chosen, files, iterations=max(1, iterations), seed=ready.seed, changes=ready.setting.training
    )
    right = read_out(initial if arm == INITIAL else trained, chosen, ready.rows)
    labels = pool.labels[members]
    return Cell(
        digest=ready.setting.digest(chosen),
        seed=ready.seed,
        arm=arm,
        iterations=iterations,
        num_images=len(members),
        knn=right["knn"],
        linear=right["linear"],
        entropy=class_entropy(labels[labels != NO_CLASS], len(chosen.classes)),
        originals=len(np.unique(pool.copy_of[members])) / len(members),
        junk=float((labels == NO_CLASS).mean()),
    )
