"""Pictures of any kind to vectors: what `curate.load_backbone` gives."""

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from PIL import Image, ImageOps

from curate.errors import SourceError
from curate.models.backbones.backbone import Backbone
from curate.models.backbones.load import load_backbone
from curate.models.device import PrecisionChoice
from curate.opening import read_regular
from curate.ops.images.decode import RejectedImage
from curate.ops.images.decoding import decode_picture
from curate.ops.images.preprocess import preprocess

Picture: TypeAlias = str | Path | bytes | Image.Image | np.ndarray
"""A file, encoded bytes, a PIL image, or an array (H, W, 3) or (H, W), uint8."""


class Embedder:
    """A frozen backbone with its preprocessing."""

    def __init__(self, backbone: Backbone) -> None:
        self.backbone = backbone

    @property
    def dim(self) -> int:
        """Length of its vectors."""
        return self.backbone.dim

    def embed(self, pictures: Iterable[Picture], *, batch_size: int = 32) -> np.ndarray:
        """Unit vectors of pictures.

        Returns:
            (N, D) float32, unit L2, in the order of the pictures.

        Raises:
            SourceError: a file cannot be read, or does not decode.
        """
        vectors = [np.empty((0, self.dim), np.float32)]
        prepared = (preprocess(_rgb(picture), self.backbone.preprocess) for picture in pictures)
        for batch in _batches(prepared, batch_size):
            vectors.append(self.backbone.embed(torch.from_numpy(np.stack(batch))).numpy())
        return np.concatenate(vectors)


def load_embedder(model: str, *, weights: str | None, device: str, precision: PrecisionChoice) -> Embedder:
    """As `load_backbone`."""
    return Embedder(load_backbone(model, weights=weights, device=device, precision=precision))


def _rgb(picture: Picture) -> Image.Image:
    if isinstance(picture, Image.Image):
        return ImageOps.exif_transpose(picture).convert("RGB")
    if isinstance(picture, np.ndarray):
        return Image.fromarray(picture).convert("RGB")
    name = "picture" if isinstance(picture, bytes) else str(picture)
    try:
        return decode_picture(picture if isinstance(picture, bytes) else read_regular(picture))
    except RejectedImage as error:
        raise SourceError(f"{name}: {error.reason}: {error}") from error
    except OSError as error:
        raise SourceError(f"{name}: cannot be read: {error}") from error


def _batches(items: Iterator[np.ndarray], size: int) -> Iterator[list[np.ndarray]]:
    while batch := list(islice(items, size)):
        yield batch
