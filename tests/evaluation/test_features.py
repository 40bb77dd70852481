import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from torch import nn

from curate.errors import SourceError
from curate.evaluation.features import embed_folder, embed_images
from curate.evaluation.labeled import from_arrays, open_labeled
from curate.models.backbones.backbone import Backbone
from curate.models.info import ModelInfo
from curate.ops.images.preprocess import Preprocess
from tests.evaluation.backbones import of_pictures
from tests.feed.shards import png, row, write_shard


class MeanColor(nn.Module):
    """(B, 3, S, S) -> (B, 3), the mean of each channel."""

    def forward(self, x):
        return x.mean(dim=(2, 3))


@pytest.fixture
def backbone():
    how = Preprocess(
        size=8, resize="square", short_edge=8, interpolation="bilinear", mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)
    )
    info = ModelInfo(model="mean", dim=3, license="none", preprocess=how, how_to_get="")
    return Backbone(info, MeanColor(), torch.device("cpu"), "fp32")


def solid(color):
    return Image.new("RGB", (20, 10), color)


def test_features_are_the_backbones_of_each_picture_in_order(backbone):
    colors = [(255, 0, 0), (0, 200, 0), (30, 40, 0)] * 50  # more than one batch
    found = embed_images(backbone, of_pictures([solid(c) for c in colors]))
    wanted = np.array(colors) / np.linalg.norm(colors, axis=1, keepdims=True)
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_no_pictures_give_no_features(backbone):
    assert embed_images(backbone, of_pictures([])).shape == (0, 3)


def test_gray_and_rgb_arrays_agree(backbone):
    gray = np.random.default_rng(0).integers(1, 256, (3, 8, 8), dtype=np.uint8)
    one, three = (from_arrays(x, np.arange(3), name="x") for x in (gray, np.stack([gray] * 3, axis=-1)))
    np.testing.assert_array_equal(embed_images(backbone, one), embed_images(backbone, three))


def test_classes_are_the_subfolders(backbone, tmp_path):
    for name, color in (("b/x/1.png", (0, 0, 9)), ("a/2.png", (9, 0, 0)), ("a/1.PNG", (0, 9, 0))):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        solid(color).save(tmp_path / name, format="PNG")
    (tmp_path / "a" / "notes.txt").write_text("no picture")
    found = embed_folder(backbone, tmp_path)
    assert open_labeled(str(tmp_path)).classes == ["a", "b"]
    assert found.labels.tolist() == [0, 0, 1]
    assert found.features.argmax(axis=1).tolist() == [1, 0, 2]


def test_shards_and_plain_bytes_agree(backbone, tmp_path):
    shard = write_shard(tmp_path / "a.parquet", [row(i) for i in range(3)])
    plain = tmp_path / "b.parquet"
    pq.write_table(pa.table({"image": [png(i) for i in range(3)], "key": ["0.png", "1.png", "2.png"]}), plain)
    first, second = (open_labeled(str(path), label="key") for path in (shard, plain))
    np.testing.assert_array_equal(embed_images(backbone, first), embed_images(backbone, second))
    assert first.labels.tolist() == second.labels.tolist() == [0, 1, 2]


def test_missing_folder_and_empty_folder_are_errors(backbone, tmp_path):
    with pytest.raises(SourceError, match="gone: no such folder"):
        embed_folder(backbone, tmp_path / "gone")
    with pytest.raises(SourceError, match="no pictures in subfolders"):
        embed_folder(backbone, tmp_path)


def test_damaged_pictures_are_named(backbone, tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.png").write_bytes(b"x")
    with pytest.raises(SourceError, match=r"1.png: the picture does not decode"):
        embed_folder(backbone, tmp_path)
    shard = write_shard(tmp_path / "a.parquet", [row(0), row(1, encoded=b"x")])
    with pytest.raises(SourceError, match=r"a.parquet row 1: the picture does not decode"):
        embed_images(backbone, open_labeled(str(shard), label="key"))


def test_transparent_pictures_lie_on_white_as_in_curation(backbone, tmp_path):
    (tmp_path / "a").mkdir()
    Image.new("RGBA", (20, 10), (255, 0, 0, 0)).save(tmp_path / "a" / "1.png")
    np.testing.assert_allclose(embed_folder(backbone, tmp_path).features, 3**-0.5, atol=1e-5)


def test_parquet_without_what_is_needed_is_an_error(tmp_path):
    shard = write_shard(tmp_path / "a.parquet", [row(0)])
    with pytest.raises(SourceError, match="no column 'label'; it has image, image_id"):
        open_labeled(str(shard), label="label")
    (tmp_path / "b.parquet").write_bytes(b"x")
    with pytest.raises(SourceError, match=r"b.parquet: not a readable Parquet file"):
        open_labeled(str(tmp_path / "b.parquet"), label="label")
    with pytest.raises(SourceError, match="1 Parquet files without a row"):
        open_labeled(str(write_shard(tmp_path / "c.parquet", [])), label="key")
