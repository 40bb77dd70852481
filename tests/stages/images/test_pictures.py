"""Passes over the images: what a later pass trusts, how a model is fed, and what an own stage gets."""

import hashlib
import signal
import tarfile
import threading
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from curate.engine import row_reuse
from curate.engine.freshness import stage_digests
from curate.engine.part_writer import Part
from curate.engine.store import Store
from curate.engine.tasks import Task, perform
from curate.errors import ConfigError, SourceError
from curate.ops.images.apart import DecodersEnded, decoder_pids
from curate.ops.images.borders import without_border
from curate.ops.images.bounds import PIL_PIXELS
from curate.ops.images.hashes import pdq
from curate.ops.images.inspect import ImageLimits
from curate.ops.images.preprocess import preprocess
from curate.ops.vectors import VectorSpec, unpack
from curate.sources import folder
from curate.sources.config import Source, Sources
from curate.sources.read import Read, unavailable
from curate.stages.images import pictures as under_test
from curate.stages.images.catalog import Catalog
from curate.stages.images.embed import Embed
from curate.stages.images.inspect import Inspect
from curate.stages.images.pictures import PictureStage, Seen, read_pictures
from curate.tables import CATALOG, CHOSEN, DUPLICATES, IMAGE_ID
from tests.ops.images.pictures import comment_bomb, scan_bomb

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
    decode, embed = under_test.inspect_picture, Embed.embed

    def counting(*args, **kwargs):
        nonlocal num_decoded
        num_decoded += 1
        return decode(*args, **kwargs)

    def noting(self, pixels):
        at_batch.append((len(pixels), num_decoded))
        return embed(self, pixels)

    monkeypatch.setattr(under_test, "inspect_picture", counting)
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


def test_bombs_cost_their_own_rows_alone(tmp_path: Path) -> None:
    write_photos(tmp_path / "pool", 3)
    (tmp_path / "pool" / "001.jpg").write_bytes(scan_bomb())
    (tmp_path / "pool" / "003.ppm").write_bytes(comment_bomb())
    Image.new("F", (3000, 3000)).save(tmp_path / "pool" / "004.tif", compression="tiff_adobe_deflate")
    limits = ImageLimits(max_seconds=0.3, max_decode_bytes=32 << 20)
    found = inspected(listed(tmp_path / "pool"), Inspect(limits=limits))
    assert found["reject"].to_pylist() == [None, "too_slow", None, "too_slow", "too_large"]
    assert found["width"].to_pylist() == [64, 2000, 64, None, 3000]
    assert found["detail"][1].as_py() == "decoding takes more than 0.3 seconds of CPU time"


