"""Five small sets of labeled pictures: photographs, digits of two sizes, clip art, emoji."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.curation.sets import CLIP_ART, open_set
from benchmarks.scikit_digits import load_scikit_digits
from curate.errors import ConfigError

NAMES = ("photos", "mnist", "digits", "openclipart", "emoji")
EMOJI = Path("package")
"""Where `npm pack emoji-datasource-twitter` and `tar xf` put the emoji."""
EMOJI_VERSION = "16.0.0"
EMOJI_SIDE = 64
"""Pixels along the side of an emoji."""
NO_CATEGORY = "Component"
"""Category of the few that are parts of others."""
UPRIGHT = {"crops": {"flip_probability": 0.0}}
"""Of digits, as the guide tells: shards do not say whether a mirrored picture means the same."""


@dataclass(frozen=True)
class SmallSet:
    """Square pictures with classes."""

    name: str
    images: np.ndarray
    """(N, S, S, 3) uint8."""
    labels: np.ndarray
    """(N,) int64."""
    given: dict[str, Any]
    """Settings that a user who knows the pictures gives; all others are picked."""


def open_small_set(name: str, *, clip_art: Path = CLIP_ART, emoji: Path = EMOJI, kept: Path | None = None) -> SmallSet:
    """One of `NAMES`.

    Args:
        name: `photos`, `mnist`: bundled; `digits`: 8 x 8 pixels, of scikit-learn; `openclipart`, `emoji`: of packages.
        clip_art: folder of Debian's clip art.
        emoji: folder of the npm package `emoji-datasource-twitter`, unpacked.
        kept: file for the clip art at its small size.

    Raises:
        ConfigError: an unknown name, or the pictures are not where they should be.
        SourceError: one does not decode.
    """
    if name not in NAMES:
        raise ConfigError(f"set={name}: known are {', '.join(NAMES)}")
    if name == "digits":
        return SmallSet("digits", *load_scikit_digits(), UPRIGHT)
    if name == "emoji":
        return _emoji(emoji)
    found = open_set(name, clip_art=clip_art, kept=kept)
    return SmallSet(name, found.images, found.labels, UPRIGHT if name == "mnist" else {})


def _emoji(folder: Path) -> SmallSet:
    index = folder / "emoji.json"
    if not index.is_file():
        raise ConfigError(
            f"{index}: no emoji; `npm pack emoji-datasource-twitter@{EMOJI_VERSION}`, unpack it with `tar xf FILE`, "
            "and give --emoji package"
        )
    rows = [one for one in json.loads(index.read_text(encoding="utf-8")) if _is_wanted(one)]
    _, labels = np.unique([one["category"] for one in rows], return_inverse=True)
    return SmallSet("emoji", _on_white(folder, [one["image"] for one in rows]), labels.astype(np.int64), {})


def _is_wanted(one: dict[str, Any]) -> bool:
    """Whether an entry has a picture and a category; other colors of skin are no entries of their own."""
    return bool(one["has_img_twitter"]) and one["category"] != NO_CATEGORY


def _on_white(folder: Path, files: Sequence[str]) -> np.ndarray:
    """(N, S, S, 3) uint8."""
    squares = np.full((len(files), EMOJI_SIDE, EMOJI_SIDE, 3), 255, np.uint8)
    for square, name in zip(squares, files, strict=True):
        with Image.open(folder / "img" / "twitter" / str(EMOJI_SIDE) / Path(name).name) as opened:
            picture = opened.convert("RGBA")
        white = Image.new("RGBA", picture.size, "white")
        white.alpha_composite(picture)
        square[:] = np.asarray(white.convert("RGB").resize((EMOJI_SIDE, EMOJI_SIDE)))
    return squares
