import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import helper, numpy_helper
from PIL import Image

from curate.errors import ConfigError, MissingExtra, WeightsError
from curate.evaluation import evaluate
from curate.models.backbones.embedder import load_embedder
from curate.models.backbones.load import describe, load_backbone
from curate.models.files.digest import hash_file
from curate.models.nets.onnx_network import OnnxNetwork
from tests.models.backbones.onnx_models import DIM, SIDE, expected, save_onnx, write_declaration


def pixels(count: int, *, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, SIDE, SIDE), generator=generator, dtype=torch.uint8)


def embed(file: Path, batch: torch.Tensor) -> np.ndarray:
    return load_backbone("onnx", weights=str(file), device="cpu").embed(batch).numpy()


@pytest.mark.parametrize("take", ["vector", "first_token", "mean"])
@pytest.mark.parametrize(
    ("layout", "dtype", "channels"),
    [
        ("nchw", "float32", "rgb"),
        ("nhwc", "float32", "bgr"),
        ("nchw", "float16", "bgr"),
        ("nhwc", "uint8", "rgb"),
        ("nchw", "int8", "bgr"),
    ],
)
def test_vectors_are_those_of_the_declared_input(
    layout: str, dtype: str, channels: str, take: str, tmp_path: Path
) -> None:
    file = save_onnx(tmp_path / "a.onnx", layout=layout, dtype=dtype, channels=channels, take=take)
    batch = pixels(11)
    rgb = batch.numpy().astype(np.float64)
    values = {"uint8": rgb, "int8": rgb - 128}.get(dtype, rgb / 255)
    wanted = expected(values[:, ::-1] if channels == "bgr" else values, take)
    np.testing.assert_allclose(embed(file, batch), wanted, atol=2e-3 if dtype == "float16" else 1e-5)


def test_tokens_are_averaged(tmp_path: Path) -> None:
    """The same four vectors as tokens and as a map."""
    batch = pixels(3)
    of_map = embed(save_onnx(tmp_path / "map.onnx", take="mean"), batch)
    tokens = save_onnx(tmp_path / "tokens.onnx", take="first_token")
    write_declaration(tokens, take="mean")
    np.testing.assert_allclose(embed(tokens, batch), of_map, atol=1e-6)


def test_range_mean_and_deviation_are_applied_in_this_order(tmp_path: Path) -> None:
    how = {"range": [-1, 1], "mean": [0.1, 0.2, 0.3], "std": [0.5, 0.25, 2]}
    file = save_onnx(tmp_path / "a.onnx", **how)
    mean, std = (np.array(how[name]).reshape(3, 1, 1) for name in ("mean", "std"))
    values = (pixels(2).numpy() / 255 * 2 - 1 - mean) / std
    np.testing.assert_allclose(embed(file, pixels(2)), expected(values, "vector"), atol=1e-5)


def test_graphs_of_a_fixed_batch_embed_any_number(tmp_path: Path) -> None:
    file, free = save_onnx(tmp_path / "four.onnx", batch=4), save_onnx(tmp_path / "free.onnx")
    for count in (0, 1, 4, 7, 9):
        batch = pixels(count)
        network = load_backbone("onnx", weights=str(file), device="cpu").module
        assert network(batch.float() / 255).shape == (count, DIM)
        if count:
            np.testing.assert_allclose(embed(file, batch), embed(free, batch), atol=1e-6)


def test_a_vector_does_not_depend_on_the_other_pictures(tmp_path: Path) -> None:
    def quantized(model: onnx.ModelProto) -> None:
        nodes = model.graph.node
        nodes[0].output[0] = "plain"
        made = helper.make_node("DynamicQuantizeLinear", ["plain"], ["q", "scale", "zero"])
        back = helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["values"])
        for at, node in ((1, made), (2, back)):
            nodes.insert(at, node)

    file = save_onnx(tmp_path / "a.onnx", change=quantized)
    dark = pixels(6) // torch.tensor([1, 2, 4, 8, 16, 32], dtype=torch.uint8).view(6, 1, 1, 1)
    together, alone = embed(file, dark), np.concatenate([embed(file, dark[i : i + 1]) for i in range(6)])
    np.testing.assert_array_equal(together, alone)


