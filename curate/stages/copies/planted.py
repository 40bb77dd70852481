"""Planted copies, as the stages read them that fit or measure with them."""

from functools import cached_property
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from curate.engine.table import Table
from curate.ops.copies.copyspace import CopySpace
from curate.ops.copies.features import LocalFeatures
from curate.ops.vectors import VectorSpec, unpack
from curate.stages.copies.extract_features import read_features


class Views(NamedTuple):
    """Vectors of pictures: each whole, and beside it what a border surrounds, where there is one."""

    rows: np.ndarray
    """(V,) int64, the picture of each"""
    vectors: np.ndarray
    """(V, D) float32, unit L2"""


class PlantedCopies:
    """Images and the copies planted on them, those of an image together, in ascending order of ids."""

    def __init__(self, rows: pa.Table) -> None:
        self._rows = rows
        self.image_ids: np.ndarray = rows["image_id"].to_numpy()
        """(N,) int64, the image that each shows"""
        self.number: np.ndarray = rows["copy"].to_numpy()
        """(N,) int16, 0 for the image itself, 1... for its copies"""

    @cached_property
    def vectors(self) -> np.ndarray:
        """(N, D) float32, unit L2, of whole pictures"""
        return self._unpacked("vector")[0]

    def _unpacked(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        return unpack(self._rows[name], VectorSpec.of(self._rows.schema))

    def views(self, space: CopySpace | None) -> Views:
        """All vectors, in the space that is searched."""
        within, rows = self._unpacked("within")
        found = np.concatenate([self.vectors, within])
        at = np.concatenate([np.arange(len(self.vectors)), rows])
        return Views(at, found if space is None else space.project(found))

    def features(self, row: int) -> LocalFeatures:
        """The local features of one picture."""
        found = read_features(self._rows.slice(row, 1).to_pylist()[0])
        assert found is not None
        return found

    def copies(self) -> np.ndarray:
        """(C,) int64: rows of the copies."""
        return np.flatnonzero(self.number > 0)

    def originals_of(self, image_ids: np.ndarray) -> np.ndarray:
        """(M,) int64: rows of the images themselves."""
        originals = np.flatnonzero(self.number == 0)
        found: np.ndarray = originals[np.searchsorted(self.image_ids[originals], image_ids)]
        return found

    def likeness(self, views: Views) -> np.ndarray:
        """(C,) float32: cosine of each copy to its original, of their most similar views."""
        copies = self.copies()
        best = np.full(len(self.number), -1, np.float32)
        own = self.originals_of(self.image_ids)
        of = [np.flatnonzero(views.rows == row) for row in range(len(self.number))]
        for row in copies.tolist():
            best[row] = (views.vectors[of[row]] @ views.vectors[of[own[row]]].T).max()
        return best[copies]


def read_planted(table: Table, *, half: int) -> PlantedCopies:
    """Every other image in order of ids, with its copies: half 0 fits, half 1 judges."""
    rows = table.read_all().combine_chunks()
    _, place = np.unique(rows["image_id"].to_numpy(), return_inverse=True)
    return PlantedCopies(rows.take(np.flatnonzero(place % 2 == half)).combine_chunks())
