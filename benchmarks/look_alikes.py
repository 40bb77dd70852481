"""How well the whole program finds copies among pictures that look alike, domain by domain, beside PDQ alone.

Pictures of one domain (`domains.py`) and planted copies of each are a pool; `curate run dedup` judges it by default. A
pair is found where both images lie in one group, since of a group one image stays: that is what a user loses. The
pairs of one picture hang together, so bounds count pictures, not pairs.
"""

import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

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

    hits: float
    of: float
    independent: float | None = None
    """How many independent cases they are worth; None: all are."""

    @property
    def value(self) -> float:
        """The share; that of no cases is 1."""
        return self.hits / self.of if self.of else 1.0

    @property
    def bounds(self) -> tuple[float, float]:
        """Wilson's bounds of 95 %; 0 and 1 where there are no cases."""
        n, square = self.of if self.independent is None else self.independent, WILSON_Z**2
        if not n:
            return 0.0, 1.0
        middle = (self.value + square / (2 * n)) / (1 + square / n)
        half = WILSON_Z / (1 + square / n) * (self.value * (1 - self.value) / n + square / (4 * n * n)) ** 0.5
        return max(0.0, middle - half), min(1.0, middle + half)

    def as_dict(self) -> dict[str, Any]:
        """For programs, with the bounds."""
        return {"value": self.value, "bounds": self.bounds, **asdict(self)}


def clustered_share(hits: np.ndarray, of: np.ndarray) -> Share:
    """The share of cases that hang together in clusters, such as the pairs of one picture.

    They are worth as many independent cases as give the share the variance that it has over the clusters, and no more
    than there are clusters with a case: where all hit, or none, the variance tells nothing.

    Args:
        hits: (K,) float64, hits of each cluster.
        of: (K,) float64, its cases.

    Source: Cochran 1977, "Sampling Techniques", section 6.4, ratio estimates; Kish 1965, design effects.
    """
    total, clusters = float(of.sum()), int(np.count_nonzero(of))
    if not total:
        return Share(0.0, 0.0)
    value = float(hits.sum()) / total
    variance = float(((hits - value * of) ** 2).sum()) / total**2 * clusters / max(1, clusters - 1)
    worth = value * (1 - value) / variance if variance > 0 else float(clusters)
    return Share(float(hits.sum()), total, min(max(worth, 1.0), float(clusters)))


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
    precision, recall = pair_shares(groups, source)
    left = len(np.unique(source[stays]))
    return DomainScore(domain, method, precision, recall, len(np.unique(source)), left, seconds)


def pair_shares(groups: np.ndarray, source: np.ndarray) -> tuple[Share, Share]:
    """Precision and recall of the pairs of images in one group, (N,) each; the pairs of a picture hang together."""
    hits, found, true = _pairs_by_picture(groups, source)
    return clustered_share(hits, found), clustered_share(hits, true)


def harmonic_share(groups: np.ndarray, source: np.ndarray) -> Share:
    """F1 of the same pairs: the hits as a share of the mean of pairs found and true pairs."""
    hits, found, true = _pairs_by_picture(groups, source)
    return clustered_share(hits, (found + true) / 2)


def _pairs_by_picture(groups: np.ndarray, source: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(K,) float64 each: pairs that are found and true, found, and true; of two pictures, half a pair for each."""
    rows, cols = np.triu_indices(len(source), 1)
    found, true = groups[rows] == groups[cols], source[rows] == source[cols]

    def of_pictures(pairs: np.ndarray) -> np.ndarray:
        ends = np.concatenate([source[rows[pairs]], source[cols[pairs]]])
        return np.bincount(ends, minlength=int(source.max(initial=-1)) + 1) / 2

    return of_pictures(found & true), of_pictures(found), of_pictures(true)


def domains_as_json(scores: list[DomainScore]) -> str:
    """The scores for programs."""
    rows = []
    for score in scores:
        shares = {name: share.as_dict() for name, share in (("precision", score.precision), ("recall", score.recall))}
        rows.append(asdict(score) | shares)
    return json.dumps(rows, indent=2)


def format_domains(scores: list[DomainScore]) -> str:
    """The scores as a table; in brackets the bounds of 95 %."""
    lines = [f"{'domain':<16} {'method':<10} {'precision':<20} {'recall':<20} {'pictures left':<14} seconds"]
    for score in scores:
        shares = f"{format_share(score.precision):<20} {format_share(score.recall):<20}"
        left = f"{score.left} of {score.pictures}"
        lines.append(f"{score.domain:<16} {score.method:<10} {shares} {left:<14} {score.seconds:.0f}")
    return "\n".join(lines)


def format_share(share: Share) -> str:
    """The share, and its bounds in brackets."""
    low, high = share.bounds
    return f"{share.value:.3f} ({low:.3f}-{high:.3f})"
