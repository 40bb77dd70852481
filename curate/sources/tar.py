"""Images in uncompressed tar archives, WebDataset's among them: read where they lie, never unpacked.

Finding walks the headers and keeps for each image where its bytes begin, and those of the members that describe it.
These may lie anywhere in the archive, so images are told when all headers are seen. An archive of a crawl holds
millions of members, so no list of them is ever made: of members that describe something 24 bytes are kept, and images
up to `IMAGES_HELD`; where there are more, the headers are walked a second time. Reading seeks to the offsets.
"""

import logging
import os
import posixpath
import shlex
import tarfile
from array import array
from bisect import bisect_left, bisect_right
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from curate.errors import SourceDamaged, SourceError
from curate.ranges import RangeFile, Span
from curate.retrying import describe_error, retry
from curate.sources.beside import ShardTable, Surroundings
from curate.sources.config import Source
from curate.sources.containers import find_files
from curate.sources.description_tables import digest_name
from curate.sources.descriptions import Descriptions
from curate.sources.files import File, open_file
from curate.sources.found import Found, Sidecar
from curate.sources.headers import HeaderFile
from curate.sources.kinds import DESCRIBING, Kinds, Named, webdataset_key
from curate.sources.left_out import (
    DEVICE,
    LINK,
    LONG_NAME,
    REFUSED_MEMBERS,
    SIZES,
    SPARSE,
    TOO_LONG,
    UNMATCHED,
    UNSAFE,
    LeftOut,
    count_all,
    leave_out,
)
from curate.sources.limits import MAX_NAME_BYTES, MAX_SIDECAR_BYTES
from curate.sources.network import network
from curate.sources.read import Read, by_file, too_large
from curate.sources.suffixes import (
    HEAD_BYTES,
    TAR,
    begins_as_image,
    compressed_as,
    may_be_image,
    suffix_of,
    unpack_command,
    why_not_image,
)
from curate.sources.uri import encode_uri, is_remote

log = logging.getLogger(__name__)

MAX_HEADER_BYTES = 1 << 17
"""Bytes of one extended header (PAX, GNU long name): a name, a few numbers, and the attributes that file systems keep,
64 KiB of them on Linux."""
MAX_EXTENDED = 16
"""Extended headers in a row before one member; an honest member has up to four."""
_DAMAGE = (tarfile.TarError, ValueError, LookupError, OverflowError, RecursionError, TypeError)
"""What `tarfile` raises where the fields of headers are garbage."""


class _BoundedTar(tarfile.TarFile):
    """An archive that knows its name and its length, so that no header can lead out of it."""

    def __init__(self, uri: str, file: Any) -> None:
        self.uri = uri
        self.end: int = file.seek(0, os.SEEK_END)
        """Bytes of the archive."""
        self.extended = 0
        """Extended headers since the last member."""
        file.seek(0)
        super().__init__(fileobj=file, encoding="utf-8", errors="surrogateescape", tarinfo=_BoundedHeader)

    def next_member(self) -> "_BoundedHeader | None":
        """As `next`, which may be called again after an error that passes."""
        self.extended = 0
        member = self.next()
        vars(self)["members"] = []  # it would grow by every member
        return member  # type: ignore[return-value]


