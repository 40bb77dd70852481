"""Columns from the paths of images: hive steps and folder labels, in every format."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from curate.config import parse
from curate.errors import ConfigError, SourceError
from curate.sources.config import Source, Sources
from curate.sources.listing import list_source
from curate.sources.path_columns import folder_label, hive_columns
from curate.sources.reading import read_loose, read_part
from curate.tables import HF_IMAGE
from tests.sources.helpers import catalog, source, write_files, write_tar


def extras(path: Path, **fields: Any) -> dict[str, Any]:
    """Own columns by key; keys begin with the path of the archive, as `folders` above."""
    listed = [
        found if found.offset is None and found.row is None else found._replace(key=unique_key(found, path))
        for found in list_source(source(path, **fields))
    ]
    rows = catalog(listed)
    reads = list(read_part(rows, source(path, **fields)))
    return {key: read.extra for key, read in zip(rows["key"].to_pylist(), reads, strict=True)}


def unique_key(found: Any, root: Path) -> str:
    inside = found.uri.removeprefix(f"{root}/")
    return found.key if found.key.startswith(inside) else f"{inside}/{found.key}"


def write_parquet(path: Path, names: list[str | None], **columns: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    images = pa.array([{"bytes": b"x", "path": name} for name in names], HF_IMAGE)
    pq.write_table(pa.table({"image": images, **columns}), path)


@pytest.mark.parametrize(
    ("key", "columns"),
    [
        ("label=cat/1.jpg", {"label": "cat"}),
        ("a/label=cat/b/split=train/1.jpg", {"label": "cat", "split": "train"}),
        ("year=2024/month=03/day=0/1.jpg", {"year": 2024, "month": "03", "day": 0}),
        ("x=-7/y=-0/z=+1/1.jpg", {"x": -7, "y": "-0", "z": "+1"}),
        ("n=1234567890123456789012/1.jpg", {"n": "1234567890123456789012"}),
        ("label=a%20b%2Fc%3Dd/1.jpg", {"label": "a b/c=d"}),
        ("label=a=b/1.jpg", {"label": "a=b"}),
        ("label=/1.jpg", {"label": ""}),
        ("label=__HIVE_DEFAULT_PARTITION__/1.jpg", {"label": None}),
        ("label=%FF%fe/1.jpg", {"label": "\\xff\\xfe"}),
        (r"label=\xff\\/1.jpg", {"label": "\\xff\\\\"}),
        ("label=größe/1.jpg", {"label": "größe"}),
        ("label=one/label=two/1.jpg", {"label": "two"}),
        ("x.tar/label=cat/1.jpg", {"label": "cat"}),
        ("label=cat/x.parquet#3", {"label": "cat"}),
        ("label=cat.jpg", {}),
        ("=cat/1+1=2/1 =3/1.jpg", {}),
        ("https://host/width=80,quality=75/1.jpg", {}),
        ("s3://bucket/label=cat/1.jpg", {"label": "cat"}),
    ],
)
def test_hive_steps_above_an_image_are_columns(key: str, columns: dict[str, Any]) -> None:
    assert hive_columns(key) == columns
    assert [type(value) for value in hive_columns(key).values()] == [type(value) for value in columns.values()]


def test_hive_values_are_those_of_pyarrow(tmp_path: Path) -> None:
    for number, step in enumerate(("cat", "a%20b", "a%3Db", "__HIVE_DEFAULT_PARTITION__", "gr%C3%B6%C3%9Fe")):
        write_parquet(tmp_path / f"label={step}" / f"{number}.parquet", [f"{number}.jpg"])
    schema = pa.schema([("label", pa.string())])
    known = ds.dataset(tmp_path, partitioning=ds.partitioning(schema, flavor="hive")).to_table()
    theirs = {row["image"]["path"]: row["label"] for row in known.to_pylist()}
    ours = {key.rsplit("/", 1)[-1]: extra["label"] for key, extra in extras(tmp_path).items()}
    assert ours == theirs


@pytest.mark.parametrize(
    ("key", "archive", "label"),
    [
        ("cat/1.jpg", None, "cat"),
        ("train/cat/1.jpg", None, "cat"),
        ("1.jpg", None, None),
        ("../1.jpg", None, None),
        ("cat/./1.jpg", None, "cat"),
        (r"b\xe9b\\e/1.jpg", None, r"b\xe9b\\e"),
        (r"a\\b/1.jpg", None, "a\\b"),
        ("cat/split=train/1.jpg", None, "cat"),
        ("split=train/1.jpg", None, None),
        ("https://host/1.jpg", None, None),
        ("https://host/cat/1.jpg?size=a/b", None, "cat"),
        ("s3://bucket/1.jpg", None, None),
        # a member: with its archive in front, and alone
        ("train/x.tar/cat/1.jpg", "/d/train/x.tar", "cat"),
        ("train/x.tar/1.jpg", "/d/train/x.tar", None),
        ("cat/1.jpg", "/d/train/x.tar", "cat"),
        ("1.jpg", "/d/train/x.tar", None),
        ("x.tar/x.tar/1.jpg", "/d/x.tar/x.tar", None),
        ("train/x.parquet#7", "/d/train/x.parquet", None),
        ("train/x.parquet/cat/1.jpg", "/d/train/x.parquet", "cat"),
    ],
)
def test_label_is_the_folder_directly_above_and_never_an_archive(
    key: str, archive: str | None, label: str | None
) -> None:
    assert folder_label(key, archive) == label


def test_every_format_has_the_columns_of_the_path(tmp_path: Path) -> None:
    write_files(tmp_path / "loose", {"label=cat/1.jpg": b"1", "label=dog/2.jpg": b"2", "3.jpg": b"3"})
    assert extras(tmp_path / "loose") == {
        "label=cat/1.jpg": {"label": "cat"},
        "label=dog/2.jpg": {"label": "dog"},
        "3.jpg": None,
    }
    (tmp_path / "tars" / "label=cat").mkdir(parents=True)
    write_tar(tmp_path / "tars" / "label=cat" / "x.tar", {"1.jpg": b"1", "1.txt": b"a cat", "side=left/2.jpg": b"2"})
    assert extras(tmp_path / "tars") == {
        "label=cat/x.tar/1.jpg": {"label": "cat", "caption": "a cat"},
        "label=cat/x.tar/side=left/2.jpg": {"label": "cat", "side": "left"},
    }
    write_parquet(tmp_path / "parquet" / "label=7" / "x.parquet", ["1.jpg", None], score=[0.5, 1.5])
    assert list(extras(tmp_path / "parquet").values()) == [{"label": 7, "score": 0.5}, {"label": 7, "score": 1.5}]


def test_loose_files_are_read_alike_by_threads_and_in_order(tmp_path: Path) -> None:
    write_files(tmp_path, {"label=cat/1.jpg": b"1", "label=cat/1.txt": b"a cat"})
    (found,) = list_source(source(tmp_path))
    (read,) = read_part(catalog([found]), source(tmp_path))
    for extra, same in ((True, read), (False, read._replace(extra=None))):
        (reading,) = read_loose(catalog([found]), source(tmp_path), max_bytes=9, extra=extra)
        assert reading() == same


def test_own_value_stays_where_the_path_says_another(tmp_path: Path) -> None:
    write_files(tmp_path / "a", {"label=cat/1.jpg": b"1", "label=cat/1.cls": b"3", "label=cat/2.jpg": b"2"})
    assert list(extras(tmp_path / "a").values()) == [{"label": 3}, {"label": "cat"}]
    write_parquet(tmp_path / "b" / "label=cat" / "x.parquet", ["1.jpg", "2.jpg"], label=["own", None])
    assert list(extras(tmp_path / "b").values()) == [{"label": "own"}, {"label": None}]


def test_folder_labels_replace_own_ones_so_that_all_mean_the_same(tmp_path: Path) -> None:
    files = {"cat/1.jpg": b"1", "cat/1.cls": b"3", "2.jpg": b"2", "2.cls": b"4", "label=dog/3.jpg": b"3"}
    write_files(tmp_path, files)
    assert extras(tmp_path, labels="folder") == {
        "cat/1.jpg": {"label": "cat"},
        "2.jpg": {"label": None},
        "label=dog/3.jpg": {"label": "dog"},
    }


def test_columns_choose_among_those_of_the_path(tmp_path: Path) -> None:
    write_files(tmp_path / "a", {"label=cat/split=x/1.jpg": b"1", "label=cat/split=x/1.txt": b"text"})
    assert list(extras(tmp_path / "a", columns=("split",)).values()) == [{"split": "x"}]
    assert list(extras(tmp_path / "a", columns=()).values()) == [None]
    assert list(extras(tmp_path / "a", columns=(), labels="folder").values()) == [{"label": "cat"}]
    write_parquet(tmp_path / "b" / "label=cat" / "x.parquet", ["c/1.jpg"], score=[1.0])
    assert list(extras(tmp_path / "b", columns=("label", "score")).values()) == [{"label": "cat", "score": 1.0}]
    assert list(extras(tmp_path / "b", columns=("label",), labels="folder").values()) == [{"label": "c"}]
    with pytest.raises(SourceError, match="no column 'split' to carry; there are: score"):
        extras(tmp_path / "b", columns=("split",))


def test_formats_of_plug_ins_have_them_too(tmp_path: Path) -> None:
    (tmp_path / "toy.py").write_text(
        "from curate.sources.found import Found\n"
        "from curate.sources.read import Read\n"
        "class Toy:\n"
        "    loose = False\n"
        "    def find(self, source, *, skipped):\n"
        "        yield Found(source.path, 'split=a/cat/1.jpg', row=0)\n"
        "    def read(self, rows, source, *, max_bytes, extra):\n"
        "        yield Read(b'1', extra={'caption': 'own'})\n"
    )
    write_files(tmp_path, {"toy.zoo": b""})
    mine = {"format": f"{tmp_path}/toy.py:Toy", "labels": "folder"}
    assert list(extras(tmp_path / "toy.zoo", **mine).values()) == [{"caption": "own", "split": "a", "label": "cat"}]


def test_labels_is_a_setting_of_a_source() -> None:
    read = parse(Sources, {"pool": {"path": "/a", "labels": "folder"}}, where="test")
    assert read.pool[0].labels == "folder"
    assert Source(name="a", path="/a").labels is None
    with pytest.raises(ConfigError, match=r"labels.*'folder'"):
        parse(Sources, {"pool": {"path": "/a", "labels": "folders"}}, where="test")
