"""`curate eval`: measure a frozen backbone."""

from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from curate.cli.arguments import CompareWeights, Device, Json, Model, Weights
from curate.cli.consoles import say, say_json, show_table
from curate.ops.images.bounds import MAX_DECODE_BYTES, MAX_SECONDS, Bounds

if TYPE_CHECKING:
    from curate.evaluation.evaluate import Evaluation

Data = Annotated[
    str,
    typer.Option(
        metavar="PLACE",
        help="folder with a subfolder a class, Parquet (workdir, folder, file, pattern), bundled, mnist5k, or a folder "
        "of ADE20k, VOC, DAVIS or NYU Depth v2",
    ),
]
Test = Annotated[
    str | None,
    typer.Option(metavar="PLACE", help="set whose images are classified; none: held-out or left-out images"),
]
Tasks = Annotated[
    str | None,
    typer.Option(
        "--tasks",
        "--measures",
        metavar="NAMES",
        help="with commas: knn, linear, logistic, retrieval, copies, splits, segmentation, correspondence, "
        "propagation, depth, discovery; none: the first six, or those that a public set has a truth for",
    ),
]
Grid = Annotated[
    int, typer.Option(min=2, max=128, help="patches along the short side of a picture, of the last five tasks")
]
Scenes = Annotated[
    int | None,
    typer.Option(min=2, help="composites or pictures that the last five tasks ask for; none: 50, or all of a set"),
]
Bytes = Annotated[int, typer.Option(min=1 << 20, metavar="BYTES", help="memory that decoding a picture may take")]
Seconds = Annotated[
    float, typer.Option(min=0.1, metavar="SECONDS", help="seconds of CPU time that decoding a picture may take")
]
Compare = Annotated[str | None, typer.Option(metavar="MODEL", help="a second model, for paired differences")]


def evaluate(
    model: Model,
    data: Data,
    weights: Weights = None,
    test: Test = None,
    label: Annotated[str | None, typer.Option(metavar="COLUMN", help="column of the labels in Parquet files")] = None,
    tasks: Tasks = None,
    grid: Grid = 16,
    scenes: Scenes = None,
    splits: Annotated[int, typer.Option(help="random 7:3 splits of the measure `splits`")] = 5,
    seed: Annotated[int, typer.Option(help="seed of splits, heads, edits and composites")] = 0,
    max_decode_bytes: Bytes = MAX_DECODE_BYTES,
    max_seconds: Seconds = 2 * MAX_SECONDS,
    device: Device = "auto",
    precision: Annotated[str, typer.Option(metavar="NAME", help="auto, fp32 or bf16")] = "auto",
    compare: Compare = None,
    compare_weights: CompareWeights = None,
    json_: Json = False,
) -> None:
    """Measure a frozen backbone: k-NN, linear classifiers, retrieval, copies, dense tasks; every figure with its error.

    Segmentation, correspondence, propagation, depth and discovery ask the features of patches, on composites that are
    made of the pictures of --data, or on a folder of ADE20k, VOC, DAVIS or NYU Depth v2.

    Examples:
        # an export of the trainer, on pictures that come with curate
        curate eval runs/tiny --data bundled
        # beside another model
        curate eval runs/tiny --data photos/by_class --compare lite0
        # k-NN alone, on a labeled Parquet file
        curate eval dinov2_vits14 --data birds.parquet --label species --tasks knn
        # features of patches, on composites; and on ADE20k as in the papers
        curate eval runs/tiny --data bundled --tasks segmentation,correspondence,depth --compare pixels16
        curate eval dinov2_vits14 --data ADEChallengeData2016 --tasks segmentation --grid 32
    """
    from curate.evaluation import evaluate as runner
    from curate.evaluation.dense.layouts.find import find_truth
    from curate.evaluation.labeled import open_labeled, open_pictures

    bounds = Bounds(max_decode_bytes=max_decode_bytes, max_seconds=max_seconds)
    truth = find_truth(data, num=scenes, bounds=bounds)
    chosen = runner.usual_measures(truth) if tasks is None else runner.parse_measures(tasks)
    opened = open_labeled if runner.needs_labels(chosen) else open_pictures
    images = None if truth else opened(data, label=label, bounds=bounds)
    asked = None if test is None else open_labeled(test, label=label, bounds=bounds)
    measure = partial(
        runner.evaluate, test=asked, truth=truth, measures=chosen, seed=seed, num_splits=splits, grid=grid
    )
    found = [
        measure(
            runner.load(name, weights=path, device=device, precision=precision), images, scenes=scenes or runner.SCENES
        )
        for name, path in ((model, weights), (compare, compare_weights))
        if name is not None
    ]
    _show(found, json_)


def _show(found: list["Evaluation"], json_: bool) -> None:
    """Print one evaluation, or two with their differences."""
    from curate.evaluation import summary

    if json_:
        say_json(summary.evaluation_json(*found))
        return
    say("\n".join(map(summary.describe_evaluation, found)))
    columns = summary.HEAD if len(found) == 1 else summary.COMPARED_HEAD
    show_table(columns, summary.evaluation_rows(*found))
