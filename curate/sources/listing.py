"""Listing a source: what kind it is, and its images in a fixed order."""

import itertools
import json
import logging
import re
import shlex
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from curate.errors import SourceError
from curate.sources.beside import Surroundings
from curate.sources.config import Source
from curate.sources.containers import (
    Container,
    Finding,
    Tree,
    files_of,
    find_containers,
    find_files,
    find_lines,
    find_listed,
)
from curate.sources.description_tables import RowIndex
from curate.sources.files import File
from curate.sources.folder import FolderFormat, looks_like_image
from curate.sources.formats import DETECTED, InContainers, find_format
from curate.sources.found import Found
from curate.sources.left_out import OUTSIDE, LeftOut
from curate.sources.parquet import ParquetFormat
from curate.sources.reach import reach_of
from curate.sources.roots import is_list
from curate.sources.suffixes import IMAGE, PARQUET, TAR, TFRECORD, may_be_image, suffix_of, unpack_command
from curate.sources.tar import TarFormat, compressed_archive
from curate.sources.uri import encode_uri
from curate.sources.urls import TEXT_TABLES, UrlFormat, has_url_column, is_packed_table, is_table

log = logging.getLogger(__name__)

_PLAIN = re.compile(r"[\w./@+~-]+")
"""What YAML takes for a text without quotation marks."""
PEEK = 10_000
"""Files without a telling suffix after which a source is taken for a folder of images."""

_FORMATS: dict[str, FolderFormat | TarFormat | ParquetFormat | UrlFormat] = {
    "folder": FolderFormat(),
    "tar": TarFormat(),
    "parquet": ParquetFormat(),
    "urls": UrlFormat(),
}


class Group(NamedTuple):
    """Some containers of a source, which one task lists; small, and JSON-ready."""

    kind: str
    """The format that lists it: a built-in one, or as the source names it."""
    containers: tuple[Any, ...]
    """Packed, or as the format's `containers` gave them; empty: there is only what was left out."""
    before: dict[str, Any]
    """What was left out while they were found, see `LeftOut.pack`."""
    lasting: bool = True
    """Whether equal containers hold equal files; False: nobody knows before they are listed."""


class GroupFacts(NamedTuple):
    """What listing a group tells beside its images."""

    left_out: LeftOut
    tables: dict[str, RowIndex]
    """Tables that describe images of several folders, by key, with the rows that images asked for."""


GROUP_FILES = 16_384
"""Files and members of a group, about; a single archive may hold more."""


def find_groups(source: Source) -> Iterator[Group]:
    """The containers of a source in groups, so that listing these one after the other is listing the source.

    Costs about a microsecond for each name of a local folder, a few for each line of a list, an entry of a listing for
    each file of an object store, and holds no more than one group, the names of one folder, and that listing.

    Raises:
        SourceError: the source is not there, cannot be listed, or what it holds is not clear.
    """
    skipped = LeftOut()
    yield from reach_of(source).around(_group(_find_containers(source, skipped), skipped))


def _group(found: Iterator[tuple[str, Any, int, bool]], skipped: LeftOut) -> Iterator[Group]:
    """Groups of (kind, packed container, weight, whether it lasts); `skipped` is what was counted since then."""
    held: list[Any] = []
    weight, before, kind = 0, skipped.take(), ""
    for kind, container, files, lasting in found:
        if held and (weight + files > GROUP_FILES or not lasting):
            yield Group(kind, tuple(held), before)
            held, weight, before = [], 0, skipped.take()
        held.append(container)
        weight += files
        if not lasting:
            yield Group(kind, tuple(held), before, lasting=False)
            held, weight, before = [], 0, skipped.take()
    if held or skipped or before["counts"]:
        left = LeftOut()
        left.add(before)
        left.add(skipped.take())
        yield Group(kind, tuple(held), left.pack())


