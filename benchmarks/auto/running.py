"""Trainings of `curate train auto` on half of a set, and what k-NN tells of the other half: a line for every arm."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.auto.sets import SmallSet
from benchmarks.curation.crawl import encode
from benchmarks.lines import append_line, read_lines
from benchmarks.shards import write_shard
from curate.api import train_auto
from curate.config import merge
from curate.evaluation.features import embed_images
from curate.evaluation.knn import knn_leave_one_out
from curate.evaluation.labeled import from_arrays
from curate.models.backbones.load import load_backbone
from curate.trainer.settling import settle

RESULTS = "results.jsonl"
NEIGHBORS = 10
MOST_ASKED = 1000
BEFORE = {"scratch": "initial", "continued": "frozen"}
"""Each way to train, and what its weights are before the first iteration."""


@dataclass(frozen=True)
class Route:
    """A way to train."""

    arm: str
    """A key of `BEFORE`."""
    most: int
    """Iterations at most; fewer where fewer are picked."""
    given: dict[str, Any]
    """Settings beside those of the set: none, or the backbone to go on from."""


@dataclass(frozen=True)
class Cell:
    """How well one backbone tells the pictures of one half of a set apart."""

    digest: str
    """Of the set and of all settings: lines of other settings are other measurements."""
    set: str
    seed: int
    arm: str
    """A key of `BEFORE`, or what it is before the first iteration."""
    iterations: int
    """Of the training."""
    picked: int
    """Iterations that were picked, of which the training does no more than it was allowed."""
    num_pictures: int
    """Of the whole set, of which a seed asks for one half."""
    right: str
    """A 1 for each picture that was asked for whose neighbors tell its class, else a 0."""

    def answers(self) -> np.ndarray:
        """(T,) float64, 1 where k-NN is right."""
        return np.frombuffer(self.right.encode(), np.uint8).astype(np.float64) - ord("0")


def halves(num: int, seed: int, *, most_asked: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows to train on and rows to ask for, apart and rising. Two seeds after each other swap the same halves.

    Args:
        num: pictures of the set.
        seed: of the training.
        most_asked: rows of the half to ask for that are asked for, at most.
    """
    rows = np.random.default_rng([0, seed // 2]).permutation(num)
    trained, asked = rows[: num // 2], rows[num // 2 :]
    if seed % 2:
        trained, asked = asked, trained
    return np.sort(trained), np.sort(asked[:most_asked])


def bench_auto(
    workdir: Path, chosen: SmallSet, *, routes: Sequence[Route], seeds: Sequence[int], most_asked: int = MOST_ASKED
) -> list[Cell]:
    """The cells of a set; those that `results.jsonl` in the workdir has already are not computed again.

    Args:
        workdir: gets the results, and a folder for each set, seed and training.
        chosen: the set.
        routes: ways to train.
        seeds: of halves and trainings.
        most_asked: pictures that are asked for in a half, at most.
    """
    found = []
    for seed in seeds:
        for route in routes:
            found += _run(workdir, chosen, route, seed, most_asked)
    return found


def _run(workdir: Path, chosen: SmallSet, route: Route, seed: int, most_asked: int) -> list[Cell]:
    """The cells before and after one training."""
    num = len(chosen.labels)
    trained, asked = halves(num, seed, most_asked=most_asked)
    place = workdir / chosen.name / f"seed-{seed}"
    write_shard(place / "shards", encode(chosen.images[trained]), source=chosen.name)
    given = merge(chosen.given, route.given) | {"shards": str(place / "shards"), "seed": seed}
    values = settle({**given, "output": str(place / "nothing")}).values
    picked = values["iterations"]
    # a backbone that goes on would embed at its own size, which takes longer: by default both arms are asked at that of
    # the crops
    given = {"export_size": values["crops"]["global_size"], **given, "iterations": min(picked, route.most)}
    digest = _digest(chosen, given, place)
    lines = [cell for cell in read_cells(workdir) if (cell.digest, len(cell.right)) == (digest, len(asked))]
    if len(lines) == len((BEFORE[route.arm], route.arm)):
        return lines
    done = train_auto({**given, "output": str(place / digest)})
    cells = [
        Cell(digest, chosen.name, seed, arm, given["iterations"], picked, num, _right(export, chosen, asked))
        for arm, export in ((BEFORE[route.arm], done.initial), (route.arm, done.export))
    ]
    for cell in cells[len(lines) :]:
        append_line(workdir / RESULTS, asdict(cell))
    return cells


def read_cells(workdir: Path) -> list[Cell]:
    """The finished cells of a folder."""
    return [Cell(**values) for values in read_lines(workdir / RESULTS)]


def _digest(chosen: SmallSet, given: dict[str, Any], place: Path) -> str:
    """Of the pictures and of all settings that follow, wherever the folders lie."""
    values = settle({**given, "output": str(place / "nothing")}).values | {"shards": "", "output": ""}
    found = hashlib.sha256(chosen.images.tobytes() + chosen.labels.tobytes())
    found.update(json.dumps([chosen.name, values], sort_keys=True).encode())
    return found.hexdigest()[:16]


def _right(export: Path, chosen: SmallSet, asked: np.ndarray) -> str:
    """Right and wrong answers about the pictures that were asked for, each by all others of them; see `Cell`."""
    backbone = load_backbone("curate", weights=str(export), precision="auto")
    labels = chosen.labels[asked]
    features = embed_images(backbone, from_arrays(chosen.images[asked], labels, name=chosen.name))
    correct = knn_leave_one_out(features, labels, min(NEIGHBORS, len(labels) - 1)).correct
    return "".join(str(int(right)) for right in correct)
