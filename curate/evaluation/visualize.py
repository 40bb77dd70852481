"""`curate visualize`: what backbones see in pictures, as a contact sheet and as single PNG files."""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import numpy as np
from PIL import Image
from pydantic import Field

from curate.config import Settings
from curate.errors import SourceError, WorkdirError
from curate.evaluation.drawing.attention_mass import keep_mass
from curate.evaluation.drawing.contact_sheet import Strip, Tile, draw_sheet
from curate.evaluation.drawing.heatmaps import cut_out, heat_overlay, strength, tiled
from curate.evaluation.drawing.output_folder import claim_output
from curate.evaluation.drawing.patch_colors import PatchColors, color_patches
from curate.evaluation.labeled import PICTURE_SUFFIXES
from curate.models.backbones.backbone import Backbone
from curate.models.backbones.inside import Inside, fit_picture, look_inside, num_blocks
from curate.opening import read_regular
from curate.ops.images.decode import RejectedImage
from curate.ops.images.decoding import decode_picture
from curate.progress import track

SHEET = "sheet.png"
TILE = 160
"""Side of a picture on the contact sheet in pixels."""


class Looks(Settings):
    """What is drawn, and how."""

    size: int | None = Field(default=None, ge=1)
    """Pixels of the short edge at which pictures enter the model, rounded to whole patches; null: twice the model's
    own."""
    block: int = -1
    """Block whose attention is drawn; negative numbers count from the last block."""
    mass: float = Field(default=0.6, gt=0, le=1)
    """Share of the attention that a mask keeps."""
    threshold: Literal["sign"] | Annotated[float, Field(ge=0, lt=1)] = "sign"
    """Foreground of the patch colors: "sign" of the first component, or the share of patches that is background."""
    attention: bool = True
    """Whether attention is drawn; false: the colors of the patches alone."""


class View(NamedTuple):
    """What one model sees in one picture."""

    picture: str
    """Name of the picture."""
    model: str
    """Name of the model."""
    panels: dict[str, Tile]
    """The drawings by name, in the order of the sheet."""
    masks: dict[str, Image.Image]
    """The mask of each head by name, white where most of its attention lies; too many for the sheet."""


def gather_pictures(places: Sequence[str | Path], *, most: int) -> dict[str, Image.Image]:
    """Read pictures from files and folders, with all folders below them, by name.

    Args:
        places: paths of files and folders.
        most: pictures at most; of more files evenly spread ones are read.

    Raises:
        SourceError: there are no pictures, or one does not decode.
    """
    paths: list[Path] = []
    for place in map(Path, places):
        if not place.exists():
            raise SourceError(f"{place}: no such file or folder; give pictures, folders of pictures, or `bundled`")
        inside = sorted(p for p in place.rglob("*") if p.suffix.lower() in PICTURE_SUFFIXES and p.is_file())
        paths += inside if place.is_dir() else [place]
    if not paths:
        raise SourceError(f"{', '.join(map(str, places))}: no pictures there ({', '.join(sorted(PICTURE_SUFFIXES))})")
    spread = np.linspace(0, len(paths) - 1, min(most, len(paths))).round().astype(int)
    return {
        f"{number:02d}-{_plain_stem(paths[i])}": _decode_picture(paths[i])
        for number, i in enumerate(spread.tolist(), start=1)
    }


def _plain_stem(path: Path) -> str:
    """The stem of a file name, shortened to 60 letters, as text that any disk and any font can take."""
    return os.fsencode(path.stem).decode("utf-8", "replace")[:60]


def _decode_picture(path: Path) -> Image.Image:
    try:
        return decode_picture(read_regular(path))
    except RejectedImage as error:
        raise SourceError(f"{path}: the picture does not decode ({error}); leave it out") from error
    except OSError as error:
        raise SourceError(f"{path}: cannot be read ({error.strerror or error}); leave it out") from error


def view(
    backbones: Mapping[str, Backbone], pictures: Mapping[str, Image.Image], looks: Looks | None = None
) -> list[View]:
    """Draw every picture as every model sees it; colors of patches are fitted for each model over all pictures.

    Args:
        backbones: the models by name.
        pictures: RGB pictures by name.
        looks: what is drawn; None: all, as by default.

    Returns:
        A view for each picture and model, those of a picture together.

    Raises:
        ConfigError: a model has no attention or no patch features, or lacks the block.
    """
    looks = looks or Looks()
    seen: dict[str, list[View]] = {}
    with track("visualize", len(backbones) * len(pictures), unit="pictures") as advance:
        for model, backbone in backbones.items():
            fitted, found = [], []
            for picture in pictures.values():
                short = looks.size or 2 * backbone.preprocess.size
                fitted.append(fit_picture(picture, backbone, short_edge=short))
                found.append(look_inside(backbone, fitted[-1], block=looks.block if looks.attention else None))
                advance(1)
            colors = color_patches([inside.patches for inside in found], threshold=looks.threshold)
            seen[model] = [
                _view(name, model, picture, inside, color, mass=looks.mass)
                for name, picture, inside, color in zip(pictures, fitted, found, colors, strict=True)
            ]
    return [one for of_picture in zip(*seen.values(), strict=True) for one in of_picture]