class _BoundedHeader(tarfile.TarInfo):
    """A header that asks for no more memory than an honest one, and whose member lies within the archive.

    `tarfile` believes what a header says: a negative size leads it back to headers that it has seen, PAX records of
    gigabytes are read at once, defaults in global headers pile up for the members behind, maps of sparse files become
    lists of numbers, and extended headers nest as deep as the stack allows.
    """

    told_size = 0
    """Bytes of the member by its own header, which a PAX record may contradict."""
    _EXTENDED = frozenset(
        {
            tarfile.GNUTYPE_LONGNAME,
            tarfile.GNUTYPE_LONGLINK,
            tarfile.XHDTYPE,
            tarfile.XGLTYPE,
            tarfile.SOLARIS_XHDTYPE,
        }
    )

    def _proc_member(self, archive: _BoundedTar) -> tarfile.TarInfo:
        self.told_size = self.size
        if self.size < 0:
            raise self._damaged(archive, f"a member of {self.size} bytes")
        if self.type in self._EXTENDED:
            archive.extended += 1
            if archive.extended > MAX_EXTENDED:
                raise self._damaged(archive, f"more than {MAX_EXTENDED} extended headers in a row")
            if self.size > MAX_HEADER_BYTES:
                what = f"an extended header of {self.size} bytes, more than {MAX_HEADER_BYTES} are not read"
                raise self._damaged(archive, what)
        if self.isreg() or self.type not in tarfile.SUPPORTED_TYPES or self.type in self._EXTENDED:
            self.check_length(archive, archive.fileobj.tell())  # type: ignore[union-attr]
        if self.type == tarfile.XGLTYPE:
            return self._skip_defaults(archive)
        return super()._proc_member(archive)  # type: ignore[misc,no-any-return]

    def check_length(self, archive: _BoundedTar, begin: int) -> None:
        """Raise SourceDamaged where the data, which begin at `begin`, reach beyond the archive."""
        if begin + self.size > archive.end:
            what = f"a member of {self.size} bytes, of which {max(0, archive.end - begin)} are there"
            raise self._damaged(archive, what)

    def _damaged(self, archive: _BoundedTar, what: str) -> SourceDamaged:
        return _damaged_archive(archive.uri, self.offset, what)

    def _skip_defaults(self, archive: _BoundedTar) -> tarfile.TarInfo:
        """The member behind a global header, of which nothing is needed: comments, times, names of users."""
        archive.fileobj.read(self._block(self.size))  # type: ignore[attr-defined,union-attr]
        return type(self).fromtarfile(archive)

    def _proc_sparse(self, archive: _BoundedTar) -> tarfile.TarInfo:
        """A sparse file of GNU's old form: its map is passed over, since it is refused anyway."""
        more, file = self._sparse_structs[1], archive.fileobj  # type: ignore[attr-defined]
        while more:
            block = file.read(tarfile.BLOCKSIZE)  # type: ignore[union-attr]
            if len(block) < tarfile.BLOCKSIZE:
                raise self._damaged(archive, "a map of a sparse file that is cut off")
            more = bool(block[_MORE])
        self.sparse = b""  # it has a map
        self.offset_data = file.tell()  # type: ignore[union-attr]
        self.check_length(archive, self.offset_data)
        archive.offset = self.offset_data + self._block(self.size)  # type: ignore[attr-defined]
        return self

    def _proc_gnusparse_10(self, member: "_BoundedHeader", *ignored: object) -> None:
        """A sparse file whose map stands before its data: it is refused, so the map is not read."""
        member.sparse = b""


_MORE = 504
"""Byte of a block of a sparse file's map that says whether another block follows."""


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
        around = Surroundings(source, skipped)
        files = find_files(source.path, skipped=skipped, around=around, roots=source.roots)
        yield from self.find_among(files, source, skipped=skipped)
        around.finish()

    def find_among(self, files: Iterable[File], source: Source, *, skipped: Counter[str]) -> Iterator[Found]:
        """The images of the archives among `files`, in their order; errors as of `find`."""
        kinds = Kinds(source)
        with ThreadPoolExecutor(SIDE_BY_SIDE, "archives") as pool:
            waiting: deque[tuple[LeftOut, Callable[[], Iterable[Found]]]] = deque()
            for number, file in enumerate(files):
                own = LeftOut()
                waiting.append((own, self._look_at(file, number, kinds, own, pool)))
                if len(waiting) > SIDE_BY_SIDE or not is_remote(file.uri):
                    yield from _next_found(waiting, skipped)
            while waiting:
                yield from _next_found(waiting, skipped)

    @staticmethod
    def _look_at(
        file: File, number: int, kinds: Kinds, skipped: LeftOut, pool: ThreadPoolExecutor
    ) -> Callable[[], Iterable[Found]]:
        """What gives the images of a file: an archive of an object store is begun with at once, in a thread."""
        if suffix_of(file.uri) in TAR:
            images = _Archive(file, number, kinds, skipped).images()
            if not is_remote(file.uri):
                return lambda: images
            context = copy_context()
            return pool.submit(lambda: context.run(lambda: list(images))).result
        if unpack_command(file.uri):
            raise compressed_archive(file.uri)
        if file.around is None or not file.around.describes(file.name):
            reason = why_not_image(file.uri) if not may_be_image(file.uri) else "file outside archives"
            leave_out(skipped, reason, file.key)
        return list

    def read(self, rows: pa.Table, source: Source, *, max_bytes: int, extra: bool) -> Iterator[Read]:
        """Each archive is opened once and read at the offsets alone, those of the sidecars included."""
        for uri, group in by_file(rows):
            spans = list(zip(group["offset"].to_pylist(), group["length"].to_pylist(), strict=True))
            if extra:
                keys = group["key"].to_pylist()
                yield from read_described_members(uri, spans, Descriptions(group, source), keys, max_bytes=max_bytes)
            else:
                yield from read_members(uri, spans, max_bytes=max_bytes)


