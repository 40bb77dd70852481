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


def cut_parts(found: Iterable[Found], *, rows_per_part: int = 65_536) -> Iterator[list[Found]]:
    """Cut a listing into parts of at most `rows_per_part` images, at the bounds of archives where possible.

    An archive that is larger than a part is cut inside. Memory: one part, whatever the archives hold.

    Raises:
        ValueError: `rows_per_part` is not positive.
    """
    if rows_per_part < 1:
        raise ValueError(f"rows_per_part is {rows_per_part}, it must be at least 1")
    part: list[Found] = []
    start = 0  # where the archive of the last image begins in `part`
    for item in found:
        if not part or item.container is None or item.container != part[-1].container:
            start = len(part)
        part.append(item)
        if len(part) > rows_per_part:
            cut = start or rows_per_part
            yield part[:cut]
            part, start = part[cut:], 0
    if part:
        yield part
