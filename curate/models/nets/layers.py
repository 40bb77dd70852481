"""Layers of the DINOv2 vision transformer, on the concatenated tokens of several groups of images."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from curate.models.nets.config import NORM_EPS, ViTConfig
from curate.models.nets.depth import Group, Kept
from curate.models.nets.lean import activated_linear, add_rows, norm_linear, scaled_linear

SHORT = 512
"""Tokens up to which all pairs of an image's tokens may be held at once."""


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