def _next_found(
    waiting: deque[tuple[LeftOut, Callable[[], Iterable[Found]]]], skipped: Counter[str]
) -> Iterator[Found]:
    """The images of the file that waits longest; what it left out is counted in the order of the files."""
    own, images = waiting.popleft()
    yield from images()
    count_all(skipped, own)


def compressed_archive(uri: str) -> SourceError:
    """The refusal of an archive that cannot be read in place."""
    return SourceError(
        f"{uri}: compressed archives cannot be read in place; unpack it and give the result: {unpack_command(uri)}"
    )


SIDE_BY_SIDE = 8
"""Archives of an object store that a task lists at once: it mostly waits for headers."""
IMAGES_HELD = 65_536
"""Images of an archive that are held until all of its headers are seen; of larger ones the headers are walked twice."""


class _Member(NamedTuple):
    """A member that is an image."""

    name: str
    ordinal: int
    """Place among all members of the archive."""
    found: Found


class _Archive:
    """The images of one archive, and what in it describes them."""

    def __init__(self, file: File, number: int, kinds: Kinds, skipped: Counter[str]) -> None:
        self._file, self._number, self._kinds, self._skipped = file, number, kinds, skipped
        self._index = _MemberIndex()
        self._table: ShardTable | None = None

    def images(self) -> Iterator[Found]:
        """In the order of the archive."""
        with open_file(self._file.uri, spans=()) as file:
            archive = HeaderFile(file) if isinstance(file, RangeFile) else file
            refused, held = LeftOut(), list[_Member]()
            for member in self._walk(archive, refused, self._index):
                if len(held) <= IMAGES_HELD:
                    held.append(member)
            self._index.sort()
            if len(held) > IMAGES_HELD:
                held.clear()
            for member in held or self._walk(archive, LeftOut(), None):
                yield member.found._replace(sidecars=self._beside(member))
            self._tell(archive, refused)

    def _walk(self, archive: Any, refused: LeftOut, index: "_MemberIndex | None") -> Iterator[_Member]:
        """The images; what describes some goes to `index`, what is neither is counted in `refused`."""
        for ordinal, member in enumerate(_members(archive, self._file.uri)):
            reason = _why_refused(member)
            if reason is None and member.isdir():
                continue
            if reason is None:
                named = self._kinds.split(member.name)
                if self._is_image(archive, member, named):
                    yield _Member(member.name, ordinal, self._found(member))
                    continue
                if named is None or named.kind not in DESCRIBING:
                    reason = self._kinds.why_not(member.name, named)
                elif member.size > MAX_SIDECAR_BYTES:
                    reason = TOO_LONG
                elif index is not None:
                    index.add(named.base, named.kind, named.suffix, ordinal, member)
            if reason is not None:
                leave_out(refused, reason, self._example(member.name))

    def _is_image(self, archive: Any, member: tarfile.TarInfo, named: Named | None) -> bool:
        return self._kinds.is_image(member.name, named) or (
            self._kinds.may_be_misnamed(member.name, named) and _is_misnamed_member(archive, member)
        )

    def _found(self, member: tarfile.TarInfo) -> Found:
        return Found(
            uri=self._file.uri,
            key=f"{self._file.key}/{_name(member)}",
            offset=member.offset_data,
            length=member.size,
            modified=self._file.modified,
            container=self._number,
        )

    def _beside(self, member: _Member) -> tuple[Sidecar, ...]:
        """What describes an image: a row of the Parquet beside the archive, members of its WebDataset key
        (`a.seg.png`, `a.json`), of its stem (`a.b.jpg`, `a.b.json`) and of its full name, the more telling behind."""
        names = dict.fromkeys((webdataset_key(member.name), posixpath.splitext(member.name)[0], member.name))
        found = [sidecar for name in names for sidecar in self._index.find(name, member.ordinal)]
        if any(sidecar.kind == "json" for sidecar in found):
            return tuple(found)
        self._table = self._table or ShardTable.of_archive(self._file, self._skipped)
        return (*self._table.find(posixpath.basename(webdataset_key(member.name))), *found)

    def _tell(self, archive: Any, refused: LeftOut) -> None:
        for reason, number in refused.items():
            if reason in REFUSED_MEMBERS:
                log.warning("%s: %d members refused: %s", self._file.uri, number, reason)
            leave_out(self._skipped, reason, refused.example[reason], number)
        number, offset = self._index.unused()
        if number:
            header = _seek_and_read(archive, offset - tarfile.BLOCKSIZE, tarfile.BLOCKSIZE)
            name = tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape").name
            leave_out(self._skipped, UNMATCHED, self._example(name), number)

    def _example(self, name: str) -> str:
        return f"{self._file.key}/{encode_uri(name.encode('utf-8', 'surrogateescape'))}"


