"""Own embeddings reach their images whatever the files' layout and order; what does not fit is told or an error."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.engine.pipeline import Pipeline
from curate.engine.stage import Batches, Input, Map, each
from curate.engine.store import Store
from curate.errors import ConfigError, SourceError
from curate.ops.vectors import VectorSpec, normalize, to_float32, unpack
from curate.pipelines.vectors import embed_pool
from curate.sources import vector_files
from curate.sources.vector_files import OwnEmbeddings
from curate.stages.images import match_vectors, own_vectors
from curate.stages.images.own_vectors import OwnFigures
from curate.tables import CATALOG, IMAGES
from tests.stages.planted import PlantedCatalog, make

DIM = 6
ROLES = ("pool", "pool", "curated", "heldout")
ROWS = 25


class NamedCatalog(PlantedCatalog):
    """Images in archives: part 0 holds `a.tar/0.left.jpg`, ..."""

    def scan(self, known: Any) -> Any:
        for part, rows in super().scan(known):
            keys = [f"{'abcd'[part]}.tar/{part}{row:03}.left.jpg" for row in range(len(rows))]
            uris = [f"/data/{'abcd'[part]}.tar"] * len(rows)
            named = {"key": pa.array(keys), "uri": pa.array(uris)}
            yield part, pa.table([named.get(field.name, rows[field.name]) for field in CATALOG], schema=CATALOG)


class PlantedImages(Map):
    """Every ninth image is rejected; images 1 and 2 of a part have equal bytes."""

    inputs: ClassVar[dict[str, Input]] = {"catalog": each(CATALOG)}

    def output_schema(self, **inputs: Any) -> pa.Schema:
        return IMAGES

    def run(self, part: int, *, catalog: pa.Table) -> Batches:
        rows = [
            {"image_id": image_id, "sha256": sha256_of(key), "reject": "corrupt" if row % 9 == 8 else None}
            for row, (image_id, key) in enumerate(
                zip(*(catalog[n].to_pylist() for n in ("image_id", "key")), strict=True)
            )
        ]
        yield pa.RecordBatch.from_pylist(rows, schema=IMAGES)


def sha256_of(key: str) -> bytes:
    return hashlib.sha256(key.replace("002.", "001.").encode()).digest()


KEYS = [f"{letter}.tar/{part}{row:03}.left.jpg" for part, letter in enumerate("abcd") for row in range(ROWS)]
VECTORS = np.random.default_rng(0).standard_normal((len(KEYS), DIM)).astype(np.float32) * 3
FIRST, SECOND = ([row for row, key in enumerate(KEYS) if f"00{number}." in key] for number in (1, 2))
VECTORS[SECOND] = VECTORS[FIRST]


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several chunks a file, several buckets, several reads a chunk."""
    monkeypatch.setattr(vector_files, "CHUNK_ROWS", 16)
    monkeypatch.setattr(match_vectors, "MEETING_ROWS", 40)
    monkeypatch.setattr(own_vectors, "READ_ROWS", 5)


def parquet(path: Path, names: list[str], vectors: np.ndarray, kind: str = "list", **columns: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "fixed":
        values = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), DIM)
    elif kind == "large":
        values = pa.array(list(vectors.astype(np.float16)), pa.large_list(pa.float16()))
    else:
        values = pa.array(list(vectors.astype(np.float64)), pa.list_(pa.float64()))
    ids, column = columns.get("ids", "image_id"), columns.get("column", "embedding")
    pq.write_table(pa.table({ids: names, "caption": ["x"] * len(names), column: values}), path, row_group_size=7)


def order() -> np.ndarray:
    return np.random.default_rng(1).permutation(len(KEYS))


def nemo_curator(tmp_path: Path) -> dict[str, Any]:
    names, rows = [Path(key).name.split(".")[0] for key in KEYS], order()
    for number, some in enumerate(np.array_split(rows, 3)):
        parquet(tmp_path / f"out/{number}.parquet", [names[row] for row in some], VECTORS[some])
    return {"table": str(tmp_path / "out")}


def clip_retrieval(tmp_path: Path) -> dict[str, Any]:
    for folder in ("img_emb", "metadata"):
        (tmp_path / f"out/{folder}").mkdir(parents=True)
    for number, some in enumerate(np.array_split(np.arange(len(KEYS)), 11)):
        np.save(tmp_path / f"out/img_emb/img_emb_{number}.npy", VECTORS[some].astype(np.float16))
        names = [KEYS[row].split("/")[1].split(".")[0] for row in some]
        metadata = pa.table({"image_path": names, "caption": names, "key": names})
        pq.write_table(metadata, tmp_path / f"out/metadata/metadata_{number}.parquet")
    return {"table": str(tmp_path / "out")}


def arrays(tmp_path: Path) -> dict[str, Any]:
    rows = order()
    np.save(tmp_path / "v.npy", VECTORS[rows].astype(np.float64))
    (tmp_path / "ids.txt").write_text("\n".join(KEYS[row] for row in rows))
    return {"table": str(tmp_path / "v.npy"), "ids": str(tmp_path / "ids.txt"), "id": "key"}


