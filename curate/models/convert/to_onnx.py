"""An ONNX graph: input `images` (B, 3, S, S), normalized float32; outputs `cls` (B, D) and `patches` (B, N, D).

B is free and S is fixed: a ViT's positions are constants of the graph, so each size needs a file of its own. Weights
of more than 2 GB, which ONNX cannot hold, lie beside the graph in a .data file. A declaration beside it makes the
graph a backbone again (`backbones/onnx_file.py`), whose vectors are `cls`.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from curate.errors import ConfigError, MissingExtra, WeightsError, first_line
from curate.models.convert.source import LoadedBackbone
from curate.models.convert.target import Forward, Options, Target, Tokens
from curate.models.files.declaration import Declaration, DeclaredInput, DeclaredOutput, write_declaration
from curate.models.nets.trained import Trained

OPSET = 18
"""The oldest version of operators that torch writes, so that most runtimes read it."""
INPUT, OUTPUTS = "images", ("cls", "patches")
LARGEST = 1 << 31
"""Bytes that a protobuf message, and so the graph, can hold."""


class Graph(nn.Module):
    """The network with the outputs that are exported; registers are not among them."""

    def __init__(self, network: Trained) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, S, S) -> cls (B, D) and patches (B, N, D)."""
        found = self.network.forward_features(images)
        return found.cls, found.patches


def write_onnx(source: LoadedBackbone, path: Path, options: Options) -> None:
    """Trace the network at its image size and write the graph.

    Raises:
        MissingExtra: onnx or onnxscript is not installed.
        ConfigError: an opset that torch does not write.
        WeightsError: torch or ONNX refuses the network.
    """
    try:
        import onnx
        import onnxscript  # noqa: F401  # torch.onnx needs it
    except ImportError as error:
        raise MissingExtra(error.name or "onnx", "onnx") from error
    opset = OPSET if options.opset is None else options.opset
    if opset < OPSET:
        raise ConfigError(
            f"--opset {opset}: torch writes {OPSET} and newer; leave it out, or convert the file with onnx"
        )
    size = source.image_size
    example = torch.zeros(2, 3, size, size)
    try:
        program: Any = torch.onnx.export(
            Graph(source.network).eval(),
            (example,),
            input_names=[INPUT],
            output_names=list(OUTPUTS),
            dynamic_shapes={INPUT: {0: torch.export.Dim("batch", min=1)}},
            opset_version=opset,
            dynamo=True,
            verbose=False,
        )
    except (torch.onnx.OnnxExporterError, RuntimeError, ValueError) as error:
        raise WeightsError(f"{source.name}: torch cannot write it as ONNX: {first_line(error)}") from error
    _forget_the_trace(program.model)
    program.model.metadata_props.update(properties(source))
    weights = sum(value.numel() * value.element_size() for value in source.network.state_dict().values())
    program.save(path, external_data=weights + (64 << 20) > LARGEST)
    onnx.checker.check_model(path)
    data = path.with_name(path.name + ".data")
    write_declaration(path, declare(source, data=[data.name] if data.exists() else []))
    written = onnx.load(path, load_external_data=False).opset_import[0].version
    if written != opset:
        raise ConfigError(f"--opset {opset}: torch wrote {written} instead; leave it out, or give {written}")


def _forget_the_trace(model: Any) -> None:
    """Remove what torch notes at every node: lines of code, with paths of this machine."""
    model.graph.doc_string = None
    model.metadata_props.clear()
    model.graph.metadata_props.clear()
    for value in (*model.graph.inputs, *model.graph.initializers.values()):
        value.metadata_props.clear()
    for node in model.graph.all_nodes():
        node.metadata_props.clear()
        for value in node.outputs:
            value.metadata_props.clear()


def properties(source: LoadedBackbone) -> dict[str, str]:
    """The `metadata_props` of the graph: how pictures are preprocessed for it, and where it comes from."""
    info = source.info
    return {
        "image_size": str(source.image_size),
        "short_edge": str(info.short_edge),
        "interpolation": info.interpolation,
        "mean": json.dumps(info.mean),
        "std": json.dumps(info.std),
        "license": info.license,
        "provenance": json.dumps(info.provenance, sort_keys=True),
    }


def declare(source: LoadedBackbone, *, data: Sequence[str]) -> Declaration:
    """What the graph does not say of itself.

    Args:
        data: files beside it that hold weights.
    """
    info, size = source.info, source.image_size
    return Declaration(
        input=DeclaredInput(
            name=INPUT,
            layout="nchw",
            dtype="float32",
            channels="rgb",
            size=size,
            resize=info.resize,
            short_edge=max(size, info.short_edge),
            interpolation=info.interpolation,
            mean=info.mean,
            std=info.std,
        ),
        output=DeclaredOutput(name=OUTPUTS[0], take="vector", dim=source.network.config.dim, normalized=False),
        license=info.license,
        data=tuple(data),
    )


def read_onnx(source: LoadedBackbone, path: Path) -> Forward:
    """Load with onnxruntime, on the CPU.

    Raises:
        MissingExtra: onnxruntime is not installed.
    """
    del source
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtra("onnxruntime", "onnx") from error
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def embed(images: Tensor) -> Tokens:
        return Tokens(*map(torch.from_numpy, session.run(list(OUTPUTS), {INPUT: images.numpy()})))

    return embed


def onnx_howto(source: LoadedBackbone, path: Path) -> str:
    """The call that runs the graph."""
    del source
    return f'onnxruntime.InferenceSession("{path}").run(["cls", "patches"], {{"images": normalized_float32}})'


ONNX = Target(suffix=".onnx", write=write_onnx, read=read_onnx, howto=onnx_howto, any_size=False)