class _MemberIndex:
    """The members of an archive that describe others, by the name of what they describe.

    24 bytes a member, whatever the names are. Of several of one name, as in archives that were put one behind the
    other, the nearest one describes an image.
    """

    def __init__(self) -> None:
        self._kinds: dict[str, tuple[str, int]] = {}  # suffix: its kind, and what sets it apart in the hashes
        self._hashes, self._ordinals, self._offsets, self._lengths = array("Q"), array("I"), array("Q"), array("I")
        self._used = bytearray()

    def add(self, base: str, kind: str, suffix: str, ordinal: int, member: tarfile.TarInfo) -> None:
        salt = self._kinds.setdefault(suffix, (kind, (len(self._kinds) + 1) * _SALT & _MASK))[1]
        self._hashes.append(_digest(base) ^ salt)
        self._ordinals.append(ordinal)
        self._offsets.append(member.offset_data)
        self._lengths.append(member.size)

    def sort(self) -> None:
        """To be called when all members are there, before they are looked up."""
        if not self._hashes:
            return
        order = np.lexsort((np.frombuffer(self._ordinals, np.uint32), np.frombuffer(self._hashes, np.uint64)))
        for name in ("_hashes", "_ordinals", "_offsets", "_lengths"):
            values = getattr(self, name)
            dtype = np.uint64 if values.itemsize == 8 else np.uint32
            setattr(self, name, array(values.typecode, np.frombuffer(values, dtype)[order].tobytes()))
        self._used = bytearray(len(order))

    def find(self, name: str, ordinal: int) -> Iterator[Sidecar]:
        """What describes the image of that name at that place, one of each suffix."""
        if not self._hashes:
            return
        digest = _digest(name)
        for suffix, (kind, salt) in self._kinds.items():
            low = bisect_left(self._hashes, digest ^ salt)
            if low < len(self._hashes) and self._hashes[low] == digest ^ salt:
                place = self._nearest(low, bisect_right(self._hashes, digest ^ salt, low), ordinal)
                self._used[place] = 1
                yield Sidecar(kind, f".{suffix}", self._offsets[place], self._lengths[place])

    def _nearest(self, low: int, high: int, ordinal: int) -> int:
        after = bisect_left(self._ordinals, ordinal, low, high)
        around = [place for place in (after, after - 1) if low <= place < high]
        return min(around, key=lambda place: abs(self._ordinals[place] - ordinal))

    def unused(self) -> tuple[int, int]:
        """(number of members that describe no image, offset of the first of them)."""
        left = (self._offsets[place] for place, used in enumerate(self._used) if not used)
        return self._used.count(0), min(left, default=0)


