import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from curate.errors import WeightsError
from curate.models.files import declaration
from curate.models.files.declaration import Declaration, DeclaredInput, read_declaration, write_declaration
from curate.models.thresholds import CopyRule, Thresholds, Verification
from tests.models.backbones import onnx_models


def read(folder: Path, values: Any) -> Declaration:
    (folder / "a.onnx.yaml").write_text(values if isinstance(values, str) else yaml.safe_dump(values))
    return read_declaration(folder / "a.onnx")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"siz": 8}, "input.siz: unknown key; did you mean 'size'"),
        ({"layout": "chwn"}, "input.layout: Input should be 'nchw' or 'nhwc', found 'chwn'"),
        ({"dtype": "bfloat16"}, "input.dtype: .*found 'bfloat16'"),
        ({"size": 0}, "input.size: .*greater than or equal to 1"),
        ({"range": [1, 0]}, r"input: .*range \[1, 0\]: the first value must be below the second"),
        ({"mean": [0.5]}, "input.mean.1: required"),
        ({"std": [1, 0, 1]}, "input: .*std: values above 0 are needed"),
        ({"std": [1, float("nan"), 1]}, "input.std.1: .*finite number"),
        (
            {"dtype": "uint8", "mean": [1, 1, 1]},
            "input: .*dtype uint8 takes pixels as they are: leave out range, mean and std",
        ),
        ({"dtype": "int8", "range": [0, 1]}, "input: .*dtype int8 takes pixels as they are"),
        ({"short_edge": 9}, "input: .*short_edge 9: it equals size where resize is square; size is 8"),
        ({"resize": "short_edge_crop", "short_edge": 7}, "input: .*short_edge 7: it is size or more; size is 8"),
        ({"take": "cls"}, "output.take: Input should be 'vector', 'first_token' or 'mean'"),
        ({"data": ["../weights.data"]}, "data.0: .*the plain name of a file beside the graph is needed"),
        ({"data": [".."]}, "data.0: .*the plain name of a file beside the graph is needed"),
        ({"data": ["*/_ORT_MEM_ADDR_/*"]}, "data.0: .*the plain name of a file beside the graph is needed"),
        ({"copies": {"threshold": 0.6}}, "copies.heldout_threshold: required"),
        ({"copies": {"threshold": 1.2, "heldout_threshold": 0.5}}, "copies.threshold: .*less than or equal to 1"),
        (
            {
                "copies": {
                    "threshold": 0.6,
                    "heldout_threshold": 0.45,
                    "verification": {"floor": 0.5, "alike": 0.4, "sure": 0.7},
                }
            },
            "copies: .*crowd_floor 0.5, floor 0.5, alike 0.4, sure 0.7 must ascend",
        ),
    ],
)
def test_what_does_not_fit_is_named_with_its_place(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=rf"a.onnx.yaml:\n  {said}"):
        read(tmp_path, onnx_models.declaration(**changes))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [", "a.onnx.yaml: not valid YAML"),
        ("- 1", "a.onnx.yaml: a mapping of `input`, `output` and so on is needed"),
        ("", "a mapping of `input`, `output`"),
        ("1: 2", "a mapping of `input`, `output`"),
        ("a: &b [1]\nc: [*b, *b]", r"has YAML aliases \(\*name\) or more than 8 levels; write plain values"),
        ("a: &b [*b]", "has YAML aliases"),
        ("!!python/object/apply:os.getcwd []", "not valid YAML"),
        ("[" * 60_000, "or more than 8 levels"),
    ],
)
def test_other_files_are_no_declarations(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=said):
        read(tmp_path, text)


def test_an_absent_or_large_declaration_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(WeightsError, match="a.onnx: no declaration a.onnx.yaml beside it, which says how"):
        read_declaration(tmp_path / "a.onnx")
    monkeypatch.setattr(declaration, "MAX_BYTES", 100)
    with pytest.raises(WeightsError, match=r"a.onnx.yaml: \d+ bytes, a declaration has at most 100; is it another"):
        read(tmp_path, onnx_models.declaration())


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    copies = {
        "threshold": 0.6,
        "heldout_threshold": 0.45,
        "verification": {"floor": 0.4, "alike": 0.7, "sure": 0.8, "crowd_floor": 0.3},
    }
    first = read(tmp_path, onnx_models.declaration(mean=[0.485, 0.456, 1e-7], data=["ü.data"], copies=copies))
    assert first.copies is not None
    assert first.copies.rule() == CopyRule(Thresholds(0.6, 0.45), Verification(0.4, 0.7, 0.8, 0.3))
    write_declaration(tmp_path / "a.onnx", first)
    assert read_declaration(tmp_path / "a.onnx") == first


def test_json_is_a_declaration_too(tmp_path: Path) -> None:

    assert read(tmp_path, json.dumps(onnx_models.declaration())) == read(tmp_path, onnx_models.declaration())


@pytest.mark.parametrize("channels", ["rgb", "bgr"])
def test_preprocessing_gives_the_declared_values(channels: str) -> None:
    """Compared with the declaration, read by itself: range first, then mean and deviation in the model's order."""
    mean, std = np.array([3.0, 5.0, 7.0]), np.array([2.0, 4.0, 8.0])
    how = DeclaredInput.model_validate(
        onnx_models.declaration(channels=channels, range=[-10, 245], mean=list(mean), std=list(std))["input"]
    ).preprocess()
    rgb = np.array([0.0, 100.0, 255.0])
    order = slice(None, None, -1) if channels == "bgr" else slice(None)
    values = (rgb[order] + -10 - mean) / std
    np.testing.assert_allclose(((rgb / 255 - how.mean) / how.std)[order], values)


def test_the_digest_is_of_what_decides_the_vectors(tmp_path: Path) -> None:
    one = read(tmp_path, onnx_models.declaration()).vectors_digest()
    rule = {"threshold": 0.6, "heldout_threshold": 0.45}
    assert read(tmp_path, onnx_models.declaration(license="MIT", copies=rule)).vectors_digest() == one
    for change in ({"mean": [0.1, 0, 0]}, {"channels": "bgr"}, {"interpolation": "bicubic"}, {"take": "mean"}):
        assert read(tmp_path, onnx_models.declaration(**change)).vectors_digest() != one
