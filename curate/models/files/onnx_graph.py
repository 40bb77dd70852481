"""ONNX files that come from anywhere: what is in them, checked before a runtime loads them.

A graph is data, but it can name other files: weights as external data, by a path that the runtime would follow out of
the folder; and operators of libraries, which are code. Neither is taken from the file. External data are files that the
declaration lists, beside the graph; operators are those that onnxruntime brings, or functions inside the file.
"""

import math
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from curate.errors import MissingExtra, WeightsError, foreign_text
from curate.models.files.declaration import Declaration, DeclaredInput

MAX_GRAPH = 1 << 31
"""Bytes that a protobuf message, and so the graph, can hold."""
MAX_DATA = 16 << 30
"""Bytes of data files above which nothing is a backbone."""
DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft", "com.microsoft.nchwc"})
"""Domains of the operators that onnxruntime brings."""
CALLS_OUT = frozenset({"EPContext", "PythonOp", "PythonOpGrad"})
"""Operators among them that run what lies outside of the file."""
SIZED = {"ConstantOfShape": 0, "Expand": 1, "Tile": 1}
"""Operators that make values out of nothing, and the input that says how many."""
MAX_AXES = 64
"""Axes that a tensor has at most."""
MAX_VALUES = 1 << 28
"""Values that one of them may make: 1 GiB of float32."""
ELEMENT_TYPES = {"float32": 1, "float16": 10, "uint8": 2, "int8": 3}
"""Numbers of types in onnx.TensorProto."""
FLOATS = (1, 10, 11)
"""Those of outputs that are vectors: float32, float16, float64."""
RANKS = {"vector": (2,), "first_token": (3,), "mean": (3, 4)}
"""Number of axes of the output by what is taken of it."""


def read_graph(file: Path) -> Any:
    """The onnx.ModelProto of a file, without its external data.

    Raises:
        MissingExtra: onnx is not installed.
        WeightsError: too large, or no ONNX file.
    """
    try:
        import onnx
    except ImportError as error:
        raise MissingExtra("onnx", "onnx") from error
    size = file.stat().st_size
    if size > MAX_GRAPH:
        raise WeightsError(f"{file}: {size} bytes, an ONNX graph has at most {MAX_GRAPH}; is it another file?")
    try:
        model = onnx.load_model_from_string(file.read_bytes())
    except Exception as error:  # protobuf's error, which is no class of onnx
        raise WeightsError(f"{file}: not an ONNX file ({foreign_text(error)}); give the .onnx itself") from error
    if not model.graph.node or not model.opset_import:
        raise WeightsError(f"{file}: not an ONNX file (it has no graph); give the .onnx itself")
    if any(_is_broken(message) for message in _messages(model)):
        raise WeightsError(f"{file}: not an ONNX file (a name in it is no UTF-8); give the .onnx itself")
    return model


def _is_broken(message: Any) -> bool:
    """Whether a text of a message is none: protobuf then gives bytes."""
    texts = [field for field in message.DESCRIPTOR.fields if field.type == field.TYPE_STRING]
    values = [getattr(message, field.name) for field in texts]
    return any(
        isinstance(part, bytes) for value in values for part in ([value] if isinstance(value, str | bytes) else value)
    )


def check_graph(file: Path, declared: Declaration) -> Any:
    """Read a graph, and see that it keeps to itself and is as its declaration says.

    Returns:
        The onnx.ModelProto.

    Raises:
        MissingExtra: onnx is not installed.
        WeightsError: no ONNX file; it reads files or code that it may not; or the declaration disagrees with it.
    """
    model = read_own_graph(file, declared.data)
    _check_input(file, model, declared.input)
    _check_output(file, model, declared)
    return model


def read_own_graph(file: Path, data: Sequence[str] = ()) -> Any:
    """Read a graph, and see that it keeps to itself: to its own operators, sizes and weights.

    Args:
        data: names of the files beside it that it may read weights from.

    Returns:
        The onnx.ModelProto.

    Raises:
        MissingExtra: onnx is not installed.
        WeightsError: no ONNX file, or it reads files or code that it may not.
    """
    model = read_graph(file)
    _check_operators(file, model)
    _check_sizes(file, model)
    _check_data(file, model, data)
    if any(entry.key == "ort_config" for entry in model.metadata_props):
        raise WeightsError(f"{file}: its metadata set options of the runtime (ort_config); remove them")
    return model


