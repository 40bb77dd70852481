"""16-bit pictures that use few of their bits: every consumer scales them alike, and the report tells of them."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from benchmarks import encoders as enc
from benchmarks.formats import samples, shown
from benchmarks.select import put
from curate.engine.finished import Finished, FinishedTable
from curate.engine.image_ids import CatalogFigures
from curate.engine.store import Store
from curate.errors import ConfigError
from curate.feed.crops import decode_tensor
from curate.feed.settings import FeedSettings
from curate.ops.images.inspect import ImageLimits
from curate.recipe import find_recipe, load_config
from curate.sources.config import Source, Sources
from curate.stages.images.catalog import Catalog, read_picture
from curate.stages.images.inspect import Inspect, InspectFigures
from curate.stages.images.pictures import PictureStage, Seen, read_pictures
from curate.tables import IMAGE_ID, IMAGES

BITS = 12
STORED = [samples(3, BITS, seed=seed) for seed in range(4)]


class Pixels(PictureStage):
    """All pixels of each picture."""

    def output_schema(self, **inputs: object) -> pa.Schema:
        return pa.schema([IMAGE_ID, pa.field("pixels", pa.list_(pa.uint8()))])

    def prepare(self, seen: Seen) -> dict[str, object]:
        assert seen.inspected is not None
        assert seen.inspected.picture is not None
        return {"pixels": np.asarray(seen.inspected.picture).ravel()}


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    folder = tmp_path / "pool"
    folder.mkdir()
    for number, stored in enumerate(STORED):
        (folder / f"{number}.png").write_bytes(enc.png(stored, 16))
        (folder / f"{number}.tif").write_bytes(enc.tiff(stored, 16, photometric=2))
    return folder


def listed(pool: Path, **source: object) -> pa.Table:
    sources = Sources(pool=(Source(name="pool", path=str(pool), **source),))  # type: ignore[arg-type]
    ((_, rows),) = Catalog(sources=sources).scan(None)
    return rows


def test_every_consumer_scales_by_the_bits_of_the_source(pool: Path) -> None:
    catalog = listed(pool, significant_bits=BITS)
    first = dict(read_pictures({"images": Inspect(), "pixels": Pixels()}, 0, catalog=catalog))
    images = pa.Table.from_batches([first["images"]])
    later = dict(read_pictures({"pixels": Pixels()}, 0, catalog=catalog, images=images))
    for row in range(len(catalog)):
        wanted = shown(STORED[row // 2], (1 << BITS) - 1)
        for seen in (first["pixels"], later["pixels"]):
            np.testing.assert_array_equal(seen["pixels"][row].as_py(), wanted.ravel())
        np.testing.assert_array_equal(np.asarray(read_picture(catalog.slice(row, 1))), wanted)
        encoded = Path(catalog["uri"][row].as_py()).read_bytes()
        feed = FeedSettings(significant_bits=BITS)
        tensor = decode_tensor(encoded, significant_bits=feed.significant_bits)
        np.testing.assert_array_equal(tensor.permute(1, 2, 0).numpy(), wanted)


def test_dark_pictures_of_16_bits_are_left_as_they_are(pool: Path) -> None:
    found = dict(read_pictures({"pixels": Pixels()}, 0, catalog=listed(pool)))
    assert max(max(pixels) for pixels in found["pixels"]["pixels"].to_pylist()) in (15, 16)


@pytest.mark.parametrize("bits", [7, 17, "none"])
def test_other_numbers_of_bits_are_refused(pool: Path, bits: object) -> None:
    with pytest.raises(ConfigError, match=r"sources\.pool\.0\.significant_bits"):
        load_config("dedup", [f"sources.pool={{path: {pool}, significant_bits: {bits}}}", f"workdir={pool}/run"])


@pytest.mark.parametrize(("feed", "right"), [("auto", False), ("10", False), ("12", True)])
def test_a_training_that_would_scale_otherwise_is_refused(tmp_path: Path, feed: str, right: bool) -> None:
    given = [f"sources.pool={{path: {tmp_path}, significant_bits: 12}}", f"sources.curated={tmp_path}"]
    given += [f"workdir={tmp_path}/run", f"pretrain.train.feed.significant_bits={feed}"]
    config = load_config("lvd142m", ["recipe=pretrain", *given])
    if right:
        assert "pretrain" in find_recipe(config.recipe).outline(Store(config.workdir), config).names
        return
    text = rf"pretrain\.train\.feed\.significant_bits={feed}: the sources have 12; set it so too"
    with pytest.raises(ConfigError, match=text):
        find_recipe(config.recipe).outline(Store(config.workdir), config)


def warnings(pool: Path, workdir: Path, **source: object) -> list[str]:
    """What the report of an inspected pool warns of."""
    rows = listed(pool, **source)
    stage = Inspect(limits=ImageLimits(min_luma_std=0))
    made = pa.Table.from_batches(list(stage.run(0, catalog=rows))).combine_chunks().to_batches()[0]
    store = Store(workdir)
    put(store, "catalog", rows.schema, 1, {0: rows.combine_chunks().to_batches()[0]}, figures=figures_of(rows))
    put(store, "images", IMAGES, 1, {0: made}, figures=InspectFigures(accepted=len(rows), rejected={}))
    catalog = Catalog(sources=Sources(pool=(Source(name="pool", path=str(pool)),)))
    tables = (FinishedTable(catalog, store.table("catalog")), FinishedTable(stage, store.table("images")))
    return list(stage.warn(store.table("images"), Finished(store, "toy", {"seed": 0}, tables)))


def figures_of(rows: pa.Table) -> CatalogFigures:
    return CatalogFigures.of_parts([("pool", "pool", len(rows))])


def test_the_report_tells_of_pictures_that_use_few_bits(pool: Path, tmp_path: Path) -> None:
    for number in range(3):  # pictures of 8 bits are no evidence
        Image.linear_gradient("L").save(pool / f"{number}.eight.png")
    (text,) = warnings(pool, tmp_path / "a")
    assert (
        "images: the samples of 8 of 8 16-bit pictures looked at stay below 4096; where the camera gives 12 bits"
        in text
    )
    assert "sources.pool={path: DIR, significant_bits: 12}" in text
    assert warnings(pool, tmp_path / "b", significant_bits=12) == []


def test_a_few_dark_pictures_among_bright_ones_are_no_evidence(pool: Path, tmp_path: Path) -> None:
    for number in range(9):
        (pool / f"{number}.bright.png").write_bytes(enc.png(samples(1, 16, seed=number), 16))
    assert warnings(pool, tmp_path / "a") == []
