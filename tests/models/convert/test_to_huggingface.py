import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor, Dinov2Model, Dinov2WithRegistersModel

from curate.errors import ConfigError, MissingExtra, WeightsError
from curate.models.convert import to_huggingface
from curate.models.convert.convert import convert
from curate.models.convert.source import load_source
from curate.models.convert.target import Options
from curate.models.files import formats
from tests.models.convert.backbones import INFO, VARIANTS, convnext, export, pictures, vit


@pytest.mark.parametrize(("num_registers", "ffn"), VARIANTS)
@torch.no_grad()
def test_their_classes_give_equal_tokens(num_registers: int, ffn: str, tmp_path: Path) -> None:
    network = vit(num_registers, ffn)
    path = convert(export(tmp_path, network), "huggingface").path
    theirs = (Dinov2WithRegistersModel if num_registers else Dinov2Model).from_pretrained(path).eval()
    found, ours = theirs(pictures()), network.forward_features(pictures())
    tokens = torch.cat([ours.cls[:, None], ours.registers, ours.patches], dim=1)
    torch.testing.assert_close(found.last_hidden_state, tokens, rtol=1e-5, atol=1e-5)
    assert theirs.config.image_size == 56
    assert torch.equal(theirs.embeddings.mask_token, network.mask_token)


def test_the_folder_tells_license_and_provenance(tmp_path: Path) -> None:
    path = convert(export(tmp_path, vit()), "huggingface").path
    assert sorted(entry.name for entry in path.iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
    ]
    card = (path / "README.md").read_text()
    assert "License: CC0-1.0" in card
    assert '"iterations": 300' in card
    assert json.loads((path / "config.json").read_text())["curate"]["export"] == INFO.model_dump(mode="json")


def test_their_processor_prepares_pictures_as_the_export_says(tmp_path: Path) -> None:
    path = convert(export(tmp_path, vit()), "huggingface").path
    processor = AutoImageProcessor.from_pretrained(path)
    gray = Image.fromarray(np.full((90, 120, 3), 51, dtype=np.uint8))
    found = processor(gray, return_tensors="pt")["pixel_values"]
    assert found.shape == (1, 3, 56, 56)
    expected = (0.2 - torch.tensor(INFO.mean)) / torch.tensor(INFO.std)
    torch.testing.assert_close(found[0, :, 10, 10], expected, rtol=0, atol=1e-3)


def test_what_transformers_does_not_know_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = load_source(export(tmp_path, vit()))
    plain = formats.to_huggingface
    monkeypatch.setattr(
        formats, "to_huggingface", lambda state: {k.replace("layernorm", "norm_"): v for k, v in plain(state).items()}
    )
    to_huggingface.write_huggingface(source, tmp_path / "hf", Options())
    with pytest.raises(WeightsError, match="names that transformers does not agree with: .*layernorm.bias"):
        to_huggingface.read_huggingface(source, tmp_path / "hf")


def test_without_transformers_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(
        MissingExtra, match=r"transformers is not installed; bring it with: .*curate-vision\[huggingface\]"
    ):
        convert(export(tmp_path, vit()), "huggingface")
    assert not (tmp_path / "backbone-huggingface").exists()


def test_a_timm_model_has_no_counterpart(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has no counterpart in transformers"):
        convert(export(tmp_path, convnext()), "huggingface")
