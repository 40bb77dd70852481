"""No collapse on little data: the smallest config on the bundled photographs, beside what a collapse would show."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from benchmarks.figures import Figure, show
from benchmarks.improvement import Improvement
from benchmarks.shards import write_shard
from curate.cli.arguments import Json
from curate.config import apply_overrides, parse, read_yaml
from curate.evaluation.accuracy import Accuracy
from curate.evaluation.features import embed_folder
from curate.evaluation.knn import knn_leave_one_out
from curate.models.backbones.load import load_backbone
from curate.samples.bundled import PHOTOS
from curate.trainer.collapse import COLLAPSED_STD
from curate.trainer.config import TrainConfig
from curate.trainer.journal import Row
from curate.trainer.train import train

NEIGHBORS = 10
LAST = 0.1
"""Share of the log over whose rows the figures are averaged: those of one batch scatter."""


@dataclass(frozen=True)
class PhotosResult(Improvement):
    """How a training ended."""

    watched: Row
    """Mean of the last rows of the log."""
    prototypes: int


def bench_photos(
    workdir: str | Path, *, config: str = "train/tiny", photos: Path = PHOTOS, overrides: Iterable[str] = ()
) -> PhotosResult:
    """Pretrain on photographs and classify them by leave-one-out k-NN.

    Args:
        workdir: gets `shards/data/` and `pretrain/`.
        config: of the training, with an objective that has prototypes; its `shards` and `output` are set here.
        photos: a subfolder of JPEG files for each class.
        overrides: `key=value` changes of the config.
    """
    folder = Path(workdir)
    files = [path.read_bytes() for path in sorted(photos.rglob("*.jpg"))]
    write_shard(folder / "shards" / "data", files, source="photos")
    values = apply_overrides(read_yaml(config), overrides)
    values |= {"shards": str(folder / "shards" / "data"), "output": str(folder / "pretrain")}
    result = train(parse(TrainConfig, values, where=config))
    initial, trained = (_accuracy(path, photos) for path in (result.initial, result.export))
    return PhotosResult(initial, trained, last_rows(result.log), result.effective.prototypes)


def last_rows(log: list[Row]) -> Row:
    """Mean of every figure over the last tenth of the log, of at least one row."""
    rows = log[-max(1, round(LAST * len(log))) :]
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[-1]}


def as_figures(result: PhotosResult) -> list[Figure]:
    """Accuracy beside the initialization's, and what is watched beside its value in a collapse."""
    chance, watched = math.log(result.prototypes), result.watched
    collapse = "collapse"
    note = f"gain {result.gain:+.4f} +- {result.gain_stderr:.4f}, paired"
    return [
        Figure(
            f"{NEIGHBORS}-NN accuracy",
            result.trained.value,
            "share",
            "its initialization",
            result.initial.value,
            note=note,
        ),
        Figure("feature_std", watched["feature_std"], "of 1", collapse, COLLAPSED_STD, note="to one point: 0"),
        Figure("prototypes_used", watched["prototypes_used"], f"of {result.prototypes}", collapse, 1.0),
        Figure(
            "teacher_entropy",
            watched["teacher_entropy"],
            "nats",
            collapse,
            chance,
            better="lower",
            note="undecided: ln K",
        ),
        Figure(
            "loss_dino", watched["loss_dino"], "nats", collapse, chance, better="lower", note="nothing learned: ln K"
        ),
    ]


def _accuracy(export: Path, photos: Path) -> Accuracy:
    seen = embed_folder(load_backbone("curate", weights=str(export), precision="fp32"), photos)
    return knn_leave_one_out(seen.features, seen.labels, NEIGHBORS)


def command(
    workdir: Annotated[Path, typer.Argument(help="folder for shards, checkpoints and exports")],
    json_: Json = False,
) -> None:
    """Pretrain on the bundled photographs: k-NN beside the initialization, figures beside those of a collapse."""
    show(as_figures(bench_photos(workdir)), json_)
