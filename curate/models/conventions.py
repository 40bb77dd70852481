"""How the authors of each family make a vector of a picture: how it is pooled, resized and normalized.

This is the one place that says so; every built-in family describes its models by it. Where a library that runs a model
does otherwise than the model's authors, `TIMM_POOLING` sets it right.
"""

import re
from typing import Literal, NamedTuple

from curate.models.info import IMAGENET_MEAN, IMAGENET_STD
from curate.ops.images.preprocess import Preprocess

SATELLITE_MEAN, SATELLITE_STD = (0.430, 0.411, 0.296), (0.213, 0.156, 0.143)
"""Of SAT-493M, which DINOv3's models of satellite images were trained on."""
HALF = (0.5, 0.5, 0.5)

Pooling = Literal["cls", "mean", "gem", "pixels", "library", "file"]
"""What the vector is: the cls token after the final norm; the mean of the last map; its generalized mean; the pixels
themselves; what the model's library gives; or what its own file declares."""


class Convention(NamedTuple):
    """How a family makes a vector of a picture."""

    pooling: Pooling
    preprocess: Preprocess | None
    """How pictures are resized and normalized; None: the library or the file tells, model by model."""


def _crop(size: int, short_edge: int, mean: tuple[float, float, float], std: tuple[float, float, float]) -> Preprocess:
    return Preprocess(
        size=size, resize="short_edge_crop", short_edge=short_edge, interpolation="bicubic", mean=mean, std=std
    )


CONVENTIONS: dict[str, Convention] = {
    "lite0": Convention("mean", _crop(224, 256, HALF, HALF)),
    # A crop of a copy would lose what the other copy shows: the whole picture is squeezed into the square.
    "lite0-copy": Convention(
        "mean",
        Preprocess(size=224, resize="square", short_edge=224, interpolation="bicubic", mean=HALF, std=HALF),
    ),
    "luma": Convention(
        "pixels",
        Preprocess(
            size=48,
            resize="square",
            short_edge=48,
            interpolation="bilinear",
            mean=(0.0, 0.0, 0.0),
            std=(1.0, 1.0, 1.0),
        ),
    ),
    "pixels16": Convention("mean", _crop(224, 224, HALF, (0.25, 0.25, 0.25))),
    # Of its authors' two ways, the one that gives all pictures one shape.
    "sscd": Convention(
        "gem",
        Preprocess(
            size=320, resize="square", short_edge=320, interpolation="bilinear", mean=IMAGENET_MEAN, std=IMAGENET_STD
        ),
    ),
    # As in its authors' evaluation; positions are resampled from the grid of 518 pixels that was released.
    "dinov2": Convention("cls", _crop(224, 256, IMAGENET_MEAN, IMAGENET_STD)),
    # 256 pixels, a multiple of its patches and what its global crops had.
    "dinov3": Convention("cls", _crop(256, 256, IMAGENET_MEAN, IMAGENET_STD)),
    "dinov3-satellite": Convention("cls", _crop(256, 256, SATELLITE_MEAN, SATELLITE_STD)),
    # Google's ViTs on Hugging Face.
    "vit": Convention(
        "cls",
        Preprocess(size=224, resize="square", short_edge=224, interpolation="bilinear", mean=HALF, std=HALF),
    ),
    "timm": Convention("library", None),
    "open_clip": Convention("library", None),
    "curate": Convention("file", None),
    "onnx": Convention("file", None),
}
"""By family."""

TIMM_POOLING: tuple[tuple[re.Pattern[str], str], ...] = ((re.compile(r"vit_\w+_dinov3(_qkvb)?(\.\w+)?"), "token"),)
"""Names of timm's models that it pools otherwise than their authors do, and how these do: timm averages the patches of
DINOv3, whose authors take cls."""


def preprocess_of(family: str) -> Preprocess:
    """How pictures are resized and normalized for a family that has one way for all its models."""
    found = CONVENTIONS[family].preprocess
    assert found is not None, family
    return found


def timm_pooling(name: str) -> dict[str, str]:
    """Arguments with which timm pools the model `name` as its authors do; empty: it does so by itself."""
    return next(({"global_pool": how} for pattern, how in TIMM_POOLING if pattern.fullmatch(name)), {})