def test_ctrl_c_waits_for_no_decoder_and_no_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A picture that decodes for long and a server that never answers, when the user gives up."""
    write_photos(tmp_path / "pool", 2)
    reached, begun, answer = threading.Event(), threading.Event(), threading.Event()
    after: list[BaseException] = []
    decode = under_test.inspect_picture

    def hang() -> Read:
        reached.set()
        answer.wait()
        return Read(data=scan_bomb())

    def deciding(*args: Any, **how: Any) -> Any:
        begun.set()
        try:
            return decode(*args, **how)
        except BaseException as error:
            after.append(error)
            raise

    def interrupt() -> None:
        reached.wait()
        begun.wait()
        while len(decoder_pids()) < 2:
            pass
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)  # type: ignore[arg-type]

    monkeypatch.setattr(under_test, "read_loose", lambda *_, **__: iter([lambda: Read(data=scan_bomb()), hang]))
    monkeypatch.setattr(under_test, "inspect_picture", deciding)
    monkeypatch.setattr(pa, "cpu_count", lambda: 2)
    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        inspected(listed(tmp_path / "pool"), Inspect())
    assert not answer.is_set()
    answer.set()
    for thread in threading.enumerate():
        if thread.name.startswith("decode"):
            thread.join()
    assert [type(error) for error in after] == [DecodersEnded] * 2  # what comes late is not decoded any more


@pytest.mark.parametrize("role", ["pool", "curated", "heldout"])
def test_limits_beyond_safety_are_those_of_the_pool(tmp_path: Path, role: str) -> None:
    odd = {"dot": (1, 1), "line": (2, 3000), "digit": (28, 28), "plain": (64, 64)}
    for part in {"pool", role}:
        (tmp_path / part).mkdir()
        for number, (name, size) in enumerate(odd.items()):
            Image.new("RGB", size, (40 * number, 90, 200)).save(tmp_path / part / f"{name}.png")
        (tmp_path / part / "page.png").write_bytes(b"<html>")
    sources = Sources.model_validate({name: str(tmp_path / name) for name in ("pool", role)})
    *_, (_, catalog) = Catalog(sources=sources).scan(None)
    models = {name: Embed(model=name, precision="fp32", device="cpu") for name in ("lite0-copy", "lite0", "luma24")}
    found: dict[str, pa.Table] = {}
    for name, rows in read_pictures({"images": Inspect(), **models}, 0, catalog=catalog):
        found[name] = pa.Table.from_batches([rows])
    rejects = dict(
        zip([Path(key).stem for key in catalog["key"].to_pylist()], found["images"]["reject"].to_pylist(), strict=True)
    )
    assert rejects.pop("page") == "not_an_image"
    if role == "pool":
        assert rejects == {"dot": "too_small", "line": "extreme_aspect", "digit": "too_small", "plain": "uniform"}
        return
    assert set(rejects.values()) == {None}
    assert found["images"]["pdq"].null_count == 1
    for name in models:
        vectors, rows = unpack(found[name]["vector"], VectorSpec.of(found[name].schema))
        assert len(rows) == 4
        assert np.isfinite(vectors).all()
        length = 0 if name == "luma24" else 1  # in pictures of one color there is nothing to lay over another
        np.testing.assert_allclose(np.linalg.norm(vectors.astype(np.float32), axis=1), length, atol=1e-2)


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


@pytest.fixture
def away(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Names of files that cannot be had; what was asked for is in `asked`."""
    names: set[str] = set()
    read = folder.read_folder_file

    def busy(uri: str, **options: Any) -> Read:
        asked.append(Path(uri).name)
        return unavailable("HTTP 503 Service Unavailable") if Path(uri).name in names else read(uri, **options)

    asked.clear()
    monkeypatch.setattr(folder, "read_folder_file", busy)
    return names


asked: list[str] = []


def run_pass(
    store: Store,
    catalog: pa.Table,
    stages: dict[str, PictureStage],
    *,
    wanted: str = "",
    vouched: frozenset[str] = frozenset(),
    **inputs: pa.Table,
) -> dict[str, list[int]]:
    """Make part 0 of the tables of a pass as a task does, wanted under another name each time its inputs are others;
    the open rows of each."""
    store.table("catalog").commit(0, catalog.schema, catalog.to_batches())
    for name, rows in inputs.items():
        store.table(name).commit(0, rows.schema, rows.to_batches())
    schemas = {name: stage.output_schema() for name, stage in stages.items()}
    given = {key: (key,) if key in ("catalog", *inputs) else None for key in PictureStage.inputs}
    task = Task("run", 0, dict(stages), schemas, {name: f"wanted {name} {wanted}" for name in stages}, given)
    perform(store.root, replace(task, made_by=stage_digests(stages), vouched=vouched), 1)
    return {name: store.table(name).open_rows(0) for name in stages}


def digests(store: Store, names: Iterable[str]) -> list[Part | None]:
    return [store.table(name).footer(0) for name in names]


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_open_images_alone_are_read_again_and_the_part_ends_as_if_nothing_had_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, away: set[str], dtype: Any
) -> None:
    write_photos(tmp_path / "pool", 22)
    (tmp_path / "pool" / "003.jpg").write_bytes(b"<html>")
    (tmp_path / "pool" / "005.json").write_text('{"caption": "five"}')
    monkeypatch.setattr(under_test, "CHUNK_ROWS", 8)
    catalog, stages = listed(tmp_path / "pool"), {"images": Inspect(), "x": EMBED.model_copy(update={"dtype": dtype})}
    run_pass(Store(tmp_path / "never"), catalog, stages)
    store = Store(tmp_path / "run")
    away |= {"001.jpg", "005.jpg", "008.jpg", "021.jpg"}
    assert run_pass(store, catalog, stages) == {"images": [1, 5, 8, 21], "x": [1, 5, 8, 21]}
    rows = store.table("images").read(0)
    assert rows["reject"].to_pylist().count("unavailable") == 4
    assert rows["detail"][1].as_py() == "HTTP 503 Service Unavailable"
    assert store.table("x").read(0)["vector"].is_null().to_pylist() == [row in (1, 3, 5, 8, 21) for row in range(22)]
    for left in ({"005.jpg", "021.jpg"}, set[str]()):
        before = {f"{row:03d}.jpg" for row in store.table("images").open_rows(0)}
        away.clear()
        away |= left
        asked.clear()
        run_pass(store, catalog, stages)
        assert set(asked) == before
        assert len(asked) == len(before)
    assert digests(store, stages) == digests(Store(tmp_path / "never"), stages)


