"""Are the warnings of a training right? Healthy short runs, of which none may be warned of, and runs that are made to
collapse in three ways, each of which must be."""

import io
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from PIL import Image

from benchmarks.figures import Figure, show
from benchmarks.shards import write_shard
from curate.cli.arguments import Json
from curate.config import merge, parse
from curate.samples.bundled import PHOTOS
from curate.trainer.collapse import PREFIX
from curate.trainer.config import TrainConfig
from curate.trainer.train import train

SMALL: Mapping[str, Any] = {
    "model": {
        **{"preset": "tiny", "depth": 2, "dim": 48, "heads": 3, "patch_size": 4},
        **{"drop_path": 0.0, "layer_scale": 1.0},
    },
    "crops": {"global_size": 16, "local_size": 8, "num_local": 2},
    "batch_size": 16,
    "iterations": 100,
    "log_every": 2,
    "precision": "fp32",
    "device": "cpu",
    "workers": 0,
    "optimizer": {"base_lr": 8e-3, "patch_embed_lr": 1.0},
}
HEADS: Mapping[str, Any] = {"prototypes": 64, "head_hidden": 64, "head_bottleneck": 32}
SHARP: Mapping[str, Any] = {**HEADS, "teacher_temperature": [0.025, 0.025], "teacher_momentum": 0.9}
"""Of the tiny config: a teacher that decides at once."""
HEALTHY: Mapping[str, Mapping[str, Any]] = {
    "dinov2": {"objective": SHARP},
    "dinov2, slowly": {"objective": SHARP, "optimizer": {"base_lr": 2e-3}},
    "dinov2, LayerScale 1e-5": {"objective": SHARP, "model": {"layer_scale": 1e-5}},
    "dinov3, constant": {
        "objective": {**SHARP, "kind": "dinov3"},
        "optimizer": {"schedule": "constant"},
        "ema": {"end": "constant"},
    },
}
"""Recipes that learn: of each several seeds."""


@dataclass(frozen=True)
class Collapse:
    """A way to collapse."""

    wanted: str
    """The warning that it must bring."""
    changes: Mapping[str, Any]
    blank: bool = False
    """Whether the pictures are all of one color."""


COLLAPSED: Mapping[str, Collapse] = {
    "no centering": Collapse(
        "one_prototype",
        {"objective": {"kind": "dino", **HEADS, "center_momentum": 0.99999}, "optimizer": {"base_lr": 2e-2}},
    ),
    "no sharpening": Collapse("undecided", {"objective": {"kind": "dino", **HEADS, "teacher_temperature": [1.0, 1.0]}}),
    "blank pictures": Collapse("features", {"objective": SHARP}, blank=True),
}


@dataclass(frozen=True)
class Watched:
    """Warnings of a run, without prefix, by the iteration that brought them."""

    warnings: Mapping[str, int]


def write_photos(folder: Path, *, blank: bool = False) -> str:
    """Shards of the bundled photographs, or of as many pictures of one color."""
    files = [_black() if blank else path.read_bytes() for path in sorted(PHOTOS.rglob("*.jpg"))]
    write_shard(folder, files, source="photos")
    return str(folder)


def _black() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64)).save(buffer, "png")
    return buffer.getvalue()


def watch(changes: Mapping[str, Any], shards: str, output: Path, *, seed: int) -> Watched:
    """Train by `SMALL` with changes, and collect its warnings."""
    values = merge(merge(SMALL, changes), {"shards": shards, "output": str(output), "seed": seed})
    log = train(parse(TrainConfig, values, where="collapse")).log
    warned = {name.removeprefix(PREFIX): int(row["step"]) for row in log for name in row if name.startswith(PREFIX)}
    return Watched(warned)


def bench_collapse(*, seeds: Sequence[int]) -> list[Figure]:
    """False alarms among the healthy runs, and warnings of those that collapse, over the seeds."""
    figures = []
    with tempfile.TemporaryDirectory() as scratch:
        shards = {blank: write_photos(Path(scratch, f"shards-{blank}"), blank=blank) for blank in (False, True)}
        recipes = [(f"healthy: {name}", Collapse("", changes)) for name, changes in HEALTHY.items()]
        recipes += [(f"collapsed: {name}", one) for name, one in COLLAPSED.items()]
        for number, (name, one) in enumerate(recipes):
            found = [
                watch(one.changes, shards[one.blank], Path(scratch, f"{number}-{seed}"), seed=seed) for seed in seeds
            ]
            figures.append(_figure(name, found, one.wanted))
    return figures


def _figure(name: str, found: Sequence[Watched], wanted: str) -> Figure:
    told = [one.warnings for one in found]
    hits = sum(wanted in one if wanted else bool(one) for one in told)
    unit = f"of {len(told)} runs warned of"
    return Figure(name, hits, unit, better="higher" if wanted else "lower", note=json.dumps(told)[:200])


def command(
    seeds: Annotated[int, typer.Option(min=1, help="runs of each recipe; 5: 20 healthy ones")] = 5,
    json_: Json = False,
) -> None:
    """Warnings of collapse: false alarms among healthy short runs, and those of runs that are made to collapse."""
    show(bench_collapse(seeds=range(seeds)), json_)
