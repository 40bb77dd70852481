"""Embed: what its table depends on."""

from pathlib import Path

import pytest

from curate.config import identity
from curate.engine.cost import Assumptions, Shape
from curate.errors import WeightsError
from curate.models.flops import picture_flops
from curate.stages.copies.plant import PlantCopies
from curate.stages.images.embed import Embed
from tests.models.backbones.onnx_models import DIM, SIDE, save_onnx
from tests.models.convert.backbones import export, vit


def test_place_of_the_weights_is_no_part_of_the_identity() -> None:
    assert identity(Embed(model="sscd", weights="a.pt")) == identity(Embed(model="sscd", weights="b/a.pt"))


@pytest.mark.parametrize("model", ["curate", "onnx"])
def test_a_model_that_is_a_file_is_planned_and_told(model: str, tmp_path: Path) -> None:
    file = export(tmp_path, vit()) if model == "curate" else str(save_onnx(tmp_path / "a.onnx"))
    embed = Embed(model=model, weights=file)
    dim, flops = (64, picture_flops(vit(), 56)) if model == "curate" else (DIM, 2 * 3 * SIDE**2 * DIM)
    for stage, rows in ((embed, 100), (PlantCopies(embed=embed, num_images=50, copies_each=1), 100)):
        demand, made = stage.cost({"catalog": Shape(100)}, Assumptions(images=100))
        assert (made.rows, made.dim, demand.forward) == (rows, dim, pytest.approx(rows * flops))
    assert embed._license() == "CC0-1.0"
    Path(file).unlink()
    assert embed._license() == "unknown, since its weights are not here now"


def test_a_plan_needs_no_weights_of_models_that_an_id_describes() -> None:
    assert Embed(model="sscd", weights="gone.pt").cost({"catalog": Shape(9)}, Assumptions(images=9))[1].dim == 512
    with pytest.raises(WeightsError, match="onnx: gone.onnx: no such weight file"):
        Embed(model="onnx", weights="gone.onnx").cost({"catalog": Shape(9)}, Assumptions(images=9))
