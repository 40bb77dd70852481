"""What the quickstart's pretraining teaches, on several seeds: pictures found by a part of them, and their classes."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.figures import Figure, show
from benchmarks.improvement import Improvement
from curate.api import open_run
from curate.api import train as train_config
from curate.cli.arguments import Json, Workdir
from curate.evaluation.accuracy import Accuracy
from curate.evaluation.features import embed_images
from curate.evaluation.knn import knn_leave_one_out
from curate.evaluation.labeled import LabeledImages, open_labeled
from curate.evaluation.parts import find_from_parts
from curate.models.backbones.load import load_backbone
from curate.stages.training.evaluate import PARTS_AREA, PARTS_SEED

CONFIG = "train/tiny"
"""The training of `configs/quickstart.yaml`; a test holds them equal."""
NEIGHBORS = 10


@dataclass(frozen=True)
class Taught:
    """One training beside its initialization."""

    parts: Improvement
    classes: Improvement


def bench_quickstart(
    shards: str, folder: Path, *, seed: int, labelled: str = "bundled", iterations: int | None = None
) -> Taught:
    """Pretrain with one seed, or take the training that is there, and measure it.

    Args:
        shards: those of a run.
        folder: gets a training for each seed.
        labelled: pictures that are asked for, see `Evaluate.labelled`.
        iterations: None: those of the quickstart.
    """
    changes = {} if iterations is None else {"iterations": iterations}
    result = train_config(CONFIG, shards=shards, output=str(folder / f"seed-{seed}"), seed=seed, **changes)
    images = open_labeled(labelled)
    before, after = (_measure(str(path), images) for path in (result.initial, result.export))
    return Taught(*(Improvement(*pair) for pair in zip(before, after, strict=True)))


def _measure(weights: str, images: LabeledImages) -> tuple[Accuracy, Accuracy]:
    backbone = load_backbone("curate", weights=weights, precision="fp32")
    found = find_from_parts(backbone, images, area=PARTS_AREA, seed=PARTS_SEED)
    return found, knn_leave_one_out(embed_images(backbone, images), images.labels, NEIGHBORS)


def as_figures(seed: int, taught: Taught) -> list[Figure]:
    """Both measures of one seed, each beside the initialization's."""
    measures = (("found from a part", taught.parts), (f"{NEIGHBORS}-NN class", taught.classes))
    return [
        Figure(
            f"seed {seed}: {name}",
            measure.trained.value,
            "share",
            "its initialization",
            measure.initial.value,
            note=f"gain {measure.gain:+.3f} +- {measure.gain_stderr:.3f}, paired",
        )
        for name, measure in measures
    ]


def command(
    workdir: Workdir,
    folder: Annotated[Path, typer.Argument(help="gets a training for each seed; those that are there are measured")],
    seeds: Annotated[int, typer.Option(help="trainings")] = 5,
    json_: Json = False,
) -> None:
    """Pretrain as the quickstart does on the shards of its run, with several seeds: gains over the initialization."""
    shards = open_run(workdir).shards
    found = [as_figures(seed, bench_quickstart(shards, folder, seed=seed)) for seed in range(seeds)]
    show([figure for figures in found for figure in figures], json_)
