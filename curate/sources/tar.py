"""Images in uncompressed tar archives, WebDataset's among them: read where they lie, never unpacked.

Finding walks the headers once and keeps for each image where its bytes begin. Reading then seeks to these offsets and
looks at no header, unless the sidecars of an image are wanted, which lie beside it as members of their own. An archive
of a crawl holds millions of members, so no list of them is ever made.
"""

import itertools
import logging
import os
import posixpath
import shlex
import tarfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pyarrow as pa

from curate.errors import SourceError
from curate.retrying import describe_error, retry
from curate.sources.config import Source
from curate.sources.files import File, find_files, open_file
from curate.sources.found import Found
from curate.sources.read import Read, by_file, too_large
from curate.sources.sidecars import MAX_SIDECAR_BYTES, merge_sidecars
from curate.sources.suffixes import (
    HEAD_BYTES,
    SIDECAR,
    TAR,
    begins_as_image,
    compressed_as,
    is_hidden,
    may_be_image,
    suffix_of,
    unpack_command,
    why_not_image,
)
from curate.sources.uri import encode_uri, is_remote
from curate.sources.values import Columns

log = logging.getLogger(__name__)

MAX_HEADER_BYTES = 1 << 20
"""Bytes of one extended header, which is a name and a few numbers; `tarfile` would read whatever its size says."""
_MAX_OFFSET = 1 << 62
_DAMAGE = (tarfile.TarError, ValueError, LookupError, OverflowError, RecursionError, TypeError)
"""What `tarfile` raises where the fields of headers are garbage."""


class _BoundedHeader(tarfile.TarInfo):
    """A header that asks for no more memory than an honest one."""

    _EXTENDED = frozenset(
        {
            tarfile.GNUTYPE_LONGNAME,
            tarfile.GNUTYPE_LONGLINK,
            tarfile.XHDTYPE,
            tarfile.XGLTYPE,
            tarfile.SOLARIS_XHDTYPE,
        }
    )

    def _proc_member(self, archive: tarfile.TarFile) -> tarfile.TarInfo:
        if self.type in self._EXTENDED and not 0 <= self.size <= MAX_HEADER_BYTES:
            raise tarfile.HeaderError(f"an extended header of {self.size} bytes")
        return super()._proc_member(archive)  # type: ignore[misc,no-any-return]


class TarFormat:
    """`format: tar`: the members of uncompressed archives that may be images.

    Members with an absolute name or `..`, links, devices and sparse files are refused: they are not read, and counted.
    """

    loose = False

    def find(self, source: Source, *, skipped: Counter[str]) -> Iterator[Found]:
        """The images, archive by archive in the order of paths, in the order they lie there.

        Raises:
            SourceError: an archive is compressed, damaged or truncated.
        """
        return self.find_among(find_files(source.path, skipped=skipped), source, skipped=skipped)

    def find_among(self, files: Iterable[File], source: Source, *, skipped: Counter[str]) -> Iterator[Found]:
        """The images of the archives among `files`, in their order; errors as of `find`."""
        number = 0
        for file in files:
            if suffix_of(file.uri) in TAR:
                yield from _list_archive(file, number, skipped)
                number += 1
            elif unpack_command(file.uri):
                raise compressed_archive(file.uri)
            else:
                skipped[why_not_image(file.uri) if not may_be_image(file.uri) else "file outside archives"] += 1

    def read(self, rows: pa.Table, source: Source, *, max_bytes: int, extra: bool) -> Iterator[Read]:
        """Each archive is opened once, and streamed; without own columns it is read at the offsets alone."""
        for uri, group in by_file(rows):
            spans = list(zip(group["offset"].to_pylist(), group["length"].to_pylist(), strict=True))
            if extra:
                yield from read_described_members(uri, spans, max_bytes=max_bytes, columns=source.columns)
            else:
                yield from read_members(uri, spans, max_bytes=max_bytes)


