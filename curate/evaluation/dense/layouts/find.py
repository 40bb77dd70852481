"""Which public set lies in a folder; of any other pictures composites are made."""

from pathlib import Path
from typing import Protocol

from curate.evaluation.dense.composites import compose
from curate.evaluation.dense.layouts import ade20k, davis, nyu, voc
from curate.evaluation.dense.truth import DenseTruth
from curate.evaluation.labeled import open_pictures
from curate.ops.images.bounds import Bounds

LEARNED = 4
"""Pictures of a folder that are learned on, for each that is asked for, where their number is bounded."""


class Layout(Protocol):
    """A file of this folder."""

    def is_here(self, folder: Path) -> bool:
        """Whether the folder has this layout."""
        ...

    def open_folder(self, folder: Path, *, train: int | None, test: int | None, bounds: Bounds) -> DenseTruth:
        """The truth of the folder."""
        ...


LAYOUTS: tuple[Layout, ...] = (davis, ade20k, nyu, voc)


def find_truth(data: str, *, num: int | None = None, bounds: Bounds | None = None) -> DenseTruth | None:
    """The truth of a folder of a public set; None: it is none.

    Args:
        data: a local folder, or anything else that pictures are read from.
        num: pictures that are asked for at most; four times as many are learned on; None: all.
        bounds: what decoding a picture may cost; None: the defaults.

    Raises:
        SourceError: the folder has the layout of a set, and lacks its pictures.
    """
    folder = Path(data).expanduser()
    for layout in LAYOUTS:
        if layout.is_here(folder):
            train = None if num is None else LEARNED * num
            return layout.open_folder(folder, train=train, test=num, bounds=bounds or Bounds())
    return None


def open_truth(data: str, *, seed: int, num: int, bounds: Bounds | None = None) -> DenseTruth:
    """The truth of a folder of a public set, or composites of any other pictures.

    Args:
        data: as in `open_labeled`, or a folder of a public set.
        seed: seed of the composites.
        num: pictures, or composites, that are asked for at most.
        bounds: as above.

    Raises:
        SourceError: too few pictures, or one that does not decode.
    """
    found = find_truth(data, num=num, bounds=bounds)
    return found or compose(open_pictures(data, bounds=bounds), seed=seed, scenes=num)
