"""Which images stand in a crowd, and how pairs among look-alikes are judged.

`FindCrowds` says which images resemble many that no hash ties together (`ops/copies/crowds.py`). Their pairs are left
out of what counts by similarity alone: by `KeepNear` where pairs are verified, by `DoubtCrowds` else, and of the
hashes' pairs the distant ones. `FindCandidates` offers a bounded number of them instead. Once the pictures of each are
laid over one another, `MeasureCrowds` sums up what an image's pairs reach, and `JudgePairs` keeps those that stand out.
"""

from functools import lru_cache
from typing import Self

import numpy as np
import pyarrow as pa

from curate.engine.cost import Demand, Shapes
from curate.engine.demands import by_process
from curate.engine.store import Store
from curate.engine.table import Table


class CrowdMembers:
    """The images in crowds, to be looked up by id."""

    def __init__(self, image_ids: np.ndarray, hash_groups: np.ndarray) -> None:
        self._ids = image_ids
        self._hash_groups = hash_groups

    @classmethod
    def of(cls, crowds: Table | None) -> Self:
        """From the table of `FindCrowds`; None: crowds are not looked for, and nobody stands in one.

        A process reads it once: 10 bytes an image in a crowd, which the pairs of any part may touch.
        """
        if crowds is None:
            return cls(np.empty(0, np.int64), np.empty(0, np.int16))
        return cls(*_read(crowds.store.address, crowds.name, tuple(part.content for part in crowds.parts())))

    def where(self, hash_groups: int) -> Self:
        """Those of them whose hash is near to those of so many other groups, or more."""
        many = self._hash_groups >= hash_groups
        return type(self)(self._ids[many], self._hash_groups[many])

    def have(self, image_ids: np.ndarray) -> np.ndarray:
        """(N,) bool: whether each image stands in a crowd."""
        if len(self._ids) == 0:
            return np.zeros(len(image_ids), bool)
        at = np.minimum(np.searchsorted(self._ids, image_ids), len(self._ids) - 1)
        found: np.ndarray = self._ids[at] == image_ids
        return found

    def touch(self, pairs: pa.Table) -> np.ndarray:
        """(E,) bool: whether an image of each pair stands in a crowd."""
        found: np.ndarray = self.have(pairs["query_id"].to_numpy()) | self.have(pairs["image_id"].to_numpy())
        return found


@lru_cache(maxsize=1)
def _read(root: str, name: str, contents: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Ids and groups of the images in crowds; `contents` of the parts tell one table from another of that name."""
    rows = Store(root).table(name).read_all(["image_id", "hash_groups"])
    return rows["image_id"].to_numpy(), rows["hash_groups"].to_numpy()


def members_read(inputs: Shapes) -> Demand:
    """What it takes to know the members of crowds: each process reads all of them."""
    crowds = inputs.get("crowds")
    return Demand() if crowds is None else by_process([crowds.scanned()])
