"""Writing images of a run as a data set of one of several formats."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from curate.answers.outputs import new_file
from curate.answers.rows import Wanted, list_images, listed_schema
from curate.answers.saving import write_csv
from curate.answers.write.coco import write_coco
from curate.answers.write.fiftyone import write_fiftyone
from curate.answers.write.files import Link
from curate.answers.write.folder import write_folder
from curate.answers.write.huggingface import write_huggingface
from curate.answers.write.images import Images
from curate.answers.write.output import Output
from curate.answers.write.webdataset import write_webdataset
from curate.answers.write.written import Count, Written
from curate.engine.finished import Finished
from curate.errors import CurateError
from curate.progress import track
from curate.stages.selection.select import Select
from curate.surroundings import surrounded

SHARD_BYTES = 256 << 20
"""Encoded bytes of a shard, unless it is said otherwise."""
FILES: Mapping[str, Callable[..., None]] = {"folder": write_folder, "coco": write_coco, "fiftyone": write_fiftyone}
"""Formats of pictures that are files of their own."""
SHARDS: Mapping[str, Callable[..., None]] = {"webdataset": write_webdataset, "huggingface": write_huggingface}
"""Formats of shards."""
FORMATS = (*FILES, *SHARDS, "csv")


def write_images(
    run: Finished,
    to: str,
    place: str,
    *,
    wanted: Wanted | None = None,
    roles: Sequence[str] | None = None,
    link: Link | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> Written:
    """Write images of a run as a data set.

    Args:
        to: one of `FORMATS`.
        place: folder or URL, empty or new, or left unfinished by the same call; of `csv` a file.
        wanted: None: what the selection holds, or what stays where there is none.
        link: of `FILES`: name files of this machine instead of copying them.
        shard_bytes: of `SHARDS`: encoded bytes of the images of one.

    Raises:
        CurateError: the format is not known, the place holds something else, or an option does not fit the format.
    """
    if to not in FORMATS:
        raise CurateError(f"to={to}: no such format; there are {', '.join(FORMATS)}")
    if link is not None and to not in FILES:
        raise CurateError(f"link: {to} holds the bytes themselves; links are for {', '.join(FILES)}")
    if shard_bytes < 1:
        raise CurateError(f"shard_bytes={shard_bytes}: give 1 or more")
    wanted = wanted or (Wanted.selected if run.only(Select) else Wanted.kept)
    if to == "csv":
        return _write_csv(run, place, wanted, roles)
    images = Images(run, wanted, None if roles is None else tuple(roles))
    options: dict[str, Any] = {"link": link} if to in FILES else {"shard_bytes": shard_bytes}
    write = partial((FILES | SHARDS)[to], images, **options)  # type: ignore[operator]
    total = sum(map(len, images.batches()))
    what = {"to": to, "images": images.digest(), **options}
    with (
        Output.claim(place, what) as out,
        surrounded(workdir=run.store.below or run.store),
        track(f"write {to}", total, unit="images") as advance,
    ):
        count = Count(advance, Written())
        write(out, count)
    return count.found


def _write_csv(run: Finished, place: str, wanted: Wanted, roles: Sequence[str] | None) -> Written:
    found = Written()

    def counted() -> Any:
        for rows in list_images(run, wanted, roles=roles):
            found.images += len(rows)
            yield rows

    with new_file(place) as file:
        write_csv(counted(), listed_schema(), file)
    return found