def _check_operators(file: Path, model: Any) -> None:
    known = DOMAINS | {function.domain for function in model.functions}
    for node in _messages(model, "NodeProto"):
        if node.domain not in known or node.op_type in CALLS_OUT:
            raise WeightsError(
                f"{file}: operator {node.op_type} of domain {node.domain!r} is none that onnxruntime brings, and "
                "libraries of operators are not loaded; export the model with standard operators"
            )


def _check_sizes(file: Path, model: Any) -> None:
    """Refuse constants without content whose size is written in the file: onnxruntime makes them while it loads."""
    stated = {tensor.name: tensor for tensor in _messages(model, "TensorProto")}
    for node in _messages(model, "NodeProto"):
        if node.op_type == "Constant" and node.output:
            stated |= {name: entry.t for entry in node.attribute for name in node.output}
    for node in _messages(model, "NodeProto"):
        place = SIZED.get(node.op_type, -1)
        wanted = [stated.get(node.input[place])] if 0 <= place < len(node.input) else []
        sizes = [value for tensor in wanted if tensor is not None for value in _int64_values(file, tensor)]
        if math.prod(max(1, size) for size in sizes) > MAX_VALUES:
            raise WeightsError(
                f"{file}: operator {node.op_type} makes more than {MAX_VALUES} values out of nothing; no backbone does"
            )


def _int64_values(file: Path, tensor: Any) -> list[int]:
    from onnx import TensorProto, numpy_helper

    if tensor.data_type != TensorProto.INT64 or tensor.data_location == TensorProto.EXTERNAL:
        return []
    try:
        return [int(value) for value in numpy_helper.to_array(tensor).ravel()[:MAX_AXES]]
    except Exception as error:  # its size and its content disagree
        raise WeightsError(f"{file}: weights {tensor.name!r} are damaged: {foreign_text(error)}") from error


def _check_data(file: Path, model: Any, listed: Sequence[str]) -> None:
    """External data are files of the folder itself that the declaration lists, since they belong to the weights."""
    external = 1  # TensorProto.EXTERNAL
    read: set[str] = set()
    for tensor in _messages(model, "TensorProto"):
        if tensor.data_location != external and not tensor.external_data:
            continue
        location = next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
        if location not in listed:
            raise WeightsError(
                f"{file}: weights {tensor.name!r} lie in {location!r}, which `data` of its declaration does not list; "
                "it may read files beside it that are listed there, and no others"
            )
        read.add(location)
    unread = sorted(set(listed) - read)
    if unread:
        raise WeightsError(f"{file}: `data` of its declaration lists {unread[0]}, which the graph does not read")


def fixed_batch(model: Any) -> int | None:
    """Number of pictures that the graph must be given at once; None: any.

    One, too, where it quantizes activations as they come: their scale would be that of all pictures of a batch, and a
    vector would depend on the others.
    """
    weights = {tensor.name for tensor in model.graph.initializer}
    pictures = next(value for value in model.graph.input if value.name not in weights).type.tensor_type
    stated = pictures.shape.dim[0].dim_value if pictures.HasField("shape") else 0
    if stated:
        return int(stated)
    return 1 if any(node.op_type.startswith("DynamicQuantize") for node in _messages(model, "NodeProto")) else None


def free_axes(model: Any) -> bytes:
    """The graph as a file's content, for any number of pictures of any size: exports often state one of each."""
    weights = {tensor.name for tensor in model.graph.initializer}
    for value in model.graph.input:
        if value.name not in weights:
            for axis, length in enumerate(value.type.tensor_type.shape.dim):
                if axis != 1:  # the channels
                    length.dim_param = f"{value.name}_{axis}"
    for value in model.graph.output:
        value.type.tensor_type.ClearField("shape")
    del model.graph.value_info[:]
    return bytes(model.SerializeToString())


def add_outputs(model: Any, names: Collection[str]) -> bytes:
    """The graph as a file's content, with values inside it as further outputs."""
    shown = {value.name for value in model.graph.output}
    for name in sorted(set(names) - shown):
        model.graph.output.add(name=name)
    return bytes(model.SerializeToString())


