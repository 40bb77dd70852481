"""ONNX files from anywhere: what they may not do, and what must agree with their declaration."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper

from curate.errors import MissingExtra, WeightsError
from curate.models.files import onnx_graph
from curate.models.files.declaration import read_declaration
from curate.models.files.onnx_graph import check_graph, find_data, fixed_batch, free_axes, read_own_graph
from tests.models.backbones.onnx_models import save_onnx, write_declaration


def external(tensor: onnx.TensorProto, location: str) -> None:
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)


def in_branch(tensor: onnx.TensorProto) -> onnx.NodeProto:
    """A branch whose only node makes a constant."""
    made = helper.make_node("Constant", [], ["inner"], value=tensor)
    graph = helper.make_graph([made], "branch", [], [helper.make_tensor_value_info("inner", TensorProto.FLOAT, [1])])
    return helper.make_node("If", ["condition"], ["chosen"], then_branch=graph, else_branch=graph)


def outside_in_branch(model: onnx.ModelProto) -> None:
    tensor = helper.make_tensor("hidden", TensorProto.FLOAT, [1], [0.0])
    external(tensor, "../secret")
    model.graph.node.append(in_branch(tensor))


def outside_in_function(model: onnx.ModelProto) -> None:
    tensor = helper.make_tensor("hidden", TensorProto.FLOAT, [1], [0.0])
    external(tensor, "/etc/passwd")
    node = helper.make_node("Constant", [], ["y"], value=tensor)
    model.functions.append(helper.make_function("mine", "f", [], ["y"], [node], [helper.make_opsetid("", 17)]))


def kernel_at(location: str) -> Callable[[onnx.ModelProto], None]:
    return lambda model: external(model.graph.initializer[0], location)


def operator(kind: str, domain: str) -> Callable[[onnx.ModelProto], None]:
    return lambda model: model.graph.node.append(helper.make_node(kind, ["values"], ["more"], domain=domain))


def options(model: onnx.ModelProto) -> None:
    model.metadata_props.add(key="ort_config", value='{"session_options": {"profile_file_prefix": "/tmp/x"}}')


def of_size(kind: str, sizes: list[int], *, constant: bool = False) -> Callable[[onnx.ModelProto], None]:
    """A node that makes a tensor of a stated shape."""

    def change(model: onnx.ModelProto) -> None:
        tensor = helper.make_tensor("sizes", TensorProto.INT64, [len(sizes)], sizes)
        if constant:
            model.graph.node.append(helper.make_node("Constant", [], ["sizes"], value=tensor))
        else:
            model.graph.initializer.append(tensor)
        inputs = ["sizes"] if kind == "ConstantOfShape" else ["kernel", "sizes"]
        model.graph.node.append(helper.make_node(kind, inputs, ["big"]))

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (of_size("ConstantOfShape", [2**31]), "operator ConstantOfShape makes more than 268435456 values"),
        (
            of_size("ConstantOfShape", [2**20, 2**20], constant=True),
            "operator ConstantOfShape makes more than 268435456 values",
        ),
        (of_size("Expand", [2**62]), "operator Expand makes more than"),
        (of_size("Tile", [2**16] * 4), "operator Tile makes more than"),
        (kernel_at("../kernel.data"), r"weights 'kernel' lie in '../kernel.data', which `data` .* does not list"),
        (kernel_at("/etc/passwd"), "weights 'kernel' lie in '/etc/passwd'"),
        (kernel_at("unlisted.data"), "weights 'kernel' lie in 'unlisted.data'"),
        (kernel_at("*/_ORT_MEM_ADDR_/*"), "weights 'kernel' lie in"),
        (kernel_at(""), "weights 'kernel' lie in ''"),
        (outside_in_branch, "weights 'hidden' lie in '../secret'"),
        (outside_in_function, "weights 'hidden' lie in '/etc/passwd'"),
        (operator("Mine", "com.example"), "operator Mine of domain 'com.example' is none that onnxruntime brings"),
        (operator("EPContext", "com.microsoft"), "operator EPContext of domain 'com.microsoft'"),
        (operator("PythonOp", "com.microsoft"), "operator PythonOp"),
        (options, r"its metadata set options of the runtime \(ort_config\); remove them"),
    ],
)
def test_a_graph_reads_no_other_files_and_no_code(
    change: Callable[[onnx.ModelProto], None], said: str, tmp_path: Path
) -> None:
    file = save_onnx(tmp_path / "a.onnx", change=change)
    with pytest.raises(WeightsError, match=f"a.onnx: {said}"):
        check_graph(file, read_declaration(file))


def test_functions_inside_the_file_are_operators(tmp_path: Path) -> None:
    def call(model: onnx.ModelProto) -> None:
        inner = helper.make_node("Identity", ["x"], ["y"])
        model.functions.append(helper.make_function("mine", "f", ["x"], ["y"], [inner], [helper.make_opsetid("", 17)]))
        model.graph.node.append(helper.make_node("f", ["values"], ["more"], domain="mine"))

    file = save_onnx(tmp_path / "a.onnx", change=call)
    check_graph(file, read_declaration(file))


def test_listed_data_is_read_from_the_folder_alone(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    file = save_onnx(tmp_path / "in/a.onnx", change=kernel_at("a.data"), data=["a.data"])
    declared = read_declaration(file)
    check_graph(file, declared)
    with pytest.raises(WeightsError, match=r"in/a.data: no such file, though the declaration of a.onnx lists it"):
        find_data(file, declared.data)
    (tmp_path / "outside").write_bytes(b"secret")
    (tmp_path / "in/a.data").symlink_to(tmp_path / "outside")
    with pytest.raises(WeightsError, match=r"in/a.data: a link out of its folder; put the file itself beside a.onnx"):
        find_data(file, declared.data)
    (tmp_path / "in/a.data").unlink()
    (tmp_path / "in/a.data").write_bytes(b"weights")
    assert find_data(file, declared.data) == (tmp_path / "in/a.data",)
    other = save_onnx(tmp_path / "in/b.onnx", data=["a.data"])
    with pytest.raises(WeightsError, match="lists a.data, which the graph does not read"):
        check_graph(other, read_declaration(other))


def test_sizes_have_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = save_onnx(tmp_path / "a.onnx")
    (tmp_path / "a.data").write_bytes(bytes(20))
    monkeypatch.setattr(onnx_graph, "MAX_DATA", 19)
    with pytest.raises(WeightsError, match="a.onnx: 20 bytes of data, at most 19 are read"):
        find_data(file, ["a.data"])
    monkeypatch.setattr(onnx_graph, "MAX_GRAPH", 100)
    with pytest.raises(WeightsError, match=r"a.onnx: \d+ bytes, an ONNX graph has at most 100; is it another file"):
        check_graph(file, read_declaration(file))


def test_names_are_text(tmp_path: Path) -> None:
    file = save_onnx(tmp_path / "a.onnx")
    for name in (b"Flatten", b"embedding", b"kernel"):
        whole = file.read_bytes()
        file.write_bytes(whole.replace(name, b"\xa4" + name[1:]))
        with pytest.raises(WeightsError, match=r"a.onnx: not an ONNX file \(a name in it is no UTF-8\)"):
            check_graph(file, read_declaration(file))
        file.write_bytes(whole)


@pytest.mark.parametrize("content", [b"", b"no graph at all", b"\x08\x08"])
def test_other_files_are_refused(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "a.onnx"
    file.write_bytes(content)
    write_declaration(file)
    with pytest.raises(WeightsError, match=r"a.onnx: not an ONNX file \(.+\); give the .onnx itself"):
        check_graph(file, read_declaration(file))


def second_input(model: onnx.ModelProto) -> None:
    model.graph.input.append(helper.make_tensor_value_info("sizes", TensorProto.INT64, [2]))


def integer_output(model: onnx.ModelProto) -> None:
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.UINT8


def unknown_type(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.elem_type = 99


@pytest.mark.parametrize(
    ("said", "change", "message"),
    [
        ({"name": "images"}, None, "its declaration says input 'images', the graph has 'image'"),
        ({}, second_input, "says input 'image', the graph has 'image', 'sizes'; a backbone has one input"),
        ({"dtype": "uint8"}, None, "says dtype uint8, the input 'image' is float; correct the declaration"),
        ({}, unknown_type, "says dtype float32, the input 'image' is of unknown type 99"),
        ({"layout": "nhwc"}, None, r"says layout nhwc, size 8, the input 'image' has shape \(batch, 3, 8, 8\)"),
        ({"size": 16}, None, r"says layout nchw, size 16, the input 'image' has shape \(batch, 3, 8, 8\)"),
        ({"output_name": "cls"}, None, "says output 'cls', the graph has 'embedding'; correct it"),
        ({"dim": 5}, None, r"says dim 5, the output 'embedding' has shape \(batch, 4\); correct the declaration"),
        ({"take": "first_token"}, None, r"takes `first_token` .* has shape \(batch, 4\); 3 axes are needed"),
        ({"take": "mean"}, None, r"takes `mean` .* has shape \(batch, 4\); 3 or 4 axes are needed"),
        ({}, integer_output, "the output 'embedding' is uint8, vectors of floats are needed"),
    ],
)
def test_a_declaration_agrees_with_its_graph(
    said: dict[str, Any], change: Callable[[onnx.ModelProto], None] | None, message: str, tmp_path: Path
) -> None:
    file = save_onnx(tmp_path / "a.onnx", change=change)
    write_declaration(file, **said)
    with pytest.raises(WeightsError, match=f"a.onnx: .*{message}"):
        check_graph(file, read_declaration(file))


def test_graphs_that_quantize_a_batch_as_a_whole_get_one_picture_at_once(tmp_path: Path) -> None:
    def quantize(model: onnx.ModelProto) -> None:
        model.graph.node.append(helper.make_node("DynamicQuantizeLinear", ["values"], ["q", "scale", "zero"]))

    for batch, change, expected in (("batch", None, None), (5, None, 5), ("batch", quantize, 1)):
        file = save_onnx(tmp_path / "a.onnx", batch=batch, change=change)
        assert fixed_batch(check_graph(file, read_declaration(file))) == expected


def test_without_onnx_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = save_onnx(tmp_path / "a.onnx")
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MissingExtra, match=r"onnx is not installed; bring it with: .*curate-vision\[onnx\]"):
        check_graph(file, read_declaration(file))


def test_free_axes_leave_the_channels_alone(tmp_path: Path) -> None:
    model = read_own_graph(save_onnx(tmp_path / "model.onnx", batch=3))
    freed = onnx.load_model_from_string(free_axes(model))
    stated = freed.graph.input[0].type.tensor_type.shape.dim
    assert [axis.dim_value for axis in stated] == [0, 3, 0, 0]
    assert len({axis.dim_param for axis in stated} - {""}) == 3
    assert not freed.graph.output[0].type.tensor_type.HasField("shape")


def test_a_graph_without_declaration_may_read_no_other_file_either(tmp_path: Path) -> None:
    file = save_onnx(tmp_path / "model.onnx", change=outside_in_branch)
    with pytest.raises(WeightsError, match=r"lie in '\.\./secret'"):
        read_own_graph(file)
