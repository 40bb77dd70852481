"""PP-OCRv6, its detection alone: where the lines of text of a picture are.

Source: PaddleOCR, PP-OCRv6, small detection; its weights as ONNX in the package `rapidocr`.
"""

from pathlib import Path

import numpy as np
from PIL import Image

from curate.models.screening.picture_graph import PictureGraph
from curate.models.screening.resize import resize
from curate.models.screening.shipped import TEXT
from curate.ops.screening.sizes import fit_size
from curate.ops.screening.text_area import text_share


class TextFinder:
    """The network."""

    def __init__(self, file: Path) -> None:
        self._graph = PictureGraph(file, outputs=[None], model=TEXT.model)

    def share(self, picture: Image.Image, *, side: int) -> float:
        """Share of the area of an RGB picture that text covers, 0..1.

        Args:
            side: pixels of the short side at which it is looked for.
        """
        width, height = fit_size(picture.size, side)
        pixels = resize(picture, (width, height))[:, :, ::-1].transpose(2, 0, 1).astype(np.float32)
        (found,) = self._graph.run(np.ascontiguousarray(pixels / 127.5 - 1)[None])
        return text_share(self._graph.expect(found, (1, 1, height, width))[0, 0])
