"""Blurring faces in pictures that are written, many at a time."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import pyarrow as pa

from curate.ops.images.blurring import Blur, Blurred
from curate.ops.images.decode import RejectedImage
from curate.ops.images.decoding import blur_picture
from curate.tables import BLUR, BLUR_COLUMNS, BLURS, HF_IMAGE

logger = logging.getLogger(__name__)

Boxes = list[dict[str, Any]]


FACES = BLURS.names[1]


def blur_of(schema: pa.Schema) -> Blur:
    """How faces are blurred, from the schema of a table of chosen faces, or of shards."""
    return Blur.model_validate_json(schema.metadata[BLUR])


def blur_rows(rows: pa.Table, how: Blur, *, done: Mapping[int, str]) -> pa.Table:
    """Rows of a shard with the faces blurred in their pictures, and the column `blurred`.

    A picture that does not decode, or in which faces were not looked for, is left out: it must not be written as it is.

    Args:
        rows: with the columns image_id, key, image and `blurred_faces`.
        done: what is told of pictures that were blurred in an earlier shard, by image id.
    """
    named = rows.select(["image_id", "key", "image", FACES]).to_pylist()
    wanted = [place for place, row in enumerate(named) if row[FACES] and row["image_id"] not in done]
    asked = [ToBlur(named[place]["key"], named[place]["image"]["bytes"], named[place][FACES]) for place in wanted]
    found = dict(zip(wanted, blur_pictures(asked, how), strict=True))
    pictures, notes = [], []
    for place, row in enumerate(named):
        blurred = found.get(place)
        pictures.append({**row["image"], "bytes": row["image"]["bytes"] if blurred is None else blurred.data})
        notes.append(done.get(row["image_id"]) if blurred is None else blurred.note)
    rows = rows.set_column(rows.schema.get_field_index("image"), "image", [pa.array(pictures, HF_IMAGE)])
    rows = rows.append_column(BLUR_COLUMNS.field("blurred"), pa.array(notes, pa.string()))
    unknown = [row["key"] for row in named if row[FACES] is None]
    for key in unknown:
        logger.warning("%s: left out, since faces were not looked for in it", key)
    fit = [found.get(place, True) is not None and row[FACES] is not None for place, row in enumerate(named)]
    return rows.filter(pa.array(fit, pa.bool_()))


class ToBlur(NamedTuple):
    """A picture, and its faces."""

    key: str
    """Names it in messages."""
    data: bytes
    boxes: Boxes


def blur_pictures(pictures: Sequence[ToBlur], how: Blur) -> Iterator[Blurred | None]:
    """Each picture with its faces blurred, in order; None: it does not decode, and must not be written."""
    with ThreadPoolExecutor(pa.cpu_count(), "blur") as pool:
        yield from pool.map(lambda picture: blur_one(picture, how), pictures)


def blur_one(picture: ToBlur, how: Blur) -> Blurred | None:
    """A picture with its faces blurred; None: it does not decode, and must not be written."""
    boxes = [(box["left"], box["top"], box["right"], box["bottom"]) for box in picture.boxes]
    try:
        return blur_picture(picture.data, boxes, how)
    except RejectedImage as rejected:
        logger.warning("%s: left out, since its faces cannot be blurred: %s", picture.key, rejected.detail)
        return None
