"""Passes over the images: what a later pass trusts, how a model is fed, and what an own stage gets."""

import hashlib
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from curate.errors import ConfigError, SourceError
from curate.ops.images.decode import PIL_PIXELS
from curate.ops.images.inspect import ImageLimits
from curate.sources.config import Source, Sources
from curate.sources.read import Read
from curate.stages.images import pictures as under_test
from curate.stages.images.catalog import Catalog
from curate.stages.images.embed import Embed
from curate.stages.images.inspect import Inspect
from curate.stages.images.pictures import PictureStage, Seen, read_pictures
from curate.tables import IMAGE_ID

EMBED = Embed(model="lite0-copy", precision="fp32", device="cpu", batch_size=4)


def listed(folder: Path) -> pa.Table:
    sources = Sources(pool=(Source(name="pool", path=str(folder)),))
    ((_, rows),) = Catalog(sources=sources).scan(None)
    return rows


def inspected(catalog: pa.Table, inspect: Inspect) -> pa.Table:
    return pa.Table.from_batches(list(inspect.run(0, catalog=catalog)))


def embedded(catalog: pa.Table, images: pa.Table, embed: Embed = EMBED) -> pa.Table:
    return pa.Table.from_batches(list(embed.run(0, catalog=catalog, images=images)))


def write_photos(folder: Path, count: int) -> None:
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(count):
        coarse = Image.fromarray(rng.integers(0, 255, (8, 8, 3), dtype=np.uint8))
        coarse.resize((64, 64), Image.Resampling.BICUBIC).save(folder / f"{number:03d}.jpg")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_image_accepted_under_raised_limits_is_embedded_by_a_later_pass(tmp_path: Path) -> None:
    (tmp_path / "pool").mkdir()
    Image.linear_gradient("L").resize((9500, 9500)).save(tmp_path / "pool" / "large.jpg")
    catalog = listed(tmp_path / "pool")
    images = inspected(catalog, Inspect(limits=ImageLimits(max_pixels=PIL_PIXELS)))
    assert images["reject"].to_pylist() == [None]
    assert embedded(catalog, images)["vector"].null_count == 0


def test_later_pass_reads_as_many_bytes_as_were_inspected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_photos(tmp_path / "pool", 3)
    catalog = listed(tmp_path / "pool")
    images = inspected(catalog, Inspect())
    monkeypatch.setattr(under_test, "TRUSTING", under_test.TRUSTING.model_copy(update={"max_bytes": 10}))
    assert embedded(catalog, images)["vector"].null_count == 0


def test_accepted_image_that_does_not_decode_later_is_an_error(tmp_path: Path) -> None:
    write_photos(tmp_path / "pool", 2)
    catalog = listed(tmp_path / "pool")
    images = inspected(catalog, Inspect())
    broken = b"\xff\xd8 no longer understood"
    (tmp_path / "pool" / "001.jpg").write_bytes(broken)
    hashes = [images["sha256"][0].as_py(), hashlib.sha256(broken).digest()]
    images = images.set_column(1, images.schema.field("sha256"), [pa.array(hashes, pa.binary(32))])
    with pytest.raises(
        SourceError, match=r"001\.jpg: was accepted when it was inspected, but is \w+ now .*--rebuild all"
    ):
        embedded(catalog, images)


def test_model_gets_each_batch_while_few_images_are_decoded_ahead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_photos(tmp_path / "pool", 50)
    catalog = listed(tmp_path / "pool")
    images = inspected(catalog, Inspect())
    num_decoded, at_batch = 0, []
    decode, embed = under_test.inspect_image, Embed.embed

    def counting(*args, **kwargs):
        nonlocal num_decoded
        num_decoded += 1
        return decode(*args, **kwargs)

    def noting(self, pixels):
        at_batch.append((len(pixels), num_decoded))
        return embed(self, pixels)

    monkeypatch.setattr(under_test, "inspect_image", counting)
    monkeypatch.setattr(Embed, "embed", noting)
    assert embedded(catalog, images)["vector"].null_count == 0
    assert [size for size, _ in at_batch] == [4] * 12 + [2]
    bound = 4 * under_test.BATCHES_AHEAD
    assert all(decoded <= 4 * number + bound for number, (_, decoded) in enumerate(at_batch, start=1))


def test_vectors_do_not_depend_on_rejects_of_other_chunks_or_on_decoding_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_photos(tmp_path / "pool", 22)
    (tmp_path / "pool" / "003.jpg").write_bytes(b"<html>")
    catalog = listed(tmp_path / "pool")
    monkeypatch.setattr(under_test, "CHUNK_ROWS", 8)
    images = inspected(catalog, Inspect())
    found = embedded(catalog, images)
    assert found["vector"].is_null().to_pylist() == [row == 3 for row in range(22)]
    together: dict[str, list[pa.RecordBatch]] = {"images": [], "x": []}
    for name, rows in read_pictures({"images": Inspect(), "x": EMBED}, 0, catalog=catalog):
        together[name].append(rows)
    assert pa.Table.from_batches(together["x"]).equals(found)
    assert pa.Table.from_batches(together["images"]).equals(images)


