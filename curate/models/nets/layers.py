"""Layers of the vision transformers of DINOv2 and DINOv3.

They work on one matrix (M, D) that holds the tokens of all images of all groups, one after another. Norms and linears
treat every row alike, so they are single calls whatever the sizes of the crops; attention, which must not mix images,
runs once for each group of images of equal length. On a CPU this took 0.4 s forward and backward where torch's jagged
nested tensors took 24 s (ViT-S); its attention on sequences of several lengths has no kernel for CPUs.

Norms and LayerScale are part of the layers that follow and precede them, so that less is kept for the backward pass:
see `lean`.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from curate.models.nets.config import ViTConfig
from curate.models.nets.depth import Group, Kept
from curate.models.nets.lean import KeylessLinear, activated_linear, add_rows, norm_linear, scaled_linear
from curate.models.nets.rotary import PatchRotation, Rotation, Rotations, rotate, rotate_tokens

SHORT = 512
"""Tokens of an image up to which its matrix of attention weights may be held at once."""


class PatchEmbed(nn.Module):
    """Cuts images into square patches and projects each to a token."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        side = config.patch_size
        self.proj = nn.Conv2d(config.in_channels, config.dim, kernel_size=side, stride=side)

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, N, D), patches row by row from the top left."""
        return self.proj(images).flatten(2).transpose(1, 2)


class Attention(nn.Module):
    """Multi-head self-attention among the tokens of each image."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.heads = config.heads
        kind = KeylessLinear if config.qkv_bias == "masked" else nn.Linear
        self.qkv: nn.Linear = kind(config.dim, 3 * config.dim, bias=config.qkv_bias != "none")
        self.proj = nn.Linear(config.dim, config.dim)

    def forward(
        self,
        x: Tensor,
        groups: Sequence[Group],
        norm: nn.LayerNorm,
        scale: "LayerScale",
        rotations: Rotations | None = None,
    ) -> Tensor:
        """(M, D) tokens of all groups -> (M, D); applies the layer norm before and LayerScale after itself."""
        qkv = norm_linear(x, norm, self.qkv)
        if rotations is not None:
            qkv = rotate(qkv, PatchRotation(groups, rotations, self.heads))
        parts = qkv.split([group.rows for group in groups])
        weight, bias = scaled_linear(self.proj, scale.gamma)
        # One product for each group: a single one would need, and keep, the concatenation of its inputs.
        mixed = [F.linear(self._attend(part, group), weight, bias) for part, group in zip(parts, groups, strict=True)]
        return mixed[0] if len(mixed) == 1 else torch.cat(mixed)

    def _attend(self, qkv: Tensor, group: Group) -> Tensor:
        q, k, v = qkv.view(*group, 3, self.heads, -1).permute(2, 0, 3, 1, 4)  # each (B, H, T, D/H)
        if qkv.device.type == "cpu" and qkv.dtype == torch.bfloat16 and group.tokens <= SHORT:
            # Backward, torch's fused kernel takes 2.5 to 4 times as long as this in bfloat16 on a CPU.
            mixed = (q * q.shape[-1] ** -0.5 @ k.transpose(-2, -1)).softmax(dim=-1) @ v
        else:
            mixed = F.scaled_dot_product_attention(q, k, v)
        return mixed.transpose(1, 2).reshape(group.rows, -1)

    def cls_weights(self, x: Tensor, rotation: Rotation | None = None) -> Tensor:
        """Attention weights of the cls token: (B, T, D) tokens after norm1 -> (B, H, T), each row summing to 1."""
        q, k, _ = self.qkv(x).unflatten(-1, (3, self.heads, -1)).unbind(2)  # each (B, T, H, D/H)
        k = k if rotation is None else rotate_tokens(k, rotation)
        q, k = q.transpose(1, 2), k.transpose(1, 2)
        return (q[:, :, :1] @ k.transpose(-2, -1) * q.shape[-1] ** -0.5).softmax(dim=-1).squeeze(2)


