"""Thumbnails of images wherever they lie."""

import base64
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from curate.engine.store import Store
from curate.engine.table import Manifest
from curate.report.pictures import HEIGHT, LEFT_OUT, SIDE, WIDTH, Pictures, short_name
from curate.sources.config import Sources
from curate.stages.images.catalog import Catalog
from tests.report.workdir import Workdir, picture
from tests.sources.helpers import write_tar
from tests.stages.planted import opened


def jpeg(seed: int, size: tuple[int, int] = (96, 72)) -> bytes:
    file = io.BytesIO()
    picture(seed, size).save(file, "JPEG")
    return file.getvalue()


def listed(root: Path, pool: Path) -> Pictures:
    stage = Catalog(sources=Sources.model_validate({"pool": str(pool)}))
    table, done = Store(root).table("catalog"), []
    for number, rows in stage.scan(None):
        done.append(table.commit(number, rows.schema, rows.to_batches()).__dict__)
    table.write_manifest(Manifest("Catalog", 1, {}, {}, {}, {}, complete=True, parts=done))
    return Pictures(opened(root, {"catalog": stage}))


@pytest.mark.parametrize("size", [(1000, 700), (300, 2000), (4000, 40), (20, 20)])
def test_a_thumbnail_is_a_small_jpeg_whatever_the_shape(tmp_path: Path, size: tuple[int, int]) -> None:
    (tmp_path / "pool").mkdir()
    picture(1, size).save(tmp_path / "pool/x.jpg", "JPEG")
    shown = listed(tmp_path / "run", tmp_path / "pool")[0]
    assert shown.thumbnail is not None
    with Image.open(io.BytesIO(shown.thumbnail)) as thumbnail:
        assert thumbnail.format == "JPEG"
        assert thumbnail.width <= WIDTH
        assert min(16, *size) <= thumbnail.height <= HEIGHT
        assert thumbnail.size == shown.size
    assert bool(shown.opened) == (size[0] > WIDTH or size[1] > HEIGHT)


