"""Loose image files: one file, one image; its sidecars (`img.json`, `img.txt`, `img.cls`) are its columns."""

import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import partial

import pyarrow as pa

from curate.errors import SourceError, SourceLost, SourceUnavailable
from curate.opening import open_regular
from curate.retrying import find_cause, retry
from curate.sources.beside import Surroundings
from curate.sources.config import Source
from curate.sources.containers import find_files
from curate.sources.descriptions import Described, Descriptions
from curate.sources.files import File, why_no_url
from curate.sources.formats import BUILTIN, DETECTED
from curate.sources.found import Found
from curate.sources.kinds import DESCRIBING, Kinds
from curate.sources.left_out import OUTSIDE, TOO_LONG, UNMATCHED, leave_out
from curate.sources.limits import MAX_SIDECAR_BYTES
from curate.sources.network import Answer, network, read_answer
from curate.sources.read import Read, too_large, unavailable, unreadable
from curate.sources.roots import roots_of
from curate.sources.suffixes import HEAD_BYTES, IMAGE, begins_as_image, may_be_image, suffix_of
from curate.sources.uri import decode_uri, is_remote


class FolderFormat:
    """`format: folder`: files that may be images by their names, or that begin as images do; the others are counted."""

    loose = True

    def find(self, source: Source, *, skipped: Counter[str]) -> Iterator[Found]:
        """The images in the order of their paths."""
        around = Surroundings(source, skipped)
        files = find_files(source.path, skipped=skipped, around=around, roots=source.roots)
        yield from self.find_among(files, source, skipped=skipped)
        around.finish()

    def find_among(self, files: Iterable[File], source: Source, *, skipped: Counter[str]) -> Iterator[Found]:
        """The images among `files`, in their order, and what describes them where their folder was listed."""
        kinds = Kinds(source)
        for file in files:
            named = kinds.split(file.uri)
            if kinds.is_image(file.uri, named) or (kinds.may_be_misnamed(file.uri, named) and _is_misnamed_file(file)):
                beside = None if file.around is None else file.around.of_image(file.name)
                yield Found(uri=file.uri, key=file.key, length=file.length, modified=file.modified, sidecars=beside)
            elif file.around is None or not file.around.describes(file.name):
                unmatched = file.around is not None and named is not None and named.kind in DESCRIBING
                leave_out(skipped, UNMATCHED if unmatched else kinds.why_not(file.uri, named), file.key)
            elif named is not None and (file.length or 0) > MAX_SIDECAR_BYTES:
                leave_out(skipped, TOO_LONG, file.key)

    def read(self, rows: pa.Table, source: Source, *, max_bytes: int, extra: bool) -> Iterator[Read]:
        """One file after the other; to overlap them, call what `loose_reads` gives from threads."""
        for read in loose_reads(rows, source, max_bytes=max_bytes, extra=extra):
            yield read()


def looks_like_image(file: File) -> bool:
    """Whether a file is an image by its suffix or, for a local one, by its first bytes."""
    if is_remote(file.uri):
        return may_be_image(file.uri)
    return suffix_of(file.uri) in IMAGE or _is_misnamed_file(file)


def _is_misnamed_file(file: File) -> bool:
    """Whether a file is a picture in spite of its suffix; remote files are not opened to find out."""
    if is_remote(file.uri) or not file.length:
        return False
    try:
        with open_regular(decode_uri(file.uri)) as opened:
            return begins_as_image(opened.read(HEAD_BYTES))
    except OSError:
        return False


def loose_reads(rows: pa.Table, source: Source, *, max_bytes: int, extra: bool) -> Iterator[Callable[[], Read]]:
    """For each row of the catalog what reads its image and, with `extra`, its own columns; for threads to call."""
    descriptions = Descriptions(rows, source) if extra else None
    for row, uri in enumerate(rows["uri"].to_pylist()):
        describe = None if descriptions is None else partial(descriptions.of_file, row, uri)
        yield partial(read_folder_file, uri, max_bytes=max_bytes, describe=describe, source=source)


def read_folder_file(
    uri: str, *, max_bytes: int, describe: Callable[[], Described] | None = None, source: Source | None = None
) -> Read:
    """Read one image file. May be called from several threads at once.

    Args:
        max_bytes: a longer file is not read.
        describe: gives the image's own columns; None: they are not wanted.
        source: a link that leads out of it is not followed; None: the user named the file.

    Returns:
        Bytes, or why there are none: the file is gone, not permitted, a folder, a pipe, outside of its source, or too
        large; or reading failed again and again by an error that may pass, and it is `unavailable`.

    Raises:
        SourceError: no package knows the protocol of a URL.
    """
    remote, limits = is_remote(uri), network()
    end = time.monotonic() + limits.picture
    try:
        found = retry(
            lambda: _read_or_refuse(uri, max_bytes, end, source), where=uri, remote=remote, patience=limits.patience
        )
        if isinstance(found, Read):
            return found
        extra, left_out = (None, ()) if describe is None else describe()
        return Read(found.data, extra=extra, left_out=left_out, reserved=found.reserved)
    except SourceUnavailable as error:
        return unavailable(error.why)
    except SourceLost as error:
        return unreadable(error.why)
    except SourceError:
        raise
    except Exception as error:
        cause = find_cause(error, remote=remote)
        if cause is None or not cause.permanent:
            raise
        return unreadable(cause.text)


def _is_outside(path: bytes, source: Source) -> bool:
    """Whether a link has come since the listing; a format of one's own names whatever files it wants."""
    return source.format in (*BUILTIN, *DETECTED) and not roots_of(source).may_read(path)


def _read_or_refuse(uri: str, max_bytes: int, end: float, source: Source | None) -> Answer | Read:
    if not is_remote(uri):
        with open_regular(decode_uri(uri)) as file:
            if source is not None and _is_outside(decode_uri(uri), source):
                return unreadable(OUTSIDE)
            size = os.fstat(file.fileno()).st_size
            data = file.read(size + 1) if size <= max_bytes else b""
            if len(data) == size + 1:  # it grows
                data += file.read(max(0, max_bytes - size))
                size = len(data)
        return Answer(data) if size <= max_bytes else too_large(size, max_bytes)
    why = why_no_url(uri)
    if why:
        return unreadable(f"not a URL: {why}")
    answer = read_answer(decode_uri(uri).decode(), max_bytes, seconds=max(0.001, end - time.monotonic()))
    return answer if len(answer.data) <= max_bytes else too_large(None, max_bytes)
