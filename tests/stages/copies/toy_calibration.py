"""A pool in which copies are planted by hand: every similarity and every picture is known."""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from curate.engine.pipeline import Pipeline, Ref
from curate.engine.store import Store
from curate.engine.table import Table
from curate.ops.copies.features import LocalFeatures, extract_features
from curate.ops.vectors import normalize
from curate.stages.copies.extract_features import features_row
from curate.tables import FEATURES, planted_schema
from tests.stages.copies.given_pairs import texture
from tests.stages.planted import GivenVectors, PlantedCatalog, given_table

DIM, ROWS, PLANTED, COPIES = 32, 24, 20, 3
SCHEMA = planted_schema(DIM, model="planted", weights="")
FRAMED = 3
"""The copy of each image whose picture stands in a frame: its whole is like nothing, what the frame surrounds is."""
POINTS = 100
"""Points of a picture, few so that registering is fast."""


@cache
def pool_vectors() -> np.ndarray:
    """(2, ROWS, DIM) unit vectors; those of the second part are look-alikes of the first."""
    rng = np.random.default_rng(0)
    first = rng.standard_normal((ROWS, DIM))
    return np.stack([normalize(first), normalize(first + 0.5 * rng.standard_normal((ROWS, DIM)))])


@cache
def pool_within() -> list[np.ndarray | None]:
    """Of each image of the second part what a border surrounds, where it has one: every fourth, like its neighbor."""
    rng = np.random.default_rng(3)
    x = normalize(pool_vectors()[0] + 0.1 * rng.standard_normal((ROWS, DIM)))
    return [x[(row + 1) % ROWS] if row % 4 == 0 else None for row in range(ROWS)]


@cache
def features(part: int, row: int, *, edited: bool = False) -> LocalFeatures:
    """Of an image, or a crop of it.

    Every third look-alike shows the same picture, as a real copy would, and every third one a part of it beside
    something else: another picture that lies over it somewhat.
    """
    picture = texture(1000 * part + row)
    if part == 1 and row % 3 == 0:
        picture = texture(row)
    elif part == 1 and row % 3 == 1:
        picture.paste(texture(row).crop((20, 0, 80, 128)), (20, 0))
    found = extract_features(picture.crop((15, 12, 150, 118)) if edited else picture)
    return LocalFeatures(found.stored_points[:POINTS], found.stored_descriptors[:POINTS], found.encoded)


@cache
def planted_rows() -> list[dict[str, Any]]:
    """The first images of the first part, each with its copies, whose vectors moved more and more."""
    rng = np.random.default_rng(2)
    rows = []
    for image in range(PLANTED):
        for number in range(COPIES + 1):
            moved = normalize((pool_vectors()[0, image] + 0.12 * number * rng.standard_normal(DIM))[None])
            frame = normalize(rng.standard_normal((1, DIM))) if number == FRAMED else moved
            row = {"image_id": image, "copy": number, "edits": " ".join(["crop"] * number)}
            row |= {"vector": frame.astype(np.float32).tobytes()} | features_row(features(0, image, edited=number > 0))
            rows.append(row | {"within": moved.astype(np.float32).tobytes() if number == FRAMED else None})
    return rows


def given_planted(root: Path) -> Table:
    """The table of planted copies."""
    return given_table(root, "planted", SCHEMA, [planted_rows()])


def given_features(root: Path) -> Table:
    """The features of the pool; the last image of it could not be opened, the held-out one was not asked for."""
    rows = [
        [{"image_id": part << 32 | row} | features_row(features(part, row)) for row in range(ROWS)] for part in (0, 1)
    ]
    rows[1][-1] = {"image_id": rows[1][-1]["image_id"]}
    return given_table(root, "features", FEATURES, [*rows, [{"image_id": 2 << 32 | row} for row in range(ROWS)]])


def declare(root: Path, *, first_role: str = "pool") -> tuple[Pipeline, dict[str, Ref]]:
    """A pipeline with catalog and vectors, and these refs with that of the planted copies."""
    given_planted(root)
    p = Pipeline(Store(root), seed=0)
    catalog = p.add("catalog", PlantedCatalog(roles=(first_role, "pool", "heldout"), rows=ROWS))
    vectors = np.concatenate([pool_vectors(), pool_vectors()[:1]]).tolist()
    embeddings = p.add("vectors", GivenVectors(vectors=vectors), catalog=catalog)
    return p, {"embeddings": embeddings, "planted": Ref("planted", SCHEMA), "catalog": catalog}


def add_within(p: Pipeline, catalog: Ref) -> Ref:
    """The vectors of what borders surround."""
    nothing = (None,) * ROWS
    given = tuple(None if x is None else tuple(x.tolist()) for x in pool_within())
    return p.add("within", GivenVectors(vectors=(nothing, given, nothing)), catalog=catalog)
