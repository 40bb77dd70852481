"""Loose image files: one file, one image; its sidecars (`img.json`, `img.txt`, `img.cls`) are its columns."""

# ruff: noqa: PTH116, PTH122, PTH123
# Paths are bytes here, which pathlib does not take: a name need not be text.

import os
import stat
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa

from curate.errors import SourceError
from curate.retrying import describe_error, is_permanent, retry
from curate.sources.config import Source
from curate.sources.files import File, find_files, open_remote, why_no_url
from curate.sources.found import Found
from curate.sources.read import Read, too_large, unreadable
from curate.sources.sidecars import MAX_SIDECAR_BYTES, merge_sidecars
from curate.sources.suffixes import HEAD_BYTES, SIDECAR, begins_as_image, is_hidden, may_be_image, why_not_image
from curate.sources.uri import decode_uri, is_remote
from curate.sources.values import Columns


class FolderFormat:
    """`format: folder`: files that may be images by their names, or that begin as images do; the others are counted."""

    loose = True

    def find(self, source: Source, *, skipped: Counter[str]) -> Iterator[Found]:
        """The images in the order of their paths."""
        return self.find_among(find_files(source.path, skipped=skipped), source, skipped=skipped)

    def find_among(self, files: Iterable[File], source: Source, *, skipped: Counter[str]) -> Iterator[Found]:
        """The images among `files`, in their order."""
        for file in files:
            if may_be_image(file.uri) or _is_misnamed_file(file):
                yield Found(uri=file.uri, key=file.key, length=file.length, modified=file.modified)
            else:
                skipped[why_not_image(file.uri)] += 1

    def read(self, rows: pa.Table, source: Source, *, max_bytes: int, extra: bool) -> Iterator[Read]:
        """One file after the other; to overlap them, call `read_folder_file` from threads."""
        for uri in rows["uri"].to_pylist():
            yield read_folder_file(uri, max_bytes=max_bytes, columns=source.columns, extra=extra)


def _is_misnamed_file(file: File) -> bool:
    """Whether a file is a picture in spite of its suffix; remote files are not opened to find out."""
    if is_remote(file.uri) or is_hidden(file.uri) or not file.length:
        return False
    try:
        with open(decode_uri(file.uri), "rb") as opened:
            return begins_as_image(opened.read(HEAD_BYTES))
    except OSError:
        return False


def read_folder_file(uri: str, *, max_bytes: int, columns: Columns = None, extra: bool = True) -> Read:
    """Read one image file and, for local files, its sidecars. May be called from several threads at once.

    Args:
        max_bytes: a longer file is not read.
        columns: own columns to carry; None: all.
        extra: whether to look for sidecars at all.

    Returns:
        Bytes, or why there are none: the file is gone, not permitted, a folder, a pipe, or too large.

    Raises:
        SourceError: reading failed again and again by an error that might pass.
    """
    try:
        data = retry(lambda: _read_or_refuse(uri, max_bytes), where=uri, remote=is_remote(uri))
    except SourceError:
        raise
    except Exception as error:
        if not is_permanent(error):
            raise
        return unreadable(describe_error(error))
    if isinstance(data, Read):
        return data
    if not extra or is_remote(uri):
        return Read(data)
    own, left_out = _read_sidecars(uri, columns)
    return Read(data, extra=own, left_out=left_out)


def _read_or_refuse(uri: str, max_bytes: int) -> bytes | Read:
    if not is_remote(uri):
        found = os.stat(decode_uri(uri))
        if not stat.S_ISREG(found.st_mode):  # opening a pipe would wait for ever
            return unreadable("not a regular file")
        if found.st_size > max_bytes:
            return too_large(found.st_size, max_bytes)
        with open(decode_uri(uri), "rb") as file:
            data: bytes = file.read()
            return data
    why = why_no_url(uri)
    if why:
        return unreadable(f"not a URL: {why}")
    with open_remote(uri) as file:
        data = file.read(max_bytes + 1)
    return data if len(data) <= max_bytes else too_large(None, max_bytes)


def _read_sidecars(uri: str, columns: Columns) -> tuple[dict[str, Any] | None, tuple[str, ...]]:
    stem = os.path.splitext(decode_uri(uri))[0]
    found = {
        suffix: data for suffix in sorted(SIDECAR) if (data := _read_small(stem + suffix.encode(), uri)) is not None
    }
    return merge_sidecars(found, columns=columns, where=uri)


def _read_small(path: bytes, where: str) -> bytes | None:
    """A sidecar's bytes; None: there is none, or it is far too long to describe one image."""
    try:
        return retry(lambda: _read_regular(path), where=where)
    except OSError:  # not there, or not permitted: the image goes without
        return None


def _read_regular(path: bytes) -> bytes | None:
    found = os.stat(path)
    if not stat.S_ISREG(found.st_mode) or found.st_size > MAX_SIDECAR_BYTES:
        return None
    with open(path, "rb") as file:
        return file.read()
