"""PlantCopies: a sample of the pool with its copies, from the pictures themselves, by a model without weights."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from curate.engine.cost import Assumptions
from curate.engine.pipeline import Pipeline
from curate.engine.store import Store
from curate.errors import ConfigError
from curate.ops.copies.features import extract_features
from curate.ops.images.borders import without_border
from curate.ops.images.inspect import inspect_image
from curate.ops.images.preprocess import preprocess
from curate.ops.vectors import VectorSpec, unpack
from curate.sources.config import Sources
from curate.stages.copies.extract_features import FEATURE_BYTES, features_row
from curate.stages.copies.plant import EDITING, SIDE, PlantCopies, PlantFigures
from curate.stages.images.catalog import Catalog
from curate.stages.images.embed import Embed
from curate.stages.images.inspect import Inspect
from curate.stages.images.pictures import TRUSTING
from tests.stages.planted import make

DIM = 24 * 24
"""Values of a vector of this model."""
FRAMED = 10
"""Every n-th picture stands in a frame."""
LUMA = Embed(model="luma24", precision="fp32", device="cpu", batch_size=16)


def planted(root: Path, *, num_images: int) -> Pipeline:
    """A pool of random pictures, some of them framed and the last one empty, and two copies of each."""
    rng = np.random.default_rng(0)
    for role in ("pool", "curated"):
        (root / role).mkdir(parents=True)
        for number in range(num_images if role == "pool" else 3):
            coarse = Image.fromarray(rng.integers(0, 255, (8, 8, 3), dtype=np.uint8))
            picture = coarse.resize((160, 120), Image.Resampling.BICUBIC)
            if number % FRAMED == 0:
                picture = ImageOps.expand(picture, 20, (250, 250, 250))
            picture.save(root / role / f"{number:03d}.jpg")
    (root / "pool" / "999.jpg").write_bytes(b"")
    sources = Sources.model_validate({role: str(root / role) for role in ("pool", "curated")})
    p = Pipeline(Store(root / "run"), seed=0)
    catalog = p.add("catalog", Catalog(sources=sources, rows_per_part=40))
    images = p.add("images", Inspect(), catalog=catalog)
    p.add("planted", PlantCopies(embed=LUMA, copies_each=2), catalog=catalog, images=images)
    return p


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("planted")


@pytest.fixture(scope="module")
def made(folder: Path) -> Pipeline:
    """Of 55 pictures."""
    p = planted(folder, num_images=55)
    make(p)
    return p


def test_every_accepted_pool_image_comes_before_its_copies(made: Pipeline) -> None:
    p, table = made, made.store.table("planted")
    rows = table.read_all()
    keys = list(zip(rows["image_id"].to_pylist(), rows["copy"].to_pylist(), strict=True))
    pool = [row for part in (0, 1) for row in p.store.table("catalog").read(part)["image_id"].to_pylist()][:55]
    assert keys == [(image_id, number) for image_id in pool for number in range(3)]
    figures = PlantFigures.of(table)
    assert (figures.images, figures.copies) == (55, 110)
    number, edits = rows["copy"].to_numpy(), rows["edits"].to_pylist()
    assert all(bool(text) == (n > 0) and len(text.split()) <= 3 for text, n in zip(edits, number, strict=True))
    spec = VectorSpec.of(rows.schema)
    assert (spec.model, spec.dtype, spec.dim) == ("luma24", "float32", DIM)
    vectors = unpack(rows["vector"], spec)[0].reshape(55, 3, -1)
    assert not np.array_equal(vectors[:, 0], vectors[:, 1])


def test_pictures_have_their_features_and_those_in_frames_a_vector_of_what_is_within(
    made: Pipeline, folder: Path
) -> None:
    rows = made.store.table("planted").read_all()
    spec = VectorSpec.of(rows.schema)
    number, framed = rows["copy"].to_numpy(), rows["within"].is_valid().to_numpy()
    originals = np.flatnonzero(number == 0)
    assert np.flatnonzero(framed[originals]).tolist() == list(range(0, 55, FRAMED))
    assert framed[number > 0].sum() > 5  # some edits make frames, too
    whole, within = (unpack(rows[name], spec)[0] for name in ("vector", "within"))
    net = LUMA.backbone().preprocess
    for at, row in enumerate(np.flatnonzero(framed & (number == 0))[:2].tolist()):
        data = (folder / "pool" / f"{FRAMED * at:03d}.jpg").read_bytes()
        picture = inspect_image(data, TRUSTING, min_side=SIDE).picture
        assert picture is not None
        inside = without_border(picture)
        assert inside is not None
        place = int(framed[:row].sum())
        np.testing.assert_allclose(within[place], LUMA.embed([preprocess(inside, net)])[0], atol=1e-5)
        np.testing.assert_allclose(whole[row], LUMA.embed([preprocess(picture, net)])[0], atol=1e-5)
        expected = features_row(extract_features(picture))
        assert {name: rows[name][row].as_py() for name in expected} == expected


def test_too_few_images_name_the_field(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^num_images=1000: copies could be planted on 49 images .* at least 50 are"):
        make(planted(tmp_path, num_images=49))


def test_sample_is_a_share_of_the_pool(made: Pipeline) -> None:
    catalog = made.store.table("catalog")
    assert PlantCopies(embed=LUMA, num_images=50).resolve(catalog=catalog).sample_share == 50 / 56
    assert PlantCopies(embed=LUMA, num_images=500).resolve(catalog=catalog).sample_share == 1


def test_resources_are_those_of_the_model() -> None:
    assert PlantCopies(embed=LUMA.model_copy(update={"device": "cpu"})).resources() == {}
    assert PlantCopies(embed=LUMA.model_copy(update={"device": "cuda"})).resources() == {"GPU": 1.0}


def test_cost_is_that_of_the_sample_however_large_the_pool() -> None:
    stage = PlantCopies(embed=LUMA, num_images=1000, copies_each=3)
    given = Assumptions(images=10**9, megapixels=0.5, image_bytes=1000)
    demand, made = stage.cost({}, given)
    assert made.rows == 4000
    assert (demand.megapixels, demand.read) == (EDITING * 4000 * 0.5, 1_000_000)
    assert demand.written == 4000 * (8 * DIM + FEATURE_BYTES)