def compressed_archive(uri: str) -> SourceError:
    """The refusal of an archive that cannot be read in place."""
    return SourceError(
        f"{uri}: compressed archives cannot be read in place; unpack it and give the result: {unpack_command(uri)}"
    )


def _list_archive(file: File, number: int, skipped: Counter[str]) -> Iterator[Found]:
    refused: Counter[str] = Counter()
    with open_file(file.uri) as archive:
        for member in _members(archive, file.uri):
            reason = _why_refused(member)
            if reason:
                refused[reason] += 1
            elif member.isdir():
                continue
            elif may_be_image(member.name) or _is_misnamed_member(archive, member):
                yield Found(
                    uri=file.uri,
                    key=_key(member),
                    offset=member.offset_data,
                    length=member.size,
                    modified=file.modified,
                    container=number,
                )
            elif suffix_of(member.name) not in SIDECAR:
                skipped[why_not_image(member.name)] += 1
    for reason, count in refused.items():
        log.warning("%s: %d members refused: %s", file.uri, count, reason)
    skipped.update(refused)


def _is_misnamed_member(archive: Any, member: tarfile.TarInfo) -> bool:
    """Whether a member is a picture in spite of its suffix."""
    if is_hidden(member.name):
        return False
    return begins_as_image(_seek_and_read(archive, member.offset_data, min(member.size, HEAD_BYTES)))


def _key(member: tarfile.TarInfo) -> str:
    return encode_uri(member.name.encode("utf-8", "surrogateescape")).removeprefix("./")


def _why_refused(member: tarfile.TarInfo) -> str | None:
    if member.name.startswith("/") or ".." in member.name.split("/"):
        return "tar member with an unsafe name"
    if member.islnk() or member.issym():
        return "tar member that is a link"
    if member.issparse():
        return "sparse tar member"
    if not member.isfile() and not member.isdir():
        return "tar member that is a device or pipe"
    return None


def _members(archive: Any, uri: str) -> Iterator[tarfile.TarInfo]:
    """Headers of an archive in order, without keeping them.

    Raises:
        SourceError: the archive is no tar, compressed, or ends or breaks in the middle.
    """
    remote, offset = is_remote(uri), 0
    try:
        tar = retry(lambda: _open_tar(archive, uri), where=uri, remote=remote)
        while (member := retry(tar.next, where=uri, remote=remote)) is not None:
            if not offset < tar.offset <= _MAX_OFFSET or member.size < 0:  # a negative size would lead in a circle
                raise tarfile.HeaderError(f"a member of {member.size} bytes")
            offset = tar.offset  # where the next header must begin
            tar.members = []  # type: ignore[attr-defined]  # it would grow by every member
            yield member
    except _DAMAGE as error:
        raise _damaged_archive(uri, offset, describe_error(error)) from error
    _check_end(archive, tar.offset, uri)


def _open_tar(archive: Any, uri: str) -> tarfile.TarFile:
    archive.seek(0)
    suffix = compressed_as(archive.read(HEAD_BYTES))
    if suffix:
        name = uri + suffix
        command = unpack_command(name) or ""
        raise SourceError(
            f"{uri}: its content is compressed ({suffix[1:]}); unpack it: mv {shlex.quote(uri)} "
            f"{shlex.quote(name)} && {command}"
        )
    archive.seek(0)
    return tarfile.open(fileobj=archive, mode="r:", encoding="utf-8", errors="surrogateescape", tarinfo=_BoundedHeader)


def _check_end(archive: Any, offset: int, uri: str) -> None:
    """Raise SourceError where a header is broken: tarfile takes it for the end, which is a block of zeros."""
    archive.seek(offset)
    block = retry(lambda: archive.read(tarfile.BLOCKSIZE), where=uri, remote=is_remote(uri))
    if not block:
        log.warning("%s: no end mark at offset %d; if the archive was cut there, images are missing", uri, offset)
    elif block.strip(b"\0"):
        raise _damaged_archive(uri, offset, "a broken header")
    left = archive.seek(0, os.SEEK_END) - offset
    if left > 2 * tarfile.RECORDSIZE:  # more than padding: archives that were put one behind the other
        log.warning("%s: %d bytes behind the end mark at offset %d are not read", uri, left, offset)


