"""SiT: tell images apart and reconstruct them, from crops of which blocks are hidden from the student.

The paper's contrastive and rotation tokens beside the patches are the ViT's cls token and its first register. All
draws are of the rank's own generator.

Source: Atito et al. 2021, arXiv:2104.03602; rotations are of its first version.
"""

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from curate.errors import ConfigError
from curate.feed.crops import NUM_GLOBAL_CROPS, Crops
from curate.models.nets.trained import Trained
from curate.models.nets.vit import VisionTransformer
from curate.trainer.blocks import blocks_to_mask, draw_blocks, rotate
from curate.trainer.heads import make_mlp
from curate.trainer.losses import add_koleo
from curate.trainer.objective import ForwardContext, Objective, ObjectiveOutput, backbone_of
from curate.trainer.objectives.settings import SitSettings
from curate.trainer.parallel import World

NUM_ROTATIONS = 4
"""By 0, 90, 180 and 270 degrees."""


class Sit(Objective):
    """The student sees corrupted crops, the teacher whole ones."""

    def __init__(self, student: nn.ModuleDict, settings: SitSettings, *, world: World) -> None:
        """`student` holds `backbone`, `contrast_head`, `decoder` and, where crops are rotated, `rotation_head`."""
        super().__init__(student, world=world)
        self.settings = settings
        self._chance = {"rotation": math.log(NUM_ROTATIONS)} if "rotation_head" in student else {}

    @property
    def chance(self) -> Mapping[str, float]:
        """ln 4 of the rotation, and of the contrast the log of the images, known from the first forward pass on."""
        return self._chance

    def forward(self, crops: Crops, context: ForwardContext) -> ObjectiveOutput:
        """The loss of normalized crops of B images, of which the global ones alone are used."""
        images, settings = crops.global_crops, self.settings
        self._chance["contrast"] = math.log(crops.num_images * self.world.size)
        generator = fork_generator(context.generator, images.device)
        rotations = torch.randint(NUM_ROTATIONS, (len(images),), generator=generator, device=images.device)
        if "rotation_head" in self.student:
            images = rotate(images, rotations)
        corrupted, hidden = corrupt(images, settings, generator=generator)
        keys, features = self._keys(images)
        (seen,) = backbone_of(self.student).forward_crops([corrupted], generator=context.generator)
        queries = self.student["contrast_head"](seen.cls)
        terms = {
            "contrast": contrastive_loss(queries, keys, temperature=settings.temperature, world=self.world),
            "reconstruction": reconstruction_loss(self.student["decoder"](seen.patches), images, hidden),
        }
        loss = terms["contrast"] + settings.reconstruction_weight * terms["reconstruction"]
        if "rotation_head" in self.student:
            logits = self.student["rotation_head"](seen.registers[:, 0]).float()
            terms["rotation"] = F.cross_entropy(logits, rotations)
            loss = loss + settings.rotation_weight * terms["rotation"]
        loss, terms = add_koleo(loss, terms, seen.cls, settings, world=self.world, factor=context.weights.koleo)
        return ObjectiveOutput(loss, terms, features, seen=seen.cls)

    @torch.no_grad()
    def _keys(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The teacher on whole crops: (2B, E) keys to compare queries with, and (2B, D) features."""
        features = backbone_of(self.teacher).forward_needed([images])[0].cls
        return self.teacher["contrast_head"](features), features


def fork_generator(generator: torch.Generator, device: torch.device) -> torch.Generator:
    """A generator on `device`, its seed drawn from `generator`."""
    return torch.Generator(device).manual_seed(int(torch.randint(2**62, (), generator=generator)))


def corrupt(images: Tensor, settings: SitSettings, *, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Hide blocks of each of (2B, 3, S, S) under noise or under what another image shows there.

    Returns:
        corrupted: (2B, 3, S, S).
        hidden: (2B, 1, S, S) bool, the pixels that are not their own.
    """
    size, device = images.shape[-1], images.device
    start, length = draw_blocks(
        len(images), size, share=settings.hidden_share, side=settings.block_side, generator=generator
    )
    foreign = torch.rand(length.shape[1:], generator=generator, device=device) < settings.foreign_share
    noise = torch.randn(images.shape, generator=generator, device=device)
    hidden = blocks_to_mask(start, length, size)
    corrupted = torch.where(hidden, noise, images)
    # Rolled by one row, a crop meets another image's; a lone image on its rank meets its own other view.
    return torch.where(blocks_to_mask(start, length * foreign, size), images.roll(1, dims=0), corrupted), hidden


def contrastive_loss(queries: Tensor, keys: Tensor, *, temperature: float, world: World) -> Tensor:
    """InfoNCE: find the other view of an image among those of the images of all ranks, from view 1 to 2 and back.

    Args:
        queries: (2B, E) the student's, view 1 of all images, then view 2.
        keys: (2B, E) the teacher's.

    Returns:
        () float32, nats, mean of both directions.
    """
    with torch.autocast(queries.device.type, enabled=False):
        queries, keys = F.normalize(queries.float(), dim=-1), F.normalize(keys.float(), dim=-1)
        num_images = len(queries) // NUM_GLOBAL_CROPS
        own = world.rank * num_images + torch.arange(num_images, device=queries.device)
        pairs = zip(queries.chunk(NUM_GLOBAL_CROPS), reversed(keys.chunk(NUM_GLOBAL_CROPS)), strict=True)
        losses = [F.cross_entropy(query @ world.all_gather(key).T / temperature, own) for query, key in pairs]
    return torch.stack(losses).mean()


def reconstruction_loss(reconstructed: Tensor, images: Tensor, hidden: Tensor) -> Tensor:
    """Mean absolute error of hidden pixels.

    Args:
        reconstructed: (C, N, 3 P P) the pixels of each token's patch, channel by channel and row by row.
        images: (C, 3, S, S) uncorrupted.
        hidden: (C, 1, S, S) bool.

    Returns:
        () float32; 0 when nothing is hidden.
    """
    side = images.shape[-1] // math.isqrt(reconstructed.shape[1])
    wanted, counts = (
        F.pixel_unshuffle(x.float(), side).flatten(2).transpose(1, 2) for x in (images, hidden.expand_as(images))
    )
    return ((reconstructed.float() - wanted).abs() * counts).sum() / counts.sum().clamp_min(1)


def build_sit(
    settings: SitSettings, backbone: Trained, *, prototypes: int, world: World, generator: torch.Generator
) -> Sit:
    """SiT around `backbone`, with `contrast_head`, `decoder` and, where crops are rotated, `rotation_head`.

    Raises:
        ConfigError: the backbone is no ViT, or has no register to tell rotations from.
    """
    if not isinstance(backbone, VisionTransformer):
        raise ConfigError(f"objective=sit needs a ViT, found model.timm={backbone.config.name}; leave model.timm out")
    config, hidden = backbone.config, settings.head_hidden
    networks: dict[str, nn.Module] = {
        "backbone": backbone,
        "contrast_head": make_mlp(config.dim, hidden, hidden, settings.head_out, generator=generator),
        "decoder": make_mlp(config.dim, config.dim, 3 * config.patch_size**2, generator=generator),
    }
    if settings.rotation_weight > 0:
        if config.num_registers < 1:
            raise ConfigError(
                f"objective.rotation_weight is {settings.rotation_weight}, and no register token is there to read the "
                "rotation from; set model.num_registers=1 or objective.rotation_weight=0"
            )
        networks["rotation_head"] = make_mlp(config.dim, NUM_ROTATIONS, generator=generator)
    return Sit(nn.ModuleDict(networks), settings, world=world)
