"""The DINOv2 vision transformer, with the parameter names of its torch.hub checkpoints.

One class serves embedding and pretraining. All crop groups of a step travel through one pass: their tokens
lie concatenated in one (M, D) matrix, so that norms and linears are single calls, and only attention, which
must not cross images, runs per group of equal length.

Source: Oquab et al. 2023, arXiv:2304.07193; registers: Darcet et al. 2023, arXiv:2309.16588.
"""

import difflib
import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from curate.config import Settings, parse
from curate.errors import ConfigError
from curate.models.nets.depth import Group, Kept, draw_kept
from curate.models.nets.lean import (
    activated_linear,
    add_rows,
    leaves_holes,
    norm_linear,
    release_holes_around,
    scaled_linear,
)

NORM_EPS = 1e-6
RELEASE_EVERY = 6
"""Blocks between the moments at which freed memory between kept tensors goes back to the system."""
SHORT = 512
"""Tokens up to which all pairs of an image's tokens may be held at once."""


class ViTConfig(Settings):
    """The architecture of a DINOv2 ViT."""

    dim: int = Field(ge=1)
    """Width of a token."""
    depth: int = Field(ge=1)
    """Number of blocks."""
    heads: int = Field(ge=1)
    """Attention heads; divides `dim`."""
    ffn: Literal["mlp", "swiglu"] = "mlp"
    """Feed-forward layer: GELU MLP of 4 x dim, or SwiGLU of 8/3 x dim rounded up to a multiple of 8."""
    num_registers: int = Field(default=0, ge=0)
    """Extra tokens without position that are neither pooled nor patches."""
    patch_size: int = Field(default=14, ge=1)
    """Side of a patch, pixels."""
    image_size: int = Field(default=518, ge=1)
    """Side of the square image whose grid the position embeddings hold, pixels; released models: 518."""
    in_channels: int = Field(default=3, ge=1)
    """Colour channels."""
    drop_path_rate: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Share of a batch that skips a residual branch in training, equal in all blocks."""
    layer_scale_init: float = 1e-5
    """Start of the LayerScale gammas."""
    interpolate_offset: float | None = None
    """Patches added to the wanted grid when positions are resampled; null: 0.1 without registers, else 0."""
    interpolate_antialias: bool | None = None
    """Antialias the resampling of positions; null: only with registers."""

    @model_validator(mode="after")
    def _fits_together(self) -> "ViTConfig":
        if self.dim % self.heads:
            raise ValueError(f"dim {self.dim} is not a multiple of heads {self.heads}")
        if self.image_size % self.patch_size:
            raise ValueError(f"image_size {self.image_size} is no multiple of patch_size {self.patch_size}")
        return self

    @property
    def grid(self) -> int:
        """Patches along one side of the stored position embeddings."""
        return self.image_size // self.patch_size

    @property
    def hidden(self) -> int:
        """Width inside the feed-forward layer."""
        if self.ffn == "mlp":
            return 4 * self.dim
        return (int(4 * self.dim * 2 / 3) + 7) // 8 * 8

    @property
    def resampling(self) -> tuple[float, bool]:
        """(offset in patches, antialias) of the resampling of positions, as in the released models."""
        offset, antialias = self.interpolate_offset, self.interpolate_antialias
        return (
            (0.0 if self.num_registers else 0.1) if offset is None else offset,
            self.num_registers > 0 if antialias is None else antialias,
        )


PRESETS: dict[str, dict[str, Any]] = {
    "vit_tiny": {"dim": 192, "depth": 12, "heads": 3},
    "vit_small": {"dim": 384, "depth": 12, "heads": 6},
    "vit_base": {"dim": 768, "depth": 12, "heads": 12},
    "vit_large": {"dim": 1024, "depth": 24, "heads": 16},
    "vit_giant": {"dim": 1536, "depth": 40, "heads": 24, "ffn": "swiglu"},
}
PRESETS |= {f"{name}_reg4": {**preset, "num_registers": 4} for name, preset in PRESETS.items()}


def vit_config(name: str, **changes: Any) -> ViTConfig:
    """The preset `name` with fields changed.

    Raises:
        ConfigError: no such preset, or a field that does not fit.
    """
    if name not in PRESETS:
        near = difflib.get_close_matches(name, PRESETS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known are: {', '.join(PRESETS)}"
        raise ConfigError(f"{name}: no such ViT preset; {hint}")
    return parse(ViTConfig, PRESETS[name] | changes, where=name)


class Features(NamedTuple):
    """Tokens after the final norm."""

    cls: Tensor  # (B, D)
    registers: Tensor  # (B, R, D)
    patches: Tensor  # (B, N, D), row by row from the top left


class Needed(NamedTuple):
    """The tokens that were asked for, after the final norm."""

    cls: Tensor  # (B, D)
    patches: Tensor  # (M, D)


class PatchEmbed(nn.Module):
    """Cuts images into patches and projects each."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        side = config.patch_size
        self.proj = nn.Conv2d(config.in_channels, config.dim, kernel_size=side, stride=side)

    def forward(self, images: Tensor) -> Tensor:
        return self.proj(images).flatten(2).transpose(1, 2)  # (B, N, D)


