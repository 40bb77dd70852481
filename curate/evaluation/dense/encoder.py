"""Patch features of pictures of any size, by a frozen backbone or by one that is being trained.

Models are compared at an equal number of patches rather than of pixels, as the papers do: a model with patches of 16
pixels sees a larger picture than one with patches of 14 (Simeoni et al. 2025, arXiv:2508.10104, section 6.1: 1,024
patches).
"""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from curate.models.backbones.backbone import CPU_CHUNK, Backbone
from curate.models.backbones.inside import patch_maps, side_of, sized
from curate.models.device import Precision, autocast
from curate.ops.images.preprocess import INTERPOLATION

GRID = 16
"""Patches along the short side of a picture, unless another number is asked for; the papers take 32."""
DEVICE_BATCH = 32
"""Pictures that a GPU sees at a time."""

Triple = tuple[float, float, float]


class _HasPicture(Protocol):
    @property
    def picture(self) -> Image.Image: ...


Pictured = TypeVar("Pictured", bound=_HasPicture)


@dataclass
class PatchEncoder:
    """Turns pictures into maps of patch features."""

    module: nn.Module
    """The network."""
    name: str
    """Name of the model in messages."""
    mean: Triple
    """Mean of each RGB channel, of values in 0..1, that the model subtracts."""
    std: Triple
    """Deviation that it divides by."""
    interpolation: Literal["bilinear", "bicubic", "lanczos"]
    """How pictures are resized."""
    device: torch.device
    """Where the network is."""
    precision: Precision
    """Of the forward pass."""
    grid: int = GRID
    """Patches along the short side of a picture."""
    side: int = field(init=False)
    """Pixels along the side of a patch."""

    def __post_init__(self) -> None:
        self.side = side_of(self.module, self.name)
        self._sized: tuple[tuple[int, int], nn.Module] | None = None

    @classmethod
    def of(cls, backbone: Backbone, *, grid: int = GRID) -> "PatchEncoder":
        """The encoder of a frozen backbone.

        Raises:
            ConfigError: the model has no features of patches.
        """
        how = backbone.preprocess
        return cls(
            backbone.module,
            backbone.model,
            how.mean,
            how.std,
            how.interpolation,
            backbone.device,
            backbone.precision,
            grid,
        )

    def fit(self, picture: Image.Image) -> Image.Image:
        """The picture with `grid` patches along its short side, its aspect kept to a whole number of patches."""
        scale = self.grid / min(picture.size)
        columns, rows = (max(1, round(length * scale)) for length in picture.size)
        return picture.resize((columns * self.side, rows * self.side), INTERPOLATION[self.interpolation])

    def encode(self, pictures: Iterable[Image.Image]) -> Iterator[Tensor]:
        """(h, w, D) float32 on the CPU for each picture, in order; not normalized.

        Pictures of one size that follow each other are one batch.
        """
        most = CPU_CHUNK if self.device.type == "cpu" else DEVICE_BATCH
        batch: list[Image.Image] = []
        for fitted in map(self.fit, pictures):
            if batch and (len(batch) == most or fitted.size != batch[0].size):
                yield from self._forward(batch)
                batch = []
            batch.append(fitted)
        if batch:
            yield from self._forward(batch)

    def encode_each(self, items: Iterable[Pictured]) -> Iterator[tuple[Pictured, Tensor]]:
        """Things that have a picture, each with the features of it, in order."""
        waiting: deque[Pictured] = deque()

        def pictures() -> Iterator[Image.Image]:
            for item in items:
                waiting.append(item)
                yield item.picture

        for features in self.encode(pictures()):
            yield waiting.popleft(), features

    @torch.no_grad()  # under inference_mode FSDP would keep tensors that training cannot use
    def _forward(self, batch: list[Image.Image]) -> Tensor:
        """(B, h, w, D) float32 on the CPU."""
        width, height = batch[0].size
        pixels = torch.from_numpy(np.stack([np.asarray(picture, np.float32) for picture in batch]))
        mean, std = (torch.tensor(values) for values in (self.mean, self.std))
        images = ((pixels / 255 - mean) / std).permute(0, 3, 1, 2).contiguous().to(self.device)
        with autocast(self.device, self.precision):
            maps = patch_maps(self._module_for((height, width)), images, (height // self.side, width // self.side))
        return maps.float().cpu()

    def _module_for(self, size: tuple[int, int]) -> nn.Module:
        """The network for pictures of (height, width); of models of fixed size the copy made last is kept."""
        if self._sized is None or self._sized[0] != size:
            self._sized = size, sized(self.module, size)
        return self._sized[1]


def upsample(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Maps of patches (h, w, C) at every pixel of a picture of (height, width): (H, W, C), bilinear."""
    grown = torch.nn.functional.interpolate(maps.permute(2, 0, 1)[None], size, mode="bilinear", align_corners=False)
    return grown[0].permute(1, 2, 0)