def _view(name: str, model: str, picture: Image.Image, inside: Inside, colors: PatchColors, *, mass: float) -> View:
    panels, masks = {"image": Tile("image", picture)}, {}
    if inside.attention is not None:
        mean = inside.attention.mean(axis=0)
        panels["attention"] = Tile(f"mean, {strength(mean):.1f}x", heat_overlay(picture, mean))
        for number, head in enumerate(inside.attention, start=1):
            panels[f"head-{number}"] = Tile(f"head {number}, {strength(head):.1f}x", heat_overlay(picture, head))
            masks[f"head-{number}-mask"] = tiled(255 * _keep(head, mass).astype(np.uint8), picture.size)
        kept = _keep(mean, mass)
        panels["mask"] = Tile(f"mask, {kept.mean():.0%} of patches", cut_out(picture, kept))
    panels["patches"] = Tile("patches", tiled(colors.colors, picture.size))
    return View(name, model, panels, masks)


def _keep(attention: np.ndarray, mass: float) -> np.ndarray:
    return keep_mass(attention.ravel(), mass).reshape(attention.shape)


def write_views(folder: str | Path, views: Sequence[View], *, title: str, notes: Sequence[str] = ()) -> Path:
    """Write the contact sheet and each of its pictures; those of an earlier call in the folder are replaced.

    Args:
        folder: the folder to write; made where it is not there.
        views: what to write.
        title: title of the sheet.
        notes: lines below it.

    Returns:
        Path of the sheet.

    Raises:
        WorkdirError: the folder holds files of something else, or cannot be written.
    """
    folder, several = Path(folder), len({one.model for one in views}) > 1
    pictures = dict(_single_pictures(views, several=several))
    strips = [
        Strip(f"{one.picture}   {one.model}" if several else one.picture, list(one.panels.values())) for one in views
    ]
    pictures[SHEET] = draw_sheet(title, notes, strips, tile=TILE)
    try:
        claim_output(folder, list(pictures))
        for name, picture in pictures.items():
            picture.save(folder / name)
    except OSError as error:
        raise WorkdirError(f"output={folder}: cannot be written: {error}; set another --output FOLDER") from error
    return folder / SHEET


def _single_pictures(views: Sequence[View], *, several: bool) -> Iterator[tuple[str, Image.Image]]:
    """(file name, drawing) of each drawing; a picture itself comes once for all models."""
    for one in views:
        stem = f"{one.picture}-{one.model}" if several else one.picture
        for name, tile in one.panels.items():
            yield (f"{one.picture}-image.png" if name == "image" else f"{stem}-{name}.png"), tile.picture
        for name, mask in one.masks.items():
            yield f"{stem}-{name}.png", mask


def name_backbones(backbones: Sequence[Backbone]) -> dict[str, Backbone]:
    """Backbones by names that differ: the stem of their weight files, with a number where stems are equal."""
    named: dict[str, Backbone] = {}
    for number, backbone in enumerate(backbones, start=1):
        weights = backbone.info.weights
        stem = weights.stem if weights else backbone.model.replace("/", "-")
        named[f"{stem}-{number}" if stem in named else stem] = backbone
    return named


def describe_looks(backbones: Mapping[str, Backbone], looks: Looks) -> list[str]:
    """The lines that explain a contact sheet."""
    lines = []
    if looks.attention:
        first = next(iter(backbones.values()))
        count = num_blocks(first)
        lines += [
            f"attention of cls to the patches in block {looks.block % count + 1} of {count}; "
            "2.0x: the strongest patch has twice the mean",
            f"mask: the fewest patches that hold {looks.mass:.0%} of the mean attention",
        ]
    if looks.threshold == 0:
        return [*lines, "patches: first three principal components of their features"]
    where = "the mean of" if looks.threshold == "sign" else f"the lowest {looks.threshold:.0%} of patches along"
    return [*lines, f"patches: first three components of the foreground, which lies above {where} the first component"]
