"""Faces blurred in shards: which bytes, which columns, and what later runs take from them."""

import hashlib
import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image, ImageDraw

import curate
from curate.engine.store import Store
from curate.ops.images.blurring import Blur, blur_boxes
from curate.stages.selection import write_shards as module
from curate.stages.selection.blurred import ToBlur, blur_one, blur_rows
from curate.tables import BLURS, HF_IMAGE, SHARD_COLUMNS
from tests.models.screening.networks import SIDE, save_face_finder

PHOTOS = Path(curate.__file__).parent / "samples/photos"
NAMES = ("birds/heron.jpg", "birds/duck.jpg", "places/hall.jpg", "tools/hammer5.jpg")
PLACES = {0: [(60, 60)], 1: [(40, 100), (200, 60)]}
"""Red squares, which the stand-in takes for faces."""


def write_pool(folder: Path) -> None:
    folder.mkdir()
    for number, name in enumerate(NAMES):
        found = Image.open(PHOTOS / name).convert("L").convert("RGB").resize((384, 256))
        for left, top in PLACES.get(number, []):
            ImageDraw.Draw(found).rectangle((left, top, left + SIDE - 1, top + SIDE - 1), (255, 0, 0))
        found.save(folder / (f"{number}.jpg" if number % 2 else f"{number}.png"), quality=92)


def run(root: Path, blur: Any, *, update: bool = False, **changes: Any) -> list[dict[str, Any]]:
    """The rows of the shards of a run, by key."""
    if not (root / "pool").exists() and not (root / "gone").exists():
        write_pool(root / "pool")
    find = {"weights": str(save_face_finder(root / "faces.onnx")), "side": 256}
    config = {
        "recipe": "dedup",
        "sources": {"pool": str(root / "pool")},
        "workdir": str(root / "run"),
        "screen": {"faces": {"find": find, "blur": blur}},
        "map": None,
        "copies": {"embed": {"model": "lite0-copy", "device": "cpu"}},
    }
    curate.run(config | changes, update=update)
    return sorted(Store(str(root / "run")).table("shards/data").read_all().to_pylist(), key=lambda row: row["key"])


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)


def files(root: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((root / "run/shards/data").glob("*.parquet"))}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that blurs by the defaults."""
    root = tmp_path_factory.mktemp("blurred")
    run(root, True)
    return root


def rows_of(root: Path) -> list[dict[str, Any]]:
    return sorted(Store(str(root / "run")).table("shards/data").read_all().to_pylist(), key=lambda row: row["key"])


def test_pictures_with_faces_are_written_blurred_with_their_boxes_and_the_original_digest(made: Path) -> None:
    for number, row in enumerate(rows_of(made)):
        source = (made / "pool" / row["key"]).read_bytes()
        assert row["sha256"] == hashlib.sha256(source).hexdigest()
        if number not in PLACES:
            assert (row["blurred"], row["blurred_faces"], row["image"]["bytes"]) == (None, [], source)
            continue
        assert row["blurred"] == ("JPEG" if number % 2 else "PNG")
        boxes = [(box["left"], box["top"], box["right"], box["bottom"]) for box in row["blurred_faces"]]
        assert len(boxes) == len(PLACES[number])
        assert row["image"]["bytes"] == blur_boxes(source, boxes, Blur()).data
        before, after = pixels(source), pixels(row["image"]["bytes"])
        for left, top in PLACES[number]:
            above, below = np.s_[top - 1, left : left + SIDE], np.s_[top, left : left + SIDE]
            assert abs(after[below] - after[above]).mean() < abs(before[below] - before[above]).mean() / 3
        assert row["reader_warning"] is None


def test_schema_has_the_columns_only_where_faces_are_blurred(made: Path, tmp_path: Path) -> None:
    names = Store(str(made / "run")).table("shards/data").schema().names
    assert names[len(SHARD_COLUMNS)] == "blurred"
    plain = run(tmp_path, False)
    assert "blurred" not in plain[0]
    for row in plain:
        assert row["image"]["bytes"] == (tmp_path / "pool" / row["key"]).read_bytes()
    assert not (tmp_path / "run/internal/blurs").exists()


def test_datasets_reads_them(made: Path) -> None:
    datasets = pytest.importorskip("datasets")
    found = datasets.load_dataset("parquet", data_files=str(made / "run/shards/data/*.parquet"), split="train")
    by_key = {row["key"]: row for row in found}
    assert by_key["0.png"]["image"].size == (384, 256)
    assert len(by_key["1.jpg"]["blurred_faces"]) == 2


def test_other_settings_write_them_anew_and_the_same_as_a_run_from_scratch(tmp_path: Path) -> None:
    first = run(tmp_path, True)
    changed = run(tmp_path, {"strength": 0.3, "exif": "drop"}, update=True)
    assert [row["image"]["bytes"] == again["image"]["bytes"] for row, again in zip(first, changed, strict=True)] == [
        number not in PLACES for number in range(len(NAMES))
    ]
    (tmp_path / "fresh").mkdir()
    (tmp_path / "pool").rename(tmp_path / "fresh/pool")
    (tmp_path / "pool").symlink_to(tmp_path / "fresh/pool")
    assert run(tmp_path / "fresh", {"strength": 0.3, "exif": "drop"}) == changed
    off = run(tmp_path, False, update=True)
    assert all(row["image"]["bytes"] == (tmp_path / "pool" / row["key"]).read_bytes() for row in off)


def test_a_takedown_takes_blurred_pictures_from_the_shards_and_reads_no_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = run(tmp_path, True)
    (tmp_path / "remove.txt").write_text("3.jpg\n")

    def no_source(*args: Any) -> Any:
        raise AssertionError("a source was read")

    monkeypatch.setattr(module, "read_unchanged", no_source)
    monkeypatch.setattr("curate.stages.selection.shard_bytes.read_unchanged", no_source)
    after = run(tmp_path, True, update=True, write={"removal_list": str(tmp_path / "remove.txt")})
    assert after == [row for row in before if row["key"] != "3.jpg"]


def test_a_picture_in_which_faces_were_not_looked_for_is_not_written(caplog: pytest.LogCaptureFixture) -> None:
    data = (PHOTOS / NAMES[0]).read_bytes()
    rows = [
        {"image_id": number, "key": f"{number}.jpg", "image": {"bytes": data, "path": ""}, "blurred_faces": boxes}
        for number, boxes in enumerate([None, []])
    ]
    schema = pa.schema([pa.field("image_id", pa.int64()), pa.field("key", pa.string())])
    schema = schema.append(pa.field("image", HF_IMAGE)).append(BLURS.field(1))
    found = blur_rows(pa.Table.from_pylist(rows, schema), Blur(), done={})
    assert found["key"].to_pylist() == ["1.jpg"]
    assert found["blurred"].to_pylist() == [None]
    assert "0.jpg: left out, since faces were not looked for in it" in caplog.text


def test_a_picture_whose_faces_cannot_be_blurred_is_not_written(caplog: pytest.LogCaptureFixture) -> None:
    box = {"left": 0.1, "top": 0.1, "right": 0.3, "bottom": 0.3, "confidence": 0.9}
    data = (PHOTOS / NAMES[0]).read_bytes()
    assert blur_one(ToBlur("a.jpg", data[: len(data) // 3], [box]), Blur()) is None
    assert "a.jpg: left out, since its faces cannot be blurred" in caplog.text
    found = blur_one(ToBlur("a.jpg", data, [box]), Blur())
    assert found is not None
    assert found.note == "JPEG"
