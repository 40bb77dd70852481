"""Reservations of rights from headers, lists and pictures become scores, and rejects where they are honored."""

import importlib.util
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from curate.engine.freshness import Flags
from curate.engine.store import Store
from curate.engine.tallies import Tally
from curate.ops.images.inspect import ImageLimits, inspect_image
from curate.recipe import load_config
from curate.running import run_config
from curate.samples.bundled import photos_by_category
from curate.sources.read import Read
from curate.stages.images.pictures import Seen
from curate.stages.screening.read_origin import OPTED_OUT, OriginTally, ReadOrigin
from curate.stages.screening.screen import Screen
from curate.tables import is_score
from tests.ops.images.content_credentials import plain_jpeg, with_credentials
from tests.ops.images.test_embedded import BY_MODEL, PROHIBITED, picture, xmp

LIMITS = ImageLimits(max_bytes=1 << 30).for_safety_alone()
needs_package = pytest.mark.skipif(importlib.util.find_spec("c2pa") is None, reason="c2pa-python is not installed")


def seen(data: bytes | None, **read: Any) -> Seen:
    inspected = None if data is None else inspect_image(data, LIMITS)
    return Seen(Read(data, **read), inspected)


def test_a_picture_that_says_nothing_has_nulls_alone() -> None:
    assert not any(value is not None for value in ReadOrigin().prepare(seen(plain_jpeg())).values())


def test_headers_columns_and_the_picture_are_told_together() -> None:
    data = picture("PNG", xmp(f'p:DataMining="{PROHIBITED}" e:DigitalSourceType="{BY_MODEL}"'))
    row = ReadOrigin().prepare(seen(data, reserved="TDM-Reservation: 1", extra={"no_ai": True}))
    told = ["TDM-Reservation: 1", "column no_ai: True", "plus:DataMining: DMI-PROHIBITED-AIMLTRAINING"]
    assert row[OPTED_OUT] == "; ".join(told)
    assert row["made_by_model"] is True
    assert row["digital_source_type"] == "trainedAlgorithmicMedia"


def test_a_camera_is_no_model() -> None:
    packet = xmp('e:DigitalSourceType="http://cv.iptc.org/newscodes/digitalsourcetype/digitalCapture"')
    row = ReadOrigin().prepare(seen(picture("JPEG", packet)))
    assert (row["digital_source_type"], row["made_by_model"]) == ("digitalCapture", False)


def test_an_image_that_a_server_kept_back_tells_why() -> None:
    row = ReadOrigin().prepare(seen(None, reject="unreadable", reserved="X-Robots-Tag: noai"))
    assert row == {OPTED_OUT: "X-Robots-Tag: noai"}


@needs_package
def test_content_credentials_are_read_where_they_are_asked_for() -> None:
    data = with_credentials(source_type="trainedAlgorithmicMedia", training={"cawg.ai_training": "notAllowed"})
    plain, asked = ReadOrigin().prepare(seen(data)), ReadOrigin(c2pa=True).prepare(seen(data))
    assert plain[OPTED_OUT] is None
    assert asked[OPTED_OUT] == "c2pa training: notAllowed"
    assert asked["made_by_model"] is True
    assert (asked["c2pa_signature"], asked["c2pa_signer"]) == ("valid", "Nobody")
    assert asked.keys() == set(ReadOrigin(c2pa=True).score_names())


def test_every_column_is_a_documented_score() -> None:
    for stage in (ReadOrigin(), ReadOrigin(c2pa=True)):
        fields = list(stage.output_schema())[1:]
        assert all(is_score(field) and field.metadata[b"doc"] for field in fields)
        assert tuple(field.name for field in fields) == stage.score_names()


def test_counts_of_a_part() -> None:
    rows = pa.table(
        {
            OPTED_OUT: ["X-Robots-Tag: noai; TDM-Reservation: 1", None, "X-Robots-Tag: noimageai"],
            "made_by_model": [True, None, False],
            "digital_source_type": ["trainedAlgorithmicMedia", None, "digitalCapture"],
        }
    )
    found = OriginTally.count(rows)
    assert isinstance(found, Tally)
    assert found.reserved == {"X-Robots-Tag": 2, "TDM-Reservation": 1}
    assert (found.opted_out, found.by_model, found.told) == (2, 1, 2)


@pytest.mark.parametrize("honor", [True, False])
def test_honoring_rejects_what_is_reserved_and_noting_does_not(honor: bool) -> None:
    ids, found = pa.array([0, 1, 2], pa.int64()), pa.array([None, "TDM-Reservation: 1", "x"])
    catalog = pa.table({"image_id": ids, "role": ["pool"] * 3})
    images = pa.table({"image_id": ids, "reject": pa.array([None, None, "corrupt"], pa.string())})
    schema = ReadOrigin().output_schema()
    nothing = [pa.nulls(3, field.type) for field in list(schema)[2:]]
    scores = pa.table([ids, found, *nothing], schema=schema)
    given: dict[str, Any] = {"catalog": catalog, "images": images, "scores": [scores]}
    (batch,) = Screen(opt_outs=honor).run(0, **given, named=None, measured=None, columns=None)
    assert batch["reject"].to_pylist() == ([None, OPTED_OUT, None] if honor else [None] * 3)
    assert batch["detail"].to_pylist() == ([None, "TDM-Reservation: 1", None] if honor else [None] * 3)


def test_a_run_honors_what_pictures_reserve_and_says_so(tmp_path: Path) -> None:
    source = tmp_path / "pool"
    source.mkdir()
    photos = [Path(path) for paths in photos_by_category().values() for path in list(paths)[:1]][:6]
    for photo in photos:
        (source / photo.name).write_bytes(photo.read_bytes())
    file = BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (9, 9, 3), np.uint8)
    Image.fromarray(pixels).resize((300, 300)).save(file, "JPEG", xmp=xmp(f'p:DataMining="{PROHIBITED}"'))
    (source / "reserved.jpg").write_bytes(file.getvalue())
    given = [f"sources.pool={source}", f"workdir={tmp_path / 'run'}", "screen={}", "map=null"]
    run_config(load_config("dedup", given), Flags())
    store = Store(tmp_path / "run")
    keys = store.table("shards/data").read_all(["key"])["key"].to_pylist()
    assert sorted(keys) == sorted(photo.name for photo in photos)
    scores = store.table("scores").read_all(["reject", "detail"]).to_pylist()
    reasons = [row["detail"] for row in scores if row["reject"] == OPTED_OUT]
    assert reasons == ["plus:DataMining: DMI-PROHIBITED-AIMLTRAINING"]
    assert "1 image of 7" in (tmp_path / "run/shards/SUMMARY.md").read_text()