class Attention(nn.Module):
    """Self-attention inside each image; the linears see the tokens of all groups at once."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.qkv = nn.Linear(config.dim, 3 * config.dim)
        self.proj = nn.Linear(config.dim, config.dim)

    def forward(self, x: Tensor, groups: Sequence[Group], norm: nn.LayerNorm, scale: "LayerScale") -> Tensor:
        """(M, D) -> (M, D), the norm before it and LayerScale after it included."""
        parts = norm_linear(x, norm, self.qkv).split([group.rows for group in groups])
        weight, bias = scaled_linear(self.proj, scale.gamma)  # a product for each group: their join need not be kept
        mixed = [F.linear(self._attend(part, group), weight, bias) for part, group in zip(parts, groups, strict=True)]
        return mixed[0] if len(mixed) == 1 else torch.cat(mixed)

    def _attend(self, qkv: Tensor, group: Group) -> Tensor:
        q, k, v = qkv.view(*group, 3, self.heads, -1).permute(2, 0, 3, 1, 4)  # each (B, H, T, D/H)
        if qkv.device.type == "cpu" and qkv.dtype == torch.bfloat16 and group.tokens <= SHORT:
            # torch's own kernel takes 2.5 to 4 times as long backward in bfloat16 on a CPU.
            mixed = (q * q.shape[-1] ** -0.5 @ k.transpose(-2, -1)).softmax(dim=-1) @ v
        else:
            mixed = F.scaled_dot_product_attention(q, k, v)
        return mixed.transpose(1, 2).reshape(group.rows, -1)

    def cls_weights(self, x: Tensor) -> Tensor:
        """(B, T, D) tokens after norm1 -> (B, H, T): the shares of attention that cls pays to all tokens."""
        q, k, _ = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # each (B, H, T, D/H)
        return (q[:, :, :1] @ k.transpose(-2, -1) * q.shape[-1] ** -0.5).softmax(dim=-1).squeeze(2)


class Mlp(nn.Module):
    """Two linears with a GELU between."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.fc1 = nn.Linear(config.dim, config.hidden)
        self.fc2 = nn.Linear(config.hidden, config.dim)

    def forward(self, x: Tensor, norm: nn.LayerNorm, scale: "LayerScale") -> Tensor:
        """(M, D) -> (M, D), the norm before it and LayerScale after it included."""
        return activated_linear(norm_linear(x, norm, self.fc1), F.gelu, *scaled_linear(self.fc2, scale.gamma))