_SALT, _MASK = 0x9E3779B97F4A7C15, (1 << 64) - 1


def _digest(name: str) -> int:
    return digest_name(name.removeprefix("./").encode("utf-8", "surrogateescape"))


def _is_misnamed_member(archive: Any, member: tarfile.TarInfo) -> bool:
    """Whether a member is a picture in spite of its suffix."""
    return begins_as_image(_seek_and_read(archive, member.offset_data, min(member.size, HEAD_BYTES)))


def _raw_name(member: tarfile.TarInfo) -> bytes:
    return member.name.encode("utf-8", "surrogateescape")


def _name(member: tarfile.TarInfo) -> str:
    return encode_uri(_raw_name(member)).removeprefix("./")


def _why_refused(member: _BoundedHeader) -> str | None:
    if len(member.name) > MAX_NAME_BYTES or len(_raw_name(member)) > MAX_NAME_BYTES:
        return LONG_NAME
    if member.name.startswith("/") or ".." in member.name.split("/"):
        return UNSAFE
    if member.islnk() or member.issym():
        return LINK
    if member.issparse():
        return SPARSE
    if member.size != member.told_size:
        return SIZES
    return None if member.isfile() or member.isdir() else DEVICE


def _members(archive: Any, uri: str) -> Iterator[_BoundedHeader]:
    """Headers of an archive in order, without keeping them; each lies behind the one before.

    Raises:
        SourceError: the archive is no tar, compressed, or ends or breaks in the middle.
    """
    remote, offset = is_remote(uri), 0
    try:
        tar = retry(lambda: _open_tar(archive, uri), where=uri, remote=remote)
        while (member := retry(tar.next_member, where=uri, remote=remote)) is not None:
            if member.sparse is None:
                member.check_length(tar, member.offset_data)  # a PAX record may tell another one
            if member.size < 0 or not offset < tar.offset < tar.end + tarfile.BLOCKSIZE:
                raise _damaged_archive(uri, offset, f"a member of {member.size} bytes")
            offset = tar.offset  # where the next header must begin
            yield member
    except _DAMAGE as error:
        raise _damaged_archive(uri, offset, describe_error(error)) from error
    _check_end(archive, tar.offset, uri)


def _open_tar(archive: Any, uri: str) -> _BoundedTar:
    archive.seek(0)
    suffix = compressed_as(archive.read(HEAD_BYTES))
    if suffix:
        name = uri + suffix
        command = unpack_command(name) or ""
        raise SourceError(
            f"{uri}: its content is compressed ({suffix[1:]}); unpack it: mv {shlex.quote(uri)} "
            f"{shlex.quote(name)} && {command}"
        )
    return _BoundedTar(uri, archive)


def _check_end(archive: Any, offset: int, uri: str) -> None:
    """Raise SourceError where a header is broken: tarfile takes it for the end, which is a block of zeros."""
    archive.seek(offset)
    block = retry(lambda: archive.read(tarfile.BLOCKSIZE), where=uri, remote=is_remote(uri))
    if not block:
        log.warning("%s: no end mark at offset %d; if the archive was cut there, images are missing", uri, offset)
    elif block.strip(b"\0"):
        raise _damaged_archive(uri, offset, f"a broken header{_why_broken(block)}")
    left = archive.seek(0, os.SEEK_END) - offset
    if left > 2 * tarfile.RECORDSIZE:  # more than padding: archives that were put one behind the other
        log.warning("%s: %d bytes behind the end mark at offset %d are not read", uri, left, offset)


def _why_broken(block: bytes) -> str:
    """What is wrong with a header, as far as its block alone tells."""
    try:
        tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError as error:
        return f": {error}"
    return ""