def test_a_file_knows_what_a_model_is_asked_for(tmp_path: Path) -> None:
    rule = {"threshold": 0.6, "heldout_threshold": 0.45}
    file = save_onnx(tmp_path / "a.onnx", copies=rule)
    info = describe("onnx", str(tmp_path))  # the folder, too
    assert (info.model, info.dim, info.license, info.preprocess.size) == ("onnx", DIM, "CC0-1.0", SIDE)
    assert info.copies is not None
    assert (info.copies.thresholds.threshold, info.copies.verification) == (0.6, None)
    write_declaration(file, license=None)
    assert describe("onnx", str(file)).license == "unknown: its declaration names none"


def test_the_hash_is_of_all_that_decides_the_vectors(tmp_path: Path) -> None:
    file = save_onnx(tmp_path / "a.onnx")
    first = describe("onnx", str(file)).weights_hash
    assert first != hash_file(file)
    (tmp_path / "moved").mkdir()
    assert describe("onnx", str(save_onnx(tmp_path / "moved/b.onnx"))).weights_hash == first
    write_declaration(file, license="MIT")
    assert describe("onnx", str(file)).weights_hash == first
    write_declaration(file, interpolation="bicubic")
    assert describe("onnx", str(file)).weights_hash != first
    (tmp_path / "a.data").write_bytes(b"1")
    write_declaration(file, data=["a.data"])
    second = describe("onnx", str(file)).weights_hash
    (tmp_path / "a.data").write_bytes(b"22")
    assert len({first, second, describe("onnx", str(file)).weights_hash}) == 3


@pytest.mark.parametrize("place", ["a.onnx", "folder"])
def test_weights_beside_the_graph_are_read(place: str, tmp_path: Path) -> None:
    def apart(model: onnx.ModelProto) -> None:
        tensor = model.graph.initializer[0]
        (tmp_path / "a.data").write_bytes(numpy_helper.to_array(tensor).tobytes())
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="a.data")

    file = save_onnx(tmp_path / "a.onnx", change=apart, data=["a.data"])
    given = file if place == "a.onnx" else tmp_path
    np.testing.assert_allclose(embed(given, pixels(2)), expected(pixels(2).numpy() / 255, "vector"), atol=1e-5)


def unknown_shape(model: onnx.ModelProto) -> None:
    model.graph.output[0].type.tensor_type.ClearField("shape")


def of_one_picture(model: onnx.ModelProto) -> None:
    """As a trace that has fixed the number of pictures: the output always has one row."""
    model.graph.initializer.append(numpy_helper.from_array(np.array([1, -1]), "one"))
    model.graph.node[-1].CopyFrom(helper.make_node("Reshape", ["map", "one"], ["embedding"]))
    unknown_shape(model)


def broken(model: onnx.ModelProto) -> None:
    model.graph.node[1].input[0] = "nowhere"


@pytest.mark.parametrize(
    ("change", "said", "message"),
    [
        (unknown_shape, {"dim": 5}, r"2 pictures give an output of shape \(2, 4\), .* `vector` with dim 5"),
        (unknown_shape, {"take": "mean"}, r"2 pictures give an output of shape \(2, 4\), .* `mean` with dim 4"),
        (of_one_picture, {}, r"2 pictures give an output of shape \(1, 8\), .* dim 4; correct the declaration"),
        (broken, {}, r"onnxruntime [\d.]+ does not load it \(.*nowhere.*\); export it again"),
    ],
)
def test_what_only_a_picture_tells_is_told_at_load(
    change: Callable[[onnx.ModelProto], None], said: dict[str, Any], message: str, tmp_path: Path
) -> None:
    file = save_onnx(tmp_path / "a.onnx", change=change)
    write_declaration(file, **said)
    with pytest.raises(WeightsError, match=message):
        load_backbone("onnx", weights=str(file), device="cpu")


def test_vectors_that_are_declared_normalized_are(tmp_path: Path) -> None:
    def normalize(model: onnx.ModelProto) -> None:
        model.graph.node[-1].output[0] = "long"
        model.graph.node.append(helper.make_node("LpNormalization", ["long"], ["embedding"], axis=1, p=2))

    plain = save_onnx(tmp_path / "plain.onnx")
    unit = save_onnx(tmp_path / "unit.onnx", change=normalize, normalized=True)
    np.testing.assert_allclose(embed(unit, pixels(2)), embed(plain, pixels(2)), atol=1e-6)
    write_declaration(plain, normalized=True)
    with pytest.raises(WeightsError, match="says normalized, but a vector has length .*; set output.normalized to"):
        embed(plain, pixels(2))


