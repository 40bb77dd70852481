"""A descriptor of single shapes on a plain ground, as a backbone of one's own that recipes are given.

What is told apart is the shape, wherever it stands and however large it is: the box around the ink is laid over the
whole square. A copy that was cropped by a few pixels has nearly the descriptor of its original, where networks that
were trained on photographs see a shape that moved.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from curate.models.info import ModelInfo
from curate.ops.images.preprocess import Preprocess

NAME = "benchmarks.curation.glyphs:glyph24"
"""As configs name it."""
INPUT, SIDE = 56, 24
"""Pixels along a side of what comes in, and values along one of what goes out."""
INK = 0.16
"""Brightness, of 0..1, by which ink differs from the ground; what JPEG adds differs by less."""


class GlyphDescriptor(nn.Module):
    """(B, 3, S, S) RGB in 0..1 -> (B, SIDE * SIDE) float32, row by row; zeros where there is no ink."""

    def forward(self, pixels: Tensor) -> Tensor:
        """See the class."""
        gray = pixels.float().mean(dim=1)
        border = torch.cat([gray[:, 0], gray[:, -1], gray[:, :, 0], gray[:, :, -1]], dim=1)
        shape = (gray - border.median(dim=1).values[:, None, None]).abs()
        inked = shape > INK
        theta = torch.zeros(len(shape), 2, 3, device=shape.device)
        for axis, lines in enumerate((inked.any(dim=1), inked.any(dim=2))):  # columns are x, rows are y
            low, high = _ends(lines)
            theta[:, axis, axis] = (high - low) / 2
            theta[:, axis, 2] = (high + low) / 2
        grid = F.affine_grid(theta, [len(shape), 1, 2 * SIDE, 2 * SIDE], align_corners=False)
        boxes = F.grid_sample(shape[:, None], grid, align_corners=False)
        small = F.avg_pool2d(F.avg_pool2d(boxes, 2), 3, stride=1, padding=1).flatten(1)
        found = small - small.mean(dim=1, keepdim=True)
        return torch.where(inked.flatten(1).any(dim=1, keepdim=True), found, 0.0)


def _ends(lines: Tensor) -> tuple[Tensor, Tensor]:
    """Where the ink of each row of (B, S) begins and ends, -1..1 from edge to edge."""
    count = lines.shape[1]
    first = lines.float().argmax(dim=1)
    last = count - lines.flip(1).float().argmax(dim=1)
    return 2 * first / count - 1, 2 * last / count - 1


class _Glyph24:
    """The plug-in: see `docs/extending.md`."""

    def describe(self, model: str, weights: str | None, *, fetch: bool) -> ModelInfo:
        """There are no weights."""
        return ModelInfo(
            model=model,
            dim=SIDE * SIDE,
            license="Apache-2.0",
            preprocess=Preprocess(
                size=INPUT, resize="square", short_edge=INPUT, interpolation="bilinear", mean=(0.0,) * 3, std=(1.0,) * 3
            ),
            pooling="pixels",
            how_to_get="it has no weights",
            bf16=False,
            has_weights=False,
        )

    def build(self, info: ModelInfo) -> nn.Module:
        """The descriptor."""
        return GlyphDescriptor()


glyph24 = _Glyph24()