def texts(tmp_path: Path) -> dict[str, Any]:
    for number, some in enumerate(np.array_split(order(), 2)):
        np.save(tmp_path / f"v{number}.npy", VECTORS[some])
        named = [f"{ROLES['abcd'.index(KEYS[row][0])]}/{KEYS[row]}" for row in some]
        np.save(tmp_path / f"ids-{number}.npy", np.array(named))
    return {"table": str(tmp_path / "v*.npy"), "ids": str(tmp_path / "ids-*.npy"), "id": "key"}


def digests(tmp_path: Path) -> dict[str, Any]:
    names = [sha256_of(key).hex().upper() for key in KEYS]
    parquet(tmp_path / "v.parquet", names, VECTORS, "fixed", ids="hash", column="mine")
    return {"table": str(tmp_path / "v.parquet"), "id": "sha256", "id_column": "hash", "column": "mine"}


def halves(tmp_path: Path) -> dict[str, Any]:
    parquet(tmp_path / "v.parquet", [key.split("/")[1] for key in KEYS], VECTORS, "large", ids="id", column="odd")
    return {"table": str(tmp_path / "*.parquet"), "id": "name"}


LAYOUTS: list[Callable[[Path], dict[str, Any]]] = [nemo_curator, clip_retrieval, arrays, texts, digests, halves]


def embedded(tmp_path: Path, given: dict[str, Any]) -> tuple[Store, np.ndarray, np.ndarray]:
    """A run's store, the ids of its images, and (N, D) vectors, NaN where there is none."""
    p = Pipeline(Store(tmp_path / "run"), seed=0)
    catalog = p.add("catalog", NamedCatalog(roles=ROLES, rows=ROWS))
    images = p.add("images", PlantedImages(), catalog=catalog)
    own = OwnEmbeddings(dtype="float32", **given)
    embed_pool(p, "embeddings/own", own, catalog=catalog, images=images, duplicates=None)
    make(p)
    rows = p.store.table("embeddings/own").read_all()
    spec = VectorSpec.of(rows.schema)
    stored, at = unpack(rows["vector"], spec)
    found = np.full((len(rows), DIM), np.nan, np.float32)
    found[at] = to_float32(stored, spec)
    return p.store, rows["image_id"].to_numpy(), found


def expected(missing: tuple[int, ...] = ()) -> np.ndarray:
    """Unit vectors of all accepted images that are not held out."""
    found = normalize(VECTORS)
    row = np.arange(len(KEYS))
    found[(row % ROWS % 9 == 8) | (row >= 3 * ROWS) | np.isin(row, missing)] = np.nan
    return found


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.__name__)
def test_every_layout_gives_each_image_its_vector(tmp_path: Path, layout: Callable[[Path], dict[str, Any]]) -> None:
    store, ids, found = embedded(tmp_path, layout(tmp_path))
    assert ids.tolist() == [part << 32 | row for part in range(4) for row in range(ROWS)]
    np.testing.assert_allclose(found, expected(), atol=2e-3)
    assert OwnFigures.of(store.table("embeddings/own")).missing == 0


def test_missing_and_surplus_rows_are_told(tmp_path: Path) -> None:
    names = [*KEYS[3:], "a.tar/none.jpg"]
    parquet(tmp_path / "v.parquet", names, np.concatenate([VECTORS[3:], np.ones((1, DIM), np.float32)]))
    store, _, found = embedded(tmp_path, {"table": str(tmp_path / "v.parquet"), "max_missing": 0.1})
    np.testing.assert_allclose(found, expected(missing=(0, 1, 2)), atol=1e-5)
    figures = OwnFigures.of(store.table("embeddings/own"))
    rejected = len([row for row in range(len(KEYS)) if row % ROWS % 9 == 8])
    assert (figures.missing, figures.examples, figures.surplus) == (3, (0, 1, 2), 1 + rejected)
    assert figures.embedded == np.isfinite(expected(missing=(0, 1, 2))).all(axis=1).sum()
    assert figures.surplus_example.startswith(f"{tmp_path}/v.parquet row ")


def test_more_missing_than_allowed_is_an_error(tmp_path: Path) -> None:
    parquet(tmp_path / "v.parquet", KEYS[30:], VECTORS[30:])
    with pytest.raises(SourceError, match=r"embeddings/own: 28 of 69 images have no vector in .*max_missing"):
        embedded(tmp_path, {"table": str(tmp_path / "v.parquet")})


def test_ids_of_something_else_are_an_error(tmp_path: Path) -> None:
    parquet(tmp_path / "v.parquet", [f"x{number}" for number in range(20)], VECTORS[:20])
    with pytest.raises(SourceError, match=r"69 of 69 images have no vector .*20 rows found no image, as .* row \d"):
        embedded(tmp_path, {"table": str(tmp_path / "v.parquet"), "max_missing": 1})


