"""The SHA-256 of a .safetensors within itself, so that a flipped bit anywhere in an export is found when it is loaded.

It is a value in the description that our exports carry, written as zeros first, while the file is hashed, and then set
in place: the length stays, so that nothing moves, and equal content still gives equal bytes.
"""

import hashlib
import re
from pathlib import Path
from typing import IO

from curate.errors import WeightsError

DIGEST = "curate_file_sha256"
"""Key of the digest in a description."""
UNSET = "0" * 64
MAX_HEADER = 100 << 20
"""Bytes of a header that safetensors reads."""
_PLACE = re.compile(rb'\\"([^"\\]{%d})\\": \\"([^"\\]{64})\\"' % len(DIGEST))
_BUFFER = 4 << 20


def seal(path: Path) -> None:
    """Set the digest of a file whose description holds `UNSET`."""
    with path.open("r+b") as file:
        place = _find(file, path)
        assert place is not None, "the description has no place for a digest"
        digest = _hash(file, place)
        file.seek(place)
        file.write(digest)


def check_seal(path: Path) -> bool:
    """Hash a file that carries its digest; returns whether it does.

    Raises:
        WeightsError: it is not the file that was written.
    """
    with path.open("rb") as file:
        place = _find(file, path)
        if place is None:
            return False
        digest = _hash(file, place)
        file.seek(place)
        if file.read(len(UNSET)) != digest:
            raise _damaged(path)
    return True


def _find(file: IO[bytes], path: Path) -> int | None:
    """Where the digest stands; None: the file has none."""
    file.seek(0)
    length = int.from_bytes(file.read(8), "little")
    header = file.read(min(length, MAX_HEADER))
    for match in _PLACE.finditer(header):
        differing = sum(a != b for a, b in zip(match[1], DIGEST.encode(), strict=True))
        if differing == 0:
            return 8 + match.start(2)
        if differing <= 2:
            raise _damaged(path)
    return None


def _hash(file: IO[bytes], place: int) -> bytes:
    """SHA-256 in hex of a file in which zeros stand for its digest."""
    found = hashlib.sha256()
    file.seek(0)
    found.update(file.read(place) + UNSET.encode())
    file.seek(place + len(UNSET))
    while block := file.read(_BUFFER):
        found.update(block)
    return found.hexdigest().encode()


def _damaged(path: Path) -> WeightsError:
    return WeightsError(f"{path}: damaged (it does not have the sha256 that it tells); export or fetch it again")
