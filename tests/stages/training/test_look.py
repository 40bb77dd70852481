import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from curate.engine.finished import Finished
from curate.engine.show import Drawings, Text
from curate.engine.table import Table
from curate.models.files.export import ExportInfo, write_export
from curate.models.nets.vit import ViTConfig
from curate.stages.training.look import NUM_PICTURES, look_through
from curate.tables import shards_schema
from tests.models.nets.test_vit import seeded
from tests.stages.planted import given_table, opened

TINY = ViTConfig(dim=24, depth=2, heads=3, image_size=28, layer_scale_init=1.0)
EXPORTS = {
    "initialization": "pretrain/run-1/backbone-init.safetensors",
    "pretrained": "pretrain/run-1/backbone.safetensors",
}


def jpeg(seed: int) -> bytes:
    """A smooth random picture of 96 x 72 pixels."""
    pixels = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).resize((96, 72), Image.Resampling.BICUBIC).save(file, "JPEG")
    return file.getvalue()


@pytest.fixture
def trained(tmp_path: Path) -> tuple[Finished, Table]:
    """A run with two exports and six images in its shards."""
    for seed, path in enumerate(EXPORTS.values()):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        write_export(tmp_path / path, seeded(TINY, seed=seed), ExportInfo(image_size=28, short_edge=28))
    rows: list[dict[str, Any]] = [
        {"image_id": seed, "image": {"bytes": jpeg(seed), "path": f"{seed}.jpg"}} for seed in range(6)
    ]
    return opened(tmp_path, {}), given_table(tmp_path, "shards/data", shards_schema({}), [rows[:4], rows[4:]])


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)), int)


def test_each_picture_stands_beside_what_both_backbones_make_of_it(trained: tuple[Finished, Table]) -> None:
    blocks = look_through(*trained, EXPORTS)
    groups = [block for block in blocks if isinstance(block, Drawings)]
    assert len(groups) == NUM_PICTURES
    wanted = ["image", *(f"{what}, {of}" for what in ("attention", "patches") for of in EXPORTS)]
    for group in groups:
        assert [drawing.captions[0] for drawing in group.drawings] == wanted
        shown = [pixels(drawing.jpeg) for drawing in group.drawings]
        assert {picture.shape for picture in shown} == {(211, 264, 3)}
        before, after = shown[3], shown[4]
        assert np.abs(before - after).mean() > 5


def test_drawings_made_twice_are_the_same(trained: tuple[Finished, Table]) -> None:
    assert look_through(*trained, EXPORTS) == look_through(*trained, EXPORTS)


def test_exports_that_are_gone_are_named_without_their_place(trained: tuple[Finished, Table], tmp_path: Path) -> None:
    (tmp_path / EXPORTS["pretrained"]).unlink()
    (block,) = look_through(*trained, EXPORTS)
    assert isinstance(block, Text)
    assert block.text.startswith(f"{EXPORTS['pretrained']}: no longer there")
    assert str(tmp_path) not in block.text
