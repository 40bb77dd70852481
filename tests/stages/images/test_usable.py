"""How many curated and held-out images could be used, from the verdicts alone."""

from pathlib import Path

import pytest

from curate.engine.image_ids import Parts
from curate.engine.store import Store
from curate.stages.images.catalog import Catalog
from curate.stages.images.inspect import Inspect
from curate.stages.images.usable import Usable, is_rejected
from curate.tables import IMAGES
from tests.stages.planted import given_catalog, given_table, opened

PARTS = [("photos", "pool", 3), ("bench", "heldout", 4), ("more", "heldout", 5), ("seeds", "curated", 2)]
REJECTS = [
    [None, "uniform", None],
    [None, "corrupt", "unavailable", None],
    ["corrupt", "empty", "corrupt", "corrupt", None],
    [None, None],
]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Tables of three roles, half of the held-out images lost for every kind of reason."""
    catalog = given_catalog(tmp_path, PARTS)
    rows = [
        [{"image_id": part << 32 | row, "reject": reject, "format": None} for row, reject in enumerate(rejects)]
        for part, rejects in enumerate(REJECTS)
    ]
    images = given_table(tmp_path, "images", IMAGES, rows)
    figures = Inspect(max_reject_fraction=1).summarize(images, catalog=catalog)
    given_table(tmp_path, "images", IMAGES, rows, figures=figures)
    return tmp_path


def test_every_reason_counts_and_the_first_images_are_named(root: Path) -> None:
    assert Parts.of(Store(root).table("catalog")).num_images(["heldout"]) == 9
    run = opened(root, {"catalog": Catalog.model_construct(), "images": Inspect()})
    found = Usable.of(run, "heldout")
    assert found is not None
    assert (found.lost, found.used) == (6, "3 of 9 held-out images")
    named = "bench/1.jpg, bench/2.jpg, more/0.jpg, more/1.jpg, more/2.jpg, ..."
    assert found.why == f"4 corrupt, 1 unavailable, 1 empty: {named}"
    assert is_rejected(run, run.place(1 << 32 | 2))
    assert not is_rejected(run, run.place(1 << 32 | 3))
    curated = Usable.of(run, "curated")
    assert curated is not None
    assert (curated.lost, curated.used, curated.why) == (0, "2 of 2 curated images", "")


def test_without_an_inspection_or_images_of_the_role_nothing_is_said(root: Path) -> None:
    assert Usable.of(opened(root, {"catalog": Catalog.model_construct()}), "heldout") is None
    given_catalog(root, [("photos", "pool", 3)])
    assert Usable.of(opened(root, {"catalog": Catalog.model_construct(), "images": Inspect()}), "heldout") is None
