"""Floating-point operations of a model's forward pass, counted on its graph, without its weights where these are not
needed to know it."""

import math
from functools import lru_cache
from typing import Any

import torch
import torchvision
from torch import nn

from curate.errors import ConfigError
from curate.models.backbones import dinov2, sscd
from curate.models.backbones.load import describe, load_backbone
from curate.models.files.onnx_graph import read_graph
from curate.models.nets.config import ViTConfig, vit_config
from curate.models.nets.onnx_network import OnnxNetwork
from curate.models.nets.throughput import count_flops

PRODUCTS = frozenset({"Conv", "ConvInteger", "QLinearConv", "Gemm", "MatMul", "MatMulInteger", "QLinearMatMul"})
"""Operators of ONNX that count."""
SWIGLU = 3
"""Products of a SwiGLU layer; an MLP has two."""


@lru_cache(maxsize=16)
def forward_flops(model: str, weights: str | None = None) -> float:
    """flop of one image through `model`, a multiply-add counted as two.

    Args:
        weights: as in `load_backbone`.

    Raises:
        ConfigError: neither the architecture is known without the weights, nor are they here.
    """
    info = describe(model, weights)
    if info.model in dinov2.MODELS:
        return vit_flops(vit_config(dinov2.preset(info.model)), info.preprocess.size)
    if not info.has_weights:
        return 0.0
    if info.model in sscd.MODELS:  # a ResNet-50 with a linear head
        return picture_flops(torchvision.models.resnet50(num_classes=info.dim), info.preprocess.size)
    if info.weights_present:
        module = load_backbone(model, weights=weights, device="cpu", precision="fp32").module
        if isinstance(module, OnnxNetwork):
            return graph_flops(read_graph(module.file), module.declared.input.name, info.preprocess.size)
        return picture_flops(module, info.preprocess.size)
    raise ConfigError(
        f"{model}: its weights are not here, and its size is not known without them; {info.how_to_get}, or plan with "
        "a DINOv2 model of the same size"
    )


def picture_flops(module: nn.Module, side: int) -> float:
    """flop of one picture of `side` x `side` pixels, by running the module."""
    with torch.inference_mode():
        return float(count_flops(lambda: module.eval()(torch.zeros(1, 3, side, side))))


def graph_flops(graph: Any, name: str, side: int) -> float:
    """flop of one picture in an ONNX graph: products of its convolutions and matrices, by the shapes that ONNX infers.

    Args:
        graph: an onnx.ModelProto.
        name: of its input, the pictures.
        side: of a picture, pixels.

    Raises:
        ConfigError: a shape is not known.
    """
    import onnx

    pictures = next(value for value in graph.graph.input if value.name == name).type.tensor_type.shape.dim
    for axis, dim in enumerate(pictures):
        dim.dim_value = dim.dim_value or (side if axis else 1)
    inferred = onnx.shape_inference.infer_shapes(graph, data_prop=True).graph
    shapes = {tensor.name: list(tensor.dims) for tensor in inferred.initializer}
    for value in (*inferred.input, *inferred.value_info, *inferred.output):
        shapes[value.name] = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
    products = [node for node in inferred.node if node.op_type.removeprefix("Fused") in PRODUCTS]
    counts = [_product(node, shapes) for node in products]
    if not counts or not all(counts):
        raise ConfigError(
            "onnx: ONNX infers no shapes for the products of this graph, so its cost is not known; plan with a model "
            "of about its size"
        )
    return 2.0 * sum(counts) / (pictures[0].dim_value or 1)


def _product(node: Any, shapes: dict[str, list[int]]) -> int:
    """Multiply-adds of one node: values that it makes, times those that each is a sum of; 0: a shape is not known."""
    made = shapes.get(node.output[0], [])
    weight = shapes.get(node.input[3 if node.op_type.startswith("QLinear") else 1], [])
    if not made or not weight:
        return 0
    if "Conv" in node.op_type:  # (out, in / groups, height, width)
        return math.prod(made) * math.prod(weight[1:])
    summed = weight[-1] if node.op_type == "Gemm" and _flag(node, "transB") else weight[-2:][0]
    return math.prod(made) * summed


def _flag(node: Any, name: str) -> bool:
    return any(attribute.name == name and attribute.i for attribute in node.attribute)


def vit_flops(config: ViTConfig, side: int) -> float:
    """flop of one picture of `side` x `side` pixels: products of linears and attention, as the counter finds them."""
    patches = (side // config.patch_size) ** 2
    tokens, dim = 1 + config.num_registers + patches, config.dim
    if config.ffn == "swiglu":
        hidden = SWIGLU * 8 * math.ceil(8 * dim / 3 / 8)
    else:
        hidden = 2 * 4 * dim
    block = tokens * (4 * dim * dim + hidden * dim) + 2 * tokens * tokens * dim
    return 2.0 * (config.depth * block + patches * dim * config.in_channels * config.patch_size**2)
