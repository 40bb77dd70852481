"""What backbones look at in some of the images that one of them was trained on.

The pictures come from the shards, which hold their bytes and are shuffled, so that one row group is a random sample;
the sources may be far away, or gone. torch is imported when the drawings are made: most pages do without it.
"""

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image

from curate.engine.finished import Finished, pick
from curate.engine.numbers import plural
from curate.engine.show import Block, Blocks, Drawing, Drawings, Text
from curate.engine.table import Table
from curate.ops.images.decoding import decode_picture

if TYPE_CHECKING:
    from curate.models.backbones.backbone import Backbone

NUM_PICTURES = 4
SIDE = 224
"""Short edge in pixels at which pictures enter a model that is smaller than that, at most twice its own."""
TILE = 264
"""Longest side of a drawing, pixels."""
QUALITY = 70
"""Quality of its JPEG."""


class Drawn(NamedTuple):
    """What one backbone makes of one picture."""

    name: str
    """What the page calls the backbone."""
    picture: Image.Image
    heat: Image.Image | None
    """The picture under its attention; None: the model has no cls token that attends to patches."""
    strength: float
    """Attention of the strongest patch, in those of the mean one."""
    patches: Image.Image
    """Features of the patches as colors."""


def look_through(run: Finished, shards: Table, exports: Mapping[str, str]) -> Blocks:
    """Some images of the shards as each export sees them, side by side; nothing where the workdir is not local.

    Args:
        exports: files of the workdir by what the page calls them, in the order of the page.
    """
    if not run.store.is_local:
        return ()
    gone = [path for path in exports.values() if not run.store.exists(path)]
    if gone:
        return (Text(f"{', '.join(gone)}: no longer there, so there is nothing to look through."),)
    pictures = _pictures(run, shards)
    if not pictures:
        return ()
    views = [_look(run.store.find(path), name, pictures) for name, path in exports.items()]
    drawn = [Drawings(_drawings(of_picture)) for of_picture in zip(*views, strict=True)]
    return (*_texts(len(pictures), views), *drawn)


def _pictures(run: Finished, shards: Table) -> list[Image.Image]:
    """Pictures of random rows of the shards."""
    rows = run.sample(shards, ["image_id", "image"], max_rows=NUM_PICTURES).rows.sort_by("image_id")
    chosen = rows.take(pick(np.arange(len(rows)), NUM_PICTURES, run.rng("attention")))
    return [decode_picture(image["bytes"], min_side=SIDE) for image in chosen["image"].to_pylist()]


def _look(weights: str, name: str, pictures: Sequence[Image.Image]) -> list[Drawn]:
    """Every picture through the export `weights`."""
    from curate.evaluation.drawing.heatmaps import heat_overlay, strength, tiled
    from curate.evaluation.drawing.patch_colors import color_patches
    from curate.models.backbones.inside import fit_picture, has_attention, look_inside
    from curate.models.backbones.load import load_backbone

    backbone = load_backbone("curate", weights=weights, precision="fp32")
    fitted = [fit_picture(picture, backbone, short_edge=_short_edge(backbone)) for picture in pictures]
    block = -1 if has_attention(backbone) else None
    found = [look_inside(backbone, picture, block=block) for picture in fitted]
    colors = color_patches([inside.patches for inside in found], threshold=0)
    drawn = []
    for picture, inside, color in zip(fitted, found, colors, strict=True):
        mean = None if inside.attention is None else inside.attention.mean(axis=0)
        heat = None if mean is None else heat_overlay(picture, mean)
        strongest = 0.0 if mean is None else strength(mean)
        drawn.append(Drawn(name, picture, heat, strongest, tiled(color.colors, picture.size)))
    return drawn


def _short_edge(backbone: "Backbone") -> int:
    own = backbone.preprocess.size
    return max(own, min(2 * own, SIDE))


def _drawings(drawn: Sequence[Drawn]) -> tuple[Drawing, ...]:
    """One picture as all backbones see it."""
    heats = [_drawing(d.heat, f"attention, {d.name}", f"strongest {d.strength:.1f}x") for d in drawn if d.heat]
    patches = [_drawing(d.patches, f"patches, {d.name}") for d in drawn]
    return (_drawing(drawn[0].picture, "image"), *heats, *patches)


def _drawing(picture: Image.Image, *captions: str) -> Drawing:
    scale = TILE / max(picture.size)
    size = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
    file = io.BytesIO()
    picture.resize(size, Image.Resampling.BICUBIC).save(file, "JPEG", quality=QUALITY, optimize=True)
    return Drawing(file.getvalue(), captions)


def _texts(number: int, views: Sequence[Sequence[Drawn]]) -> list[Block]:
    texts: list[Block] = []
    if views[0][0].heat is not None:
        texts.append(
            Text(
                "Attention of the last block's cls token to the patches, mean over the heads; 2.0x: the strongest "
                "patch has twice the mean. Colors begin at 0, so that flat attention looks flat."
            )
        )
    texts.append(
        Text(
            "Features of the patches as colors: their first three principal components, fitted for each backbone over "
            f"{plural(number, 'image')}, so that alike patches have alike colors."
        )
    )
    return texts
