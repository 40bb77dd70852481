import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

import curate
from curate.errors import ConfigError, MissingExtra
from curate.models.convert import to_onnx
from curate.models.convert.convert import convert
from curate.models.flops import forward_flops, picture_flops
from curate.models.nets.tower import TimmTower, tower_config
from tests.models.convert.backbones import INFO, SIZE, convnext, export, pictures, vit


def run(path: Path, images: torch.Tensor) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(["cls", "patches"], {"images": images.numpy()})


@torch.no_grad()
def test_any_batch_gives_equal_outputs_at_the_fixed_size(tmp_path: Path) -> None:
    network = vit(4, "swiglu")
    path = convert(export(tmp_path, network), "onnx", size=84, opset=18).path  # positions are resampled, 4 -> 6
    for count in (1, 2, 5):
        images = pictures(84, count)
        ours = network.forward_features(images)
        for found, expected in zip(run(path, images), (ours.cls, ours.patches), strict=True):
            torch.testing.assert_close(torch.from_numpy(found), expected, rtol=1e-4, atol=1e-4)
    model = onnx.load(path)
    shape = model.graph.input[0].type.tensor_type.shape.dim
    assert (shape[0].dim_param, [dim.dim_value for dim in shape[1:]]) == ("batch", [3, 84, 84])
    told = {entry.key: entry.value for entry in model.metadata_props}
    assert (told["image_size"], told["license"], json.loads(told["mean"])) == ("84", "CC0-1.0", list(INFO.mean))
    assert json.loads(told["provenance"]) == {"iterations": 300}
    assert not any(op.op_type == "Resize" for op in model.graph.node)
    assert str(Path(to_onnx.__file__).parent).encode() not in path.read_bytes()


@torch.no_grad()
def test_weights_beyond_the_limit_of_onnx_lie_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(to_onnx, "LARGEST", 1000)
    tower = TimmTower(tower_config("vit_tiny_patch16_224", embed_dim=24, depth=1, img_size=64)).eval()
    path = convert(export(tmp_path, tower, image_size=64), "onnx").path
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [
        "backbone-onnx.onnx",
        "backbone-onnx.onnx.data",
        "backbone-onnx.onnx.yaml",
        "backbone.safetensors",
    ]
    found = run(path, pictures(64))[0]
    torch.testing.assert_close(torch.from_numpy(found), tower(pictures(64)), rtol=1e-4, atol=1e-4)
    _same_vectors(tmp_path / "backbone.safetensors", path)


def _same_vectors(export: Path, graph: Path) -> None:
    """Of pictures as they are, embedded by the export and by its graph, in batches of any size."""
    rng = np.random.default_rng(0)
    shown = [rng.integers(0, 256, (height, 90, 3), np.uint8) for height in range(70, 170, 10)]
    ours, theirs = (curate.load_backbone(str(file), device="cpu", precision="fp32") for file in (export, graph))
    assert theirs.backbone.preprocess == ours.backbone.preprocess
    assert theirs.backbone.license == ours.backbone.license == INFO.license
    for batch_size in (1, 3, 10):
        np.testing.assert_allclose(
            theirs.embed(shown, batch_size=batch_size), ours.embed(shown, batch_size=batch_size), atol=1e-4
        )


@pytest.mark.parametrize("network", [vit(4, "swiglu"), convnext()], ids=["vit", "timm"])
def test_an_export_is_a_backbone_again(network: Any, tmp_path: Path) -> None:
    source = Path(export(tmp_path, network))
    graph = convert(str(source), "onnx").path
    _same_vectors(source, graph)
    assert forward_flops("onnx", str(graph)) == pytest.approx(picture_flops(network, SIZE), rel=0.01)


def test_old_opsets_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--opset 17: torch writes 18 and newer; leave it out"):
        convert(export(tmp_path, vit()), "onnx", opset=17)


@pytest.mark.parametrize("package", ["onnx", "onnxscript"])
def test_without_onnx_the_extra_is_named(package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtra, match=rf"{package} is not installed; bring it with: .*curate-vision\[onnx\]"):
        convert(export(tmp_path, vit()), "onnx")


def test_without_onnxruntime_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtra, match=r"onnxruntime is not installed; bring it with: .*curate-vision\[onnx\]"):
        to_onnx.read_onnx(None, tmp_path / "a.onnx")  # type: ignore[arg-type]
