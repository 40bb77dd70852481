"""A pool in which copies are planted by hand: every similarity and every small picture is known."""

from pathlib import Path
from typing import Any

import numpy as np

from curate.engine.pipeline import Pipeline, Ref
from curate.engine.store import Store
from curate.engine.table import Table
from curate.ops.vectors import normalize
from curate.tables import PICTURE_DIM, planted_schema
from tests.stages.planted import GivenVectors, PlantedCatalog, given_table

DIM, ROWS, PLANTED, COPIES = 32, 40, 30, 3


def pool_vectors() -> np.ndarray:
    """(2, ROWS, DIM) unit vectors; those of the second part are look-alikes of the first."""
    rng = np.random.default_rng(0)
    first = rng.standard_normal((ROWS, DIM))
    return np.stack([normalize(first), normalize(first + 0.5 * rng.standard_normal((ROWS, DIM)))])


def pool_pictures() -> np.ndarray:
    """(2, ROWS, PICTURE_DIM) small pictures; every third look-alike is the same picture, as a real copy would be."""
    x = np.random.default_rng(1).standard_normal((2, ROWS, PICTURE_DIM)).astype(np.float32)
    x[1, ::3] = x[0, ::3]
    return normalize(x.reshape(-1, PICTURE_DIM)).reshape(x.shape)


def planted_rows() -> list[dict[str, Any]]:
    """The first images of the first part, each with its copies, whose vectors moved more and more."""
    rng = np.random.default_rng(2)
    rows = []
    for image in range(PLANTED):
        for number in range(COPIES + 1):
            moved = pool_vectors()[0, image] + 0.12 * number * rng.standard_normal(DIM)
            vector, picture = normalize(moved[None])[0], pool_pictures()[0, image]
            edits = " ".join(["crop"] * number)
            row = {"image_id": image, "copy": number, "edits": edits}
            rows.append(row | {"vector": vector.tobytes(), "picture": picture.tobytes()})
    return rows


def given_planted(root: Path) -> Table:
    """The table of planted copies."""
    return given_table(root, "planted", planted_schema(DIM, model="planted", weights=""), [planted_rows()])


def declare(root: Path, *, first_role: str = "pool") -> tuple[Pipeline, dict[str, Ref]]:
    """A pipeline with catalog, vectors and pictures, and these refs with that of the planted copies."""
    given_planted(root)
    p = Pipeline(Store(root), seed=0)
    catalog = p.add("catalog", PlantedCatalog(roles=(first_role, "pool", "heldout"), rows=ROWS))
    vectors, pictures = pool_vectors(), pool_pictures()
    given = [GivenVectors(vectors=np.concatenate([x, x[:1]]).tolist()) for x in (vectors, pictures)]
    embeddings, small = (
        p.add(name, stage, catalog=catalog) for name, stage in zip(("vectors", "luma"), given, strict=True)
    )
    planted = Ref("planted", planted_schema(DIM, model="planted", weights=""))
    return p, {"embeddings": embeddings, "pictures": small, "planted": planted, "catalog": catalog}
