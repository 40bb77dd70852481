"""One way to name a backbone: an id, a file, or the folder that holds it."""

from pathlib import Path

import pytest

from curate.config import parse
from curate.errors import ConfigError, WeightsError
from curate.models.names import resolve_model
from curate.stages.images.embed import Embed


def test_ids_stay_and_files_tell_what_they_are(tmp_path: Path) -> None:
    assert resolve_model("lite0") == ("lite0", None)
    assert resolve_model("sscd", "sscd.pt") == ("sscd", "sscd.pt")
    assert resolve_model("timm/vit_base") == ("timm/vit_base", None)
    assert resolve_model("runs/a/backbone.safetensors") == ("curate", "runs/a/backbone.safetensors")
    assert resolve_model("net.onnx") == ("onnx", "net.onnx")


def test_a_folder_is_what_lies_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    export = tmp_path / "tiny/backbone.safetensors"
    export.parent.mkdir()
    export.touch()
    assert resolve_model(str(export.parent)) == ("curate", str(export))
    monkeypatch.chdir(tmp_path)
    assert resolve_model("tiny") == ("curate", "tiny/backbone.safetensors")
    net = tmp_path / "nets/a.onnx"
    net.parent.mkdir()
    net.touch()
    assert resolve_model(str(net.parent)) == ("onnx", str(net))
    (net.parent / "b.onnx").touch()
    with pytest.raises(WeightsError, match="nets: a folder that holds 2 ONNX files; name one of them"):
        resolve_model(str(net.parent))


def test_a_folder_without_a_backbone_is_an_error_unless_its_name_may_be_an_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lite0").mkdir()
    monkeypatch.chdir(tmp_path)
    assert resolve_model("lite0") == ("lite0", None)
    with pytest.raises(WeightsError, match="a folder that holds no backbone.safetensors and no ONNX file"):
        resolve_model("./lite0")


def test_a_config_knows_a_file_by_its_content_and_not_by_its_path(tmp_path: Path) -> None:
    (tmp_path / "backbone.safetensors").touch()
    found = parse(Embed, {"model": str(tmp_path)}, where="embed")
    assert (found.model, found.weights) == ("curate", str(tmp_path / "backbone.safetensors"))
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(ConfigError, match="a folder that holds no backbone.safetensors"):
        parse(Embed, {"model": str(empty)}, where="embed")