class SwiGlu(nn.Module):
    """Gated feed-forward layer; `w12` holds gate and value in one matrix."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.w12 = nn.Linear(config.dim, 2 * config.hidden)
        self.w3 = nn.Linear(config.hidden, config.dim)

    def forward(self, x: Tensor, norm: nn.LayerNorm, scale: "LayerScale") -> Tensor:
        """(M, D) -> (M, D), the norm before it and LayerScale after it included."""
        return activated_linear(norm_linear(x, norm, self.w12), _gate, *scaled_linear(self.w3, scale.gamma))


def _gate(x: Tensor) -> Tensor:
    gate, value = x.chunk(2, dim=-1)
    return F.silu(gate) * value


class LayerScale(nn.Module):
    """A learned factor per channel on a residual branch, which the branch's last linear takes in."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.init = config.layer_scale_init
        self.gamma = nn.Parameter(torch.full((config.dim,), self.init))


class Block(nn.Module):
    """One transformer block on concatenated tokens, with stochastic depth per crop group in training."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.dim, eps=NORM_EPS)
        self.attn = Attention(config)
        self.ls1 = LayerScale(config)
        self.norm2 = nn.LayerNorm(config.dim, eps=NORM_EPS)
        self.mlp: nn.Module = Mlp(config) if config.ffn == "mlp" else SwiGlu(config)
        self.ls2 = LayerScale(config)

    def forward(
        self,
        x: Tensor,
        groups: Sequence[Group],
        kept: tuple[Kept, Kept] | None = None,
        needed: Tensor | None = None,
    ) -> Tensor:
        """(M, D) with M the rows of all groups -> (M, D), or as many rows as are needed.

        Args:
            kept: who takes attention and the feed-forward layer; drawn before, so that a block has no randomness of its
                own and runs the same when activation checkpointing runs it again.
            needed: the rows of x that anyone looks at after this block; None: all.
        """
        if kept is None:
            x = x + self._mix(x, groups)
            x = x if needed is None else x.index_select(0, needed)
            return x + self._feed(x)
        mix, feed = kept
        # Checkpointing needs the input again, but nothing needs what is between the branches: one copy a block.
        x = add_rows(x, mix.rows, self._mix(x.index_select(0, mix.rows), mix.groups), mix.scale)
        if needed is None:
            return add_rows(x, feed.rows, self._feed(x.index_select(0, feed.rows)), feed.scale, in_place=True)
        # Those who skip the branch pass it with factor 0: to leave them out, the host would wait for their number.
        scale = feed.scale.new_zeros(len(x), 1).index_copy(0, feed.rows, feed.scale).index_select(0, needed)
        x = x.index_select(0, needed)
        return x + (self._feed(x) * scale).to(x.dtype)

    def _mix(self, x: Tensor, groups: Sequence[Group]) -> Tensor:
        return self.attn(x, groups, self.norm1, self.ls1)

    def _feed(self, x: Tensor) -> Tensor:
        return self.mlp(x, self.norm2, self.ls2)


class VisionTransformer(nn.Module):
    """DINOv2's ViT; its `state_dict` keys are those of the torch.hub checkpoints."""

    def __init__(self, config: ViTConfig, *, generator: torch.Generator | None = None) -> None:
        """Build the model with fresh weights drawn from `generator` (None: torch's global one)."""
        super().__init__()
        self.config = config
        self.checkpoints_blocks = False
        """Whether blocks run a second time in the backward pass instead of keeping their activations."""
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + config.grid**2, config.dim))
        self.register_tokens = (
            nn.Parameter(torch.zeros(1, config.num_registers, config.dim)) if config.num_registers else None
        )
        self.mask_token = nn.Parameter(torch.zeros(1, config.dim))
        self.patch_embed = PatchEmbed(config)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.dim, eps=NORM_EPS)
        self.init_weights(generator)

    @torch.no_grad()
    def init_weights(self, generator: torch.Generator | None = None) -> None:
        """Fill every parameter afresh, as the recipe says; needed too after `to_empty` on the meta device."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02, generator=generator)
                nn.init.zeros_(module.bias)
            elif isinstance(module, nn.LayerNorm):
                nn.init.ones_(module.weight)
                nn.init.zeros_(module.bias)
            elif isinstance(module, LayerScale):
                nn.init.constant_(module.gamma, module.init)
        projection = self.patch_embed.proj
        bound = 1 / math.sqrt(projection.weight[0].numel())  # torch's own rule for convolutions
        nn.init.uniform_(projection.weight, -bound, bound, generator=generator)
        if projection.bias is not None:
            nn.init.uniform_(projection.bias, -bound, bound, generator=generator)
        nn.init.trunc_normal_(self.pos_embed, std=0.02, generator=generator)
        nn.init.normal_(self.cls_token, std=1e-6, generator=generator)
        if self.register_tokens is not None:
            nn.init.normal_(self.register_tokens, std=1e-6, generator=generator)
        nn.init.zeros_(self.mask_token)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) normalised images -> (B, D), the cls token after the final norm."""
        return self.forward_features(images).cls

    def forward_features(self, images: Tensor, masks: Tensor | None = None) -> Features:
        """All tokens of one group of crops; `masks` is (B, N) bool, True where mask_token stands in."""
        return self.forward_crops([images], [masks])[0]

    def forward_crops(
        self,
        crops: Sequence[Tensor],
        masks: Sequence[Tensor | None] | None = None,
        *,
        generator: torch.Generator | None = None,
    ) -> list[Features]:
        """All groups of crops in one pass.

        Under FSDP2, name this method and the next to `register_fsdp_forward_method`: its hooks sit on `forward`.

        Args:
            crops: groups of (B_g, 3, H_g, W_g) normalised images; sides are multiples of the patch size.
            masks: for each group (B_g, N_g) bool, or None; None: nothing is masked.
            generator: draws stochastic depth; None: torch's global one.

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
    ) -> list[Needed]:
        """As `forward_crops`, but of each group the cls tokens and the patches that a loss reads.

        The other tokens take part in attention; the last feed-forward layer, two thirds of a block, leaves them out.

        Args:
            patches: for each group the (M_g,) rows wanted of its (B_g * N_g, D) patches, or None; None: cls alone.
        """
        patches = [None] * len(crops) if patches is None else patches
        x, groups = self._encode(crops, masks, patches, generator)
        sizes = [(group.images, 0 if rows is None else len(rows)) for group, rows in zip(groups, patches, strict=True)]
        parts = x.split([size for pair in sizes for size in pair])
        return [Needed(*pair) for pair in zip(parts[::2], parts[1::2], strict=True)]

    def _encode(
        self,
        crops: Sequence[Tensor],
        masks: Sequence[Tensor | None] | None,
        patches: Sequence[Tensor | None] | None,
        generator: torch.Generator | None,
    ) -> tuple[Tensor, list[Group]]:
        """Tokens (M, D) after the final norm: of all groups, or, group by group, their cls tokens and `patches`."""
        masks = [None] * len(crops) if masks is None else masks
        embedded = [self._embed(images, mask) for images, mask in zip(crops, masks, strict=True)]
        groups = [Group(tokens.shape[0], tokens.shape[1]) for tokens in embedded]
        x = torch.cat([tokens.flatten(0, 1) for tokens in embedded])  # (M, D)
        needed = None if patches is None else self._find(groups, patches, x.device)
        draws = self._draw(groups, x.device, generator)
        full_of_holes = leaves_holes(x)
        for number, (block, kept) in enumerate(zip(self.blocks, draws, strict=True), start=1):
            rows = needed if number == len(self.blocks) else None
            if self.checkpoints_blocks and torch.is_grad_enabled():
                x = checkpoint(block, x, groups, kept, rows, use_reentrant=False, preserve_rng_state=False)
            else:
                x = block(x, groups, kept, rows)
            if full_of_holes and number % RELEASE_EVERY == 0:
                release_holes_around(x)
        return self.norm(x), groups

    def _find(self, groups: Sequence[Group], patches: Sequence[Tensor | None], device: torch.device) -> Tensor:
        """Rows among the tokens of all groups: of each group its cls tokens, then `patches` of its (B * N, D) ones."""
        first, start, found = 1 + self.config.num_registers, 0, []
        for group, rows in zip(groups, patches, strict=True):
            found.append(start + torch.arange(group.images, device=device) * group.tokens)
            if rows is not None:
                count = group.tokens - first  # patches of an image
                found.append(start + rows // count * group.tokens + first + rows % count)
            start += group.rows
        return torch.cat(found)

    def _draw(
        self, groups: Sequence[Group], device: torch.device, generator: torch.Generator | None
    ) -> list[tuple[Kept, Kept] | None]:
        """Stochastic depth of a pass: for each block who takes its two branches; None: everyone."""
        rate = self.config.drop_path_rate if self.training else 0.0
        if rate == 0:
            return [None] * len(self.blocks)
        draws = [draw_kept(groups, rate, device=device, generator=generator) for _ in range(2 * len(self.blocks))]
        return list(zip(draws[::2], draws[1::2], strict=True))

    def compile_blocks(self, **options: Any) -> None:
        """Let `torch.compile` make each block's kernels at its first call; names of parameters stay.

        Args:
            options: of `torch.compile`.
        """
        for block in self.blocks:
            block.compile(**options)

    def forward_intermediate(self, images: Tensor, last: int) -> list[Features]:
        """Tokens after each of the last `last` blocks, through the final norm; those of the final block come last.

        Raises:
            ValueError: the model has fewer blocks.
        """
        first = len(self.blocks) - last
        if not 0 <= first < len(self.blocks):
            raise ValueError(f"the last {last} blocks of {len(self.blocks)}: 1 to {len(self.blocks)} can be asked for")
        tokens = self._embed(images, None)
        group = Group(tokens.shape[0], tokens.shape[1])
        x, found = tokens.flatten(0, 1), []
        for number, block in enumerate(self.blocks):
            x = block(x, [group])
            if number >= first:
                found.append(self._split(self.norm(x).view(*group, -1)))
        return found

    def _embed(self, images: Tensor, mask: Tensor | None) -> Tensor:
        """(B, 3, H, W) -> (B, 1 + R + N, D): patches masked, cls put before, positions, then registers."""
        side = self.config.patch_size
        height, width = images.shape[-2:]
        if height % side or width % side:
            raise ValueError(f"images of {height} x {width} px; both sides must be multiples of {side}")
        grid = height // side, width // side
        patches = self.patch_embed(images)  # (B, N, D)
        if mask is not None:
            if mask.shape != patches.shape[:2]:
                need = tuple(patches.shape[:2])
                raise ValueError(f"mask of shape {tuple(mask.shape)}; these patches need {need}")
            patches = torch.where(mask.unsqueeze(-1), self.mask_token.to(patches.dtype), patches)
        positions = self.positions(grid)
        cls = (self.cls_token + positions[:, :1]).expand(images.shape[0], -1, -1)
        tokens = [cls, patches + positions[:, 1:]]
        if self.register_tokens is not None:
            tokens.insert(1, self.register_tokens.expand(images.shape[0], -1, -1))
        return torch.cat(tokens, dim=1)

    def positions(self, grid: tuple[int, int]) -> Tensor:
        """Position embeddings of cls and of a (rows, columns) grid: (1, 1 + N, D)."""
        stored = self.config.grid
        if grid == (stored, stored):
            return self.pos_embed
        offset, antialias = self.config.resampling
        square = self.pos_embed[:, 1:].float().unflatten(1, (stored, stored)).permute(0, 3, 1, 2)
        # The released models give a scale and not a size, so that the offset shifts every sample a little.
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