def _broken(row: int, value: float) -> np.ndarray:
    found = VECTORS.copy()
    found[row] = value
    return found


ARCHIVES = [f"/data/{key[0]}.tar" for key in KEYS[::25]]
TWO_NAMES = [*KEYS[:3], "a.tar/0003", *KEYS[4:], "0000"]


@pytest.mark.parametrize(
    ("names", "vectors", "why"),
    [
        (KEYS, _broken(17, np.nan), r"v.parquet row 17: a value that is no number"),
        (KEYS, _broken(17, np.inf), r"v.parquet row 17: a value that is no number"),
        (KEYS, _broken(40, 0), r"v.parquet row 40: nothing but zeros"),
        ([*KEYS[:-1], KEYS[0]], VECTORS, r"v.parquet row 0 and .*v.parquet row 99 have one id; ids must be unique"),
        (ARCHIVES, VECTORS[::25], "has an id that is 2[0-9] images'; give SOURCE/KEY"),
        (TWO_NAMES, np.r_[VECTORS, VECTORS[:1]], "a.tar/0000.left.jpg has several vectors, under several ids"),
    ],
)
def test_vectors_that_mean_nothing_are_errors(tmp_path: Path, names: list[str], vectors: np.ndarray, why: str) -> None:
    parquet(tmp_path / "v.parquet", names, vectors)
    with pytest.raises(SourceError, match=why):
        embedded(tmp_path, {"table": str(tmp_path / "v.parquet"), "max_missing": 1})


def test_lengths_that_differ_are_errors(tmp_path: Path) -> None:
    lists = [row.tolist() for row in VECTORS]
    lists[20] = lists[20][:4]
    pq.write_table(pa.table({"id": KEYS, "vector": lists}), tmp_path / "v.parquet")
    with pytest.raises(SourceError, match=r"v.parquet row 20: 4 values, the first row has 6 values"):
        embedded(tmp_path, {"table": str(tmp_path / "v.parquet")})
    lists[20] = None  # type: ignore[call-overload]
    pq.write_table(pa.table({"id": KEYS, "vector": lists}), tmp_path / "v.parquet")
    with pytest.raises(SourceError, match=r"v.parquet row 20: none, the first row has 6 values"):
        embedded(tmp_path, {"table": str(tmp_path / "v.parquet")})
    parquet(tmp_path / "w/0.parquet", KEYS[:50], VECTORS[:50])
    pq.write_table(pa.table({"image_id": KEYS[50:], "embedding": VECTORS[50:, :3].tolist()}), tmp_path / "w/1.parquet")
    with pytest.raises(SourceError, match=r"1.parquet: vectors of 3 values, those of .*0.parquet have 6"):
        embedded(tmp_path, {"table": str(tmp_path / "w")})


def _without_vectors(folder: Path) -> None:
    pq.write_table(pa.table({"id": KEYS, "a": [1] * len(KEYS)}), folder / "v.parquet")


@pytest.mark.parametrize(
    ("write", "name", "why"),
    [
        (lambda folder: None, "none", "table=.*none: no .parquet and no .npy file lies there"),
        (lambda folder: np.save(folder / "v.npy", VECTORS), "v.npy", "ids=None: 0 files for 1 arrays"),
        (_without_vectors, "v.parquet", "give the column of lists of numbers; it has id"),
        (lambda folder: parquet(folder / "v.parquet", KEYS, VECTORS, ids="x"), "v.parquet", "column of ids; it has x"),
    ],
)
def test_what_is_not_said_is_asked_for(tmp_path: Path, write: Callable[[Path], None], name: str, why: str) -> None:
    write(tmp_path)
    with pytest.raises(ConfigError, match=why):
        OwnEmbeddings(table=str(tmp_path / name)).files()


def test_arrays_are_never_unpickled(tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", np.array([{"a": 1}, None], object), allow_pickle=True)
    (tmp_path / "ids.txt").write_text("a\nb")
    with pytest.raises(SourceError, match="v.npy: cannot be read as embeddings: Array can't be memory-mapped"):
        OwnEmbeddings(table=str(tmp_path / "v.npy"), ids=str(tmp_path / "ids.txt")).files()


def test_other_numbers_of_ids_are_an_error(tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", VECTORS)
    (tmp_path / "ids.txt").write_text("\n".join(KEYS[1:]))
    with pytest.raises(SourceError, match=r"v.npy: 100 vectors, but .*ids.txt has 99 ids"):
        OwnEmbeddings(table=str(tmp_path / "v.npy"), ids=str(tmp_path / "ids.txt")).files()


def test_files_are_known_by_content_and_may_move(tmp_path: Path) -> None:
    parquet(tmp_path / "a/v.parquet", KEYS, VECTORS)
    parquet(tmp_path / "b/w.parquet", KEYS, VECTORS)
    parquet(tmp_path / "c/v.parquet", KEYS, VECTORS + 1)
    pins = [vector_files.content_of(OwnEmbeddings(table=str(tmp_path / name)).files()) for name in "abc"]
    assert pins[0] == pins[1] != pins[2]