def _damaged_archive(uri: str, offset: int, what: str) -> SourceDamaged:
    return SourceDamaged(
        f"{uri}: damaged or truncated at offset {offset} ({what}); fetch or write the archive again, or leave it "
        "out of the source"
    )


def read_members(uri: str, wanted: Sequence[tuple[int, int]], *, max_bytes: int) -> Iterator[Read]:
    """The bytes at each (offset, length), in the order given; no header is looked at.

    Raises:
        SourceError: the archive is gone, or shorter than its listing.
    """
    spans = [(offset, offset + length) for offset, length in wanted if length <= max_bytes]
    with open_file(uri, spans=spans) as archive:
        for offset, length in wanted:
            yield _read_at(archive, uri, offset, length, max_bytes)


NEAR = 4 << 20
"""Bytes between an image and what describes it above which a second reader goes for the latter: of an object store each
reader holds one block, so that images in front and captions behind (`tar cf a.tar *.jpg *.txt`) are two streams."""


def read_described_members(
    uri: str, wanted: Sequence[tuple[int, int]], descriptions: Descriptions, keys: Sequence[str], *, max_bytes: int
) -> Iterator[Read]:
    """As `read_members`, each with its own columns.

    Args:
        descriptions: of the same images.
        keys: their names, for messages.

    Raises:
        SourceError: the archive is damaged, or is not the one that was listed.
    """
    images = [(at - tarfile.BLOCKSIZE, at + (size if size <= max_bytes else 0)) for at, size in wanted]
    texts = [(at - tarfile.BLOCKSIZE, at + size) for at, size in descriptions.members()]
    with open_file(uri, spans=[*images, *texts]) as archive, _Later(uri, texts) as far:
        for row, ((offset, length), key) in enumerate(zip(wanted, keys, strict=True)):

            def read_text(at: int, size: int, near: int = offset) -> bytes:
                return _read_member(archive if abs(at - near) < NEAR else far.open(), uri, at, size, size).data or b""

            read = _read_member(archive, uri, offset, length, max_bytes)
            extra, left_out = descriptions.of_member(row, uri, key, read_text)
            yield read._replace(extra=extra, left_out=left_out)


class _Later:
    """A second reader of an archive, opened when it is needed first."""

    def __init__(self, uri: str, spans: Sequence[Span]) -> None:
        self._uri, self._spans, self._file = uri, spans, None

    def __enter__(self) -> "_Later":
        return self

    def __exit__(self, *error: object) -> None:
        if self._file is not None:
            self._file.close()

    def open(self) -> Any:
        if self._file is None:
            self._file = open_file(self._uri, spans=self._spans)
        return self._file


def _read_member(archive: Any, uri: str, offset: int, length: int, max_bytes: int) -> Read:
    """As `_read_at`, of a member whose header must be the one that was listed."""
    head = retry(
        lambda: _seek_and_read(archive, offset - tarfile.BLOCKSIZE, tarfile.BLOCKSIZE),
        where=uri,
        remote=is_remote(uri),
        patience=network().patience,
    )
    if not _is_header(head, length):
        raise SourceDamaged(
            f"{uri}: no image at offset {offset} any more, so the archive changed since it was listed; "
            "restore it, or start anew with --rebuild all"
        )
    return _read_at(archive, uri, offset, length, max_bytes)


def _is_header(block: bytes, length: int) -> bool:
    """Whether a block is the header of a member of so many bytes."""
    try:
        return tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape").size == length
    except tarfile.TarError:
        return False


def _read_at(archive: Any, uri: str, offset: int, length: int, max_bytes: int) -> Read:
    if length > max_bytes:
        return too_large(length, max_bytes)
    data = retry(
        lambda: _seek_and_read(archive, offset, length),
        where=uri,
        remote=is_remote(uri),
        patience=network().patience,
    )
    if len(data) < length:
        raise _damaged_archive(uri, offset, f"{len(data)} of {length} bytes")
    return Read(data)


def _seek_and_read(archive: Any, offset: int, length: int) -> bytes:
    archive.seek(offset)
    data: bytes = archive.read(length)
    return data
