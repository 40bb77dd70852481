"""Data sets of every format, read back by readers of their own."""

import hashlib
import io
import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from PIL import Image
from typer.testing import CliRunner

from curate.answers.rows import Wanted
from curate.answers.write.images import Images
from curate.answers.write.output import UNFINISHED
from curate.answers.write.sharding import count_shards, cut_shards
from curate.answers.write.write import FILES, FORMATS, SHARDS, write_images
from curate.answers.write.written import Written
from curate.cli import app
from curate.engine.finished import Finished
from curate.errors import CurateError
from curate.sources.config import Sources
from curate.sources.reading import read_part
from curate.stages.images.catalog import Catalog, source_of
from curate.stages.selection.write_shards import WriteShards
from tests.answers.conftest import Made

FOLDERS = {"folder": "", "coco": "images", "fiftyone": "data"}
SHARD_BYTES = 15_000
"""Two or three pictures."""


def rows_of(made: Made, wanted: str = "kept") -> dict[str, dict[str, Any]]:
    """The rows that a data set should hold, by the SHA-256 of their bytes."""
    return {row["sha256"]: row for row in made.run.list(wanted).read_all().to_pylist()}


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def tree(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def outputs(made: Made, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is kept, in every format."""
    out = tmp_path_factory.mktemp("written")
    for to in FORMATS:
        found = made.run.write(out / to, to=to, wanted="kept", shard_bytes=SHARD_BYTES)
        assert found == Written(images=12)
    return out


def test_a_folder_is_an_image_folder_of_datasets(made: Made, outputs: Path, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    rows = datasets.load_dataset(
        "imagefolder", data_dir=str(outputs / "folder"), split="train", cache_dir=str(tmp_path)
    )
    expected = rows_of(made)
    raw = rows.cast_column("image", datasets.Image(decode=False))
    assert {row["sha256"] for row in raw} == expected.keys()
    for row in raw:
        assert sha256(Path(row["image"]["path"]).read_bytes()) == row["sha256"]
        assert {name: row[name] for name in ("image_id", "source", "key", "cluster")} == {
            name: expected[row["sha256"]][name] for name in ("image_id", "source", "key", "cluster")
        }
    told = {row["key"]: (row["caption"], row["label"]) for row in raw}
    assert told["case.jpg"] == ("a caption,\nof two lines", None)
    assert told["one.tar/x/0.jpg"] == ("of the tar", 7)
    assert told["rows.parquet#2"] == ("q", None)
    assert rows[0]["image"].size == (160, 120)


def test_parquet_is_a_data_set_of_hugging_face(made: Made, outputs: Path, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    rows = datasets.load_dataset(str(outputs / "huggingface"), split="train", cache_dir=str(tmp_path))
    assert isinstance(rows.features["image"], datasets.Image)
    raw = rows.cast_column("image", datasets.Image(decode=False))
    assert [sha256(row["image"]["bytes"]) for row in raw] == [row["sha256"] for row in raw] == [*rows_of(made)]
    assert [row["image"]["path"] for row in raw] == [row["key"] for row in rows_of(made).values()]
    assert rows[0]["image"].size == (160, 120)
    assert {row["key"]: row["label"] for row in raw}["one.tar/x/0.jpg"] == 7


def test_tars_are_read_by_webdataset(made: Made, outputs: Path) -> None:
    reader = pytest.importorskip("webdataset", reason="needs the package webdataset")
    shards = sorted(map(str, (outputs / "webdataset").glob("*.tar")))
    samples = list(reader.WebDataset(shards, shardshuffle=False))
    expected = rows_of(made)
    assert [sha256(sample["jpg"]) for sample in samples] == [*expected]
    told = [json.loads(sample["json"]) for sample in samples]
    assert [row["key"] for row in told] == [row["key"] for row in expected.values()]
    assert {row["key"]: sample.get("txt") for row, sample in zip(told, samples, strict=True)}[
        "one.tar/x/0.jpg"
    ] == b"of the tar"
    decoded = next(iter(reader.WebDataset(shards, shardshuffle=False).decode("pil")))
    assert decoded["jpg"].size == (160, 120)


def test_tars_are_a_source_of_ours(made: Made, outputs: Path) -> None:
    """Captions, labels and provenance come back as the images' own columns."""
    again = Catalog(sources=Sources.model_validate({"pool": str(outputs / "webdataset")}))
    reads = [read for _, rows in again.scan(None) for read in read_part(rows, source_of(rows))]
    told = {read.extra["key"]: read.extra for read in reads if read.extra is not None}
    assert {sha256(read.data or b"") for read in reads} == {row["sha256"] for row in told.values()} == {*rows_of(made)}
    assert told["one.tar/x/0.jpg"]["caption"] == "of the tar"
    assert told["one.tar/x/0.jpg"]["label"] == 7


def test_members_of_tars_have_no_times_and_no_owners(outputs: Path) -> None:
    with tarfile.open(outputs / "webdataset/shard-000000.tar") as tar:
        members = tar.getmembers()
    keys = [member.name.partition(".")[0] for member in members]
    assert keys == sorted(keys)
    assert {(member.mtime, member.uid, member.mode, member.uname) for member in members} == {(0, 0, 0o644, "")}


def test_shards_are_as_large_as_is_said(made: Made, outputs: Path) -> None:
    images = Images(made.run.finished, Wanted.kept)
    sizes = [size for rows in images.batches() for size in rows["num_bytes"].to_pylist()]
    for limit in (1, SHARD_BYTES, sum(sizes), 10 * sum(sizes)):
        held: dict[int, list[int]] = {}
        for shard, rows in cut_shards(images, limit):
            held.setdefault(shard, []).extend(rows["num_bytes"].to_pylist())
        assert [size for shard in held.values() for size in shard] == sizes
        assert [*held] == [*range(count_shards(images, limit))]
        assert all(sum(held[shard]) >= limit and sum(held[shard][:-1]) < limit for shard in list(held)[:-1])
    assert len(list((outputs / "webdataset").glob("*.tar"))) == count_shards(images, SHARD_BYTES) > 2
    assert len(list((outputs / "huggingface/data").glob("*.parquet"))) == count_shards(images, SHARD_BYTES)


def test_coco_holds_sizes_and_labels(made: Made, outputs: Path) -> None:
    told = json.loads((outputs / "coco/annotations.json").read_text())
    expected = rows_of(made)
    for image in told["images"]:
        data = (outputs / "coco/images" / image["file_name"]).read_bytes()
        with Image.open(io.BytesIO(data)) as picture:
            assert picture.size == (image["width"], image["height"])
        assert expected[sha256(data)]["image_id"] == image["id"]
    assert len(told["images"]) == len(expected)
    names = {category["id"]: category["name"] for category in told["categories"]}
    keys = {image["id"]: image["key"] for image in told["images"]}
    labels = {keys[one["image_id"]]: names[one["category_id"]] for one in told["annotations"]}
    assert labels == {"one.tar/x/0.jpg": "7", "rows.parquet#0": "0"}
    assert len({one["id"] for one in told["annotations"]}) == len(told["annotations"])


def test_fiftyone_finds_every_picture_by_its_name_without_suffix(made: Made, outputs: Path, tmp_path: Path) -> None:
    """As its importer looks for it: the path within `data/`, the last suffix taken off."""
    made.run.write(tmp_path / "dropped", to="fiftyone", wanted="dropped")
    for root, wanted in ((outputs / "fiftyone", "kept"), (tmp_path / "dropped", "dropped")):
        paths = [path for path in (root / "data").rglob("*") if path.is_file()]
        by_name = {str(path.relative_to(root / "data").with_suffix("")): path for path in paths}
        labels = json.loads((root / "labels.json").read_text())["labels"]
        assert by_name.keys() == labels.keys()
        expected = rows_of(made, wanted)
        for name, told in labels.items():
            row = expected[sha256(by_name[name].read_bytes())]
            assert told["attributes"]["key"] == row["key"]
            assert told["attributes"].get("partner_key") == row["partner_key"]
    assert {told["attributes"]["key"]: told["label"] for told in labels.values()}["rows.parquet#1"] == "1"


def test_csv_is_the_listing(made: Made, outputs: Path) -> None:
    found = CliRunner().invoke(app, ["list", made.run.workdir, "--kept"], catch_exceptions=False)
    assert (outputs / "csv").read_text() == found.stdout


def sized(to: str) -> dict[str, Any]:
    return {"shard_bytes": SHARD_BYTES} if to in SHARDS else {}


class Stopped(Exception):
    """Stands for a kill."""


@pytest.mark.parametrize("to", ["folder", *SHARDS])
def test_an_interrupted_writing_goes_on_to_equal_bytes(
    to: str, made: Made, outputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[str] = []
    plain = Images.read

    def stopping(after: int) -> Callable[..., Any]:
        def read(self: Images, rows: Any) -> Any:
            for key, found in zip(rows["key"].to_pylist(), plain(self, rows), strict=True):
                if len(reads) == after:
                    raise Stopped
                reads.append(key)
                yield found

        return read

    monkeypatch.setattr(Images, "read", stopping(8))
    with pytest.raises(Stopped):
        write_images(made.run.finished, to, str(tmp_path), wanted=Wanted.kept, **sized(to))
    assert (tmp_path / UNFINISHED).exists()
    with pytest.raises(CurateError, match="an unfinished data set of other images, another format or other settings"):
        write_images(made.run.finished, to, str(tmp_path), wanted=Wanted.dropped, **sized(to))
    monkeypatch.setattr(Images, "read", stopping(99))
    found = write_images(made.run.finished, to, str(tmp_path), wanted=Wanted.kept, **sized(to))
    assert found.images == 12
    assert tree(tmp_path) == tree(outputs / to)  # without what marked it as unfinished
    assert len(reads) == 12 if to in FILES else len(reads) < 16


def test_an_interrupted_writing_does_not_go_on_after_a_takedown(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it has written may hold what is taken down."""
    gone = tmp_path / "gone.txt"
    gone.write_text("")
    run = made.run.finished
    stage = WriteShards(removal_list=str(gone))
    tables = tuple(one._replace(stage=stage) if isinstance(one.stage, WriteShards) else one for one in run.tables)
    listed = Finished(run.store, run.recipe, run.config, tables)

    def stop(*_: Any) -> Any:
        raise Stopped

    with monkeypatch.context() as patch:
        patch.setattr(Images, "read", stop)
        with pytest.raises(Stopped):
            write_images(listed, "folder", str(tmp_path / "out"))
    gone.write_text(f"{next(iter(rows_of(made, 'selected')))}\n")
    with pytest.raises(CurateError, match="an unfinished data set of other images"):
        write_images(listed, "folder", str(tmp_path / "out"))


def test_nothing_is_written_over(made: Made, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(CurateError, match=r"not empty; choose an empty or new folder: nothing in it is replaced"):
        made.run.write(tmp_path, to="folder")
    with pytest.raises(CurateError, match=r"mine.txt: a file; name a folder"):
        made.run.write(tmp_path / "mine.txt", to="folder")
    with pytest.raises(CurateError, match=r"mine.txt: there is such a file already"):
        made.run.write(tmp_path / "mine.txt", to="csv")
    assert tree(tmp_path) == {"mine.txt": b"mine"}


@pytest.mark.parametrize(("to", "link"), [("folder", "symbolic"), ("coco", "hard"), ("fiftyone", "symbolic")])
def test_links_stand_for_files_and_archives_are_copied(
    to: str, link: Any, made: Made, outputs: Path, tmp_path: Path
) -> None:
    before = tree(made.root / "photos")
    found = made.run.write(tmp_path / "out", to=to, wanted="kept", link=link)
    assert found == Written(images=12, linked=9)
    assert tree(tmp_path / "out") == tree(outputs / to)
    pictures = list((tmp_path / "out" / FOLDERS[to]).rglob("*.jpg"))
    linked = [path for path in pictures if (path.is_symlink() if link == "symbolic" else path.stat().st_nlink > 1)]
    assert len(linked) == 9
    shutil.rmtree(tmp_path / "out")
    assert tree(made.root / "photos") == before


def test_what_has_changed_or_is_gone_is_left_out_and_counted(made: Made, tmp_path: Path) -> None:
    """In every format: neither the picture nor what is told of it."""
    photos = made.root / "photos"
    moved = {name: (photos / name).read_bytes() for name in ("Case.jpg", "-rf.jpg")}
    try:
        (photos / "Case.jpg").write_bytes(moved["Case.jpg"][:-1] + b"x")
        (photos / "-rf.jpg").unlink()
        for to in (*FILES, *SHARDS):
            assert made.run.write(tmp_path / to, to=to, wanted="kept") == Written(images=10, lost=2)
    finally:
        for name, data in moved.items():
            (photos / name).write_bytes(data)
    for to, folder in FOLDERS.items():
        assert len([*(tmp_path / to / folder).rglob("*.jpg")]) == 10
    assert len((tmp_path / "folder/metadata.jsonl").read_text().splitlines()) == 10
    assert len(json.loads((tmp_path / "coco/annotations.json").read_text())["images"]) == 10
    assert len(json.loads((tmp_path / "fiftyone/labels.json").read_text())["labels"]) == 10
    assert pq.read_table(tmp_path / "huggingface/data").num_rows == 10
    with tarfile.open(tmp_path / "webdataset/shard-000000.tar") as tar:
        assert sum(name.endswith(".jpg") for name in tar.getnames()) == 10


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"to": "zip"}, "to=zip: no such format; there are folder, coco, fiftyone, webdataset, huggingface, csv"),
        ({"to": "webdataset", "link": "hard"}, "link: webdataset holds the bytes themselves"),
        ({"to": "webdataset", "shard_bytes": 0}, "shard_bytes=0: give 1 or more"),
        ({"wanted": "groups"}, "groups: rows of a listing, and no data set"),
        ({"wanted": "best"}, "wanted='best': say one of all, kept, dropped"),
    ],
)
def test_what_does_not_fit_is_said(options: dict[str, Any], told: str, made: Made, tmp_path: Path) -> None:
    with pytest.raises(CurateError, match=told):
        made.run.write(tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_the_selection_is_written_unless_it_is_said_otherwise(made: Made, tmp_path: Path) -> None:
    """Of a run without one: what is kept. Curated images are a part of the selection."""
    arguments = ["write", made.run.workdir, str(tmp_path / "out"), "--to", "webdataset", "--shard-size", "1GB"]
    found = CliRunner().invoke(app, arguments, catch_exceptions=False)
    number = made.run.list("selected").read_all().num_rows
    assert found.stdout == f"{tmp_path / 'out'}: {number} images\n"
    with tarfile.open(tmp_path / "out/shard-000000.tar") as tar:
        told = [json.loads(tar.extractfile(name).read()) for name in tar.getnames() if name.endswith("json")]  # type: ignore[union-attr]
    assert [row["key"] for row in told] == made.run.list("selected", columns=["key"]).read_all()["key"].to_pylist()
    assert "curated" in {row["role"] for row in told}
    with pytest.raises(CurateError, match="--shard-size much: not a size; write 256MB or 1GiB"):
        CliRunner().invoke(app, [*arguments[:-1], "much"], catch_exceptions=False)


def test_object_stores_are_written_to(made: Made, outputs: Path) -> None:
    import fsspec

    memory = fsspec.filesystem("memory")
    for to in ("folder", "webdataset", "huggingface"):
        place = f"memory://written/{to}"
        write_images(made.run.finished, to, place, wanted=Wanted.kept, **sized(to))
        found = {path.removeprefix(f"/written/{to}/"): memory.cat_file(path) for path in memory.find(f"/written/{to}")}
        assert found == tree(outputs / to)
    with pytest.raises(CurateError, match="not empty"):
        made.run.write("memory://written/folder", to="folder")
    with pytest.raises(CurateError, match="links can be made on this machine alone; leave --link out"):
        made.run.write("memory://written/links", to="folder", link="symbolic")
    memory.rm("/written", recursive=True)
