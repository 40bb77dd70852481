"""What must hold of any bytes that a source gives: rows with declared kinds left out, or an error with its name."""

import itertools
import json
import tarfile
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa

from curate.errors import CurateError
from curate.ops.images.inspect import ImageLimits, inspect_image
from curate.sources.containers import find_listed
from curate.sources.listing import list_source
from curate.sources.read import Read
from curate.sources.reading import read_part
from curate.sources.sidecars import merge_sidecars
from curate.sources.uri import is_remote
from curate.sources.values import LEFT_OUT
from curate.stages.images.inspect import image_row
from curate.tables import IMAGES, REJECT_REASONS
from tests.sources.helpers import catalog, source

NUM_ROWS = 1000
"""Rows that are read of a source at most."""
LIMITS = ImageLimits(max_pixels=1 << 20, max_bytes=1 << 20)


def check_read(read: Read) -> None:
    """What a table needs of an image and its own columns."""
    assert set(read.left_out) <= LEFT_OUT.keys()
    assert list(read.left_out) == sorted(set(read.left_out))
    assert read.reject is None or read.reject in REJECT_REASONS
    row = image_row(read, None, None)
    pa.Table.from_pylist([{"image_id": 0, **row}], schema=IMAGES).validate(full=True)
    if read.extra is not None:
        assert all(read.extra), "an empty name"
        assert json.loads(row["extra"].encode()) == read.extra


def check_source(path: Path, **fields: Any) -> list[Read] | None:
    """The images of a source of any content; None where it is refused by an error that names it."""
    try:
        found = list(itertools.islice(list_source(source(path, **fields)), NUM_ROWS))
        reads = list(read_part(catalog(found), source(path, **fields), max_bytes=1 << 20))
    except CurateError as error:
        if str(path) not in str(error):
            raise AssertionError(f"an error without the name of the file: {error}") from error
        return None
    assert len(reads) == len(found)
    assert len({(item.uri, item.offset, item.row) for item in found}) == len(found)
    assert all(item.length is None or item.length >= 0 for item in found)
    for read in reads:
        check_read(read)
    return reads


def check_sidecars(data: bytes) -> None:
    """Any bytes as each of the files that may lie beside an image."""
    for suffix in (".json", ".txt", ".cls"):
        extra, left_out = merge_sidecars({suffix: data}, columns=None, where="x")
        check_read(Read(extra=extra, left_out=left_out))


def check_list(path: Path, data: bytes) -> None:
    """Any bytes as a list of files; none that is found lies outside of its folder."""
    path.write_bytes(data)
    try:
        found = list(itertools.islice(find_listed(str(path), skipped=Counter()), NUM_ROWS))
        assert all(is_remote(file.uri) or file.uri.startswith(f"{path.parent}/") for file in found)
    except CurateError as error:
        if str(path) not in str(error):
            raise AssertionError(f"an error without the name of the file: {error}") from error
        return
    pa.array([name for file in found for name in (file.uri, file.key)], pa.string()).validate(full=True)


def check_tar(path: Path, data: bytes) -> list[Read] | None:
    """Any bytes as an archive, the checksums of its headers put right: without, no damage comes further than these."""
    path.write_bytes(with_checksums(data))
    return check_source(path, format="tar")


def check_parquet(path: Path, data: bytes) -> list[Read] | None:
    """Any bytes as a Parquet file."""
    path.write_bytes(data)
    return check_source(path, format="parquet")


def check_picture(data: bytes) -> None:
    """Any bytes as a picture: accepted or rejected by a declared reason, and nothing else."""
    found = inspect_image(data, LIMITS, min_side=64)
    assert found.reject is None or found.reject in REJECT_REASONS
    assert (found.picture is None) == (found.reject is not None)
    check_read(Read(data))
    row = image_row(Read(data), found, None)
    pa.Table.from_pylist([{"image_id": 0, **row}], schema=IMAGES).validate(full=True)


def with_checksums(data: bytes) -> bytes:
    """A tar in which every block that calls itself a header has the right checksum."""
    blocks = [data[start : start + tarfile.BLOCKSIZE] for start in range(0, len(data), tarfile.BLOCKSIZE)]
    return b"".join(_with_checksum(block) if block[257:262] == b"ustar" else block for block in blocks)


def _with_checksum(block: bytes) -> bytes:
    if len(block) < tarfile.BLOCKSIZE:
        return block
    total = sum(block[:148]) + sum(block[156:]) + 8 * ord(" ")
    return block[:148] + b"%06o\0 " % total + block[156:]
