"""What a source may be made of: the contract of a format, those that are built in, and those of plug-ins.

A format says how the images of a source are found and how they are read. `format: auto` and `format: list` go by the
suffixes of the files and choose among the built-in ones. A format of one's own is named by its place: `format:
./my_source.py:Zips`, `format: my_package.module:Zips`, or an entry point of an installed package in the group
`curate.sources`. Here is one for zip archives, complete:

    class Zips:
        loose = False

        def find(self, source, *, skipped):
            with zipfile.ZipFile(source.path) as archive:
                for row, member in enumerate(archive.infolist()):
                    yield Found(source.path, member.filename, row=row, length=member.file_size, container=0)

        def read(self, rows, source, *, max_bytes, extra):
            with zipfile.ZipFile(source.path) as archive:
                for key in rows["key"].to_pylist():
                    yield Read(archive.read(key))

With two more methods, `containers` and `find_in`, tasks list such a source side by side; see `InContainers`.
"""

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from curate.errors import ConfigError
from curate.registry import resolve

if TYPE_CHECKING:
    import pyarrow as pa

    from curate.sources.config import Source
    from curate.sources.found import Found
    from curate.sources.read import Read

BUILTIN = {
    "folder": "curate.sources.folder:FolderFormat",
    "tar": "curate.sources.tar:TarFormat",
    "parquet": "curate.sources.parquet:ParquetFormat",
    "urls": "curate.sources.urls:UrlFormat",
}

DETECTED = ("auto", "list")
"""Names that stand for one of the built-in formats, see `curate.sources.listing`."""


class SourceFormat(Protocol):
    """How the images of a source are found and read; a class that is called without arguments.

    One process finds, and several read at once, so an object holds nothing between calls.
    """

    loose: bool
    """Whether each image is a file of its own at its `uri`. A pass then reads such files in several threads by
    `curate.sources.folder.loose_reads`; other images it takes from `read`, one after the other. A format of one's own
    that finds loose files derives from `FolderFormat` and brings its own `find` alone; captions and the like beside
    local files are found when they are read, unless `find` tells of them (`Found.sidecars`)."""

    def find(self, source: "Source", *, skipped: Counter[str]) -> "Iterator[Found]":
        """The images of the source, in the same order each time, without reading them.

        Images of a source differ in (uri, offset, row), or where they have a row, in these and the key: a later scan
        knows by them which ones are new. Images of one `container` stay in one part where they fit.

        Args:
            skipped: counts what was left out, by reason; `curate.sources.left_out.leave_out` also keeps an example.

        Raises:
            SourceError: the source is not there or is damaged.
        """
        ...

    def read(self, rows: "pa.Table", source: "Source", *, max_bytes: int, extra: bool) -> "Iterator[Read]":
        """The images of some rows of the catalog, one for each row in the same order.

        Args:
            rows: rows of `tables.CATALOG`, all of this source, in the order in which they were found.
            max_bytes: a longer image yields an error instead of its bytes.
            extra: whether to read the source's own columns, such as captions.

        Raises:
            SourceError: an archive is damaged or has changed, or reading failed again and again. An image that alone
                cannot be had is no error: its `Read` says why.
        """
        ...


@runtime_checkable
class InContainers(Protocol):
    """What a `SourceFormat` may have besides: two methods by which tasks list its images side by side.

    Without them one task lists the whole source by `find`, and begins again where it was killed.
    """

    def containers(self, source: "Source", *, skipped: Counter[str]) -> Iterator[Any]:
        """The archives, pages or folders of the source, in the same order each time, as small values for JSON.

        One process asks for all of them. A value tells what changes with the content, such as size and modification
        time: an interrupted listing keeps what it has of equal values.

        Args:
            skipped: as of `SourceFormat.find`.

        Raises:
            SourceError: the source is not there.
        """
        ...

    def find_in(self, container: Any, source: "Source", *, skipped: Counter[str]) -> "Iterator[Found]":
        """The images of one container: those of all of them, in order, are what `find` gives.

        Args:
            container: as JSON gives it back, so that tuples are lists.
            skipped: as of `SourceFormat.find`.

        Raises:
            SourceError: it is gone or damaged.
        """
        ...


def find_format(name: str) -> SourceFormat:
    """The format of that name, built in or of a plug-in.

    Raises:
        ConfigError: an unknown name, or what it names does not import or is no format.
    """
    # `auto` and `list` are named to the registry for its list of known names only.
    found = resolve("source", name, {**dict.fromkeys(DETECTED, ""), **BUILTIN}, key="format")
    made = found() if isinstance(found, type) else found
    missing = [part for part in ("loose", "find", "read") if not hasattr(made, part)]
    if missing:
        raise ConfigError(f"format: {name!r} has no {missing[0]!r}; see SourceFormat in curate/sources/formats.py")
    return made  # type: ignore[no-any-return]
