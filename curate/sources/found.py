"""What listing yields, and how it is cut into parts."""

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple


class Sidecar(NamedTuple):
    """What lies beside an image and describes it."""

    kind: str
    """json, caption or label; table: a row of a table that describes many images."""
    name: str
    """A file: what its name has instead of the image's suffix (`.txt`, `.jpg.json`), bytes encoded as in `uri`. A
    member: its suffix. A table: its path from the folder of `uri`."""
    offset: int | None = None
    """Bytes from the start of a tar archive, or the row of a table, from 0; None: a file of its own."""
    length: int | None = None
    """Bytes of a member; None: a file or a row."""


class Found(NamedTuple):
    """One image of a source: a row of the catalog but for its id, source and role."""

    uri: str
    """File that holds the image, encoded by `curate.sources.uri`."""
    key: str
    """Name within the source: relative path; within an archive, that of the archive and the name or row in it."""
    offset: int | None = None
    """Bytes from the start of a tar archive."""
    length: int | None = None
    """Bytes of the encoded image; None where only reading tells."""
    row: int | None = None
    """Row in a Parquet file, from 0."""
    modified: int | None = None
    """Modification time of the file, ns since the epoch."""
    container: int | None = None
    """Running number of the archive, which one part should hold whole; None: a file of its own."""
    classes: Mapping[str, tuple[str, ...]] | None = None
    """Names of the classes, by own column, that its file declares in the order of their numbers; None: none. Reading
    then yields names."""
    sidecars: tuple[Sidecar, ...] | None = None
    """What describes the image, the more telling behind; None: not known from listing, so reading looks for it."""


class Span(NamedTuple):
    """Images of a listing that follow each other: those of one archive, or loose ones."""

    images: int
    archive: int | None
    """Differs between archives that follow each other; None: loose images."""


def cut_parts(spans: Iterable[Span], *, rows_per_part: int) -> Iterator[int]:
    """Sizes of the parts that a listing is cut into: at most `rows_per_part`, at the bounds of archives where possible.

    An archive that is larger than a part is cut inside.

    Raises:
        ValueError: `rows_per_part` is not positive.
    """
    if rows_per_part < 1:
        raise ValueError(f"rows_per_part is {rows_per_part}, it must be at least 1")
    held = 0
    for whole in _joined(spans):
        images = whole.images
        if whole.archive is None:
            first = min(images, rows_per_part - held)
            held, images = held + first, images - first
        elif held and held + images > rows_per_part:
            yield held
            held = 0
        while images:
            if held == rows_per_part:
                yield held
                held = 0
            more = min(images, rows_per_part - held)
            held, images = held + more, images - more
    if held:
        yield held


def _joined(spans: Iterable[Span]) -> Iterator[Span]:
    """Spans of one archive as one; none without images."""
    held: Span | None = None
    for span in spans:
        if not span.images:
            continue
        if held is not None and span.archive is not None and span.archive == held.archive:
            held = Span(held.images + span.images, held.archive)
            continue
        if held is not None:
            yield held
        held = span
    if held is not None:
        yield held
