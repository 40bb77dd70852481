"""Names of files in a data set: those of the sources where these are safe, and unique on every file system.

Keys are chosen by strangers. They may lead out of a folder, differ in capitals alone, be reserved on some system, or be
hidden from readers, which skip what begins with a dot or two underscores. Several sources may use one key. So steps are
cleaned, the suffix becomes that of the format, and a name that another image or a folder would have too, whatever its
capitals and suffix, gets the image's number: `cat~3-17.jpg` is row 17 of part 3. Which names these are must be known
before the first is written, for millions of images, so what is kept of a name is a digest of 8 bytes; two that agree by
chance cost a number that was not needed.
"""

import hashlib
import posixpath
import re
import unicodedata
from collections.abc import Iterable

import numpy as np
import pyarrow as pa

from curate.engine.image_ids import part_of, row_of
from curate.ops.images.formats import READ
from curate.text import visible

UNSAFE = re.compile(r'[<>:"|?*\\]')
NUMBERED = re.compile(r"~\d+-\d+$")
RESERVED = frozenset(["con", "prn", "aux", "nul", *(f"{name}{n}" for name in ("com", "lpt") for n in range(1, 10))])
"""Names of devices on Windows, whatever the suffix."""
MAX_STEP, MAX_NAME = 120, 400
"""Bytes of a step, and of a whole name."""


class Names:
    """The names of the images of a data set."""

    def __init__(self, batches: Iterable[pa.RecordBatch]) -> None:
        """`batches` hold source, key and format of all images."""
        stems, folders, sources = [np.empty(0, np.uint64)], set[str](), set[str]()
        for rows in batches:
            sources.update(rows["source"].to_pylist())
            found = _stems(rows)
            stems.append(_digests(found))
            folders.update(map(posixpath.dirname, found))
        self._several = len(sources) > 1
        every = np.sort(np.concatenate([*stems, _digests(sorted(_parents(folders)))]))
        self._shared = np.unique(every[1:][every[1:] == every[:-1]])

    def of(self, rows: pa.RecordBatch) -> list[str]:
        """The name of each image of a batch, with slashes; its source stands first where there are several."""
        stems = _stems(rows)
        shared = np.isin(_digests(stems), self._shared).tolist()
        names = []
        for stem, twice, image_id, form in zip(
            stems, shared, rows["image_id"].to_pylist(), rows["format"].to_pylist(), strict=True
        ):
            plain = stem if self._several else stem.partition("/")[2]
            number = f"~{part_of(image_id)}-{row_of(image_id)}" if twice or NUMBERED.search(stem) else ""
            names.append(f"{plain}{number}{suffix_of(form)}")
        return names


def suffix_of(form: str | None) -> str:
    """The suffix of a format, as the column `format` names it; empty: unknown."""
    return READ[form].suffixes[0] if form in READ else ""


def _stems(rows: pa.RecordBatch) -> list[str]:
    """Safe names with their source and without their suffix."""
    return [
        _stem(source, key, form)
        for source, key, form in zip(*(rows[name].to_pylist() for name in ("source", "key", "format")), strict=True)
    ]


def _stem(source: str, key: str, form: str | None) -> str:
    stem, suffix = posixpath.splitext(key)
    if form in READ and suffix.lower() not in READ[form].suffixes:
        stem = key
    steps = [_safe(step) for step in stem.split("/") if step]
    name = "/".join([_safe(source), *(steps or ["image"])])
    return name if len(name.encode()) <= MAX_NAME else f"{_safe(source)}/{steps[-1]}"


def _safe(step: str) -> str:
    """One step of a path that no system takes for another one."""
    clean = UNSAFE.sub("_", visible(step, keep="")).encode()[:MAX_STEP].decode(errors="ignore").rstrip(". ")
    if clean.startswith((".", "__")):  # hidden from readers of data sets
        clean = f"_{clean.lstrip('._')}"
    return f"_{clean}" if not clean or clean.partition(".")[0].lower() in RESERVED else clean


def _digests(names: Iterable[str]) -> np.ndarray:
    """(N,) uint64: equal for names that some file system holds for one."""
    folded = (_folded(name) for name in names)
    return np.frombuffer(b"".join(hashlib.blake2b(name, digest_size=8).digest() for name in folded), np.uint64)


def _parents(folders: Iterable[str]) -> set[str]:
    """Folders with all that they lie in, each once."""
    found: set[str] = set()
    for folder in folders:
        above = folder
        while above and above not in found:
            found.add(above)
            above = posixpath.dirname(above)
    return found


def _folded(name: str) -> bytes:
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold()).encode()
