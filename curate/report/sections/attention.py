"""What the pretrained backbone looks at in some of the run's own images, beside its initialisation."""

from typing import TYPE_CHECKING, NamedTuple

from PIL import Image

from curate.report.markup import Markup, el
from curate.report.numbers import plural
from curate.report.pictures import Pictures, encode, inline
from curate.report.run import Run, pick
from curate.report.sections.examples import selected_ids

if TYPE_CHECKING:
    from curate.models.backbones.backbone import Backbone

NUM_PICTURES = 4
SIDE = 224
"""Short edge at which pictures enter a model that is smaller than that, at most twice its own."""
TILE = 264
"""Longest side of a picture in the page, pixels."""
EXPORTS = {"initial": "initialisation", "export": "pretrained"}
"""Figures of the table that name the exports, and what the page calls them, in its order."""


class Drawn(NamedTuple):
    """What one backbone makes of one picture."""

    name: str
    picture: Image.Image
    heat: Image.Image | None
    strength: float
    patches: Image.Image


def section(run: Run, pictures: Pictures) -> Markup | None:
    made = run.metrics("pretrain")
    ids = selected_ids(run)
    if ids is None or not len(ids) or not all(name in made for name in EXPORTS) or not run.store.is_local:
        return None
    gone = [made[name] for name in EXPORTS if not run.store.fs.exists(run.store.join(made[name]))]
    if gone:
        return el("p", f"{', '.join(gone)}: no longer there, so there is nothing to look through.", class_="quiet")
    chosen = pick(ids, NUM_PICTURES, run.rng("attention")).tolist()
    shown = list(pictures.decoded(chosen, min_side=SIDE).values())
    if not shown:
        return el("p", "The images drawn for this section can no longer be read.", class_="quiet")
    views = [_look(run.store.join(made[key]), name, shown) for key, name in EXPORTS.items()]
    groups = [el("div", _figures(of_picture), class_="group seen") for of_picture in zip(*views, strict=True)]
    return el("div", [el("p", text, class_="quiet") for text in _texts(len(shown), views)], groups)


def _look(weights: str, name: str, shown: list[Image.Image]) -> list[Drawn]:
    """Every picture through the export `weights`; torch is imported here, since most pages do without it."""
    from curate.evaluation.drawing.heatmaps import heat_overlay, strength, tiled
    from curate.evaluation.drawing.patch_colors import color_patches
    from curate.models.backbones.inside import fit_picture, has_attention, look_inside
    from curate.models.backbones.load import load_backbone

    backbone = load_backbone("curate", weights=weights, precision="fp32")
    fitted = [fit_picture(picture, backbone, short_edge=_short_edge(backbone)) for picture in shown]
    block = -1 if has_attention(backbone) else None
    found = [look_inside(backbone, picture, block=block) for picture in fitted]
    colours = color_patches([inside.patches for inside in found], threshold=0)
    drawn = []
    for picture, inside, colour in zip(fitted, found, colours, strict=True):
        mean = None if inside.attention is None else inside.attention.mean(axis=0)
        heat = None if mean is None else heat_overlay(picture, mean)
        strongest = 0.0 if mean is None else strength(mean)
        drawn.append(Drawn(name, picture, heat, strongest, tiled(colour.colors, picture.size)))
    return drawn


def _short_edge(backbone: "Backbone") -> int:
    own = backbone.preprocess.size
    return max(own, min(2 * own, SIDE))


def _figures(drawn: tuple[Drawn, ...]) -> Markup:
    heats = [_figure(d.heat, f"attention, {d.name}", f"strongest {d.strength:.1f}x") for d in drawn if d.heat]
    patches = [_figure(d.patches, f"patches, {d.name}") for d in drawn]
    return el("div", _figure(drawn[0].picture, "image"), heats, patches, class_="grid detailed")


def _figure(picture: Image.Image, *caption: str) -> Markup:
    scale = TILE / max(picture.size)
    size = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
    small = encode(picture.resize(size, Image.Resampling.BICUBIC))
    return el("figure", inline(small, alt=caption[0]), el("figcaption", [el("span", line) for line in caption]))


def _texts(number: int, views: list[list[Drawn]]) -> list[str]:
    texts = []
    if views[0][0].heat is not None:
        texts.append(
            "Attention of the last block's cls token to the patches, mean over the heads; 2.0x: the strongest patch "
            "has twice the mean. Colours begin at 0, so that flat attention looks flat."
        )
    texts.append(
        "Features of the patches as colours: their first three principal components, fitted for each backbone over "
        f"{plural(number, 'image')}, so that alike patches have alike colours."
    )
    return texts
