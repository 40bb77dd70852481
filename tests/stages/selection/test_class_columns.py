"""Classes and readers' warnings from the sources to the shards, as `datasets` and DuckDB read them."""

import hashlib
import json
from pathlib import Path
from typing import Any, ClassVar

import datasets
import duckdb
import pyarrow as pa
import pytest
from PIL import Image

from curate.engine.executors import InProcess
from curate.engine.freshness import Flags
from curate.engine.pipeline import Pipeline
from curate.engine.stage import Batches, Input, Map, each
from curate.engine.store import Store
from curate.engine.table import Table
from curate.errors import ConfigError
from curate.feed.shards import read_index
from curate.ops.images.decode import decode_rgb
from curate.ops.images.inspect import ImageLimits
from curate.pipelines.copies import write_shards
from curate.sources.config import Source, Sources
from curate.stages.images.catalog import Catalog, classes_of
from curate.stages.images.inspect import Inspect
from curate.stages.selection.class_columns import ClassColumns, class_numbers
from curate.stages.selection.reader_figures import read_warnings
from curate.stages.selection.write_shards import ShardFigures, WriteShards
from curate.tables import IMAGES, SELECTION
from tests.ops.images.pictures import encode
from tests.ops.images.test_readers import FAULTS

ANIMALS, COLORS = ["cat", "dog", "emu"], ["red", "dog"]


def list_of(feature: Any) -> Any:
    """A list of a feature as this version of `datasets` writes it."""
    return datasets.List(feature) if hasattr(datasets, "List") else [feature]


class SelectAccepted(Map):
    """All that Inspect accepted."""

    inputs: ClassVar[dict[str, Input]] = {"images": each(IMAGES)}

    def output_schema(self, **inputs: Any) -> pa.Schema:
        return SELECTION

    def run(self, part: int, *, images: pa.Table) -> Batches:
        ids = images.filter(images["reject"].is_null())["image_id"].to_pylist()
        rows = [{"image_id": each, "clusters": [], "origins": [], "repeats": 1} for each in ids]
        yield pa.RecordBatch.from_pylist(rows, schema=SELECTION)


def written(root: Path, sources: list[Source], **fields: Any) -> Table:
    """Shards of all accepted images of the sources."""
    store = Store(root)
    p = Pipeline(store, seed=0)
    catalog = p.add("catalog", Catalog(sources=Sources(pool=tuple(sources)), rows_per_part=4))
    (images,) = p.add_pass({"images": Inspect(limits=ImageLimits(min_side=8))}, catalog=catalog)
    chosen = p.add("selection", SelectAccepted(), images=images)
    write_shards(p, WriteShards(num_shards=1, **fields), selection=chosen, catalog=catalog, images=images)
    p.run(InProcess(1), Flags(rebuild=frozenset({"shards/data"})))
    return store.table("shards/data")


def loaded(root: Path, cache: Path) -> datasets.Dataset:
    return datasets.load_dataset(str(root / "shards" / "data"), split="train", cache_dir=str(cache))


def jpeg(number: int) -> bytes:
    return encode(Image.linear_gradient("L").rotate(7 * number).resize((64, 48)), "JPEG")


