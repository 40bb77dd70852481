"""What a backbone computes for the patches of one picture: their features, and the attention that cls pays to them.

Attention kernels never show their weights. So the tokens that enter the block are caught by a hook, and the row of cls
alone is computed from them, by the block's own norm and projection.
"""

import copy
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from timm.models.vision_transformer import VisionTransformer as TimmViT
from torch import Tensor, nn

from curate.errors import ConfigError
from curate.models.backbones.backbone import Backbone
from curate.models.nets.features import Features
from curate.models.nets.rotary import Rotation
from curate.models.nets.tower import TimmTower
from curate.models.nets.trained import inner
from curate.models.nets.vit import VisionTransformer
from curate.ops.images.preprocess import INTERPOLATION

MAX_ASPECT = 2.0
"""Long side over short side of what is shown; longer pictures are cropped to their middle."""


class Inside(NamedTuple):
    """Values for the patches of one picture, row by row from the top left."""

    patches: np.ndarray  # (h, w, D) float32, after the last norm
    attention: np.ndarray | None  # (H, h, w) float32, of cls to the patches in one block; None: not asked for


def patch_side(backbone: Backbone) -> int:
    """Side, in pixels, of the square that one patch feature stands for.

    Raises:
        ConfigError: the model has no features of patches.
    """
    net = inner(backbone.module)
    if isinstance(net, VisionTransformer):
        return net.config.patch_size
    if isinstance(backbone.module, TimmTower) and backbone.module.config.token_size is not None:
        return backbone.module.config.token_size
    stages = getattr(net, "feature_info", None)
    if not stages or not hasattr(net, "forward_features"):
        raise ConfigError(
            f"{backbone.model}: gives one vector a picture and no features of patches; "
            "use a DINOv2 model, an export of `curate train` or timm/NAME"
        )
    return int(stages[-1]["reduction"])


def has_attention(backbone: Backbone) -> bool:
    """Whether the model has blocks in which a cls token attends to patches."""
    net = inner(backbone.module)
    if isinstance(net, TimmViT):
        return bool(net.has_class_token) and hasattr(net.blocks[0].attn, "qkv")
    return isinstance(net, VisionTransformer)


def num_blocks(backbone: Backbone) -> int:
    """Number of blocks in which a cls token attends to patches.

    Raises:
        ConfigError: the model has none.
    """
    net = inner(backbone.module)
    if has_attention(backbone):
        return len(net.blocks)
    raise ConfigError(
        f"{backbone.model}: no attention of a cls token to show ({type(net).__name__}); "
        "ask for the colors of its patch features alone (--no-attention), or use a ViT with a cls token"
    )


def fit_picture(picture: Image.Image, backbone: Backbone, *, short_edge: int) -> Image.Image:
    """The picture with a short edge of about `short_edge` pixels, its aspect kept, both sides rounded to whole patches.

    Raises:
        ConfigError: the model has no features of patches.
    """
    side = patch_side(backbone)
    width, height = picture.size
    wide, tall = (min(length, round(MAX_ASPECT * min(width, height))) for length in (width, height))
    left, top = (width - wide) // 2, (height - tall) // 2
    scale = short_edge / min(wide, tall) / side
    columns, rows = (max(1, round(length * scale)) for length in (wide, tall))
    middle = picture.crop((left, top, left + wide, top + tall))
    return middle.resize((columns * side, rows * side), INTERPOLATION[backbone.preprocess.interpolation])


@torch.inference_mode()
def look_inside(backbone: Backbone, picture: Image.Image, *, block: int | None = -1) -> Inside:
    """Run the model on one fitted picture, in float32.

    Args:
        picture: RGB, its sides multiples of `patch_side`.
        block: number of the block whose attention is wanted, negative ones from the end; None: no attention.

    Raises:
        ConfigError: no features of patches, no attention of a cls token, or no such block.
    """
    side = patch_side(backbone)
    grid = picture.height // side, picture.width // side
    index = None if block is None else _index(backbone, block)
    module = _sized(backbone.module, (picture.height, picture.width))
    watched = None if index is None else inner(module).blocks[index]
    rotation = _rotation(inner(module), grid, backbone.device)
    caught: list[Tensor] = []
    handle = watched.register_forward_pre_hook(lambda _, given: caught.append(given[0])) if watched else None
    try:
        patches = _patch_features(module, _normalized(backbone, picture), grid)
    finally:
        if handle is not None:
            handle.remove()
    attention = None
    if watched is not None:
        weights = _cls_weights(watched, caught[0].reshape(1, -1, patches.shape[-1]), rotation)[0]  # (H, T)
        attention = weights[:, -grid[0] * grid[1] :].unflatten(1, grid).float().cpu().numpy()
    return Inside(patches.float().cpu().numpy(), attention)


def _index(backbone: Backbone, block: int) -> int:
    count = num_blocks(backbone)
    if not -count <= block < count:
        raise ConfigError(f"{backbone.model}: no block {block}; it has {count}: 0 to {count - 1}, or -1 for the last")
    return block % count


def _normalized(backbone: Backbone, picture: Image.Image) -> Tensor:
    """(1, 3, H, W) float32 on the model's device."""
    pixels = torch.from_numpy(np.asarray(picture, np.float32).transpose(2, 0, 1) / 255)
    mean, std = (torch.tensor(of).view(3, 1, 1) for of in (backbone.preprocess.mean, backbone.preprocess.std))
    return ((pixels - mean) / std)[None].to(backbone.device)


def _sized(module: nn.Module, size: tuple[int, int]) -> nn.Module:
    """The model itself, or, of a timm model of fixed size, a copy that takes pictures of (height, width)."""
    net = inner(module)
    fixed = getattr(getattr(net, "patch_embed", None), "strict_img_size", False)
    if not fixed or not hasattr(net, "set_input_size"):
        return module
    other = copy.deepcopy(module)
    inner(other).set_input_size(img_size=size)
    return other


def _patch_features(module: Any, images: Tensor, grid: tuple[int, int]) -> Tensor:
    """Features of patches: (1, 3, H, W) -> (h, w, D)."""
    found = module.forward_features(images)
    if isinstance(found, Features):
        return found.patches[0].unflatten(0, grid)
    if found.ndim == 3:  # tokens: cls and registers first
        return found[0, -grid[0] * grid[1] :].unflatten(0, grid)
    return found[0] if found.shape[-1] == module.num_features else found[0].permute(1, 2, 0)


def _rotation(net: Any, grid: tuple[int, int], device: torch.device) -> Rotation | None:
    """The rotations of patches in a ViT of ours with rotary positions; None: it has none."""
    if not isinstance(net, VisionTransformer):
        return None
    found = net.draw_rotations([grid], torch.zeros(1, device=device))[0]
    return None if found is None else found[0]


def _cls_weights(block: Any, tokens: Tensor, rotation: Rotation | None) -> Tensor:
    """Attention weights of cls: (1, T, D) tokens that enter a block -> (1, H, T)."""
    normed, attention = block.norm1(tokens), block.attn
    if hasattr(attention, "cls_weights"):
        weights: Tensor = attention.cls_weights(normed, rotation)
        return weights
    q, k, _ = attention.qkv(normed).unflatten(-1, (3, attention.num_heads, -1)).permute(2, 0, 3, 1, 4)
    q, k = attention.q_norm(q[:, :, :1]), attention.k_norm(k)
    return (q @ k.transpose(-2, -1) * attention.scale).softmax(dim=-1).squeeze(2)