def _find_containers(source: Source, skipped: LeftOut) -> Iterator[tuple[str, Any, int, bool]]:
    if source.format not in (*DETECTED, *_FORMATS):
        own = find_format(source.format)
        if isinstance(own, InContainers):
            yield from ((source.format, one, GROUP_FILES, True) for one in own.containers(source, skipped=skipped))
        else:
            yield source.format, None, GROUP_FILES, False
        return
    kind = source.format
    if kind in DETECTED:
        kind = _recognize(_files(source, Surroundings(source, LeftOut()), LeftOut()), source)[0]
    around = Surroundings(source, skipped) if _is_described(source) else None
    finding = Finding(skipped, around, source.roots, _APART.get(kind))
    finder = find_lines if _is_listed(source) else find_containers
    for container in finder(source.path, finding):
        yield kind, container.pack(), container.weight(), not isinstance(container.body, Tree)
    if around is not None:
        around.finish()


def _is_listed(source: Source) -> bool:
    """Whether the files of a source are those of the lines of its list."""
    return is_list(source) and source.format in (*DETECTED, "urls")


def _is_described(source: Source) -> bool:
    """Whether what lies beside the files of a source is asked for."""
    return source.format not in ("parquet", "urls")


_APART: dict[str, Callable[[str], bool]] = {
    "tar": lambda name: suffix_of(name) in TAR,
    "parquet": lambda name: suffix_of(name) in PARQUET,
    "urls": is_table,
}
"""What is a container of its own, by kind of source."""


def list_group(source: Source, group: Group, told: GroupFacts) -> Iterator[Found]:
    """The images of a group of containers, in order; `told` gains what else there is to tell.

    `Found.container` tells archives of one group apart.

    Raises:
        SourceError: as of `list_source`, but for a source without images.
    """
    told.left_out.add(group.before)
    yield from reach_of(source).around(_list_group(source, group, told))


def _list_group(source: Source, group: Group, told: GroupFacts) -> Iterator[Found]:
    if not group.containers:
        return
    if group.kind not in _FORMATS:
        own = find_format(group.kind)
        if not isinstance(own, InContainers):
            yield from own.find(source, skipped=told.left_out)
            return
        for number, container in enumerate(group.containers):
            for found in own.find_in(container, source, skipped=told.left_out):
                yield found._replace(container=number) if found.container is not None else found
        return
    around = Surroundings(source, told.left_out) if _is_described(source) else None
    finding = Finding(told.left_out, around, source.roots)
    containers = map(Container.unpack, group.containers)
    files = files_of(containers, finding, listed_in=source.path if _is_listed(source) else None)
    if source.format in DETECTED:
        files = _refuse_mixture(files, group.kind, source)
    yield from _FORMATS[group.kind].find_among(files, source, skipped=told.left_out)
    if around is not None:
        told.tables.update(around.tables())


def check_listed(source: Source, num_images: int, counts: Counter[str]) -> None:
    """Refuse a source without images, and tell how to allow what its links and paths lead to.

    Raises:
        SourceError: it has no image.
    """
    if not num_images:
        raise SourceError(
            f"source {source.name}: {source.path}: no image was found (format {source.format}); left out: "
            f"{_left_out(counts)}; give a folder of images, tars, Parquet files, tables of URLs, or a .txt that lists "
            f"them{_how_to_allow(source, counts)}"
        )
    if counts[OUTSIDE]:
        log.warning("source %s: %s: %s", source.name, source.path, _how_to_allow(source, counts).removeprefix("; "))


def list_source(source: Source, *, skipped: Counter[str] | None = None) -> Iterator[Found]:
    """Every image of a source, in bytewise order of paths (a list: of its lines), archives in their own order.

    Lazy: nothing but the files of one folder, or one tar header, is held at a time.

    Args:
        skipped: counts what was left out, by reason.

    Raises:
        ConfigError: the format of a plug-in cannot be used.
        SourceError: nothing is there, nothing looks like an image, a folder cannot be listed, an archive is
            compressed or damaged, or images, tars and Parquet files are mixed under `format: auto`.
    """
    counts = skipped if skipped is not None else LeftOut()
    num_images = 0
    for found in reach_of(source).around(_find(source, counts)):
        num_images += 1
        yield found
    check_listed(source, num_images, counts)