def write(path: Path, labels: list[Any], feature: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    features = datasets.Features({"image": datasets.Image(), "label": feature})
    start = 50 * sum(path.name.encode())
    images = [{"bytes": jpeg(start + number), "path": f"{number}.jpg"} for number in range(len(labels))]
    datasets.Dataset.from_dict({"image": images, "label": labels}, features=features).to_parquet(str(path))
    return path


def one(name: str, path: Path, **fields: Any) -> Source:
    return Source(name=name, path=str(path), **fields)


def by_source(root: Path) -> list[tuple[Any, ...]]:
    return duckdb.sql(f"select source, label from '{root}/shards/data/*.parquet' order by image_id").fetchall()


def test_classes_that_all_sources_declare_alike_are_classes_in_the_shards_and_after_a_second_round(
    tmp_path: Path,
) -> None:
    label = datasets.ClassLabel(names=ANIMALS)
    write(tmp_path / "in" / "a.parquet", [2, 0, -1], label)
    write(tmp_path / "in" / "b.parquet", [1, None], label)
    shards = written(tmp_path / "run", [one("a", tmp_path / "in" / "a.parquet"), one("b", tmp_path / "in")])
    rows = loaded(tmp_path / "run", tmp_path / "cache")
    assert rows.features["label"] == label
    assert by_source(tmp_path / "run") == [("a", each) for each in (2, 0, None)] + [
        ("b", each) for each in (2, 0, None, 1, None)
    ]
    assert shards.schema().field("label").type == pa.int64()
    written(tmp_path / "again", [one("c", tmp_path / "run" / "shards" / "data")], columns={"label": "int64"})
    again = loaded(tmp_path / "again", tmp_path / "cache2")
    assert again.features["label"] == label
    assert sorted(again["label"], key=str) == sorted(rows["label"], key=str)


def test_classes_that_sources_number_differently_are_text(tmp_path: Path) -> None:
    first = write(tmp_path / "a.parquet", [0, 1, -1], datasets.ClassLabel(names=ANIMALS))
    second = write(tmp_path / "b.parquet", [0, 1], datasets.ClassLabel(names=COLORS))
    sources = [one("a", first), one("b", second)]
    written(tmp_path / "run", sources)
    assert by_source(tmp_path / "run") == [("a", "cat"), ("a", "dog"), ("a", None), ("b", "red"), ("b", "dog")]
    assert loaded(tmp_path / "run", tmp_path / "cache").features["label"] == datasets.Value("string")
    with pytest.raises(
        ConfigError, match=r"columns: label: the sources number its classes differently; make it string"
    ):
        written(tmp_path / "run2", sources, columns={"label": "int64"})
    written(tmp_path / "run3", sources, columns={"label": "string"})
    assert by_source(tmp_path / "run3") == by_source(tmp_path / "run")


def test_files_of_one_source_that_disagree_make_text_whether_they_share_a_part_or_not(tmp_path: Path) -> None:
    write(tmp_path / "in" / "a.parquet", [0, 1], datasets.ClassLabel(names=ANIMALS))
    write(tmp_path / "in" / "b.parquet", [0, 1], datasets.ClassLabel(names=COLORS))
    write(tmp_path / "in" / "c.parquet", [0, 1, 1], datasets.ClassLabel(names=ANIMALS))
    written(tmp_path / "run", [one("a", tmp_path / "in")])
    parts = list(Store(tmp_path / "run").table("catalog").scan())
    assert [classes_of(part) for part in parts] == [{"label": None}, {"label": tuple(ANIMALS)}]
    found = [label for _, label in by_source(tmp_path / "run")]
    assert found == ["cat", "dog", "red", "dog", "cat", "dog", "dog"]


@pytest.mark.parametrize(("values", "feature"), [(["cat", "dog"], "string"), ([0, 1], "int64")])
def test_classes_beside_a_column_without_names_are_text(tmp_path: Path, values: list[Any], feature: str) -> None:
    first = write(tmp_path / "a.parquet", [0, 2], datasets.ClassLabel(names=ANIMALS))
    second = write(tmp_path / "b.parquet", values, datasets.Value(feature))
    written(tmp_path / "run", [one("a", first), one("b", second)])
    assert by_source(tmp_path / "run") == [("a", "cat"), ("a", "emu"), *(("b", str(value)) for value in values)]


def test_given_names_must_hold_all_values(tmp_path: Path) -> None:
    (tmp_path / "in" / "cat").mkdir(parents=True)
    (tmp_path / "in" / "dog").mkdir()
    for number, folder in enumerate(("cat", "dog", ".")):
        (tmp_path / "in" / folder / "1.jpg").write_bytes(jpeg(number))
    source = one("a", tmp_path / "in", labels="folder")
    written(tmp_path / "text", [source])
    assert by_source(tmp_path / "text") == [("a", None), ("a", "cat"), ("a", "dog")]
    written(tmp_path / "run", [source], classes={"label": ("emu", "dog", "cat")})
    assert by_source(tmp_path / "run") == [("a", None), ("a", 2), ("a", 1)]
    assert loaded(tmp_path / "run", tmp_path / "cache").features["label"].names == ["emu", "dog", "cat"]
    with pytest.raises(ConfigError, match=r"classes: label: 'dog' is none of its 1 classes; give all of them"):
        written(tmp_path / "few", [source], classes={"label": ("cat",)})


def test_nested_classes_stay_text_with_their_names(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", [[0, 2], []], list_of(datasets.ClassLabel(names=ANIMALS)))
    written(tmp_path / "run", [one("a", tmp_path / "a.parquet")])
    assert [json.loads(label) for _, label in by_source(tmp_path / "run")] == [["cat", "emu"], []]


def test_columns_that_hold_no_class_in_any_image_are_classes_still() -> None:
    found = ClassColumns()
    found.add({"label": ("a", "b")}, [{"label": None}, {}])
    assert found.columns() == {"label": ("a", "b")}
    found.add({}, [{"label": None}, {"other": 1}])
    assert (found.columns(), found.mixed()) == ({"label": ("a", "b")}, [])
    found.add({"label": ("a", "b")}, [{"label": ["a"]}])
    assert (found.columns(), found.mixed()) == ({}, ["label"])


def test_files_of_a_part_that_disagree_refuse_even_a_column_without_values() -> None:
    found = ClassColumns()
    found.add({"label": None}, [{"label": None}])
    assert found.columns() == {}
    found.add({"label": ("a",)}, [{"label": "a"}])
    assert (found.columns(), found.mixed()) == ({}, ["label"])


def test_names_of_columns_that_no_image_has_do_not_count() -> None:
    found = ClassColumns()
    found.add({"label": ("a", "b")}, [{"label": "b"}])
    found.add({"label": ("c",)}, [{"other": 1}])
    assert found.columns() == {"label": ("a", "b")}


def test_class_numbers_are_places_in_the_list() -> None:
    assert class_numbers([{"x": "b"}, {}, {"x": "a"}], "x", ("a", "b")).to_pylist() == [1, None, 0]
    with pytest.raises(ValueError, match=r"x: \['a'\] is none of its 2 classes"):
        class_numbers([{"x": ["a"]}], "x", ("a", "b"))


# -- pictures that readers cannot decode ----------------------------------------------------------------------------


def faulty_pool(root: Path) -> list[Source]:
    """Broken side notes of each format among sound pictures."""
    root.mkdir()
    for number in range(3):
        (root / f"good{number}.jpg").write_bytes(jpeg(number))
    for name, key in (("PNG, garbage", "a.png"), ("WebP, garbage", "b.webp"), ("JPEG, garbage and XMP", "c.jpg")):
        (root / key).write_bytes(FAULTS[name])
    return [one("pool", root)]


def test_accepted_pictures_that_readers_cannot_decode_are_named_and_their_repair_is_read_to_the_end(
    tmp_path: Path,
) -> None:
    sources = faulty_pool(tmp_path / "pool")
    shards = written(tmp_path / "run", sources)
    rows = loaded(tmp_path / "run", tmp_path / "cache")
    named = {row["key"]: row["reader_warning"] for row in rows.remove_columns("image")}
    assert {key for key, warning in named.items() if warning} == {"a.png", "b.webp", "c.jpg"}
    with pytest.raises(SyntaxError, match="not a TIFF file"):
        list(rows)
    kept = rows.filter(lambda warning: warning is None, input_columns="reader_warning")
    assert sorted(row["key"] for row in kept) == ["good0.jpg", "good1.jpg", "good2.jpg"]
    figures = ShardFigures.of(shards).readers
    assert (figures.warnings, figures.repaired) == ({"EXIF: SyntaxError": 3}, 0)
    (told,) = read_warnings(figures)
    assert told.startswith("reader_warning: `datasets` cannot decode 3 pictures: EXIF: SyntaxError (3); leave them out")

    index = read_index(f"{tmp_path}/run/shards/data")
    trained = [data for group in index.groups for data in index.read_images(group, range(group.num_rows))]
    assert len([decode_rgb(data) for data in trained if data is not None]) == 6  # the trainer reads them all

    mended = written(tmp_path / "mended", sources, repair_metadata=True)
    found = {row["key"]: row for row in loaded(tmp_path / "mended", tmp_path / "cache2")}
    assert len(found) == 6
    assert {key for key, row in found.items() if row["repaired"]} == {"a.png", "b.webp", "c.jpg"}
    assert all(row["reader_warning"] is None for row in found.values())
    for key, row in found.items():
        assert row["sha256"] == hashlib.sha256((tmp_path / "pool" / key).read_bytes()).hexdigest()
    figures = ShardFigures.of(mended).readers
    assert (figures.warnings, figures.repaired) == ({}, 3)
    assert list(read_warnings(figures)) == []


def test_repaired_pictures_survive_a_takedown_without_their_sources(tmp_path: Path) -> None:
    (tmp_path / "remove.txt").write_text("good0.jpg\n")
    sources = faulty_pool(tmp_path / "pool")
    before = written(tmp_path / "run", sources, repair_metadata=True).read_all().to_pylist()
    for path in (tmp_path / "pool").iterdir():
        path.unlink()
    after = written(tmp_path / "run", sources, repair_metadata=True, removal_list=str(tmp_path / "remove.txt"))
    assert after.read_all().to_pylist() == [row for row in before if row["key"] != "good0.jpg"]