class MeanColor(PictureStage):
    """A stage of someone else's: mean of each channel."""

    def output_schema(self, **inputs: Any) -> pa.Schema:
        return pa.schema([IMAGE_ID, pa.field("mean", pa.list_(pa.float64()))])

    def prepare(self, seen: Seen) -> dict[str, list[float]] | None:
        if seen.inspected is None or seen.inspected.picture is None:
            return None
        return {"mean": np.asarray(seen.inspected.picture).mean(axis=(0, 1)).tolist()}


def test_own_stage_shares_the_reading_and_gets_every_accepted_picture(tmp_path: Path) -> None:
    write_photos(tmp_path / "pool", 3)
    (tmp_path / "pool" / "001.jpg").write_bytes(b"<html>")
    catalog = listed(tmp_path / "pool")
    stages = {"images": Inspect(), "means": MeanColor()}
    found = dict(read_pictures(stages, 0, catalog=catalog))
    expected = [np.asarray(Image.open(tmp_path / "pool" / f"{n:03d}.jpg")).mean(axis=(0, 1)).tolist() for n in (0, 2)]
    means = found["means"]["mean"].to_pylist()
    assert means[1] is None
    np.testing.assert_allclose([means[0], means[2]], expected)


def test_stage_that_needs_larger_pictures_than_are_decoded_names_the_field(tmp_path: Path) -> None:
    write_photos(tmp_path / "pool", 1)
    with pytest.raises(ConfigError, match=r"decode_side=128: images, x need pictures of 256 pixels; set it to 256"):
        list(
            read_pictures(
                {"images": Inspect(decode_side=128), "x": embed_at(256)}, 0, catalog=listed(tmp_path / "pool")
            )
        )


def embed_at(side: int) -> Embed:
    class Large(Embed):
        def least_side(self) -> int:
            return side

    return Large(model="lite0-copy", precision="fp32", device="cpu")


class Failing(PictureStage):
    """A stage that fails at one image, as a library may at any."""

    error: ClassVar[BaseException]

    def output_schema(self, **inputs: Any) -> pa.Schema:
        return pa.schema([IMAGE_ID])

    def prepare(self, seen: Seen) -> Any:
        if seen.inspected is not None and seen.inspected.reject == "empty":
            raise self.error
        return {}


@pytest.mark.parametrize("kind", [ZeroDivisionError, MemoryError, SourceError])
@pytest.mark.parametrize("packed", [False, True])
def test_any_error_at_an_image_tells_which_it_was_and_keeps_its_kind(
    kind: type[Exception], packed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = kind("without a place")
    monkeypatch.setattr(Failing, "error", error, raising=False)
    write_photos(tmp_path / "pool", 2)
    (tmp_path / "pool" / "bad.jpg").touch()
    where = tmp_path / "pool" / "bad.jpg"
    if packed:
        where = tmp_path / "a.tar"
        with tarfile.open(where, "w") as tar:
            tar.add(tmp_path / "pool", ".")
    catalog = listed(where if packed else tmp_path / "pool")
    with pytest.raises(kind) as caught:
        list(read_pictures({"failing": Failing(), "images": Inspect()}, 0, catalog=catalog))
    assert caught.value is error
    (key,) = (key for key in catalog["key"].to_pylist() if key.endswith("bad.jpg"))
    assert caught.value.__notes__ == [f"of the image {key} in {where}"]


def test_error_of_reading_tells_the_image_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_photos(tmp_path / "pool", 2)
    catalog = listed(tmp_path / "pool")

    def read(uri: str, **options: Any) -> Read:
        raise SourceError(f"{uri}: the disk is gone") if uri.endswith("001.jpg") else KeyError("x")

    monkeypatch.setattr(under_test, "read_folder_file", read)
    with pytest.raises(KeyError) as caught:
        inspected(catalog, Inspect())
    assert caught.value.__notes__ == [f"of the image 000.jpg in {tmp_path}/pool/000.jpg"]
    with pytest.raises(SourceError, match="the disk is gone") as told:
        inspected(catalog.slice(1), Inspect())
    assert not hasattr(told.value, "__notes__")


def test_error_of_a_format_tells_the_image_that_was_to_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_photos(tmp_path / "pool", 3)
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        tar.add(tmp_path / "pool", ".")
    catalog = listed(tmp_path / "a.tar")

    def reads(rows: pa.Table, source: Source, **options: Any) -> Iterator[Read]:
        yield Read(b"")
        raise KeyError("x")

    monkeypatch.setattr(under_test, "read_part", reads)
    with pytest.raises(KeyError) as caught:
        inspected(catalog, Inspect())
    assert caught.value.__notes__ == [f"of the image {catalog['key'][1]} in {tmp_path}/a.tar"]
