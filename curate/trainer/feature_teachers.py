"""Frozen backbones of any kind as teachers of a student: their features of its crops, on its grid, standardized."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from curate.config import without_folder
from curate.errors import ConfigError, first_line
from curate.models.backbones.load import describe, load_backbone, outline
from curate.models.info import IMAGENET_MEAN, IMAGENET_STD
from curate.models.nets.intermediate import block_outputs
from curate.models.nets.tower import TimmTower
from curate.trainer.objectives.feature_settings import FeatureTeacherSettings
from curate.trainer.parallel import World

Pixels = tuple[tuple[float, float, float], tuple[float, float, float]]
"""Mean and standard deviation by which RGB in 0..1 is normalized."""


class FeatureTeacher(nn.Module):
    """A frozen backbone that sees crops normalized for another model."""

    scale: Tensor
    shift: Tensor

    def __init__(self, settings: FeatureTeacherSettings) -> None:
        """Load it; `normalized_for` tells how the crops are normalized, ImageNet's way until then.

        Where networks are made on the device `meta`, for a plan, it has no weights, unless only they know the network.

        Raises:
            ConfigError: there is no such backbone.
            WeightsError: its weights are missing or damaged.
        """
        super().__init__()
        weightless = torch.get_default_device().type == "meta"
        with torch.device("cpu"):
            net = outline(settings.model, settings.weights) if weightless else None
            if net is None:
                net = load_backbone(settings.model, weights=settings.weights, device="cpu", precision="fp32").module
            self.register_buffer("scale", torch.ones(3, 1, 1))
            self.register_buffer("shift", torch.zeros(3, 1, 1))
        info = describe(settings.model, settings.weights)
        self.settings, self.dim, self.net = settings, info.dim, net.requires_grad_(False)
        self._own, self._own_size = (info.preprocess.mean, info.preprocess.std), info.preprocess.size
        self.normalized_for((IMAGENET_MEAN, IMAGENET_STD))
        self._blocks = block_outputs(self.net)

    def normalized_for(self, pixels: Pixels) -> None:
        """Take crops that are normalized by this mean and deviation."""
        where = self.scale.device
        mean, std, own_mean, own_std = (torch.tensor(x, device=where).view(3, 1, 1) for x in (*pixels, *self._own))
        self.scale.copy_(std / own_std)
        self.shift.copy_((mean - own_mean) / own_std)

    @property
    def has_patches(self) -> bool:
        """Whether it gives features of patches beside those of the whole."""
        return self._blocks is not None or isinstance(self.net, TimmTower)

    @torch.no_grad()
    def forward(self, crops: Tensor) -> tuple[Tensor, Tensor | None]:
        """(C, 3, S, S) crops -> (C, D) pooled features and (C, N, D) those of patches; None: it has none.

        Raises:
            ConfigError: it does not take crops of this size.
        """
        images = crops * self.scale + self.shift
        size = self.settings.size
        if size is not None and size != images.shape[-1]:
            images = F.interpolate(images, (size, size), mode="bicubic", antialias=True)
        try:
            pooled, patches = self._tokens(images)
        except (AssertionError, RuntimeError, ValueError) as error:
            raise self._refusal(images, first_line(error)) from error
        if pooled.shape[-1] != self.dim:
            raise self._refusal(images, f"it gives {pooled.shape[-1]} dims, {self.dim} are needed")
        return pooled, patches

    def _tokens(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        if self._blocks is not None:
            features = self._blocks(images, 1)[-1]
            return features.cls, features.patches
        if isinstance(self.net, TimmTower):
            features = self.net.forward_features(images)
            return features.cls, features.patches
        return self.net(images), None

    def _refusal(self, images: Tensor, reason: str) -> ConfigError:
        name, side = without_folder(self.settings.model), images.shape[-1]
        return ConfigError(
            f"objective.teachers: {name} does not take crops of {side} px: {reason}; set its size, for example to "
            f"{self._own_size}"
        )


def on_grid(patches: Tensor, num_patches: int) -> Tensor:
    """Features (C, N, D) of a square grid of patches on another of `num_patches`, as float32, resized bilinearly."""
    side, wanted = math.isqrt(patches.shape[1]), math.isqrt(num_patches)
    if side == wanted:
        return patches.float()
    grid = patches.float().unflatten(1, (side, side)).permute(0, 3, 1, 2)
    resized = F.interpolate(grid, (wanted, wanted), mode="bilinear", align_corners=False, antialias=True)
    return resized.flatten(2).transpose(1, 2)


class RunningStandard(nn.Module):
    """Standardizes features by the running mean and variance of each dimension, over the rows of all ranks."""

    mean: Tensor
    variance: Tensor
    passes: Tensor

    def __init__(self, dim: int, *, momentum: float, world: World) -> None:
        super().__init__()
        self.momentum, self.world = momentum, world
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("variance", torch.ones(dim))
        self.register_buffer("passes", torch.zeros(()))

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """(M, D) float32 to the same with about mean 0 and deviation 1; the statistics take these rows in first."""
        if self.training:
            self._take_in(x)
        return (x - self.mean) * (self.variance + 1e-6).rsqrt()

    def _take_in(self, x: Tensor) -> None:
        """The first pass sets the statistics; later ones move them, the first ones by their share of all passes."""
        centered = x - self.mean  # near 0, so that squares do not cancel
        count = self.world.sum(x.new_full((), len(x)))
        moved = self.world.sum(centered.sum(dim=0)) / count
        variance = self.world.sum(centered.square().sum(dim=0)) / count - moved.square()
        self.passes += 1
        share = (1 / self.passes).clamp_min(1 - self.momentum)
        self.variance.mul_(1 - share).add_(share * variance + share * (1 - share) * moved.square())
        self.mean.add_(share * moved)
