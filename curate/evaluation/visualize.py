"""`curate visualize`: what backbones see in pictures, as a contact sheet and single PNG files."""

import json
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
from curate.evaluation.drawing.patch_colors import PatchColors, color_patches
from curate.models.backbones.backbone import Backbone
from curate.models.nets.inside import Inside, fit_picture, look_inside, num_blocks
from curate.ops.images.decode import RejectedImage, decode_rgb
from curate.progress import track

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"}
SHEET, MANIFEST = "sheet.png", "visualize.json"
TILE = 160
"""Side of a picture on the contact sheet, pixels."""


class Looks(Settings):
    """What is drawn, and how."""

    size: int | None = Field(default=None, ge=1)
    """Short edge at which pictures enter the model, pixels, rounded to whole patches; null: twice the model's own."""
    block: int = -1
    """Whose attention; negative blocks count from the last."""
    mass: float = Field(default=0.6, gt=0, le=1)
    """Share of the attention that a mask keeps."""
    threshold: Literal["sign"] | Annotated[float, Field(ge=0, lt=1)] = "sign"
    """Foreground of the patch colors: "sign" of the first component, or the share of patches that is background."""
    attention: bool = True
    """Draw attention; false: the colors of the patches alone."""


class View(NamedTuple):
    """What one model sees in one picture."""

    picture: str
    model: str
    panels: dict[str, Tile]
    """By name, in the order of the sheet."""
    masks: dict[str, Image.Image]
    """Of each head by name, white where its mass lies; too many for the sheet."""


def read_pictures(places: Sequence[str | Path], *, most: int) -> dict[str, Image.Image]:
    """Pictures by name, of files and of folders with all below them; of more than `most`, evenly spread ones.

    Raises:
        SourceError: nothing there, or a file that does not decode.
    """
    paths: list[Path] = []
    for place in map(Path, places):
        if not place.exists():
            raise SourceError(f"{place}: no such file or folder; give pictures, folders of pictures, or `bundled`")
        inside = sorted(p for p in place.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
        paths += inside if place.is_dir() else [place]
    if not paths:
        raise SourceError(f"{', '.join(map(str, places))}: no pictures there ({', '.join(sorted(SUFFIXES))})")
    spread = np.linspace(0, len(paths) - 1, min(most, len(paths))).round().astype(int)
    return {f"{number:02d}-{_plain(paths[i])}": _decode(paths[i]) for number, i in enumerate(spread.tolist(), start=1)}


def _plain(path: Path) -> str:
    """The stem of a file name as text that any disk and any font takes, at most 60 letters."""
    return os.fsencode(path.stem).decode("utf-8", "replace")[:60]


def _decode(path: Path) -> Image.Image:
    try:
        return decode_rgb(path.read_bytes())
    except RejectedImage as error:
        raise SourceError(f"{path}: the picture does not decode ({error}); leave it out") from error


def view(
    backbones: Mapping[str, Backbone], pictures: Mapping[str, Image.Image], looks: Looks | None = None
) -> list[View]:
    """Every picture through every model; the colors of the patches are fitted for each model over all pictures.

    Returns:
        By picture, then by model.

    Raises:
        ConfigError: a model has no attention or no features of patches, or no such block.
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
    """Write the contact sheet and every picture of it; pictures of an earlier call in the folder are replaced.

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
        _claim(folder, list(pictures))
        for name, picture in pictures.items():
            picture.save(folder / name)
    except OSError as error:
        raise WorkdirError(f"output={folder}: cannot be written: {error}; set another --output FOLDER") from error
    return folder / SHEET


def _single_pictures(views: Sequence[View], *, several: bool) -> Iterator[tuple[str, Image.Image]]:
    """(file name, picture), the picture itself once."""
    for one in views:
        stem = f"{one.picture}-{one.model}" if several else one.picture
        for name, tile in one.panels.items():
            yield (f"{one.picture}-image.png" if name == "image" else f"{stem}-{name}.png"), tile.picture
        for name, mask in one.masks.items():
            yield f"{stem}-{name}.png", mask


def check_output(folder: str | Path) -> None:
    """Raise WorkdirError where `folder` holds files of something else; models can then run without fear for it."""
    folder = Path(folder)
    if folder.is_dir() and not (folder / MANIFEST).is_file() and any(folder.iterdir()):
        raise WorkdirError(f"output={folder}: not empty, and not made by `curate visualize`; give an empty or new one")


def _claim(folder: Path, names: list[str]) -> None:
    """Make the folder ours: list what it is about to hold, and remove what an earlier call listed.

    The list comes first, so that a call that was killed leaves a folder that the next one knows.
    """
    check_output(folder)
    folder.mkdir(parents=True, exist_ok=True)
    manifest = folder / MANIFEST
    earlier = set(_read_manifest(manifest)) if manifest.is_file() else set()
    foreign = [name for name in names if name not in earlier and (folder / name).exists()]
    if foreign:
        raise WorkdirError(f"output={folder}: {foreign[0]} is there and not made by `curate visualize`; move it away")
    for name in sorted(earlier - set(names)):
        (folder / name).unlink(missing_ok=True)
    manifest.write_text(json.dumps({"pictures": names}, indent=1), encoding="utf-8")


def _read_manifest(path: Path) -> list[str]:
    """Names that an earlier call listed; only plain names count, so that the list leads to no other folder."""
    try:
        names = json.loads(path.read_text(encoding="utf-8"))["pictures"]
        return [name for name in names if Path(name).name == name]
    except (ValueError, KeyError, TypeError) as error:
        raise WorkdirError(
            f"{path}: not the list that `curate visualize` writes; give an empty or new folder"
        ) from error


def name_backbones(backbones: Sequence[Backbone]) -> dict[str, Backbone]:
    """Backbones by a name that tells them apart: the stem of their weights, else that and a number."""
    named: dict[str, Backbone] = {}
    for number, backbone in enumerate(backbones, start=1):
        weights = backbone.info.weights
        stem = weights.stem if weights else backbone.model.replace("/", "-")
        named[f"{stem}-{number}" if stem in named else stem] = backbone
    return named


def describe_looks(backbones: Mapping[str, Backbone], looks: Looks) -> list[str]:
    """Lines that explain a sheet."""
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
