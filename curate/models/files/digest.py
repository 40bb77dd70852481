"""SHA-256 of weight files, remembered across processes.

Tables name weights by their content, so every command that looks at embeddings needs the digest of the file, and
reading gigabytes takes longer than all else that a dry run does. So digests are kept in the user's cache folder, each
beside the path, size and times of the file that it belongs to; the time of change is among them, since tools that copy
files set the time of modification back. A file that has just changed is not remembered: a second change within one tick
of the file system's clock would not show.
"""

import hashlib
import json
import os
import tempfile
import time
from functools import lru_cache
from pathlib import Path

from curate.models.files.weights import cache_dir
from curate.opening import open_regular

SETTLED = 2.0
"""Seconds without a change after which a file's digest is remembered across processes."""


def hash_file(path: Path) -> str:
    """SHA-256 (hex) of a file; computed again only when its size or its times have changed."""
    path = path.resolve()
    facts = path.stat()
    return _hash(path, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns)


@lru_cache(maxsize=64)
def _hash(path: Path, size: int, modified: int, changed: int) -> str:
    key: list[str | int] = [str(path), size, modified, changed]
    place = cache_dir() / "digests" / f"{hashlib.sha256(os.fsencode(path)).hexdigest()[:32]}.json"
    known = _recall(place, key)
    if known is not None:
        return known
    with open_regular(path) as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if time.time() - max(modified, changed) / 1e9 >= SETTLED:
        _remember(place, key, found)
    return found


def _recall(place: Path, key: list[str | int]) -> str | None:
    """The digest that was remembered for exactly this file; None where there is none, or the record is damaged."""
    try:
        record = json.loads(place.read_text(encoding="utf-8"))
        return str(record["sha256"]) if record["file"] == key and len(record["sha256"]) == 64 else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _remember(place: Path, key: list[str | int], found: str) -> None:
    """Write the record whole, or not at all; a cache that cannot be written costs time and nothing else."""
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=place.parent, delete=False, encoding="utf-8") as file:
            json.dump({"file": key, "sha256": found}, file)
        Path(file.name).replace(place)
    except OSError:
        return