def _how_to_allow(source: Source, counts: Counter[str]) -> str:
    """What to set where files were left out that lie elsewhere; empty where there were none."""
    if not counts[OUTSIDE]:
        return ""
    found = counts if isinstance(counts, LeftOut) else LeftOut()
    roots = [*source.roots, encode_uri(found.outside) if found.outside else "FOLDER"]
    path, *roots = (
        one if _PLAIN.fullmatch(one) else json.dumps(one, ensure_ascii=False) for one in (source.path, *roots)
    )
    such = f", such as {found.example[OUTSIDE]}" if OUTSIDE in found.example else ""
    return (
        f"; {counts[OUTSIDE]} paths or links lead out of it{such}; if they are yours, allow the folders they lead to, "
        f"by giving the source as {{name: {source.name}, path: {path}, roots: [{', '.join(roots)}]}}"
    )


def _left_out(counts: Counter[str]) -> str:
    return ", ".join(f"{count} x {reason}" for reason, count in counts.most_common(8)) or "nothing was there"


def _find(source: Source, skipped: Counter[str]) -> Iterator[Found]:
    if source.format not in DETECTED:
        yield from find_format(source.format).find(source, skipped=skipped)
        return
    around = Surroundings(source, skipped)
    kind, files = _recognize(_files(source, around, skipped), source)
    yield from _FORMATS[kind].find_among(_refuse_mixture(files, kind, source), source, skipped=skipped)
    around.finish()


def _files(source: Source, around: Surroundings, skipped: Counter[str]) -> Iterator[File]:
    finder = find_listed if is_list(source) else find_files
    return finder(source.path, skipped=skipped, around=around, roots=source.roots)


def _kind_of(file: File) -> str | None:
    """What the suffix of a file makes of its source; None: nothing."""
    suffix = suffix_of(file.uri)
    if suffix in TAR:
        return "tar"
    if suffix in PARQUET:
        return None if _describes(file) else "parquet"
    return "folder" if suffix in IMAGE else None


def _describes(file: File) -> bool:
    """Whether a Parquet file describes the tar or folder of its name, or the images of its folder."""
    return file.around is not None and file.around.describes(file.name)


def _recognize(files: Iterator[File], source: Source) -> tuple[str, Iterator[File]]:
    """The kind of a source by its first telling file; and all its files, those looked at included.

    A table of URLs tells only where no image or archive of images does: beside images it describes them.
    """
    seen: list[File] = []
    of_urls = False  # whether the Parquet files are tables of URLs, by the first of them
    for file in itertools.islice(files, PEEK):
        seen.append(file)
        kind = _kind_of(file)
        of_urls = of_urls or (kind == "parquet" and has_url_column(file.uri, source))
        if kind and not (kind == "parquet" and of_urls):
            return kind, itertools.chain(seen, files)
    has_tables = of_urls or any(suffix_of(file.uri) in TEXT_TABLES for file in seen)
    if has_tables and not any(map(looks_like_image, seen)):
        return "urls", itertools.chain(seen, files)
    only_archives = seen and not any(may_be_image(file.uri) for file in seen)
    if only_archives:
        for file in seen:
            if suffix_of(file.uri) in TFRECORD:
                raise SourceError(
                    f"{file.uri}: TFRecord files cannot be read in place; write the images as tars, Parquet or files "
                    "(img2dataset: --output_format webdataset)"
                )
            if unpack_command(file.uri):
                raise compressed_archive(file.uri)
            if is_packed_table(file.uri):
                raise SourceError(f"{file.uri}: a packed table; unpack it: gunzip -k {shlex.quote(file.uri)}")
    return "folder", itertools.chain(seen, files)


def _refuse_mixture(files: Iterable[File], kind: str, source: Source) -> Iterator[File]:
    for file in files:
        found = _kind_of(file)
        if found and found != kind and not (found == "parquet" and kind == "urls"):
            raise SourceError(
                f"source {source.name}: {file.uri}: {_ONE[found]} among {_SEVERAL[kind]}; say which to read: "
                f"[{{name: {source.name}, path: {source.path}, format: {kind}}}] (the others are then left out)"
            )
        yield file


_ONE = {"folder": "an image file", "tar": "a tar archive", "parquet": "a Parquet file"}
_SEVERAL = {"folder": "image files", "tar": "tar archives", "parquet": "Parquet files", "urls": "tables of URLs"}
