"""How well copies are found without truth: edits are planted on pictures, and every method is asked for them.

Thresholds are chosen on one half of the pictures and judged on the other, so that no figure is the best of a
sweep over its own test. The halves are cut in order of paths: folders and series of one subject stay whole, so
that the hard pairs (two photographs of one landmark) stay pairs of one half. All pairs of the test half count:
two copies of one picture are a true pair, anything else is a false one.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from PIL import Image

from curate.cli.arguments import Json
from curate.errors import ConfigError, SourceError
from curate.models.backbones.load import load_backbone
from curate.models.device import PrecisionChoice
from curate.models.thresholds import COPY_THRESHOLDS, REGISTRATION, VERIFICATION
from curate.ops.copies.components import DisjointSet
from curate.ops.copies.features import extract_features
from curate.ops.copies.registration import register, registration_score
from curate.ops.images.edits import MIN_SIDE, plant
from curate.ops.images.hashes import MATCH_BITS, bits_to_cosine, dihedral, pdq
from curate.ops.images.inspect import ImageLimits, inspect_image
from curate.ops.images.preprocess import preprocess
from curate.ops.vectors import VectorSpec, to_float32
from curate.samples.bundled import PHOTOS

PDQ = "pdq"
PDQ_SPEC = VectorSpec("bits", 256, "pdq", "")
MODELS = ("lite0", "lite0-copy")
WANTED_PRECISION = 0.99
BATCH = 32


@dataclass(frozen=True)
class EditedPictures:
    """Pictures and copies of them."""

    pictures: list[Image.Image]
    source: np.ndarray
    """(N,) int64, the picture each shows; originals come first and show themselves."""
    edits: list[tuple[str, ...]]
    """The chain that made each; empty for originals."""


@dataclass(frozen=True)
class CopyScore:
    """One method at one threshold, on the test half."""

    method: str
    chosen: str
    """How the threshold was chosen: default, best F1, or a precision of 99 %."""
    threshold: float
    precision: float
    recall: float
    component_precision: float
    component_recall: float
    recall_by_edit: dict[str, float]
    """Share of the copies with this edit in their chain that are joined to their original."""
    images_per_second: float

    @property
    def f1(self) -> float:
        """Harmonic mean of the precision and the recall of pairs."""
        return harmonic(self.precision, self.recall)


def measure_copies(
    folder: Path = PHOTOS,
    *,
    models: Sequence[str] = MODELS,
    num_pictures: int = 338,
    copies_each: int = 3,
    max_edits: int = 3,
    seed: int = 0,
    swap: bool = False,
    device: str = "auto",
    precision: PrecisionChoice = "auto",
) -> list[CopyScore]:
    """Score PDQ, each model, their unions, and the rule of `configs/dedup.yaml` on planted copies.

    Args:
        folder: pictures, in any depth; the bundled photographs by default.
        models: backbones to score, alone and joined by PDQ at its default distance.
        num_pictures: at most so many pictures are taken; all pairs are formed, so memory is quadratic.
        copies_each: copies planted on each picture.
        max_edits: a copy is a chain of 1 to `max_edits` edits.
        seed: of the edits.
        swap: judge on the first half and calibrate on the second.

    Raises:
        SourceError: fewer than four usable pictures in the folder.
        ConfigError: `copies_each` or `max_edits` is below 1.
    """
    if copies_each < 1 or max_edits < 1:
        raise ConfigError(f"copies_each={copies_each}, max_edits={max_edits}: both must be 1 or more")
    planted = plant_copies(load_pictures(folder, num_pictures), copies_each, max_edits=max_edits, seed=seed)
    test = (planted.source > planted.source.max() // 2) != swap
    hashes, pdq_rate = hash_similarity(planted.pictures)
    scores = _score_method(PDQ, hashes, None, planted, test, rate=pdq_rate, default=bits_to_cosine(MATCH_BITS))
    joined = hashes >= bits_to_cosine(MATCH_BITS)
    for model in models:
        unit, rate = model_vectors(model, planted.pictures, device=device, precision=precision)
        similarity = unit @ unit.T
        default = COPY_THRESHOLDS[model].threshold if model in COPY_THRESHOLDS else None
        scores += _score_method(model, similarity, None, planted, test, rate=rate, default=default)
        both = 1 / (1 / rate + 1 / pdq_rate)
        scores += _score_method(f"{model} + pdq", similarity, joined, planted, test, rate=both, default=default)
        if model in VERIFICATION:
            verified, rate = verified_similarity(model, similarity, joined, planted.pictures)
            name, limit = f"{model} verified + pdq", REGISTRATION.threshold
            scores += _score_method(name, verified, None, planted, test, rate=1 / (1 / both + 1 / rate), default=limit)
    return scores


def load_pictures(folder: Path, num_pictures: int) -> list[Image.Image]:
    """The first `num_pictures` usable pictures by path.

    Raises:
        SourceError: fewer than four; halves of less than two pictures have no false pairs.
    """
    limits = ImageLimits(min_side=MIN_SIDE * 2)
    pictures: list[Image.Image] = []
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        if len(pictures) == num_pictures:
            break
        found = inspect_image(file.read_bytes(), limits, min_side=512)
        if found.picture is not None:
            pictures.append(found.picture)
    if len(pictures) < 4:
        raise SourceError(f"{folder}: {len(pictures)} usable pictures, at least 4 are needed to plant copies on")
    return pictures


def plant_copies(pictures: list[Image.Image], copies_each: int, *, max_edits: int, seed: int) -> EditedPictures:
    """`copies_each` chains of 1 to `max_edits` edits on each picture; each copy has a random stream of its own."""
    everything, source = list(pictures), list(range(len(pictures)))
    chains: list[tuple[str, ...]] = [()] * len(pictures)
    for i, picture in enumerate(pictures):
        for k in range(copies_each):
            rng = np.random.default_rng([seed, i, k])
            copy, names = plant(picture, rng, num_edits=int(rng.integers(1, max_edits + 1)))
            everything.append(copy)
            source.append(i)
            chains.append(names)
    return EditedPictures(everything, np.array(source, dtype=np.int64), chains)


def hash_similarity(pictures: list[Image.Image]) -> tuple[np.ndarray, float]:
    """(N, N) float32 cosines of PDQ hashes, the best of the eight orientations; and images hashed a second."""
    start = time.perf_counter()
    hashes = np.array([np.frombuffer(pdq(picture)[0], dtype=np.uint8) for picture in pictures])  # (N, 32)
    rate = len(pictures) / (time.perf_counter() - start)
    base = to_float32(hashes, PDQ_SPEC)
    variants = dihedral(hashes)
    cosines = [to_float32(variants[:, k], PDQ_SPEC) @ base.T for k in range(variants.shape[1])]
    best = np.max(cosines, axis=0)
    return np.maximum(best, best.T), rate  # the variants of one image are inexact, so the order of a pair matters


def model_vectors(
    model: str, pictures: list[Image.Image], *, device: str, precision: PrecisionChoice
) -> tuple[np.ndarray, float]:
    """(N, D) float32 unit vectors; and images a second."""
    backbone = load_backbone(model, device=device, precision=precision)
    start, vectors = time.perf_counter(), []
    for at in range(0, len(pictures), BATCH):
        pixels = np.stack([preprocess(picture, backbone.preprocess) for picture in pictures[at : at + BATCH]])
        vectors.append(backbone.embed(torch.from_numpy(pixels)).numpy())
    rate = len(pictures) / (time.perf_counter() - start)
    return np.concatenate(vectors), rate


def verified_similarity(
    model: str, cosine: np.ndarray, joined: np.ndarray, pictures: list[Image.Image]
) -> tuple[np.ndarray, float]:
    """(N, N) float32 evidence as `configs/dedup.yaml` weighs it; and images a second.

    Pairs that hashes join, or a cosine above the model's threshold, have 2; those of a loose cosine their score of
    registration; the others, which are not tried, -1.
    """
    start, known = time.perf_counter(), VERIFICATION[model]
    features = [extract_features(picture) for picture in pictures]
    sure = joined | (cosine >= known.sure)
    rows, cols = np.nonzero(np.triu(~sure & (cosine >= known.floor), 1))
    found = [register(features[a], features[b]) for a, b in zip(rows, cols, strict=True)]
    agreement, points = (np.array([getattr(one, name) for one in found]) for name in ("agreement", "num_points"))
    evidence = np.where(sure, np.float32(2), np.float32(-1))
    evidence[rows, cols] = registration_score(agreement, points)
    return np.maximum(evidence, evidence.T), len(pictures) / (time.perf_counter() - start)


def _score_method(
    method: str,
    similarity: np.ndarray,
    joined: np.ndarray | None,
    planted: EditedPictures,
    test: np.ndarray,
    *,
    rate: float,
    default: float | None = None,
) -> list[CopyScore]:
    """The scores at the default threshold and at those that the calibration half chooses."""
    evidence = similarity if joined is None else np.where(joined, np.float32(2), similarity)  # 2: above any cosine
    fit = np.flatnonzero(~test)
    best, precise = choose_thresholds(evidence[np.ix_(fit, fit)], planted.source[fit], precision=WANTED_PRECISION)
    choices = [("best F1", best), (f"precision {WANTED_PRECISION:.0%}", precise)]
    if default is not None:
        choices.insert(0, ("default", default))
    return [
        score_edges(
            evidence >= threshold,
            planted,
            test,
            method=method,
            chosen=chosen,
            threshold=threshold,
            images_per_second=rate,
        )
        for chosen, threshold in choices
    ]


def choose_thresholds(similarity: np.ndarray, source: np.ndarray, *, precision: float) -> tuple[float, float]:
    """The thresholds of the best pairwise F1, and of the highest recall at a precision of at least `precision`.

    Args:
        similarity: (N, N), symmetric.
        source: (N,), equal for copies of one picture.

    Returns:
        Values of `similarity`; a pair is joined at or above them. Infinity where no threshold is so precise.
    """
    rows, cols = np.triu_indices(len(source), 1)
    values, true = similarity[rows, cols], source[rows] == source[cols]
    order = np.argsort(-values, kind="stable")
    hits, taken = np.cumsum(true[order]), np.arange(1, len(order) + 1)
    ends = np.append(values[order][1:] < values[order][:-1], True)  # equal values are taken together or not at all
    f1 = np.where(ends, 2 * hits / (taken + true.sum()), -1)
    precise = np.flatnonzero(ends & (hits >= precision * taken))
    return float(values[order[f1.argmax()]]), float(values[order[precise[-1]]]) if len(precise) else float("inf")


def score_edges(
    edges: np.ndarray,
    planted: EditedPictures,
    test: np.ndarray,
    *,
    method: str,
    chosen: str,
    threshold: float,
    images_per_second: float,
) -> CopyScore:
    """Precision and recall of edges (N, N) bool, as pairs and as components, among the images in `test`."""
    picked = np.flatnonzero(test)
    source, inside = planted.source[picked], edges[np.ix_(picked, picked)]
    rows, cols = np.triu_indices(len(picked), 1)
    linked = inside[rows, cols]
    forest = DisjointSet(len(picked))
    forest.union(rows[linked], cols[linked])
    labels = forest.labels()
    true = source[rows] == source[cols]
    pairs = _precision_recall(linked, true)
    components = _precision_recall(labels[rows] == labels[cols], true)
    return CopyScore(
        method,
        chosen,
        threshold,
        *pairs,
        *components,
        _recall_by_edit(edges, planted, picked),
        images_per_second=images_per_second,
    )


def _precision_recall(found: np.ndarray, true: np.ndarray) -> tuple[float, float]:
    """Of (P,) bool pairs; the precision of nothing found is 1."""
    hits = int((found & true).sum())
    return hits / int(found.sum()) if found.any() else 1.0, hits / int(true.sum()) if true.any() else 1.0


def _recall_by_edit(edges: np.ndarray, planted: EditedPictures, picked: np.ndarray) -> dict[str, float]:
    joined: dict[str, list[bool]] = {}
    for i in picked:
        for name in planted.edits[i]:
            joined.setdefault(name, []).append(bool(edges[i, planted.source[i]]))
    return {name: float(np.mean(values)) for name, values in sorted(joined.items())}


def harmonic(precision: float, recall: float) -> float:
    """F1 of a precision and a recall."""
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def as_json(scores: list[CopyScore]) -> str:
    """The scores for programs."""
    return json.dumps([asdict(score) | {"f1": score.f1} for score in scores], indent=2)


def format_copies(scores: list[CopyScore]) -> str:
    """The scores as a table: pairs, then components, then recall by edit in the chain."""
    names = sorted({name for score in scores for name in score.recall_by_edit})
    head = f"{'method':<32} {'threshold':<22} {'P':>6} {'R':>6} {'F1':>6} | {'comp P':>6} {'R':>6} | "
    lines = [head + " ".join(f"{name[:7]:>7}" for name in names) + " | images/s"]
    for score in scores:
        by_edit = " ".join(f"{score.recall_by_edit.get(name, float('nan')):7.2f}" for name in names)
        lines.append(
            f"{score.method:<32} {f'{score.threshold:.3f} ({score.chosen})':<22} {score.precision:6.3f} "
            f"{score.recall:6.3f} {score.f1:6.3f} | {score.component_precision:6.3f} {score.component_recall:6.3f} | "
            f"{by_edit} | {score.images_per_second:.0f}"
        )
    return "\n".join(lines)


def command(
    folder: Annotated[Path | None, typer.Option(help="pictures to plant copies of; none: the bundled ones")] = None,
    num_pictures: Annotated[int | None, typer.Option("-n", help="pictures at most; none: 338, of a domain 40")] = None,
    seed: Annotated[int, typer.Option(help="seed of the edits")] = 0,
    swap: Annotated[bool, typer.Option("--swap", help="judge on the first half of the pictures")] = False,
    domains: Annotated[bool, typer.Option("--domains", help="whole runs on drawn pictures that look alike")] = False,
    domain: Annotated[list[str] | None, typer.Option(help="of these domains only; may be given again")] = None,
    pool: Annotated[bool, typer.Option("--pool", help="whole runs on a pool of files, beside other tools")] = False,
    edits: Annotated[str, typer.Option(help="of --pool: web, or borders: with one border in each chain")] = "web",
    peers: Annotated[Path | None, typer.Option(help="of --pool: interpreter that has the other tools")] = None,
    changes: Annotated[list[str] | None, typer.Option("--set", help="of --pool: key=value of the config")] = None,
    json_: Json = False,
) -> None:
    """Precision and recall of copy-detection methods on planted chains of web edits."""
    if domains or domain:
        from benchmarks.look_alikes import domains_as_json, format_domains, measure_domains  # it reads this file

        found = measure_domains(domain or (), num_pictures=num_pictures or 40, seed=seed)
        typer.echo(domains_as_json(found) if json_ else format_domains(found))
        return
    if pool:
        from benchmarks.copy_pool import format_pool, measure_pool, parse_edits, pool_as_json  # they read this file

        measured = measure_pool(
            folder or PHOTOS,
            num_pictures=num_pictures or 338,
            edits=parse_edits(edits),
            seed=seed,
            peers=peers,
            changes=changes or (),
        )
        typer.echo(pool_as_json(measured) if json_ else format_pool(measured))
        return
    scores = measure_copies(folder or PHOTOS, num_pictures=num_pictures or 338, seed=seed, swap=swap)
    typer.echo(as_json(scores) if json_ else format_copies(scores))
