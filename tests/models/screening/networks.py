"""Small ONNX files that stand in for the networks of screening: what they see is planted, and known."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FLOAT = TensorProto.FLOAT
SIDE = 32
"""Pixels of a planted face at the size at which the network looks at it."""


def save(file: Path, nodes, weights, *, inputs, outputs) -> Path:
    """A graph of these nodes; inputs and outputs are (name, shape)."""
    values = [[helper.make_tensor_value_info(name, FLOAT, shape) for name, shape in side] for side in (inputs, outputs)]
    tensors = [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, "stand-in", *values, tensors)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), file)
    return file


def save_face_finder(file: Path) -> Path:
    """A face is centered where a square of pure red surrounds it: confidence 1 within, 0 without; as CenterFace names
    and lays out its maps, its stated sizes among them."""
    sees = np.zeros((1, 3, SIDE, SIDE))
    sees[0, 0], sees[0, 1:] = 1 / (255 * SIDE * SIDE), -1 / (255 * SIDE * SIDE)
    weights = {"sees": sees, "bias": np.array([-0.5]), "times": np.array(2.0), "nothing": np.zeros((2, 1, 1, 1))}
    weights |= {"size": np.log(SIDE / 4) * np.ones((2,)), "blind": np.zeros((2, 1, 1, 1))}
    before, after = SIDE // 2 - 2, SIDE - (SIDE // 2 - 2) - 4
    pads = [before, before, after, after]
    nodes = [
        helper.make_node("Conv", ["input.1", "sees", "bias"], ["red"], strides=[4, 4], pads=pads),
        helper.make_node("Mul", ["red", "times"], ["more"]),
        helper.make_node("Clip", ["more", "low", "high"], ["537"]),
        helper.make_node("Conv", ["537", "blind", "size"], ["538"]),
        helper.make_node("Conv", ["537", "nothing"], ["539"]),
    ]
    weights |= {"low": np.array(0.0), "high": np.array(1.0)}
    outputs = [("537", [10, 1, 8, 8]), ("538", [10, 2, 8, 8]), ("539", [10, 2, 8, 8])]
    return save(file, nodes, weights, inputs=[("input.1", [10, 3, 32, 32])], outputs=outputs)


def save_nudity_scorer(file: Path) -> Path:
    """The share of red in what it sees, 0..1, as the second of two numbers that add up to 1."""
    take = np.zeros((224 * 224 * 3, 1))
    take[2::3] = 1 / (224 * 224 * 255)
    weights = {"take": take, "mean": np.array([[123 / 255]]), "one": np.array([[1.0]])}
    nodes = [
        helper.make_node("Flatten", ["input:0"], ["flat"]),
        helper.make_node("MatMul", ["flat", "take"], ["less"]),
        helper.make_node("Add", ["less", "mean"], ["red"]),
        helper.make_node("Sub", ["one", "red"], ["other"]),
        helper.make_node("Concat", ["other", "red"], ["outputs"], axis=1),
    ]
    shapes = {"inputs": [("input:0", ["n", 224, 224, 3])], "outputs": [("outputs", ["n", 2])]}
    return save(file, nodes, weights, **shapes)


def save_text_finder(file: Path) -> Path:
    """Text is what is white: the mean of the channels, from -1..1 to 0..1."""
    weights = {"mean": np.full((1, 3, 1, 1), 1 / 6), "half": np.array([0.5])}
    nodes = [helper.make_node("Conv", ["x", "mean", "half"], ["maps"])]
    return save(file, nodes, weights, inputs=[("x", ["n", 3, "h", "w"])], outputs=[("maps", ["n", 1, "h", "w"])])
