"""Data sets of a run that blurs faces: every format holds the blurred pictures, and no link leads to their sources."""

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageDraw

import curate
from curate.answers.rows import Wanted
from curate.answers.write.images import Images
from curate.errors import TableError
from curate.ops.images.blurring import Blur, blur_boxes
from tests.models.screening.networks import SIDE, save_face_finder

PHOTOS = Path(curate.__file__).parent / "samples/photos"
NAMES = {"face.jpg": "birds/heron.jpg", "other.png": "birds/duck.jpg", "moving.gif": "places/hall.jpg"}
WITH_FACES = ("face.jpg", "moving.gif")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that blurs the faces of two of three pictures."""
    root = tmp_path_factory.mktemp("blurred")
    (root / "pool").mkdir()
    for key, name in NAMES.items():
        picture = Image.open(PHOTOS / name).convert("L").convert("RGB").resize((384, 256))
        if key in WITH_FACES:
            ImageDraw.Draw(picture).rectangle((60, 60, 59 + SIDE, 59 + SIDE), (255, 0, 0))
        picture.save(root / "pool" / key)
    Image.new("RGB", (64, 64), "teal").save(root / "pool/uniform.png")
    find = {"weights": str(save_face_finder(root / "faces.onnx")), "side": 256}
    curate.run(
        {
            "recipe": "dedup",
            "sources": {"pool": str(root / "pool")},
            "workdir": str(root / "run"),
            "screen": {"faces": {"find": find, "blur": True}},
            "map": None,
            "write": None,
            "copies": {"embed": {"model": "lite0-copy", "device": "cpu"}},
        }
    )
    return root


def expected(root: Path, key: str, faces: Any) -> bytes:
    data = (root / "pool" / key).read_bytes()
    boxes = [(box["left"], box["top"], box["right"], box["bottom"]) for box in faces or []]
    return blur_boxes(data, boxes, Blur()).data if boxes else data


def test_a_folder_holds_blurred_pictures_and_their_boxes(root: Path, tmp_path: Path) -> None:
    curate.open_run(root / "run").write(str(tmp_path / "out"), to="folder")
    lines = [json.loads(line) for line in (tmp_path / "out/metadata.jsonl").read_text().splitlines()]
    assert {line["key"] for line in lines if line["blurred_faces"]} == set(WITH_FACES)
    for line in lines:
        data = (tmp_path / "out" / line["file_name"]).read_bytes()
        assert data == expected(root, line["key"], line["blurred_faces"])
        form = Image.open(io.BytesIO(data)).format
        assert form == {"jpg": "JPEG", "png": "PNG"}[line["file_name"].rpartition(".")[2]]


@pytest.mark.parametrize("link", ["symbolic", "hard"])
def test_links_are_made_to_pictures_without_faces_alone(root: Path, tmp_path: Path, link: str) -> None:
    curate.open_run(root / "run").write(str(tmp_path / "out"), to="folder", link=link)
    lines = [json.loads(line) for line in (tmp_path / "out/metadata.jsonl").read_text().splitlines()]
    for line in lines:
        file, source = tmp_path / "out" / line["file_name"], root / "pool" / line["key"]
        assert file.samefile(source) == (line["key"] not in WITH_FACES)
        assert file.read_bytes() == expected(root, line["key"], line["blurred_faces"])


def test_shards_of_other_tools_hold_them_too(root: Path, tmp_path: Path) -> None:
    run = curate.open_run(root / "run")
    run.write(str(tmp_path / "hf"), to="huggingface")
    (file,) = (tmp_path / "hf/data").glob("*.parquet")
    rows = pq.read_table(file).to_pylist()
    by_key = {row["key"]: row for row in rows}
    for key, row in by_key.items():
        assert row["image"]["bytes"] == expected(root, key, row["blurred_faces"])
    run.write(str(tmp_path / "wds"), to="webdataset")
    with tarfile.open(tmp_path / "wds/shard-000000.tar") as tar:
        members = {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]
    told = {name.partition(".")[0]: json.loads(data) for name, data in members.items() if name.endswith(".json")}
    for name, data in members.items():
        if not name.endswith(".json"):
            row = told[name.partition(".")[0]]
            assert data == by_key[row["key"]]["image"]["bytes"]


def test_an_unfinished_folder_is_finished_to_the_same_files(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = curate.open_run(root / "run")
    run.write(str(tmp_path / "whole"), to="folder")
    whole = {path.name: path.read_bytes() for path in (tmp_path / "whole").iterdir()}
    with monkeypatch.context() as patch:
        patch.setattr("curate.answers.write.folder.json.dumps", lambda *args, **options: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run.write(str(tmp_path / "out"), to="folder")
    run.write(str(tmp_path / "out"), to="folder")
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == whole


def test_what_was_not_looked_at_is_not_written(root: Path, tmp_path: Path) -> None:
    run = curate.open_run(root / "run")
    found = run.write(str(tmp_path / "out"), to="folder", wanted="rejected")
    assert (found.images, found.lost) == (0, 1)
    linked = run.write(str(tmp_path / "links"), to="folder", wanted="rejected", link="symbolic")
    assert (linked.images, linked.linked, linked.lost) == (0, 0, 1)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["metadata.jsonl"]


def test_pictures_are_not_written_while_their_faces_are_unknown(root: Path) -> None:
    run = curate.open_run(root / "run").finished
    tables = tuple(one for one in run.tables if one.name != "internal/blurs")
    without = type(run)(run.store, run.recipe, run.config, tables)
    with pytest.raises(TableError, match=r"faces are blurred \(screen.faces.blur\), and they have not been looked for"):
        _ = Images(without, Wanted.kept).blurs