def test_later_pass_leaves_images_open_that_cannot_be_had_now(tmp_path: Path, away: set[str]) -> None:
    write_photos(tmp_path / "pool", 6)
    catalog, store = listed(tmp_path / "pool"), Store(tmp_path / "run")
    images = inspected(catalog, Inspect())
    away.add("002.jpg")
    assert run_pass(store, catalog, {"x": EMBED}, images=images) == {"x": [2]}
    assert store.table("x").read(0)["vector"].is_null().to_pylist() == [row == 2 for row in range(6)]
    away.clear()
    asked.clear()
    assert run_pass(store, catalog, {"x": EMBED}, images=images) == {"x": []}
    assert asked == ["002.jpg"]
    assert store.table("x").read(0)["vector"].null_count == 0


def verdicts(kept: Iterable[int]) -> pa.Table:
    """Verdicts by which these rows of part 0 stay."""
    rows = [dict.fromkeys(DUPLICATES.names) | {"image_id": row, "verdict": "kept"} for row in sorted(kept)]
    values = [row | {"component_id": row["image_id"], "component_size": 1} for row in rows]
    return pa.Table.from_pylist(values, DUPLICATES)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_later_pass_reads_what_no_earlier_one_read_and_ends_with_the_bytes_of_a_part_made_from_nothing(
    tmp_path: Path, away: set[str], monkeypatch: pytest.MonkeyPatch, dtype: Any
) -> None:
    monkeypatch.setattr(under_test, "CHUNK_ROWS", 8)
    write_photos(tmp_path / "pool", 22)
    catalog, store = listed(tmp_path / "pool"), Store(tmp_path / "run")
    images, stages = inspected(catalog, Inspect()), {"x": EMBED.model_copy(update={"dtype": dtype})}
    had = set(range(0, 18))
    run_pass(store, catalog, stages, images=images, duplicates=verdicts(had))
    steps = [set(range(3, 22)), set(range(3, 10)), set[int](), set(range(22)), set(range(22)) - {0}]
    for number, kept in enumerate(steps):
        asked.clear()
        run_pass(store, catalog, stages, wanted=str(number), images=images, duplicates=verdicts(kept))
        assert asked == [f"{row:03d}.jpg" for row in sorted(kept - had)]
        never = Store(tmp_path / f"never {number}")
        run_pass(never, catalog, stages, wanted=str(number), images=images, duplicates=verdicts(kept))
        assert Path(store.table("x").part_path(0)).read_bytes() == Path(never.table("x").part_path(0)).read_bytes()
        had = kept


