"""Listing a source: what kind it is, and its images in a fixed order."""

import itertools
import json
import logging
import re
import shlex
from collections import Counter
from collections.abc import Iterable, Iterator

from curate.errors import SourceError
from curate.sources.beside import Surroundings
from curate.sources.config import Source
from curate.sources.containers import find_files, find_listed
from curate.sources.files import File
from curate.sources.folder import FolderFormat, looks_like_image
from curate.sources.formats import DETECTED, find_format
from curate.sources.found import Found
from curate.sources.left_out import OUTSIDE, LeftOut
from curate.sources.parquet import ParquetFormat
from curate.sources.reach import reach_of
from curate.sources.roots import is_list
from curate.sources.suffixes import IMAGE, PARQUET, TAR, TFRECORD, may_be_image, suffix_of, unpack_command
from curate.sources.tar import TarFormat, compressed_archive
from curate.sources.uri import encode_uri
from curate.sources.urls import TEXT_TABLES, UrlFormat, has_url_column, is_packed_table

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
    found = reach_of(source).around(_find(source, counts))
    first = next(found, None)
    if first is None:
        raise SourceError(
            f"source {source.name}: {source.path}: no image was found (format {source.format}); left out: "
            f"{_left_out(counts)}; give a folder of images, tars, Parquet files, tables of URLs, or a .txt that lists "
            f"them{_how_to_allow(source, counts)}"
        )
    yield first
    yield from found
    if counts[OUTSIDE]:
        log.warning("source %s: %s: %s", source.name, source.path, _how_to_allow(source, counts).removeprefix("; "))


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
    finder = find_listed if is_list(source) else find_files
    files = finder(source.path, skipped=skipped, around=around, roots=source.roots)
    kind, files = _recognize(files, source)
    yield from _FORMATS[kind].find_among(_refuse_mixture(files, kind, source), source, skipped=skipped)
    around.finish()


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