def _damaged_archive(uri: str, offset: int, what: str) -> SourceError:
    return SourceError(
        f"{uri}: damaged or truncated at offset {offset} ({what}); fetch or write the archive again, or leave it "
        "out of the source"
    )


def read_members(uri: str, wanted: Sequence[tuple[int, int]], *, max_bytes: int) -> Iterator[Read]:
    """The bytes at each (offset, length), in the order given; no header is looked at.

    Raises:
        SourceError: the archive is gone, or shorter than its listing.
    """
    with open_file(uri) as archive:
        for offset, length in wanted:
            yield _read_at(archive, uri, offset, length, max_bytes)


def read_described_members(
    uri: str, wanted: Sequence[tuple[int, int]], *, max_bytes: int, columns: Columns = None
) -> Iterator[Read]:
    """As `read_members`, each with its sidecars: the JSON, caption and label members of the same name.

    A sidecar belongs to the images of its stem (`a.b.jpg`, `a.b.json`) and of its WebDataset key (`a.seg.png`,
    `a.json`). Only members next to each other belong together, as WebDataset has it.

    Args:
        wanted: (offset, length) of the images in the archive's order.

    Raises:
        SourceError: the archive is damaged, or is not the one that was listed.
    """
    left = list(reversed(wanted))
    with open_file(uri) as archive:
        readable = (m for m in _members(archive, uri) if m.isfile() and not _why_refused(m))
        for _, group in itertools.groupby(readable, key=lambda m: _webdataset_key(m.name)):
            members = list(group)
            for member in members:
                if left and (member.offset_data, member.size) == left[-1]:
                    read = _read_at(archive, uri, *left.pop(), max_bytes)
                    extra = _read_member_sidecars(archive, uri, member, members)
                    own, left_out = merge_sidecars(extra, columns=columns, where=f"{uri}: {member.name}")
                    yield read._replace(extra=own, left_out=left_out)
            if not left:
                return
    raise SourceError(
        f"{uri}: no image at offset {left[-1][0]} any more, so the archive changed since it was listed; "
        "restore it, or start anew with --rebuild all"
    )


def _webdataset_key(name: str) -> str:
    folder, base = posixpath.split(name)
    return posixpath.join(folder, base.split(".", 1)[0])


def _read_member_sidecars(
    archive: Any, uri: str, image: tarfile.TarInfo, members: Sequence[tarfile.TarInfo]
) -> dict[str, bytes]:
    stems = (_webdataset_key(image.name), posixpath.splitext(image.name)[0])  # the later wins
    found: dict[str, bytes] = {}
    for stem in stems:
        for member in members:
            base, suffix = posixpath.splitext(member.name)
            if base == stem and suffix.lower() in SIDECAR and member.size <= MAX_SIDECAR_BYTES:
                data = _read_at(archive, uri, member.offset_data, member.size, MAX_SIDECAR_BYTES).data
                found[suffix.lower()] = data or b""
    return found


def _read_at(archive: Any, uri: str, offset: int, length: int, max_bytes: int) -> Read:
    if length > max_bytes:
        return too_large(length, max_bytes)
    data = retry(lambda: _seek_and_read(archive, offset, length), where=uri, remote=is_remote(uri))
    if len(data) < length:
        raise _damaged_archive(uri, offset, f"{len(data)} of {length} bytes")
    return Read(data)


def _seek_and_read(archive: Any, offset: int, length: int) -> bytes:
    archive.seek(offset)
    data: bytes = archive.read(length)
    return data
