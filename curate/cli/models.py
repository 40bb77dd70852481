"""`curate models` and `export`: the backbones that are known, and their conversion for other libraries."""

from pathlib import Path
from typing import Annotated

import typer

from curate.cli.consoles import say, say_heading, show_facts, show_table


def models() -> None:
    """The known backbones: dimensions, license, whether their weights are here.

    Wherever a model is asked for, an export of the trainer, an ONNX file or the folder of one may be named as well.

    Examples:
        curate models
    """
    from curate.models.backbones.load import known_models

    known = known_models()
    rows = [
        (
            info.model,
            str(info.dim),
            f"{info.preprocess.size} px, {info.pooling or 'own'}",
            info.license,
            "present" if info.weights_present else "absent",
        )
        for info in known
    ]
    show_table(("model", "dims", "input, pooled", "license", "weights"), rows)
    absent = [(info.model, info.how_to_get) for info in known if not info.weights_present]
    if absent:
        say_heading(
            "\nHow to get those that are absent; a run fetches what the hub has by itself, where it can be reached:"
        )
        show_facts(absent)


def export(
    source: Annotated[
        str, typer.Argument(help="export of the trainer or its folder, weights of DINOv2 or DINOv3, or a model's id")
    ],
    to: Annotated[str, typer.Option(metavar="FORMAT", help="hub, timm, huggingface, safetensors or onnx")],
    output: Annotated[Path | None, typer.Option(metavar="PATH", help="file or folder; none: beside the source")] = None,
    heads: Annotated[bool, typer.Option("--heads", help="with the projection heads: hub, safetensors")] = False,
    size: Annotated[
        int | None,
        typer.Option(
            metavar="PIXELS", help="pixels of pictures; positions are resampled; none: as stored, onnx: as embedded"
        ),
    ] = None,
    opset: Annotated[int | None, typer.Option(help="opset of ONNX; none: 18")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace an output that differs")] = False,
) -> None:
    """Convert a backbone for other libraries; what does not give equal outputs there is not written.

    Examples:
        curate export runs/tiny --to timm
        curate export runs/tiny --to onnx --output tiny.onnx
        # with the projection heads, to go on from in another library
        curate export runs/tiny --to hub --heads
    """
    from curate.models.convert.convert import TOLERANCE, convert

    made = convert(source, to, output=output, heads=heads, size=size, opset=opset, overwrite=overwrite)
    rows = [
        (f"{check.images} of {check.image_size} px", f"{check.largest:.2g}", f"{TOLERANCE * check.scale:.2g}")
        for check in made.checks
    ]
    if made.resampled is not None:
        rows.append((f"{made.resampled.image_size} px, resampled", f"{made.resampled.largest:.2g}", "any"))
    show_table(("pictures", "largest difference", "accepted"), rows)
    say(f"{made.path}\n  {made.howto}")
