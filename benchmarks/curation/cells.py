"""Cells: one training on one set of one pool, read out. Each is a line of a file, so that a benchmark can be killed."""

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from benchmarks.curation.sets import LabeledSet, Rows
from benchmarks.lines import append_line, read_lines
from benchmarks.shards import write_shard
from curate.config import apply_overrides, parse, read_yaml
from curate.evaluation.features import embed_images
from curate.evaluation.knn import knn_accuracy
from curate.evaluation.labeled import from_arrays
from curate.evaluation.logistic import logistic_accuracy
from curate.models.backbones.load import load_backbone
from curate.trainer.config import TrainConfig
from curate.trainer.train import train

READOUTS = ("knn", "linear")
NEIGHBORS = 10
INITIAL = "initial"
"""The arm that is not trained."""


@dataclass(frozen=True)
class Cell:
    """What one training came to."""

    digest: str
    """Of the settings: lines of other settings in the same file are other measurements."""
    seed: int
    arm: str
    """See `arms.ARMS`; `initial`: the weights that all arms of a seed start from."""
    iterations: int
    num_images: int
    knn: str
    """A 1 for each picture of the test set that k-NN tells right, else a 0."""
    linear: str
    entropy: float
    """Of the classes of the training set over its maximum: 1 all equal."""
    originals: float
    """Different pictures over all pictures of the training set."""
    junk: float
    """Share of the training set that is junk."""

    @property
    def key(self) -> tuple[str, int, str, int]:
        """What no other cell of a file has."""
        return self.digest, self.seed, self.arm, self.iterations

    def right(self, readout: str) -> np.ndarray:
        """(T,) float64, 1 where the read-out is right."""
        return np.frombuffer(getattr(self, readout).encode(), np.uint8).astype(np.float64) - ord("0")


def read_cells(path: Path) -> dict[tuple[str, int, str, int], Cell]:
    """The finished cells of a file by their keys."""
    cells = (Cell(**values) for values in read_lines(path))
    return {cell.key: cell for cell in cells}


def append_cell(path: Path, cell: Cell) -> None:
    """Add a finished cell."""
    append_line(path, asdict(cell))


def train_on(
    folder: Path, chosen: LabeledSet, files: list[bytes], *, iterations: int, seed: int, changes: tuple[str, ...] = ()
) -> tuple[Path, Path]:
    """Train on encoded pictures in a folder, where a training that was killed goes on; initial and final export."""
    write_shard(folder / "shards", files, source=folder.parent.name)
    values = apply_overrides(read_yaml(chosen.config), [*chosen.training, *changes])
    values |= {"shards": str(folder / "shards"), "output": str(folder / "pretrain"), "seed": seed}
    values["iterations"] = iterations
    found = train(parse(TrainConfig, values, where=chosen.config))
    return found.initial, found.export


def read_out(export: Path, chosen: LabeledSet, rows: Rows) -> dict[str, str]:
    """Right and wrong answers on the test set by read-out, see `Cell`."""
    backbone = load_backbone("curate", weights=str(export), precision="fp32")
    both = np.concatenate([rows.labeled, rows.asked])
    features = embed_images(backbone, from_arrays(chosen.images[both], chosen.labels[both], name=chosen.name))
    known, new = np.split(features, [len(rows.labeled)])
    four = known, chosen.labels[rows.labeled], new, chosen.labels[rows.asked]
    found = {"knn": knn_accuracy(*four, min(NEIGHBORS, len(known))), "linear": logistic_accuracy(*four, seed=0)[0]}
    return {name: "".join(str(int(right)) for right in accuracy.correct) for name, accuracy in found.items()}
