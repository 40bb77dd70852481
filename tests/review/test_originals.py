"""Pictures for a browser: bytes as they are where it knows their format, else decoded; never what can act."""

import io
from pathlib import Path

import pytest
from PIL import Image

from curate.review import originals
from curate.review.originals import NotShown, Originals
from tests.review.large_run import FILES, LargeRun


@pytest.fixture(scope="module")
def pictures(large_run: LargeRun) -> Originals:
    return Originals(large_run.finished)


def file_of(run: LargeRun, row: int) -> Path:
    return Path(run.sources.pool[0].path) / FILES[row % 4]


@pytest.mark.parametrize(("row", "content_type"), [(0, "image/jpeg"), (1, "image/png"), (2, "image/webp")])
def test_formats_of_browsers_are_served_as_they_are(
    pictures: Originals, large_run: LargeRun, row: int, content_type: str
) -> None:
    found = pictures.picture(int(large_run.ids[row]))
    assert found.content_type == content_type
    assert found.data == file_of(large_run, row).read_bytes()


def test_other_formats_are_decoded(pictures: Originals, large_run: LargeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    original = Image.open(file_of(large_run, 3)).convert("RGB")
    found = pictures.picture(int(large_run.ids[3]))
    assert found.content_type == "image/png"
    assert Image.open(io.BytesIO(found.data)).tobytes() == original.tobytes()
    monkeypatch.setattr(originals, "EXACT_PIXELS", 100)
    found = pictures.picture(int(large_run.ids[3]))
    assert (found.content_type, Image.open(io.BytesIO(found.data)).format) == ("image/jpeg", "JPEG")


def test_what_the_tables_know_to_be_too_large_is_not_served_as_it_is(large_run: LargeRun) -> None:
    pictures = Originals(large_run.finished)
    image_id = int(large_run.ids[0])
    assert pictures._place(image_id).plain
    pictures._places[image_id] = pictures._place(image_id)._replace(plain=False)
    found = pictures.picture(image_id)
    assert (found.content_type, Image.open(io.BytesIO(found.data)).size) == ("image/png", (96, 72))


def test_thumbnails_are_small_jpegs(pictures: Originals, large_run: LargeRun) -> None:
    for row in range(4):
        found = pictures.thumbnail(int(large_run.ids[row]))
        picture = Image.open(io.BytesIO(found.data))
        assert (found.content_type, picture.format) == ("image/jpeg", "JPEG")
        assert max(picture.size) <= 256


def test_of_extreme_shapes_a_thumbnail_shows_the_middle(tmp_path: Path) -> None:
    run = LargeRun(tmp_path, num_groups=2)
    Image.new("RGB", (4000, 20)).save(tmp_path / "pool/b.png")
    found = Originals(run.finished).thumbnail(int(run.ids[1]))
    assert Image.open(io.BytesIO(found.data)).size == (160, 20)


def test_what_is_no_picture_is_never_served(pictures: Originals, large_run: LargeRun) -> None:
    rejected = range(large_run.num_grouped, large_run.num_grouped + 2)
    svg, empty = (int(large_run.ids[row]) for row in sorted(rejected, key=lambda row: row % 2))
    for read in (pictures.picture, pictures.thumbnail):
        with pytest.raises(NotShown, match="SVG"):
            read(svg)
        with pytest.raises(NotShown, match="empty"):
            read(empty)
        with pytest.raises(NotShown, match="there is no image"):
            read(1 << 61)


def test_a_file_that_is_gone_is_told(large_run: LargeRun, tmp_path: Path) -> None:
    run = LargeRun(tmp_path, num_groups=2)
    (tmp_path / "pool/b.png").unlink()
    pictures = Originals(run.finished)
    with pytest.raises(NotShown, match="No such file"):
        pictures.picture(int(run.ids[1]))