def test_a_large_picture_opens_as_a_jpeg_of_bounded_size_without_metadata(tmp_path: Path) -> None:
    (tmp_path / "pool").mkdir()
    exif = Image.Exif()
    exif[0x010E] = "taken at home"
    picture(1, (2400, 1800)).save(tmp_path / "pool/x.jpg", "JPEG", exif=exif)
    pictures = listed(tmp_path / "run", tmp_path / "pool")
    held = json.loads(re.findall(">(.*)<", pictures.data())[0])["held"]
    assert held == {}
    pictures.load([0])
    values = json.loads(re.findall(">(.*)<", pictures.data())[0])
    data = base64.b64decode(values["held"][pictures[0].opened])
    with Image.open(io.BytesIO(data)) as opened:
        assert (opened.format, opened.size) == ("JPEG", (SIDE, SIDE * 3 // 4))
    assert b"taken at home" not in data
    assert values["folder"] is None


def test_pictures_in_a_tar_are_shown(tmp_path: Path) -> None:
    write_tar(tmp_path / "pool.tar", {f"{n}.jpg": jpeg(n) for n in range(4)})
    pictures = listed(tmp_path / "run", tmp_path / "pool.tar")
    pictures.load([0, 3])
    assert [pictures[i].key.rsplit("/", 1)[-1] for i in (0, 3)] == ["0.jpg", "3.jpg"]
    assert all(pictures.is_shown(i) for i in (0, 3))
    assert pictures[0].thumbnail != pictures[3].thumbnail


def test_a_tar_that_is_gone_leaves_placeholders_that_say_so(tmp_path: Path) -> None:
    write_tar(tmp_path / "pool.tar", {f"{n}.jpg": jpeg(n) for n in range(3)})
    pictures = listed(tmp_path / "run", tmp_path / "pool.tar")
    (tmp_path / "pool.tar").unlink()
    pictures.load(range(3))
    assert [pictures.is_shown(i) for i in range(3)] == [False] * 3
    assert 'class="none"' in pictures.figure(1)
    assert pictures[1].missing == "pool.tar: No such file or directory"


def test_a_vanished_file_becomes_a_placeholder_and_its_neighbors_stay(workdir: Workdir) -> None:
    a, b = workdir.ids["a.jpg"], workdir.ids["b.jpg"]
    Path(workdir.sources.pool[0].path, "a.jpg").unlink()
    pictures = Pictures(workdir.run)
    pictures.load([a, b])
    assert pictures.is_shown(b)
    assert not pictures.is_shown(a)
    assert pictures[a].missing in pictures.figure(a)


def sources(page: str) -> list[str]:
    """Where the pictures of a page are found: `data`, or a folder."""
    return [re.split("[:/]", src)[0] for src in re.findall('src="(.*?)"', page)]


def test_what_a_page_cannot_hold_is_left_out_or_lies_beside_it(workdir: Workdir) -> None:
    ids = [workdir.ids[name] for name in ("a.jpg", "b.jpg", "left.jpg")]
    thumbnail = Pictures(workdir.run)[ids[0]].thumbnail
    assert thumbnail is not None
    room = 23 + -(-len(thumbnail) // 3) * 4  # `data:image/jpeg;base64,`
    alone, beside = Pictures(workdir.run, budget=room), Pictures(workdir.run, budget=room, beside="report/beside")
    pages = ["".join(map(pictures.figure, ids)) for pictures in (alone, beside)]
    beside.finish()
    assert sources(pages[0]) == ["data"]
    assert pages[0].count(LEFT_OUT) == 2
    assert sources(pages[1]) == ["data", "beside", "beside"]
    for name in re.findall('src="(beside/.*?)"', pages[1]):
        assert Path(workdir.store.join("report", name)).read_bytes().startswith(b"\xff\xd8")


def test_a_large_page_holds_what_is_seen_at_first(workdir: Workdir) -> None:
    ids = [workdir.ids[name] for name in ("a.jpg", "b.jpg", "left.jpg")]
    picture(3, (500, 500)).save(Path(workdir.sources.pool[0].path, "a.jpg"), "JPEG")
    pictures = Pictures(workdir.run, budget=12000, beside="report/beside")
    pictures.load(ids)  # the picture that opens has no room, so that this is a large page
    page = pictures.figure(ids[1], later=True) + pictures.figure(ids[2])
    pictures.finish()
    assert sources(page) == ["beside", "data"]


def test_a_page_has_so_many_pictures(workdir: Workdir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("curate.report.pictures.MAX_PICTURES", 2)
    ids = [workdir.ids[name] for name in ("left.jpg", "a.jpg", "b.jpg")]
    pictures = Pictures(workdir.run)
    pictures.load(ids)
    assert [pictures.is_shown(i) for i in ids] == [True, True, False]
    assert pictures[ids[2]].missing == LEFT_OUT
    assert "b.jpg" in pictures.figure(ids[2])


def test_rejected_pictures_are_shown_where_they_decode(workdir: Workdir) -> None:
    pictures = Pictures(workdir.run)
    assert pictures.is_shown(workdir.ids["noise.png"])
    assert "empty" in pictures[workdir.ids["empty.jpg"]].missing


def test_names_are_shortened_in_the_middle() -> None:
    assert short_name("a/b/c.jpg") == "c.jpg"
    assert short_name("x" * 30 + ".jpg", 10) == "xxxx…x.jpg"
    assert len(short_name("x" * 99, 24)) == 24


def test_a_blurred_picture_shows_colors_alone_and_cannot_be_opened(tmp_path: Path) -> None:
    (tmp_path / "pool").mkdir()
    blocks = np.random.default_rng(1).integers(0, 255, (20, 30, 3), np.uint8)
    Image.fromarray(blocks).resize((900, 600), Image.Resampling.NEAREST).save(tmp_path / "pool/x.jpg", "JPEG")
    pictures = listed(tmp_path / "run", tmp_path / "pool")
    pictures.load([0], blurred=True)
    figure = str(pictures.figure(0, blurred=True))
    assert json.loads(re.findall(">(.*)<", pictures.data())[0])["held"] == {}
    (found,) = re.findall(r"data:image/jpeg;base64,([^\"]+)", figure)
    with Image.open(io.BytesIO(base64.b64decode(found))) as blurred:
        shown = np.asarray(blurred.convert("RGB"), np.float64)
    rows = shown.mean(axis=2)
    steps = np.abs(np.diff(rows, axis=1)).mean()
    plain = pictures[0]
    assert plain.opened  # the picture itself opens where it is asked for as it is
    with Image.open(io.BytesIO(plain.thumbnail or b"")) as sharp:
        assert sharp.size == (shown.shape[1], shown.shape[0])
        assert np.abs(np.diff(np.asarray(sharp.convert("L"), np.float64), axis=1)).mean() > 3 * steps
