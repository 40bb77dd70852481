from pathlib import Path

import pytest
import timm
import torch

from curate.models.convert.convert import convert
from curate.models.files.formats import detect_format
from curate.models.files.state_dict import read_state_dict
from curate.models.nets.tower import TimmTower
from curate.models.nets.vit import VisionTransformer
from tests.models.convert.backbones import VARIANTS, convnext, export, pictures, vit


@pytest.mark.parametrize("network", [*(vit(*variant) for variant in VARIANTS), convnext()])
@torch.no_grad()
def test_the_printed_line_loads_the_file(network: VisionTransformer | TimmTower, tmp_path: Path) -> None:
    made = convert(export(tmp_path, network), "timm")
    model = eval(made.howto, {"timm": timm}).eval()  # noqa: S307  # the line is what users paste
    torch.testing.assert_close(model(pictures()), network(pictures()), rtol=1e-5, atol=1e-5)


def test_the_names_are_timms(tmp_path: Path) -> None:
    state = read_state_dict(convert(export(tmp_path, vit(4)), "timm").path)
    assert detect_format(state) == "timm"
    assert "reg_token" in state
    assert "mask_token" not in state