class Mlp(nn.Module):
    """Feed-forward layer of two linears with a GELU between them."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.fc1 = nn.Linear(config.dim, config.hidden)
        self.fc2 = nn.Linear(config.hidden, config.dim)

    def forward(self, x: Tensor, norm: nn.LayerNorm, scale: "LayerScale") -> Tensor:
        """(M, D) -> (M, D); applies the layer norm before and LayerScale after itself."""
        return activated_linear(norm_linear(x, norm, self.fc1), F.gelu, *scaled_linear(self.fc2, scale.gamma))


class SwiGlu(nn.Module):
    """Gated feed-forward layer, SiLU(gate) * value; `w12` projects to both at once.

    Source: Shazeer 2020, arXiv:2002.05202.
    """

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.w12 = nn.Linear(config.dim, 2 * config.hidden)
        self.w3 = nn.Linear(config.hidden, config.dim)

    def forward(self, x: Tensor, norm: nn.LayerNorm, scale: "LayerScale") -> Tensor:
        """(M, D) -> (M, D); applies the layer norm before and LayerScale after itself."""
        return activated_linear(norm_linear(x, norm, self.w12), _gate, *scaled_linear(self.w3, scale.gamma))


def _gate(x: Tensor) -> Tensor:
    gate, value = x.chunk(2, dim=-1)
    return F.silu(gate) * value


class LayerScale(nn.Module):
    """A learned factor for each channel of a residual branch, applied inside the branch's last linear.

    Source: Touvron et al. 2021, arXiv:2103.17239.
    """

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.init = config.layer_scale_init
        self.gamma = nn.Parameter(torch.full((config.dim,), self.init))


class Block(nn.Module):
    """One transformer block, with stochastic depth in training."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.dim, eps=config.norm_eps)
        self.attn = Attention(config)
        self.ls1 = LayerScale(config)
        self.norm2 = nn.LayerNorm(config.dim, eps=config.norm_eps)
        self.mlp: nn.Module = Mlp(config) if config.ffn == "mlp" else SwiGlu(config)
        self.ls2 = LayerScale(config)

    def forward(
        self,
        x: Tensor,
        groups: Sequence[Group],
        kept: tuple[Kept, Kept] | None = None,
        needed: Tensor | None = None,
        rotations: Rotations | None = None,
    ) -> Tensor:
        """Tokens (M, D) of all groups after attention and the feed-forward layer.

        Without stochastic depth this is x + attention(x), then x + feed_forward(x). With it, each branch runs on the
        tokens of the images that take it alone, and its output is added to their rows, scaled up so that the
        expectation stays. A mask over all images would be simpler, but skipped images would cost as much as others.

        Three things make this hard. Activation checkpointing runs a block a second time in the backward pass, and must
        find the same images skipped: so they are drawn before and handed in, and a block has no randomness of its own.
        The sums want to be in place, since a copy of all tokens is the largest tensor around: the first one must not
        be, as checkpointing needs the block's input again, but nothing needs what lies between the branches, so that
        the second one may overwrite it. And in the last block most tokens are read by nobody (of a local crop only
        cls): `needed` keeps them out of the feed-forward layer, which is two thirds of a block's products.

        Args:
            kept: the images that take attention, and those that take the feed-forward layer; None: all take both.
            needed: rows of x (K,) that are read after this block; None: all.
            rotations: of the patches of each group, where positions are rotary.

        Returns:
            (M, D), or (K, D) in the order of `needed`.
        """
        if kept is None:
            x = x + self._mix(x, groups, rotations)
            x = x if needed is None else x.index_select(0, needed)
            return x + self._feed(x)
        mix, feed = kept
        x = add_rows(x, mix.rows, self._mix(x.index_select(0, mix.rows), mix.groups, rotations), mix.scale)
        if needed is None:
            return add_rows(x, feed.rows, self._feed(x.index_select(0, feed.rows)), feed.scale, in_place=True)
        # Needed rows of images that skip the branch are computed and get the factor 0: how many they are, and so the
        # shape of a product without them, is known on the device alone, and the host would have to wait for it.
        scale = feed.scale.new_zeros(len(x), 1).index_copy(0, feed.rows, feed.scale).index_select(0, needed)
        x = x.index_select(0, needed)
        return x + (self._feed(x) * scale).to(x.dtype)

    def _mix(self, x: Tensor, groups: Sequence[Group], rotations: Rotations | None) -> Tensor:
        return self.attn(x, groups, self.norm1, self.ls1, rotations)

    def _feed(self, x: Tensor) -> Tensor:
        return self.mlp(x, self.norm2, self.ls2)
