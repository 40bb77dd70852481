"""Files that hold an image that stays: a listing of files to delete must not name them.

A file is listed twice where two sources hold it, such as a pool with the curated images in a folder of it, or where a
link leads to it. Then one of its images may go while the other one stays, and the pair of which the verdict tells need
not be these two. Both have the same bytes, so that only images whose digest occurs on both sides are looked at.

Memory: 16 bytes an image that goes, 8 an image that stays and has the bytes of one that goes.
"""

import hashlib
import os
from collections.abc import Iterable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.answers.rows import Wanted, list_images
from curate.engine.finished import Finished
from curate.sources.read import UNAVAILABLE
from curate.sources.uri import decode_uri, is_remote
from curate.tables import ROLES

GOING = ("dropped", "contaminated", "rejected", UNAVAILABLE)
"""Verdicts of images that do not stay; held-out ones have none."""
COLUMNS = ("uri", "own_file", "verdict", "sha256")
"""What is read of the images."""


class Staying:
    """Files of images that stay, and have the bytes of one that goes."""

    def __init__(self, digests: np.ndarray, files: np.ndarray) -> None:
        """
        Args:
            digests: (D,) uint64, the beginnings of digests of images that stay, among them all of these files.
            files: (F,) uint64, names of files, see `_name`.
        """
        self._digests, self._files = digests, files

    @classmethod
    def beside(cls, run: Finished, wanted: Wanted, roles: Sequence[str] | None = None) -> "Staying":
        """Files that images stay in, of all sources, while those that are listed go."""
        listed = list_images(run, wanted, COLUMNS, roles=roles)
        digests = _unique([_beginnings(_own(rows, going=True)) for rows in listed])
        found, files = [], []
        for rows in list_images(run, Wanted.all, COLUMNS, roles=ROLES) if len(digests) else ():
            stays = _own(rows, going=False)
            beginnings = _beginnings(stays)
            shared = np.isin(beginnings, digests)
            found.append(beginnings[shared])
            names = map(_name, stays["uri"].filter(pa.array(shared)).to_pylist())
            files.append(np.fromiter(names, np.uint64))
        return cls(_unique(found), _unique(files))

    def mask(self, rows: pa.RecordBatch) -> np.ndarray:
        """(N,) bool: images that go, whose file holds one that stays.

        Args:
            rows: with `COLUMNS`.
        """
        mask = _mask(rows, going=True)
        mask[mask] = np.isin(_beginnings(rows.filter(pa.array(mask))), self._digests)
        names = map(_name, rows["uri"].filter(pa.array(mask)).to_pylist())
        mask[mask] = np.isin(np.fromiter(names, np.uint64), self._files)
        return mask


def _own(rows: pa.RecordBatch, *, going: bool) -> pa.RecordBatch:
    return rows.filter(pa.array(_mask(rows, going=going)))


def _mask(rows: pa.RecordBatch, *, going: bool) -> np.ndarray:
    """(N,) bool: images in a file of their own on this machine, which go, or which stay."""
    goes = pc.is_in(rows["verdict"], pa.array(GOING)).to_numpy(zero_copy_only=False)
    here = rows["own_file"].to_numpy(zero_copy_only=False) & rows["sha256"].is_valid().to_numpy(zero_copy_only=False)
    mask: np.ndarray = here & (goes == going)
    mask[mask] = [not is_remote(uri) for uri in rows["uri"].filter(pa.array(mask)).to_pylist()]
    return mask


def _beginnings(rows: pa.RecordBatch) -> np.ndarray:
    """(N,) uint64, the first bytes of the digests."""
    text = "".join(pc.utf8_slice_codeunits(rows["sha256"], 0, 16).to_pylist())
    return np.frombuffer(bytes.fromhex(text), ">u8").astype(np.uint64)


def _name(uri: str) -> int:
    """A number for the file that a path leads to."""
    return int.from_bytes(hashlib.sha256(os.path.realpath(decode_uri(uri))).digest()[:8])


def _unique(pieces: Iterable[np.ndarray]) -> np.ndarray:
    return np.unique(np.concatenate([np.empty(0, np.uint64), *pieces]))
