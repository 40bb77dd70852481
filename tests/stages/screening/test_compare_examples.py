"""Images are as like the examples as the most similar of these, and examples are known by their content."""

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from curate.errors import ConfigError, SourceError, TableError
from curate.ops.vectors import VectorSpec, normalize, pack, unpack
from curate.samples.bundled import PHOTOS
from curate.stages.images.embed import Embed
from curate.stages.screening.compare_examples import CompareExamples
from curate.stages.screening.embed_examples import EmbedExamples
from curate.tables import embeddings_schema, examples_schema
from tests.stages.planted import given_table

DIM = 12
EMBED = Embed(model="lite0-copy", precision="fp32", device="cpu", batch_size=2)


def compared(tmp_path: Path, vectors: np.ndarray, examples: np.ndarray) -> pa.Table:
    schema = examples_schema(DIM, model="m", weights="w")
    rows = [{"example": f"{number}.png", "vector": row.tobytes()} for number, row in enumerate(examples)]
    table = given_table(tmp_path, "internal/examples/logos", schema, [rows])
    valid = np.arange(len(vectors)) % 6 != 5
    given = embeddings_schema(DIM, dtype="float32", model="m", weights="w")
    embeddings = pa.table([pa.array(np.arange(len(vectors))), pack(vectors, valid=valid)], schema=given)
    stage = CompareExamples(name="logos")
    return pa.Table.from_batches(list(stage.run(0, embeddings=embeddings, examples=table)))


def test_the_score_is_the_largest_cosine(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    vectors, examples = (normalize(rng.standard_normal((n, DIM))) for n in (40, 5))
    found = compared(tmp_path, vectors, examples)
    cosines, known = vectors @ examples.T, np.arange(40) % 6 != 5
    np.testing.assert_allclose(found["logos"].drop_null().to_numpy(), cosines.max(axis=1)[known], rtol=1e-5)
    named = [f"{place}.png" for place in cosines.argmax(axis=1)[known]]
    assert found["example"].drop_null().to_pylist() == named
    assert found["logos"].is_valid().to_pylist() == known.tolist()


def test_examples_of_another_model_are_an_error() -> None:
    schemas = {
        "embeddings": embeddings_schema(DIM, dtype="float32", model="a", weights="w"),
        "examples": examples_schema(DIM, model="b", weights="w"),
    }
    with pytest.raises(TableError, match=r"logos: embeddings are of a \(12\), examples of b \(12\)"):
        CompareExamples(name="logos").output_schema(**schemas)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a/one.jpg", "two.jpg", ".hidden/three.jpg"):
        (tmp_path / "examples" / name).parent.mkdir(parents=True, exist_ok=True)
    photos = sorted(PHOTOS.glob("*/*.jpg"))
    for photo, name in zip(photos, ("a/one.jpg", "two.jpg", ".hidden/three.jpg"), strict=False):
        shutil.copy(photo, tmp_path / "examples" / name)
    return tmp_path / "examples"


def test_examples_are_the_pictures_of_a_folder_and_those_below(folder: Path) -> None:
    stage = EmbedExamples(source=str(folder), embed=EMBED)
    rows = pa.Table.from_batches(list(stage.run(0)))
    assert rows["example"].to_pylist() == ["a/one.jpg", "two.jpg"]
    vectors, _ = unpack(rows["vector"], VectorSpec.of(rows.schema))
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-3)
    assert rows.schema.equals(stage.output_schema(), check_metadata=True)


def test_examples_are_known_by_their_content(folder: Path, tmp_path: Path) -> None:
    pins = EmbedExamples(source=str(folder), embed=EMBED).pins()
    shutil.copytree(folder, tmp_path / "moved")
    moved = EmbedExamples(source=str(tmp_path / "moved"), embed=EMBED)
    assert moved.pins() == pins
    Image.new("RGB", (90, 90), "red").save(tmp_path / "moved/two.jpg")
    assert moved.pins() != pins


def test_what_are_no_examples_is_an_error(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such folder; give one that holds the examples"):
        EmbedExamples(source=str(tmp_path / "none"), embed=EMBED).pins()
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="holds 0 files; 1 to 10,000 pictures are needed"):
        EmbedExamples(source=str(tmp_path / "empty"), embed=EMBED).pins()
    (folder / "notes.txt").write_text("no picture")
    with pytest.raises(SourceError, match=r"notes.txt: an example is not_an_image \(.*take it out of the folder"):
        list(EmbedExamples(source=str(folder), embed=EMBED).run(0))
