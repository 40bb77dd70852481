"""Small ONNX files, and what they compute in NumPy."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import yaml
from onnx import TensorProto, helper, numpy_helper

SIDE, DIM = 8, 4
TYPES = {
    "float32": TensorProto.FLOAT,
    "float16": TensorProto.FLOAT16,
    "uint8": TensorProto.UINT8,
    "int8": TensorProto.INT8,
}


def kernel(take: str) -> np.ndarray:
    """Weights of the only convolution: of the whole picture, or of its four quarters."""
    side = SIDE if take == "vector" else SIDE // 2
    return np.random.default_rng(side).normal(size=(DIM, 3, side, side)).astype(np.float32)


def declaration(**changes: Any) -> dict[str, Any]:
    """The declaration of `save_onnx` with its defaults; `changes` go to the group that has such a key."""
    values: dict[str, Any] = {
        "input": {
            "name": "image",
            "layout": "nchw",
            "dtype": "float32",
            "channels": "rgb",
            "size": SIDE,
            "resize": "square",
            "interpolation": "bilinear",
        },
        "output": {"name": "embedding", "take": "vector", "dim": DIM, "normalized": False},
        "license": "CC0-1.0",
    }
    for key, value in changes.items():
        group = "output" if key in ("take", "dim", "normalized", "output_name") else "input"
        place = values if key in ("license", "data", "copies") else values[group]
        place["name" if key == "output_name" else key] = value
    return values


def write_declaration(file: Path, **changes: Any) -> None:
    Path(f"{file}.yaml").write_text(yaml.safe_dump(declaration(**changes)))


def save_onnx(
    file: Path,
    *,
    batch: int | str = "batch",
    change: Callable[[onnx.ModelProto], None] | None = None,
    **changes: Any,
) -> Path:
    """A convolution whose output is a vector, a map or tokens, with its declaration; `change` alters the graph."""
    declared = declaration(**changes)
    how, take = declared["input"], declared["output"]["take"]
    square = [SIDE, SIDE, 3] if how["layout"] == "nhwc" else [3, SIDE, SIDE]
    nodes, last = [helper.make_node("Cast", ["image"], ["values"], to=TensorProto.FLOAT)], "values"
    if how["layout"] == "nhwc":
        nodes.append(helper.make_node("Transpose", [last], ["channels_first"], perm=[0, 3, 1, 2]))
        last = "channels_first"
    nodes.append(helper.make_node("Conv", [last, "kernel"], ["map"], strides=list(kernel(take).shape[2:])))
    shape: Sequence[int | str] = [batch, DIM, 2, 2]
    weights = [numpy_helper.from_array(kernel(take), "kernel")]
    if take == "vector":
        nodes.append(helper.make_node("Flatten", ["map"], ["embedding"]))
        shape = [batch, DIM]
    elif take == "first_token":
        weights.append(numpy_helper.from_array(np.array([0, DIM, -1]), "flat"))
        nodes.append(helper.make_node("Reshape", ["map", "flat"], ["flattened"]))
        nodes.append(helper.make_node("Transpose", ["flattened"], ["embedding"], perm=[0, 2, 1]))
        shape = [batch, 4, DIM]
    else:
        nodes.append(helper.make_node("Identity", ["map"], ["embedding"]))
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("image", TYPES[how["dtype"]], [batch, *square])],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, shape)],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    if change is not None:
        change(model)
    file.write_bytes(model.SerializeToString())
    write_declaration(file, **changes)
    return file


def save_thumbnail(file: Path, **changes: Any) -> Path:
    """A graph whose vectors are the centered values of a thumbnail: alike for copies, unlike for other pictures."""
    graph = helper.make_graph(
        [helper.make_node("Flatten", ["image"], ["embedding"])],
        "thumbnail",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, SIDE, SIDE])],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["batch", 3 * SIDE * SIDE])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    file.write_bytes(model.SerializeToString())
    write_declaration(file, dim=3 * SIDE * SIDE, mean=[0.5] * 3, **changes)
    return file


def expected(values: np.ndarray, take: str) -> np.ndarray:
    """(B, D) float32 unit vectors of (B, 3, S, S) values, in the model's order of channels."""
    weights = kernel(take)
    side, vectors = weights.shape[2], []
    for top in range(0, SIDE, side):
        for left in range(0, SIDE, side):
            piece = values[:, :, top : top + side, left : left + side]
            vectors.append(np.einsum("bcij,dcij->bd", piece.astype(np.float64), weights.astype(np.float64)))
    found = np.mean(vectors, axis=0) if take == "mean" else vectors[0]
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)