def test_vectors_are_numbers(tmp_path: Path) -> None:
    file = save_onnx(tmp_path / "a.onnx", dtype="float16", range=[0, 1e6])
    with pytest.raises(WeightsError, match="a.onnx: gives vectors with infinite values or NaN; are range, mean"):
        embed(file, pixels(2))


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        (None, "onnx: no weights given; set `weights` to an .onnx file with its declaration NAME.onnx.yaml beside it"),
        ("gone.onnx", "onnx: gone.onnx: no such weight file; set"),
        ("https://example.org/a.onnx", "an ONNX file needs its declaration beside it; download both"),
        ("empty", "onnx: empty: a folder without an .onnx file; set"),
        ("two", "onnx: two: holds 2 .onnx files; name one of them"),
        ("model.ort", "onnx: model.ort: not an .onnx file; set"),
    ],
)
def test_other_weights_are_refused(
    weights: str | None, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("empty", "two"):
        Path(name).mkdir()
    for name in ("two/a.onnx", "two/b.onnx", "model.ort"):
        Path(name).touch()
    with pytest.raises(WeightsError, match=said):
        describe("onnx", weights)


def test_a_file_or_its_folder_is_a_model(tmp_path: Path) -> None:
    file = str(save_onnx(tmp_path / "a.onnx"))
    picture = Image.fromarray(pixels(1)[0].permute(1, 2, 0).numpy())
    found = load_embedder(file, weights=None, device="cpu", precision="auto").embed([picture])
    np.testing.assert_allclose(found, expected(pixels(1).numpy() / 255, "vector"), atol=1e-5)
    assert evaluate.load(file, weights=None, device="cpu", precision="auto").dim == DIM
    assert describe(str(tmp_path)).weights == describe("onnx", file).weights


def test_a_linear_classifier_gets_the_vectors_as_they_are(tmp_path: Path) -> None:
    backbone = load_backbone("onnx", weights=str(save_onnx(tmp_path / "a.onnx")), device="cpu")
    blocks = backbone.embed_blocks(pixels(3), last=4)
    torch.testing.assert_close(blocks[:, 0], backbone.module(pixels(3).float() / 255))
    assert blocks.shape == (3, 1, DIM)


def test_precision_is_that_of_the_file(tmp_path: Path) -> None:
    file = str(save_onnx(tmp_path / "a.onnx"))
    assert load_backbone("onnx", weights=file, device="cpu").precision == "fp32"
    with pytest.raises(ConfigError, match="onnx: computes in the precision of its file; set precision to auto"):
        load_backbone("onnx", weights=file, device="cpu", precision="bf16")


def test_onnxruntime_has_as_many_threads_as_torch(tmp_path: Path) -> None:
    network = load_backbone("onnx", weights=str(save_onnx(tmp_path / "a.onnx")), device="cpu").module
    assert isinstance(network, OnnxNetwork)
    before = torch.get_num_threads()
    try:
        for number in (3, 1):
            torch.set_num_threads(number)
            options = network._session_on(torch.device("cpu")).get_session_options()
            assert (options.intra_op_num_threads, options.inter_op_num_threads) == (number, 1)
            assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"
    finally:
        torch.set_num_threads(before)


class CpuOnly:
    """A session that was asked for CUDA and could not start it, as onnxruntime goes on then."""

    def __init__(self, *_: object, providers: list[Any]) -> None:
        CpuOnly.asked = providers

    def get_providers(self) -> list[str]:
        return ["CPUExecutionProvider"]

    def disable_fallback(self) -> None:
        pass


def test_a_gpu_is_never_replaced_by_the_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = load_backbone("onnx", weights=str(save_onnx(tmp_path / "a.onnx")), device="cpu")
    assert isinstance(backbone.module, OnnxNetwork)
    cuda = torch.device("cuda:1")
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(ConfigError, match="device=cuda:1: the onnxruntime that is installed computes on the CPU alone"):
        backbone.module._session_on(cuda)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(onnxruntime, "InferenceSession", CpuOnly)
    with pytest.raises(ConfigError, match="device=cuda:1: onnxruntime .* did not start CUDA and would run .*a.onnx on"):
        backbone.module._session_on(cuda)
    (provider, options), *_ = CpuOnly.asked  # type: ignore[attr-defined]
    assert (provider, options["device_id"]) == ("CUDAExecutionProvider", "1")


def test_without_onnxruntime_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = save_onnx(tmp_path / "a.onnx")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert describe("onnx", str(file)).dim == DIM
    with pytest.raises(MissingExtra, match=r"onnxruntime is not installed; bring it with: .*curate-vision\[onnx\]"):
        load_backbone("onnx", weights=str(file), device="cpu")
