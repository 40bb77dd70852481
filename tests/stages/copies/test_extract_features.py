"""ExtractFeatures: the features of the chosen images, from the pictures themselves."""

from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image

from curate.engine.cost import Assumptions, Shape
from curate.ops.copies.features import SIDE, extract_features
from curate.ops.images.inspect import inspect_image
from curate.stages.copies.extract_features import (
    FEATURE_BYTES,
    MEGAPIXELS,
    ExtractFeatures,
    FeatureFigures,
    features_row,
    read_features,
)
from curate.stages.images.inspect import Inspect
from curate.stages.images.pictures import TRUSTING
from curate.tables import CHOSEN, FEATURES
from tests.stages.copies.given_pairs import texture
from tests.stages.images.test_pictures import inspected, listed
from tests.stages.planted import given_table


def extracted(root: Path, wanted: list[int]) -> pa.Table:
    """The features of a folder of five pictures, one of which is not an image and one without any detail."""
    (root / "pool").mkdir()
    for number in range(3):
        texture(number, width=400, height=300).save(root / "pool" / f"{number}.png")
    (root / "pool" / "3.png").write_bytes(b"<html>")
    Image.linear_gradient("L").resize((300, 300)).save(root / "pool" / "4.png")
    catalog = listed(root / "pool")
    chosen = pa.table([pa.array(wanted, pa.int64())], schema=CHOSEN)
    images = inspected(catalog, Inspect())
    batches = list(ExtractFeatures().run(0, catalog=catalog, images=images, chosen=chosen))
    return pa.Table.from_batches(batches, schema=FEATURES)


def test_chosen_images_have_the_features_of_their_pictures_and_the_others_nulls(tmp_path: Path) -> None:
    rows = extracted(tmp_path, [0, 2, 3, 4]).to_pylist()
    assert [row["image_id"] for row in rows] == list(range(5))
    assert [row["points"] is None for row in rows] == [False, True, False, True, False]
    for number in (0, 2):
        data = (tmp_path / "pool" / f"{number}.png").read_bytes()
        seen = inspect_image(data, TRUSTING, min_side=SIDE).picture
        assert seen is not None
        assert {name: rows[number][name] for name in FEATURES.names[1:]} == features_row(extract_features(seen))
    assert rows[4]["points"] == rows[4]["descriptors"] == b""  # opened, but nothing to be found


def test_features_are_read_as_they_were_stored() -> None:
    found = extract_features(texture(5))
    again = read_features(features_row(found))
    assert again is not None
    assert np.array_equal(again.stored_points, found.stored_points)
    assert np.array_equal(again.stored_descriptors, found.stored_descriptors)
    assert again.encoded == found.encoded
    assert np.array_equal(again.luma, found.luma)
    nothing = read_features(features_row(extract_features(Image.new("RGB", (99, 99)))))
    assert nothing is not None
    assert (nothing.points.shape, nothing.descriptors.shape) == ((0, 2), (0, 128))
    assert read_features(dict.fromkeys(FEATURES.names)) is None


def test_figures_count_the_images_that_were_opened(tmp_path: Path) -> None:
    rows = [{"image_id": 0} | features_row(extract_features(texture(1))), {"image_id": 1}]
    table = given_table(tmp_path, "features", FEATURES, [rows, [{"image_id": 1 << 32}]])
    figures = ExtractFeatures().summarize(table)
    assert figures == FeatureFigures(images=1)
    assert ExtractFeatures().rows_in(figures) == 1


def test_decoding_keeps_as_many_pixels_as_features_need() -> None:
    assert ExtractFeatures().least_side() == SIDE


def test_cost_is_that_of_opening_the_chosen_images() -> None:
    given = Assumptions(images=1000)
    demand, made = ExtractFeatures().cost({"chosen": Shape(pool=100, row_bytes=8)}, given)
    assert (made.rows, made.row_bytes, demand.written) == (100, FEATURE_BYTES, 100 * FEATURE_BYTES)
    assert demand.megapixels == 100 * (MEGAPIXELS + given.megapixels)  # the points, and decoding before
