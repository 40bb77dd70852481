"""Planted copies, as the stages read them that fit or measure with them."""

from typing import NamedTuple

import numpy as np

from curate.engine.table import Table
from curate.ops.vectors import VectorSpec, unpack
from curate.stages.images.embed import Embed
from curate.tables import PICTURE_DIM

PICTURES = Embed(model="luma24", precision="fp32", dtype="float32")
"""Small pictures that tell whether two images can be laid over each other, see `verified_pairs.py`."""


class PlantedCopies(NamedTuple):
    """Images and the copies planted on them, those of an image together, in ascending order of ids."""

    image_ids: np.ndarray
    """(N,) int64, the image that each shows"""
    number: np.ndarray
    """(N,) int16, 0 for the image itself, 1... for its copies"""
    vectors: np.ndarray
    """(N, D) float32, unit L2"""
    pictures: np.ndarray
    """(N, S*S) float32, small pictures"""

    def copies(self) -> np.ndarray:
        """(C,) int64: rows of the copies."""
        return np.flatnonzero(self.number > 0)

    def originals_of(self, image_ids: np.ndarray) -> np.ndarray:
        """(M,) int64: rows of the images themselves."""
        originals = np.flatnonzero(self.number == 0)
        found: np.ndarray = originals[np.searchsorted(self.image_ids[originals], image_ids)]
        return found


def read_planted(table: Table, *, half: int) -> PlantedCopies:
    """Every other image in order of ids, with its copies: half 0 fits, half 1 judges."""
    rows = table.read_all().combine_chunks()
    _, place = np.unique(rows["image_id"].to_numpy(), return_inverse=True)
    mine = rows.take(np.flatnonzero(place % 2 == half)).combine_chunks()
    small = VectorSpec("float32", PICTURE_DIM, PICTURES.model, "")
    vectors, pictures = (
        unpack(mine[name], spec)[0] for name, spec in (("vector", VectorSpec.of(rows.schema)), ("picture", small))
    )
    return PlantedCopies(mine["image_id"].to_numpy(), mine["copy"].to_numpy(), vectors, pictures)
