"""The story of one image: where it came from, which stage kept or dropped it, and why.

Each stage tells its own part (`Stage.explain`); here the image is found and the parts are put in order.
"""

import os
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc

from curate.engine.finished import MAX_NAMED, Finished
from curate.engine.numbers import count, plural
from curate.errors import CurateError
from curate.report.sections import outdated
from curate.sources.secrets import MARK, NUMBERED, strip_text
from curate.sources.uri import encode_uri
from curate.text import visible


def explain(run: Finished, image: str) -> str:
    """Tell the story of one image, in lines of text.

    Args:
        image: image_id, key, uri, path, or the last steps of one of these.

    Raises:
        CurateError: no image or more than one fits; the message names candidates.
    """
    return "\n".join(_lines(run, find_image(run, image)))


def find_image(run: Finished, image: str) -> int:
    """The image_id that `image` means."""
    if image.isdecimal() and image == str(int(image)) and run.parts.has(int(image)):
        return int(image)
    exact, partial = _matches(run, image)
    found = exact or partial
    if not found:
        assert run.catalog is not None
        raise CurateError(
            f"{strip_text(image)}: none of the {plural(run.catalog.num_rows(), 'image')} of {run.store.root} has this "
            f"image_id, key or path; see the columns key and uri of {run.store.root}/{run.catalog.name}"
        )
    if len(found) > 1:
        places = [run.place(i) for i in found[:MAX_NAMED]]
        names = [
            f"  {place.image_id}  {visible(place.row['source'] + ': ' + place.row['key'], keep='')}" for place in places
        ]
        more = f"\n  and {count(len(found) - MAX_NAMED)} more" if len(found) > MAX_NAMED else ""
        raise CurateError(f"{image}: {len(found)} images fit; name one by its id:\n" + "\n".join(names) + more)
    return found[0]


def _matches(run: Finished, image: str) -> tuple[list[int], list[int]]:
    """Ids of the images that have exactly this key or uri, and of those whose key or uri ends in it."""
    absolute = encode_uri(os.fsencode(os.path.abspath(image)))  # noqa: PTH100  # keeps symlinks, as listing does
    exact: list[int] = []
    partial: list[int] = []
    assert run.catalog is not None
    stored = strip_text(image)
    for rows in run.catalog.scan(["image_id", "key", "uri"]):
        whole = pc.is_in(rows["key"], pa.array([image]))
        whole = pc.or_(whole, pc.is_in(rows["uri"], pa.array([image, absolute, stored])))
        if MARK in stored:  # a URL of a list, where the number of the line follows the mark
            whole = pc.or_(whole, pc.equal(pc.replace_substring_regex(rows["uri"], NUMBERED, MARK), stored))
        ends = pc.or_(pc.ends_with(rows["key"], f"/{image}"), pc.ends_with(rows["uri"], f"/{image}"))
        exact += rows.filter(whole)["image_id"].to_pylist()
        partial += rows.filter(ends)["image_id"].to_pylist()
    return exact, partial


def _lines(run: Finished, image_id: int) -> Iterator[str]:
    image = run.place(image_id)
    yield f"image {image_id} (part {image.part}, row {image.place})"
    for stage, table in run.tables:
        word = stage.explained_as or table.name.rpartition("/")[2]
        for number, line in enumerate(stage.explain(image, table, run)):
            yield f"  {word if number == 0 else '':<10} {visible(line, keep='')}"
    yield from (f"  {line}" for line in outdated(run))
