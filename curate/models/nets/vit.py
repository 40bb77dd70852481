"""The vision transformers of DINOv2 and DINOv3, with the parameter names of DINOv2's torch.hub checkpoints.

They differ in how patches know their places, in biases and norms, and in what their weights start from; blocks and the
packing of crops are the same, so that one class serves both, for embedding and pretraining. `files/dinov3_names.py` has
the names of DINOv3's own checkpoints. All crops of a training step, global and local ones, go through one pass: see
`layers` for how their tokens lie together.

Source: Oquab et al. 2023, arXiv:2304.07193; registers: Darcet et al. 2023, arXiv:2309.16588; Simeoni et al. 2025,
arXiv:2508.10104.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from curate.models.nets.config import ViTConfig
from curate.models.nets.depth import Group, Kept, draw_kept
from curate.models.nets.features import Features, NeededTokens
from curate.models.nets.layers import Block, LayerScale, PatchEmbed
from curate.models.nets.lean import autocast_dtype, leaves_holes, release_holes_around
from curate.models.nets.rotary import Grid, Rotations, draw_rotations

RELEASE_EVERY = 6
"""Number of blocks after each of which freed memory is given back to the system, where that is worth its time."""


class VisionTransformer(nn.Module):
    """The ViT of DINOv2 or DINOv3; its `state_dict` keys are those of DINOv2's torch.hub checkpoints."""

    def __init__(self, config: ViTConfig, *, generator: torch.Generator | None = None) -> None:
        """Build the model with fresh weights drawn from `generator` (None: torch's global one)."""
        super().__init__()
        self.config = config
        self.checkpoints_blocks = False
        """Activation checkpointing: blocks run again in the backward pass instead of keeping their activations."""
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.dim))
        self.pos_embed = (
            nn.Parameter(torch.zeros(1, 1 + config.grid**2, config.dim)) if config.positions == "learned" else None
        )
        self.register_tokens = (
            nn.Parameter(torch.zeros(1, config.num_registers, config.dim)) if config.num_registers else None
        )
        self.mask_token = nn.Parameter(torch.zeros(1, config.dim))
        self.patch_embed = PatchEmbed(config)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.dim, eps=config.norm_eps)
        self.local_cls_norm = nn.LayerNorm(config.dim, eps=config.norm_eps) if config.local_norm else None
        self.init_weights(generator)

    @torch.no_grad()
    def init_weights(self, generator: torch.Generator | None = None) -> None:
        """Draw every parameter afresh as DINOv2 and DINOv3 do; also needed after `to_empty` of a model on the meta
        device."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02, generator=generator)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, nn.LayerNorm):
                nn.init.ones_(module.weight)
                nn.init.zeros_(module.bias)
            elif isinstance(module, LayerScale):
                nn.init.constant_(module.gamma, module.init)
        projection = self.patch_embed.proj
        bound = 1 / math.sqrt(projection.weight[0].numel())  # torch's default for convolutions, which DINOv2 keeps
        nn.init.uniform_(projection.weight, -bound, bound, generator=generator)
        if projection.bias is not None:
            nn.init.uniform_(projection.bias, -bound, bound, generator=generator)
        deviation = 0.02  # of DINOv3's tokens; DINOv2's start at next to nothing, since positions are added to cls
        if self.pos_embed is not None:
            nn.init.trunc_normal_(self.pos_embed, std=0.02, generator=generator)
            deviation = 1e-6
        nn.init.normal_(self.cls_token, std=deviation, generator=generator)
        if self.register_tokens is not None:
            nn.init.normal_(self.register_tokens, std=deviation, generator=generator)
        nn.init.zeros_(self.mask_token)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) normalized images -> (B, D), the cls token after the final norm."""
        return self.forward_features(images).cls

    def forward_features(self, images: Tensor, masks: Tensor | None = None) -> Features:
        """All tokens of one group of crops; `masks` (B, N) bool is True where the mask token replaces a patch."""
        return self.forward_crops([images], [masks])[0]

    def forward_crops(
        self,
        crops: Sequence[Tensor],
        masks: Sequence[Tensor | None] | None = None,
        *,
        generator: torch.Generator | None = None,
    ) -> list[Features]:
        """All tokens of several groups of crops, in one pass.

        FSDP2 gathers the weights in hooks on `forward`; register this method and the next one with
        `register_fsdp_forward_method`, so that it does so here too.

        Args:
            crops: groups of (B_g, 3, H_g, W_g) normalized images; sides are multiples of the patch size. All but the
                first are local crops, for models that have a norm of their own for these.
            masks: for each group (B_g, N_g) bool, or None; None: nothing is masked.
            generator: source of the randomness of stochastic depth and of rotary positions; None: torch's global one.

        Raises:
            ValueError: a side that patches do not divide, or a mask of another shape.
        """
        x, groups = self._encode(crops, masks, None, generator)
        parts = x.split([group.rows for group in groups])
        return [self._split(part.view(*group, -1)) for part, group in zip(parts, groups, strict=True)]

    def forward_needed(
        self,
        crops: Sequence[Tensor],
        masks: Sequence[Tensor | None] | None = None,
        *,
        patches: Sequence[Tensor | None] | None = None,
        generator: torch.Generator | None = None,
    ) -> list[NeededTokens]:
        """As `forward_crops`, but returns the cls tokens of each group and the patches that a loss reads.

        The other tokens take part in attention up to the last block, whose feed-forward layer leaves them out.

        Args:
            patches: for each group the (K_g,) rows wanted of its (B_g * N_g, D) patches, or None; None: cls alone.
        """
        patches = [None] * len(crops) if patches is None else patches
        x, groups = self._encode(crops, masks, patches, generator)
        sizes = [(group.images, 0 if rows is None else len(rows)) for group, rows in zip(groups, patches, strict=True)]
        parts = x.split([size for pair in sizes for size in pair])
        return [NeededTokens(*pair) for pair in zip(parts[::2], parts[1::2], strict=True)]

    def _encode(
        self,
        crops: Sequence[Tensor],
        masks: Sequence[Tensor | None] | None,
        patches: Sequence[Tensor | None] | None,
        generator: torch.Generator | None,
    ) -> tuple[Tensor, list[Group]]:
        """Tokens (M, D) of all groups after the final norm; given `patches`, of each group cls and those patches."""
        masks = [None] * len(crops) if masks is None else masks
        embedded = [self._embed(images, mask) for images, mask in zip(crops, masks, strict=True)]
        groups = [Group(tokens.shape[0], tokens.shape[1]) for tokens in embedded]
        x = torch.cat([tokens.flatten(0, 1) for tokens in embedded])  # (M, D)
        needed = None if patches is None else self._rows_needed(groups, patches, x.device)
        draws = self._draw_depth(groups, x.device, generator)
        rotations = self.draw_rotations([self._grid(images) for images in crops], x, generator)
        gives_back = leaves_holes(x)
        for number, (block, kept, turns) in enumerate(zip(self.blocks, draws, rotations, strict=True), start=1):
            rows = needed if number == len(self.blocks) else None
            if self.checkpoints_blocks and torch.is_grad_enabled():
                x = checkpoint(block, x, groups, kept, rows, turns, use_reentrant=False, preserve_rng_state=False)
            else:
                x = block(x, groups, kept, rows, turns)
            if gives_back and number % RELEASE_EVERY == 0:
                release_holes_around(x)
        return self._normalize(x, groups, patches), groups

    def _normalize(self, x: Tensor, groups: Sequence[Group], patches: Sequence[Tensor | None] | None) -> Tensor:
        """The final norm of all tokens, or of those that `_rows_needed` has chosen."""
        if self.local_cls_norm is None or not self.training or len(groups) == 1:
            return self.norm(x)
        first = 1 + self.config.num_registers
        if patches is None:
            sizes = [group.rows for group in groups]
        else:
            sizes = [group.images + (0 if p is None else len(p)) for group, p in zip(groups, patches, strict=True)]
        parts = x.split(sizes)
        normed = [self.norm(parts[0])]
        for part, group in zip(parts[1:], groups[1:], strict=True):
            if patches is None:
                own, rest = part.view(*group, -1).split((first, group.tokens - first), dim=1)
            else:
                own, rest = part[: group.images], part[group.images :]
            normed.append(torch.cat([self.local_cls_norm(own), self.norm(rest)], dim=-2).view(len(part), -1))
        return torch.cat(normed)

    def _grid(self, images: Tensor) -> Grid:
        """Rows and columns of the patches of images (B, 3, H, W)."""
        side = self.config.patch_size
        return images.shape[-2] // side, images.shape[-1] // side

    def draw_rotations(
        self, grids: Sequence[Grid], x: Tensor, generator: torch.Generator | None = None
    ) -> list[Rotations | None]:
        """Of each block, the rotations of the patches of each group; None: positions are learned.

        Args:
            x: tokens that go into the first block, whose device and precision count.
        """
        if self.config.positions == "learned":
            return [None] * len(self.blocks)
        low = self.config.rope_dtype == "bf16" and autocast_dtype(x) == torch.bfloat16
        return list(
            draw_rotations(
                self.config,
                grids,
                training=self.training,
                device=x.device,
                dtype=torch.bfloat16 if low else torch.float32,
                generator=generator,
            )
        )

    def _rows_needed(self, groups: Sequence[Group], patches: Sequence[Tensor | None], device: torch.device) -> Tensor:
        """Rows of the matrix of all tokens: for each group its cls tokens, then `patches` of its (B * N, D) ones."""
        first, start, found = 1 + self.config.num_registers, 0, []
        for group, rows in zip(groups, patches, strict=True):
            found.append(start + torch.arange(group.images, device=device) * group.tokens)
            if rows is not None:
                count = group.tokens - first  # patches of an image
                found.append(start + rows // count * group.tokens + first + rows % count)
            start += group.rows
        return torch.cat(found)

    def _draw_depth(
        self, groups: Sequence[Group], device: torch.device, generator: torch.Generator | None
    ) -> list[tuple[Kept, Kept] | None]:
        """Stochastic depth of a pass: for each block the images that take its two branches; None: all take both."""
        rate = self.config.drop_path_rate if self.training else 0.0
        if rate == 0:
            return [None] * len(self.blocks)
        draws = [draw_kept(groups, rate, device=device, generator=generator) for _ in range(2 * len(self.blocks))]
        return list(zip(draws[::2], draws[1::2], strict=True))

    def compile_blocks(self, **options: Any) -> None:
        """Compile each block with `torch.compile` and its `options`; the names of parameters stay."""
        for block in self.blocks:
            block.compile(**options)

    def forward_intermediate(self, images: Tensor, last: int) -> list[Features]:
        """Tokens after each of the last `last` blocks, each through the final norm; the final block's come last.

        Raises:
            ValueError: the model has fewer blocks.
        """
        first = len(self.blocks) - last
        if not 0 <= first < len(self.blocks):
            raise ValueError(f"the last {last} blocks of {len(self.blocks)}: 1 to {len(self.blocks)} can be asked for")
        tokens = self._embed(images, None)
        group = Group(tokens.shape[0], tokens.shape[1])
        x, found = tokens.flatten(0, 1), []
        rotations = self.draw_rotations([self._grid(images)], x)
        for number, (block, turns) in enumerate(zip(self.blocks, rotations, strict=True)):
            x = block(x, [group], rotations=turns)
            if number >= first:
                found.append(self._split(self.norm(x).view(*group, -1)))
        return found

    def _embed(self, images: Tensor, mask: Tensor | None) -> Tensor:
        """(B, 3, H, W) -> (B, 1 + R + N, D): cls, registers, patches; masked ones replaced, positions added."""
        side = self.config.patch_size
        height, width = images.shape[-2:]
        if height % side or width % side:
            raise ValueError(f"images of {height} x {width} px; both sides must be multiples of {side}")
        patches = self.patch_embed(images)  # (B, N, D)
        if mask is not None:
            if mask.shape != patches.shape[:2]:
                need = tuple(patches.shape[:2])
                raise ValueError(f"mask of shape {tuple(mask.shape)}; these patches need {need}")
            patches = torch.where(mask.unsqueeze(-1), self.mask_token.to(patches.dtype), patches)
        cls: Tensor = self.cls_token
        if self.pos_embed is not None:
            positions = self.positions(self._grid(images))
            cls, patches = cls + positions[:, :1], patches + positions[:, 1:]
        tokens = [cls.expand(images.shape[0], -1, -1), patches]
        if self.register_tokens is not None:
            tokens.insert(1, self.register_tokens.expand(images.shape[0], -1, -1))
        return torch.cat(tokens, dim=1)

    def positions(self, grid: tuple[int, int]) -> Tensor:
        """Position embeddings of cls and of a (rows, columns) grid of patches: (1, 1 + N, D), resampled if need be.

        Raises:
            ValueError: positions are rotary, and none are stored.
        """
        if self.pos_embed is None:
            raise ValueError("positions are rotary: no embeddings of them are stored")
        stored = self.config.grid
        if grid == (stored, stored):
            return self.pos_embed
        offset, antialias = self.config.resampling
        square = self.pos_embed[:, 1:].float().unflatten(1, (stored, stored)).permute(0, 3, 1, 2)
        # The released models ask for a scale instead of a size, and add 0.1 to the side so that rounding cannot lose a
        # patch; the interpolation then samples at slightly other places, which their weights are used to.
        target: dict[str, Any] = {"size": grid}
        if offset:
            target = {"scale_factor": tuple((side + offset) / stored for side in grid)}
        resized = F.interpolate(square, mode="bicubic", antialias=antialias, **target)
        assert resized.shape[-2:] == grid, (resized.shape, grid)
        resampled = resized.flatten(2).transpose(1, 2).to(self.pos_embed.dtype)
        return torch.cat([self.pos_embed[:, :1], resampled], dim=1)

    def _split(self, tokens: Tensor) -> Features:
        first = 1 + self.config.num_registers
        return Features(tokens[:, 0], tokens[:, 1:first], tokens[:, first:])