def find_data(file: Path, listed: Sequence[str]) -> tuple[Path, ...]:
    """The data files beside an ONNX file.

    Raises:
        WeightsError: one is missing, leads out of the folder, or they are too large.
    """
    folder, found = file.parent.resolve(), tuple(file.with_name(name) for name in listed)
    for path in found:
        if not path.is_file():
            raise WeightsError(f"{path}: no such file, though the declaration of {file.name} lists it; put it there")
        if path.resolve().parent != folder:
            raise WeightsError(f"{path}: a link out of its folder; put the file itself beside {file.name}")
    size = sum(path.stat().st_size for path in found)
    if size > MAX_DATA:
        raise WeightsError(f"{file}: {size} bytes of data, at most {MAX_DATA} are read; this is no backbone")
    return found


def _messages(message: Any, kind: str = "") -> Iterator[Any]:
    """Every message (of a kind) at any depth, also in functions and in the graphs of branches and loops."""
    if kind in ("", message.DESCRIPTOR.name):
        yield message
    if message.DESCRIPTOR.name == "TensorProto":  # holds none of these, but megabytes that would be copied
        return
    for field, value in message.ListFields():
        if field.message_type is not None:
            for inner in [value] if hasattr(value, "DESCRIPTOR") else value:
                yield from _messages(inner, kind)


def _check_input(file: Path, model: Any, declared: DeclaredInput) -> None:
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    names = [value.name for value in inputs]
    if names != [declared.name]:
        raise WeightsError(
            f"{file}: its declaration says input {declared.name!r}, the graph has {', '.join(map(repr, names))}; a "
            "backbone has one input, the pictures"
        )
    tensor = inputs[0].type.tensor_type
    if tensor.elem_type != ELEMENT_TYPES[declared.dtype]:
        raise WeightsError(
            f"{file}: its declaration says dtype {declared.dtype}, the input {declared.name!r} is "
            f"{_type_name(tensor.elem_type)}; correct the declaration"
        )
    side = declared.size
    wanted = (0, 3, side, side) if declared.layout == "nchw" else (0, side, side, 3)
    _compare(file, tensor, wanted, f"layout {declared.layout}, size {side}", f"input {declared.name!r}")


def _check_output(file: Path, model: Any, declared: Declaration) -> None:
    out = declared.output
    known = {value.name: value for value in model.graph.output}
    if out.name not in known:
        names = ", ".join(map(repr, known))
        raise WeightsError(f"{file}: its declaration says output {out.name!r}, the graph has {names}; correct it")
    tensor = known[out.name].type.tensor_type
    if tensor.elem_type not in FLOATS:
        raise WeightsError(
            f"{file}: the output {out.name!r} is {_type_name(tensor.elem_type)}, vectors of floats are needed"
        )
    if not tensor.HasField("shape"):
        return  # a first picture will tell
    if len(tensor.shape.dim) not in RANKS[out.take]:
        raise WeightsError(
            f"{file}: its declaration takes `{out.take}` of the output {out.name!r}, which has shape "
            f"{_shape_text(tensor)}; {' or '.join(map(str, RANKS[out.take]))} axes are needed"
        )
    axes = len(tensor.shape.dim)
    wanted = (0, out.dim, 0, 0) if axes == 4 else (*(0,) * (axes - 1), out.dim)
    _compare(file, tensor, wanted, f"dim {out.dim}", f"output {out.name!r}")


def _compare(file: Path, tensor: Any, wanted: tuple[int, ...], said: str, what: str) -> None:
    """Compare the axes whose length both know; 0: any."""
    if not tensor.HasField("shape"):
        return
    found = [dim.dim_value for dim in tensor.shape.dim]
    if len(found) != len(wanted) or any(a and b and a != b for a, b in zip(found, wanted, strict=True)):
        raise WeightsError(
            f"{file}: its declaration says {said}, the {what} has shape {_shape_text(tensor)}; correct the declaration"
        )


def _shape_text(tensor: Any) -> str:
    return f"({', '.join(str(dim.dim_value or dim.dim_param or '?') for dim in tensor.shape.dim)})"


def _type_name(number: int) -> str:
    import onnx

    kinds = onnx.TensorProto.DataType
    return str(kinds.Name(number)).lower() if number in kinds.values() else f"of unknown type {number}"
