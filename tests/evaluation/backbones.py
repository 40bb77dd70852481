"""Tiny backbones and pictures for the tests of measures."""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from curate.evaluation.labeled import Decode, LabeledImages
from curate.models.backbones.backbone import Backbone
from curate.models.info import ModelInfo
from curate.models.nets.config import ViTConfig
from curate.models.nets.vit import VisionTransformer
from curate.ops.images.preprocess import Preprocess

VIT = ViTConfig(dim=16, depth=2, heads=2, image_size=28, num_registers=1, layer_scale_init=1.0)


def seeded_vit(seed: int = 0) -> VisionTransformer:
    return VisionTransformer(VIT, generator=torch.Generator().manual_seed(seed)).eval()


def backbone_of(module: torch.nn.Module, *, dim: int, size: int = 28) -> Backbone:
    how = Preprocess(
        size=size, resize="square", short_edge=size, interpolation="bilinear", mean=(0.5,) * 3, std=(0.25,) * 3
    )
    info = ModelInfo("tiny", dim=dim, license="none", preprocess=how, how_to_get="", has_weights=False)
    return Backbone(info, module, torch.device("cpu"), "fp32")


def vit_backbone(seed: int = 0) -> Backbone:
    return backbone_of(seeded_vit(seed), dim=VIT.dim)


def striped(label: int, rng: np.random.Generator, *, size: int = 56) -> Image.Image:
    """A noisy picture of stripes, whose direction and color are the class's."""
    waves = np.sin(np.arange(size) * (0.3 + 0.2 * label))
    plane = np.tile(waves, (size, 1)) if label % 2 else np.tile(waves[:, None], (1, size))
    color = np.roll([0.9, 0.5, 0.1], label)
    pixels = 128 + 60 * plane[..., None] * color + 40 * color + rng.normal(0, 25, (size, size, 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def write_classes(folder: Path, *, each: int, num_classes: int = 3, seed: int = 0) -> Path:
    """`folder` with a subfolder of striped pictures for each class."""
    rng = np.random.default_rng(seed)
    for label in range(num_classes):
        place = folder / f"class{label}"
        place.mkdir(parents=True)
        for number in range(each):
            striped(label, rng).save(place / f"{number:03d}.png")
    return folder


def of_pictures(pictures: Sequence[Image.Image]) -> LabeledImages:
    """Pictures of any size as a set of one class."""
    return LabeledImages("pictures", np.zeros(len(pictures), np.int64), [""], partial(_decoders, pictures))


def _decoders(pictures: Sequence[Image.Image], rows: np.ndarray) -> Iterator[Decode]:
    for row in rows.tolist():
        yield partial(pictures.__getitem__, row)
