"""Floating-point operations of a model's forward pass, counted on its graph, without its weights where these are not
needed to know it."""

import math
from functools import lru_cache
from typing import Any

import numpy as np
import torch
import torchvision
from torch import nn

from curate.errors import ConfigError
from curate.models.backbones import dinov2, dinov3, sscd
from curate.models.backbones.load import describe, load_backbone
from curate.models.files.onnx_graph import add_outputs, read_graph
from curate.models.nets.config import ViTConfig, vit_config
from curate.models.nets.onnx_network import TYPES, OnnxNetwork, open_session
from curate.models.nets.throughput import count_flops

PRODUCTS = frozenset({"Conv", "ConvInteger", "QLinearConv", "Gemm", "MatMul", "MatMulInteger", "QLinearMatMul"})
"""Operators of ONNX that count."""
SWIGLU, MLP = 3, 2
"""Products of a feed-forward layer."""


@lru_cache(maxsize=16)
def forward_flops(model: str, weights: str | None = None) -> float:
    """flop of one image through `model`, a multiply-add counted as two.

    Args:
        weights: as in `load_backbone`.

    Raises:
        ConfigError: neither the architecture is known without the weights, nor are they here.
    """
    info = describe(model, weights)
    for family in (dinov2, dinov3):
        if info.model in family.MODELS:
            return vit_flops(vit_config(family.preset(info.model)), info.preprocess.size)
    if not info.has_weights:
        return 0.0
    if info.model in sscd.MODELS:  # a ResNet-50 with a linear head
        return picture_flops(torchvision.models.resnet50(num_classes=info.dim), info.preprocess.size)
    if info.weights_present:
        module = load_backbone(model, weights=weights, device="cpu", precision="fp32").module
        if isinstance(module, OnnxNetwork):
            return graph_flops(module)
        return picture_flops(module, info.preprocess.size)
    raise ConfigError(
        f"{model}: its weights are not here, and its size is not known without them; {info.how_to_get}, or plan with "
        "a DINOv2 model of the same size"
    )


def picture_flops(module: nn.Module, side: int) -> float:
    """flop of one picture of `side` x `side` pixels, by running the module."""
    with torch.inference_mode():
        return float(count_flops(lambda: module.eval()(torch.zeros(1, 3, side, side))))


def graph_flops(network: OnnxNetwork) -> float:
    """flop of one picture in an ONNX graph: products of its convolutions and matrices.

    Shapes that ONNX infers are unknown behind a reshape by the number of pictures; so the graph runs once, and shows
    what its products make.

    Raises:
        ConfigError: weights lie beside the graph, or a product is of an unknown kind.
    """
    model, how = read_graph(network.file), network.declared.input
    products = [node for node in model.graph.node if node.op_type in PRODUCTS]
    if network.declared.data or not products:
        raise ConfigError(
            f"{network.file}: its cost is not known (products: {len(products)}, weights beside it: "
            f"{len(network.declared.data)}); plan with a model of about its size"
        )
    shapes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    asked = {name for node in products for name in (node.output[0], _weight(node))} - shapes.keys()
    session = open_session(add_outputs(model, asked), torch.device("cpu"), num_threads=torch.get_num_threads())
    batch, side = network.batch or 1, how.size
    square = (side, side, 3) if how.layout == "nhwc" else (3, side, side)
    found = session.run(sorted(asked), {how.name: np.zeros((batch, *square), TYPES[how.dtype])})
    shapes.update(zip(sorted(asked), (np.shape(value) for value in found), strict=True))
    return 2.0 * sum(_product(node, shapes) for node in products) / batch


def _weight(node: Any) -> str:
    """Name of the second factor."""
    return str(node.input[3 if node.op_type.startswith("QLinear") else 1])


def _product(node: Any, shapes: dict[str, tuple[int, ...]]) -> int:
    """Multiply-adds of one node: values that it makes, times those that each is a sum of."""
    made, weight = shapes[node.output[0]], shapes[_weight(node)]
    if "Conv" in node.op_type:  # (out, in / groups, height, width)
        return math.prod(made) * math.prod(weight[1:])
    return math.prod(made) * (weight[-1] if node.op_type == "Gemm" and _flag(node, "transB") else weight[-2:][0])


def _flag(node: Any, name: str) -> bool:
    return any(attribute.name == name and attribute.i for attribute in node.attribute)


def vit_flops(config: ViTConfig, side: int) -> float:
    """flop of one picture of `side` x `side` pixels: products of linears and attention, as the counter finds them."""
    patches = (side // config.patch_size) ** 2
    tokens, dim = 1 + config.num_registers + patches, config.dim
    products = SWIGLU if config.ffn == "swiglu" else MLP
    block = tokens * (4 * dim * dim + products * config.hidden * dim) + 2 * tokens * tokens * dim
    return 2.0 * (config.depth * block + patches * dim * config.in_channels * config.patch_size**2)
