"""`curate train`, `eval` and `visualize`: pretrain a backbone, measure one, draw what one sees."""

from pathlib import Path
from typing import Annotated

import typer

from curate.cli.arguments import Config, Device, Json, Overrides
from curate.cli.consoles import say, say_json, show_table
from curate.ops.images.bounds import MAX_DECODE_BYTES, MAX_SECONDS, Bounds


def train(config: Config, overrides: Overrides = None) -> None:
    """Pretrain a backbone on curated shards; a killed run resumes."""
    from curate.api import train_values
    from curate.config import apply_overrides, read_yaml

    result = train_values(apply_overrides(read_yaml(config), overrides or []), where=config)
    say(f"export: {result.export}")


def evaluate(
    model: Annotated[str, typer.Argument(help="model id, the .safetensors of an export, or an .onnx file")],
    data: Annotated[
        str, typer.Option(help="folder with a subfolder a class, Parquet (folder, file, pattern), bundled or mnist5k")
    ],
    weights: Annotated[str | None, typer.Option(help="path or URL of the weights; none: packaged or hub")] = None,
    test: Annotated[
        str | None, typer.Option(help="set whose images are classified; none: held-out or left-out images")
    ] = None,
    label: Annotated[str | None, typer.Option(help="column of the labels in Parquet files")] = None,
    measures: Annotated[
        str, typer.Option(help="some of them, with commas")
    ] = "knn,linear,logistic,retrieval,copies,splits",
    splits: Annotated[int, typer.Option(help="random 7:3 splits of the measure `splits`")] = 5,
    seed: Annotated[int, typer.Option(help="seed of splits, heads and edits")] = 0,
    max_decode_bytes: Annotated[
        int, typer.Option(min=1 << 20, help="memory that decoding a picture may take")
    ] = MAX_DECODE_BYTES,
    max_seconds: Annotated[
        float, typer.Option(min=0.1, help="seconds of CPU time that decoding a picture may take")
    ] = 2 * MAX_SECONDS,
    device: Device = "auto",
    precision: Annotated[str, typer.Option(help="auto, fp32 or bf16")] = "auto",
    compare: Annotated[str | None, typer.Option(help="second model or export, for paired differences")] = None,
    compare_weights: Annotated[str | None, typer.Option(help="weights of the second model")] = None,
    json_: Json = False,
) -> None:
    """Measure a frozen backbone: k-NN, linear classifiers, retrieval, copy detection; every figure with its error."""
    from curate.evaluation import evaluate as runner
    from curate.evaluation import summary
    from curate.evaluation.labeled import open_labeled

    chosen = runner.parse_measures(measures)
    bounds = Bounds(max_decode_bytes=max_decode_bytes, max_seconds=max_seconds)
    images = open_labeled(data, label=label, labeled=chosen != ("copies",), bounds=bounds)
    asked = None if test is None else open_labeled(test, label=label, bounds=bounds)
    found = []
    for name, path in ((model, weights), (compare, compare_weights)):
        if name is not None:
            backbone = runner.load(name, weights=path, device=device, precision=precision)
            found.append(runner.evaluate(backbone, images, test=asked, measures=chosen, seed=seed, num_splits=splits))
    if json_:
        say_json(summary.evaluation_json(*found))
        return
    say("\n".join(map(summary.describe_evaluation, found)))
    columns = summary.HEAD if compare is None else summary.COMPARED_HEAD
    show_table(columns, summary.evaluation_rows(*found), boxed=False)


def visualize(
    model: Annotated[str, typer.Argument(help="a backbone, as in `curate models`; curate: an export of the trainer")],
    images: Annotated[list[str], typer.Argument(help="pictures, folders of pictures, or `bundled`")],
    output: Annotated[Path, typer.Option(help="folder to make; one of an earlier call is written anew")],
    weights: Annotated[str | None, typer.Option(help="path or URL of the weights")] = None,
    compare: Annotated[str | None, typer.Option(help="other weights of the same model, drawn below")] = None,
    size: Annotated[int | None, typer.Option(help="short edge in pixels; none: twice the model's own")] = None,
    block: Annotated[int, typer.Option(help="whose attention; -1: the last")] = -1,
    mass: Annotated[float, typer.Option(help="share of the attention that the masks keep")] = 0.6,
    threshold: Annotated[
        str, typer.Option(help="foreground of the patch colors: sign, or the share of patches that is background")
    ] = "sign",
    attention: Annotated[bool, typer.Option(help="--no-attention: the colors of the patches alone")] = True,
    most: Annotated[int, typer.Option(help="pictures at most, evenly spread over those given", min=1)] = 8,
    device: Device = "auto",
) -> None:
    """Draw what a backbone sees: attention of each head, masks of it, and its patch features as colors."""
    from curate.config import parse
    from curate.evaluation import visualize as pictured
    from curate.evaluation.drawing.output_folder import check_output
    from curate.models.backbones.load import load_backbone
    from curate.samples.bundled import PHOTOS

    check_output(output)
    stated = {"size": size, "block": block, "mass": mass, "threshold": threshold, "attention": attention}
    looks = parse(pictured.Looks, stated, where="visualize")
    pictures = pictured.gather_pictures([PHOTOS if place == "bundled" else place for place in images], most=most)
    given = [weights] if compare is None else [weights, compare]
    loaded = [load_backbone(model, weights=one, device=device, precision="fp32") for one in given]
    backbones = pictured.name_backbones(loaded)
    views = pictured.view(backbones, pictures, looks)
    sheet = pictured.write_views(
        output, views, title=f"{model}: {', '.join(backbones)}", notes=pictured.describe_looks(backbones, looks)
    )
    say(f"{sheet}: {len(pictures)} pictures")
