"""Listing a source: what kind it is, and its images in a fixed order."""

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator

from curate.errors import SourceError
from curate.sources.config import Source
from curate.sources.files import File, find_files, find_listed
from curate.sources.folder import list_folder
from curate.sources.found import Found
from curate.sources.parquet import list_parquet
from curate.sources.suffixes import IMAGE, PARQUET, TAR, may_be_image, suffix_of, unpack_command
from curate.sources.tar import compressed, list_tar

PEEK = 10_000
"""Files without a telling suffix after which a source is taken for a folder of images."""


def list_source(source: Source, *, skipped: Counter[str] | None = None) -> Iterator[Found]:
    """Every image of a source, in bytewise order of paths (a list: of its lines), archives in their own order.

    Lazy: nothing but the files of one folder, or one tar header, is held at a time.

    Args:
        skipped: counts what was left out, by reason.

    Raises:
        SourceError: nothing is there, nothing looks like an image, a folder cannot be listed, an archive is
            compressed or damaged, or images, tars and Parquet files are mixed under `format: auto`.
    """
    counts = skipped if skipped is not None else Counter()
    found = _list(source, counts)
    first = next(found, None)
    if first is None:
        raise SourceError(
            f"source {source.name}: {source.path}: no image was found (format {source.format}); left out: "
            f"{_summary(counts)}; give a folder of images, tars, Parquet files, or a .txt that lists them"
        )
    yield first
    yield from found


def _summary(counts: Counter[str]) -> str:
    return ", ".join(f"{count} x {reason}" for reason, count in counts.most_common(8)) or "nothing was there"


def _list(source: Source, skipped: Counter[str]) -> Iterator[Found]:
    files = _files(source, skipped)
    kind: str = source.format
    if kind in ("auto", "list"):
        kind, files = _recognise(files)
        files = _refuse_mixture(files, kind, source)
    if kind == "tar":
        return list_tar(files, skipped=skipped)
    if kind == "parquet":
        return list_parquet(files, source, skipped=skipped)
    return list_folder(files, skipped=skipped)


def _files(source: Source, skipped: Counter[str]) -> Iterator[File]:
    is_text = suffix_of(source.path) == ".txt"
    if source.format == "list" or (source.format == "auto" and is_text):
        return find_listed(source.path, skipped=skipped)
    return find_files(source.path, skipped=skipped)


def _kind(file: File) -> str | None:
    """What the suffix of a file makes of its source; None: nothing."""
    suffix = suffix_of(file.uri)
    if suffix in TAR:
        return "tar"
    if suffix in PARQUET:
        return "parquet"
    return "folder" if suffix in IMAGE else None


def _recognise(files: Iterator[File]) -> tuple[str, Iterator[File]]:
    """The kind of a source by its first telling file; and all its files, those looked at included."""
    seen: list[File] = []
    for file in itertools.islice(files, PEEK):
        seen.append(file)
        kind = _kind(file)
        if kind:
            return kind, itertools.chain(seen, files)
    only_archives = seen and not any(may_be_image(file.uri) for file in seen)
    if only_archives:
        for file in seen:
            if unpack_command(file.uri):
                raise compressed(file.uri)
    return "folder", itertools.chain(seen, files)


def _refuse_mixture(files: Iterable[File], kind: str, source: Source) -> Iterator[File]:
    for file in files:
        found = _kind(file)
        if found and found != kind:
            raise SourceError(
                f"source {source.name}: {file.uri}: a {_WORDS[found]} among {_WORDS[kind]}s; say which to read: "
                f"[{{name: {source.name}, path: {source.path}, format: {kind}}}] (the others are then left out)"
            )
        yield file


_WORDS = {"folder": "image file", "tar": "tar archive", "parquet": "Parquet file"}
