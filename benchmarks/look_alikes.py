"""How well the whole program finds copies among pictures that look alike, domain by domain, beside PDQ alone.

Pictures of one domain (`domains.py`) and planted copies of each are a pool; `curate run dedup` judges it by default. A
pair is found where both images lie in one group, since of a group one image stays: that is what a user loses.
"""

import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

import curate
from benchmarks.copies import EditedPictures, hash_similarity, plant_copies
from benchmarks.domains import DOMAINS, draw_domain
from curate.ops.copies.components import connected_components
from curate.ops.images.hashes import bits_to_cosine

PDQ_BITS = 31
"""The distance that PDQ's authors publish for copies."""
WILSON_Z = 1.96
"""Standard deviations of a two-sided bound of 95 %."""


@dataclass(frozen=True)
class Share:
    """A share of a number of cases, and where it may lie."""

    hits: int
    of: int

    @property
    def value(self) -> float:
        """The share; that of no cases is 1."""
        return self.hits / self.of if self.of else 1.0

    @property
    def bounds(self) -> tuple[float, float]:
        """Wilson's bounds of 95 %; 0 and 1 where there are no cases."""
        if not self.of:
            return 0.0, 1.0
        n, square = self.of, WILSON_Z**2
        middle = (self.value + square / (2 * n)) / (1 + square / n)
        half = WILSON_Z / (1 + square / n) * (self.value * (1 - self.value) / n + square / (4 * n * n)) ** 0.5
        return middle - half, middle + half


@dataclass(frozen=True)
class DomainScore:
    """What one method did to the pool of one domain."""

    domain: str
    method: str
    precision: Share
    """Of the pairs in one group."""
    recall: Share
    """Of the pairs of copies of one picture."""
    pictures: int
    """Distinct pictures in the pool."""
    left: int
    """Distinct pictures of which an image stays."""
    seconds: float


def measure_domains(
    names: Sequence[str] = (), *, num_pictures: int = 40, copies_each: int = 2, max_edits: int = 3, seed: int = 0
) -> list[DomainScore]:
    """The default of `curate run dedup`, and PDQ alone, on a pool of each domain; () for all domains.

    Raises:
        ConfigError: a name is not known.
    """
    scores = []
    for name in names or list(DOMAINS):
        drawn = draw_domain(name, num_pictures, seed=seed)
        planted = plant_copies(drawn, copies_each, max_edits=max_edits, seed=seed)
        start = time.perf_counter()
        groups, stays = run_default(planted)
        ended = time.perf_counter()
        scores.append(score_groups(name, "default", groups, stays, planted.source, seconds=ended - start))
        groups, stays = run_pdq(planted)
        seconds = time.perf_counter() - ended
        scores.append(score_groups(name, f"PDQ at {PDQ_BITS}", groups, stays, planted.source, seconds=seconds))
    return scores


def run_default(planted: EditedPictures) -> tuple[np.ndarray, np.ndarray]:
    """(N,) int64 the group of each picture, and (N,) bool whether it stays, as the recipe `dedup` decides."""
    with tempfile.TemporaryDirectory() as folder:
        pool = Path(folder) / "pool"
        pool.mkdir()
        for i, picture in enumerate(planted.pictures):
            picture.save(pool / f"{i:06}.png")
        run = curate.run("dedup", workdir=f"{folder}/run", sources={"pool": str(pool)}, write=None)
        keys = run.tables["catalog"].read_all(["image_id", "key"]).to_pylist()
        number = {row["image_id"]: int(Path(row["key"]).stem) for row in keys}
        groups, stays = np.arange(len(planted.pictures)), np.zeros(len(planted.pictures), bool)
        for row in run.tables["duplicates"].read_all(["image_id", "component_id", "verdict"]).to_pylist():
            groups[number[row["image_id"]]] = number[row["component_id"]]
            stays[number[row["image_id"]]] = row["verdict"] == "kept"
    return groups, stays


def run_pdq(planted: EditedPictures) -> tuple[np.ndarray, np.ndarray]:
    """The same by PDQ hashes alone, of the closest of eight orientations; the first image of a group stays."""
    similarity, _ = hash_similarity(planted.pictures)
    rows, cols = np.nonzero(np.triu(similarity >= bits_to_cosine(PDQ_BITS), 1))
    groups = connected_components(len(planted.pictures), rows, cols)
    return groups, groups == np.arange(len(groups))


def score_groups(
    domain: str, method: str, groups: np.ndarray, stays: np.ndarray, source: np.ndarray, *, seconds: float
) -> DomainScore:
    """Count pairs of images in one group, (N,) each."""
    rows, cols = np.triu_indices(len(source), 1)
    found, true = groups[rows] == groups[cols], source[rows] == source[cols]
    hits = int((found & true).sum())
    left = len(np.unique(source[stays]))
    precision, recall = Share(hits, int(found.sum())), Share(hits, int(true.sum()))
    return DomainScore(domain, method, precision, recall, len(np.unique(source)), left, seconds)


def domains_as_json(scores: list[DomainScore]) -> str:
    """The scores for programs."""
    rows = []
    for score in scores:
        shares = {
            name: {"value": share.value, "bounds": share.bounds, **asdict(share)}
            for name, share in (("precision", score.precision), ("recall", score.recall))
        }
        rows.append(asdict(score) | shares)
    return json.dumps(rows, indent=2)


def format_domains(scores: list[DomainScore]) -> str:
    """The scores as a table; in brackets the bounds of 95 %."""
    lines = [f"{'domain':<16} {'method':<10} {'precision':<20} {'recall':<20} {'pictures left':<14} seconds"]
    for score in scores:
        lines.append(
            f"{score.domain:<16} {score.method:<10} {_format(score.precision):<20} {_format(score.recall):<20} "
            f"{f'{score.left} of {score.pictures}':<14} {score.seconds:.0f}"
        )
    return "\n".join(lines)


def _format(share: Share) -> str:
    low, high = share.bounds
    return f"{share.value:.3f} ({low:.3f}-{high:.3f})"
