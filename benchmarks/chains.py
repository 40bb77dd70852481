"""What splitting chains of pairs costs in recall and gains in precision: edited photographs, and a chain of letters.

Pairs are those of the default (`lite0-copy` verified, with PDQ) on planted copies, whose truth is known. Each rule then
judges the same pairs: components left as they are (`join`), or split as `ops/copies/chains.py` does (`split`). A lower
threshold of the evidence shows what happens where pairs are worse. Copies of copies, each made of the one before, are
chains in truth: there splitting can only lose.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Annotated

import numpy as np
import typer
from PIL import Image

from benchmarks.copies import (
    EditedPictures,
    hash_similarity,
    load_pictures,
    model_vectors,
    plant_copies,
    verified_similarity,
)
from curate.cli.arguments import Json
from curate.models.thresholds import REGISTRATION
from curate.ops.copies.duplicates import Chains, Judged, deduplicate
from curate.ops.copies.graph import AcceptedImages, CatalogParts, CopyEdges
from curate.ops.images.edits import MIN_SIDE, plant
from curate.ops.images.hashes import MATCH_BITS, bits_to_cosine
from curate.samples.bundled import PHOTOS

MODEL = "lite0-copy"
LOOSER = (0.0, 0.1, 0.2)
"""How far below its default the threshold of the evidence lies."""
LETTERS = 26
IN_A_ROW = 8
"""Copies of which each is made of the one before."""
EVERY = 3
"""Of so many photographs one gets copies of copies."""


@dataclass(frozen=True)
class ChainScore:
    """What one rule makes of the pairs; letters count as pictures of their own."""

    pairs: str
    chains: Chains
    precision: float
    """Of pairs of images in one component."""
    recall: float
    f1: float
    dropped: int
    """Images that go."""
    wrong: int
    """Of those, images of another picture than the one that stays."""
    lost: int
    """Pictures of which no image stays."""
    f1_gone: float
    """Of images that go: right where any image of their picture stays; wanted are all but one of each picture."""
    f1_gone_for: float
    """The same, right where the image that stays instead shows their picture."""
    largest: int
    """Images of the largest component."""


def measure_chains(
    num_pictures: int = 338, *, copies_each: int = 3, max_edits: int = 3, seed: int = 0
) -> list[ChainScore]:
    """Judge the pairs of planted copies by both rules, at several thresholds, copies of copies, and a chain of letters.

    Args:
        num_pictures: photographs at most.
        copies_each: copies planted on each.
        max_edits: edits of a copy at most.
        seed: of the edits.
    """
    pictures = load_pictures(PHOTOS, num_pictures)
    planted = plant_copies(pictures, copies_each, max_edits=max_edits, seed=seed)
    scores = _score_pool("copies of photographs", planted, LOOSER)
    scores += _score_pool(f"{IN_A_ROW} copies in a row", plant_in_a_row(pictures[::EVERY], seed=seed), (0.0,))
    first, alike = np.arange(LETTERS - 1), np.full(LETTERS - 1, 0.9)
    return scores + _score_both("a-b-...-z", first, first + 1, alike, np.ones(LETTERS, np.int64), np.arange(LETTERS))


def plant_in_a_row(pictures: Sequence[Image.Image], *, seed: int) -> EditedPictures:
    """`IN_A_ROW` copies of each picture, each made of the one before by one edit, as long as it is large enough."""
    copies: list[Image.Image] = []
    source, edits = list(range(len(pictures))), list[tuple[str, ...]]([()] * len(pictures))
    for i, picture in enumerate(pictures):
        copy = picture
        for k in range(IN_A_ROW):
            if min(copy.size) < MIN_SIDE * 2:
                break
            copy, names = plant(copy, np.random.default_rng([seed, i, k]), num_edits=1)
            copies.append(copy)
            source.append(i)
            edits.append(names)
    return EditedPictures([*pictures, *copies], np.array(source), edits)


def _score_pool(name: str, planted: EditedPictures, looser: Sequence[float]) -> list[ChainScore]:
    joined = hash_similarity(planted.pictures)[0] >= bits_to_cosine(MATCH_BITS)
    unit, _ = model_vectors(MODEL, planted.pictures, device="cpu", precision="fp32")
    evidence, _ = verified_similarity(MODEL, unit @ unit.T, joined, planted.pictures)
    pixels = np.array([picture.width * picture.height for picture in planted.pictures])
    scores = []
    for below in looser:
        rows, cols = np.nonzero(np.triu(evidence >= REGISTRATION.threshold - below, 1))
        label = f"{name}, evidence -{below}" if below else name
        scores += _score_both(label, rows, cols, evidence[rows, cols], pixels, planted.source)
    return scores


def _score_both(
    name: str, rows: np.ndarray, cols: np.ndarray, similarity: np.ndarray, pixels: np.ndarray, source: np.ndarray
) -> list[ChainScore]:
    edges = CopyEdges(rows, cols, similarity.astype(np.float32), np.ones(len(rows), np.int8))
    parts = CatalogParts(np.zeros(1, np.int8), np.zeros(1, np.int64), np.array([len(source)]))
    images = [AcceptedImages(np.arange(len(source)), pixels)]
    modes: tuple[Chains, ...] = ("join", "split")
    return [
        _score(name, chains, next(deduplicate(parts, lambda: images, lambda: [edges], chains=chains)), source)
        for chains in modes
    ]


def _score(name: str, chains: Chains, judged: Judged, source: np.ndarray) -> ChainScore:
    first, second = np.triu_indices(len(source), 1)
    together = judged.component_ids[first] == judged.component_ids[second]
    true = source[first] == source[second]
    hits = int((together & true).sum())
    precision, recall = hits / max(1, int(together.sum())), hits / int(true.sum()) if true.any() else 1.0
    gone = judged.partner_ids >= 0
    dropped, pictures = int(gone.sum()), len(np.unique(source))
    lost = pictures - len(np.unique(source[~gone]))
    wrong = int((source[gone] != source[judged.partner_ids[gone]]).sum())
    both = max(1, dropped + len(source) - pictures)
    return ChainScore(
        name,
        chains,
        precision,
        recall,
        2 * hits / max(1, int(together.sum() + true.sum())),
        dropped,
        wrong,
        lost,
        2 * (dropped - lost) / both,
        2 * (dropped - wrong) / both,
        int(judged.component_size.max()),
    )


def format_chains(scores: Sequence[ChainScore]) -> str:
    """The scores as a table."""
    lines = [f"{'pairs':<38} {'chains':<6} precision recall F1     gone  wrong lost  F1 gone F1 gone for largest"]
    for row in scores:
        lines.append(
            f"{row.pairs:<38} {row.chains:<6} {row.precision:<9.4f} {row.recall:.4f} {row.f1:.4f} {row.dropped:<5} "
            f"{row.wrong:<5} {row.lost:<5} {row.f1_gone:<7.4f} {row.f1_gone_for:<11.4f} {row.largest}"
        )
    return "\n".join(lines)


def command(
    num_pictures: Annotated[int, typer.Option("-n", help="photographs, at most 338")] = 338,
    copies_each: Annotated[int, typer.Option(help="copies planted on each")] = 3,
    max_edits: Annotated[int, typer.Option(help="edits of a copy at most")] = 3,
    seed: Annotated[int, typer.Option(help="seed of the edits")] = 0,
    json_: Json = False,
) -> None:
    """Components left as they are, and split: precision and recall on planted copies, and a chain of letters."""
    scores = measure_chains(num_pictures, copies_each=copies_each, max_edits=max_edits, seed=seed)
    print(json.dumps([asdict(row) for row in scores], indent=2) if json_ else format_chains(scores))