def test_rows_are_taken_from_an_earlier_part_only_if_bytes_and_network_are_as_they_were(
    tmp_path: Path, away: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(under_test, "BLOCK_ROWS", 4)
    monkeypatch.setattr(row_reuse, "BLOCK_ROWS", 4)
    write_photos(tmp_path / "pool", 10)
    catalog, store = listed(tmp_path / "pool"), Store(tmp_path / "run")
    images = inspected(catalog, Inspect())
    run_pass(store, catalog, {"x": EMBED}, images=images, duplicates=verdicts(range(9)))

    def read_again(stage: Embed, images: pa.Table, wanted: str) -> list[int]:
        asked.clear()
        run_pass(store, catalog, {"x": stage}, wanted=wanted, images=images, duplicates=verdicts(range(10)))
        return [int(Path(name).stem) for name in asked]

    photo = Image.open(tmp_path / "pool" / "001.jpg")
    photo.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(tmp_path / "pool" / "005.jpg")
    changed = inspected(catalog, Inspect())
    assert read_again(EMBED, changed, "of other bytes") == [4, 5, 6, 7, 9]
    assert read_again(EMBED, changed, "of the same") == []
    assert read_again(EMBED.model_copy(update={"batch_size": 3}), changed, "at another speed") == []
    assert read_again(EMBED.model_copy(update={"view": "within_border"}), changed, "of another view") == list(range(10))
    assert read_again(EMBED.model_copy(update={"model": "lite0"}), changed, "by another network") == list(range(10))


@pytest.mark.parametrize("vouched", [True, False])
def test_parts_of_versions_that_wrote_nothing_of_rows_are_taken_if_a_complete_table_vouches_for_them(
    tmp_path: Path, away: set[str], monkeypatch: pytest.MonkeyPatch, vouched: bool
) -> None:
    write_photos(tmp_path / "pool", 6)
    catalog, store = listed(tmp_path / "pool"), Store(tmp_path / "run")
    images = inspected(catalog, Inspect())
    with monkeypatch.context() as patch:
        patch.setattr(PictureStage, "contents", classmethod(lambda *args, **tables: []))
        run_pass(store, catalog, {"x": EMBED}, images=images, duplicates=verdicts(range(5)))
    assert store.table("x").made_of(0) is None
    asked.clear()
    run_pass(
        store,
        catalog,
        {"x": EMBED},
        wanted="more",
        vouched=frozenset({"x"} if vouched else ()),
        images=images,
        duplicates=verdicts(range(6)),
    )
    assert asked == [f"{row:03d}.jpg" for row in range(5 if vouched else 0, 6)]
    assert store.table("x").made_of(0) is not None


def test_damaged_earlier_part_is_no_source_of_rows(tmp_path: Path, away: set[str]) -> None:
    write_photos(tmp_path / "pool", 6)
    catalog, store = listed(tmp_path / "pool"), Store(tmp_path / "run")
    images = inspected(catalog, Inspect())
    run_pass(store, catalog, {"x": EMBED}, images=images, duplicates=verdicts(range(5)))
    part = Path(store.table("x").part_path(0))
    data = bytearray(part.read_bytes())
    data[40] ^= 1
    part.write_bytes(data)
    asked.clear()
    run_pass(store, catalog, {"x": EMBED}, wanted="more", images=images, duplicates=verdicts(range(6)))
    assert asked == [f"{row:03d}.jpg" for row in range(6)]


def test_image_that_is_gone_or_changed_by_a_later_pass_costs_itself_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_photos(tmp_path / "pool", 5)
    catalog, store = listed(tmp_path / "pool"), Store(tmp_path / "run")
    images = inspected(catalog, Inspect())
    (tmp_path / "pool" / "001.jpg").unlink()
    (tmp_path / "pool" / "003.jpg").write_bytes((tmp_path / "pool" / "002.jpg").read_bytes())
    assert run_pass(store, catalog, {"x": EMBED}, images=images) == {"x": []}
    assert store.table("x").read(0)["vector"].is_null().to_pylist() == [False, True, False, True, False]
    assert "001.jpg: could be read in the first pass, but not now: No such file or directory" in caplog.text
    assert "003.jpg: changed since it was inspected" in caplog.text


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

    monkeypatch.setattr(folder, "read_folder_file", read)
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


# -- of a later pass some images alone, and what a border surrounds -------------------------------------------


def test_chosen_images_alone_are_opened(tmp_path: Path, away: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    write_photos(tmp_path / "pool", 12)
    (tmp_path / "pool" / "003.jpg").write_bytes(b"<html>")
    catalog = listed(tmp_path / "pool")
    monkeypatch.setattr(under_test, "CHUNK_ROWS", 5)
    images = inspected(catalog, Inspect())
    chosen = pa.table([pa.array([1, 3, 4, 11], pa.int64())], schema=CHOSEN)
    asked.clear()
    batches = list(MeanColor().run(0, catalog=catalog, images=images, chosen=chosen))
    assert sorted(asked) == ["001.jpg", "004.jpg", "011.jpg"]  # the rejected one is not wanted
    means = pa.Table.from_batches(batches)["mean"]
    assert means.is_valid().to_pylist() == [row in (1, 4, 11) for row in range(12)]
    whole = pa.Table.from_batches(list(MeanColor().run(0, catalog=catalog, images=images)))["mean"]
    assert all(means[row] == whole[row] for row in (1, 4, 11))
    nothing = pa.table([pa.array([], pa.int64())], schema=CHOSEN)
    asked.clear()
    assert (
        pa.Table.from_batches(list(MeanColor().run(0, catalog=catalog, images=images, chosen=nothing)))[
            "mean"
        ].null_count
        == 12
    )
    assert asked == []


def test_chosen_images_of_a_later_part_are_found_by_their_place(tmp_path: Path) -> None:
    write_photos(tmp_path / "pool", 4)
    catalog = listed(tmp_path / "pool")
    ids = pa.array([5 << 32 | row for row in range(4)], pa.int64())
    catalog = catalog.set_column(0, CATALOG.field("image_id"), ids)
    images = inspected(catalog, Inspect())
    chosen = pa.table([ids.take([2])], schema=CHOSEN)
    found = pa.Table.from_batches(list(MeanColor().run(0, catalog=catalog, images=images, chosen=chosen)))
    assert found["mean"].is_valid().to_pylist() == [False, False, True, False]


def framed_pool(folder: Path) -> dict[int, tuple[int, int, int, int]]:
    """Four photographs, two in frames: where their pictures lie."""
    write_photos(folder, 4)
    boxes = {}
    for number in (1, 2):
        picture = Image.open(folder / f"{number:03d}.jpg").convert("RGB")
        whole = Image.new("RGB", (110, 84 + 10 * number), (250, 250, 250))
        whole.paste(picture, (20, 10))
        whole.save(folder / f"{number:03d}.png")
        (folder / f"{number:03d}.jpg").unlink()
        boxes[number] = (20, 10, 84, 74)
    return boxes


def test_hashes_and_vectors_of_what_a_border_surrounds_are_null_where_there_is_none(tmp_path: Path) -> None:
    boxes = framed_pool(tmp_path / "pool")
    catalog = listed(tmp_path / "pool")
    stages = {"images": Inspect(), "whole": EMBED, "within": EMBED.model_copy(update={"view": "within_border"})}
    found = dict(read_pictures(stages, 0, catalog=catalog))
    images = found["images"]
    assert images["pdq"].null_count == 0
    assert images["pdq_within_border"].is_valid().to_pylist() == [row in boxes for row in range(4)]
    assert found["whole"]["vector"].null_count == 0
    assert found["within"]["vector"].is_valid().to_pylist() == [row in boxes for row in range(4)]
    for number in boxes:
        with Image.open(tmp_path / "pool" / f"{number:03d}.png") as file:
            inside = without_border(file.convert("RGB"))
        assert inside is not None
        assert images["pdq_within_border"][number].as_py() == pdq(inside)[0]
        assert images["pdq_within_border"][number] != images["pdq"][number]
        expected = EMBED.embed([preprocess(inside, EMBED.backbone().preprocess)])[0]
        vectors, rows = unpack(found["within"]["vector"], VectorSpec.of(found["within"].schema))
        np.testing.assert_allclose(vectors[rows.tolist().index(number)], expected, atol=2e-3)


def test_a_border_is_looked_for_once_for_all_stages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    framed_pool(tmp_path / "pool")
    looked: list[tuple[int, int]] = []

    def counting(picture: Image.Image) -> Image.Image | None:
        looked.append(picture.size)
        return without_border(picture)

    monkeypatch.setattr(under_test, "without_border", counting)
    within = {name: EMBED.model_copy(update={"view": "within_border"}) for name in ("a", "b")}
    list(read_pictures({"images": Inspect(), **within}, 0, catalog=listed(tmp_path / "pool")))
    assert len(looked) == 4


def test_what_was_not_read_has_nothing_within() -> None:
    assert Seen(unavailable("HTTP 503"), None).within_border is None
