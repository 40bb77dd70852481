"""What is known of a list of hashes without its hashes: their number by kind, and the digest of the file.

A plan asks which kinds a list holds, since MD5 and SHA-1 take a table of their own, and reading millions of lines takes
seconds. So the numbers are kept in the user's cache folder, as digests of weights are; no hash is.
"""

import contextlib
from functools import lru_cache
from pathlib import Path

import numpy as np
from pydantic import Field, ValidationError

from curate.config import Settings, digest
from curate.models.files.digest import hash_file
from curate.models.files.weights import cache_dir
from curate.sources.hash_lists import HashList, ListedHashes


class ListFacts(Settings):
    """What may be told of a list."""

    digest: str
    """SHA-256 of the file."""
    counts: dict[str, int]
    """Distinct hashes by kind."""
    others: dict[str, int] = Field(default_factory=dict)
    """By kind, hashes that are not compared."""
    unreadable: int = 0
    """Entries that are no hashes."""
    first: tuple[int, ...] = ()
    """Lines of the first of them."""


def list_facts(given: HashList) -> ListFacts:
    """The numbers of a list, which is read where nobody has counted it yet.

    Raises:
        ConfigError, SourceError: as `HashList.read`.
    """
    content = list_digest(given)
    place = cache_dir() / "lists" / f"{digest([content, given.kind, given.max_unreadable])}.json"
    with contextlib.suppress(OSError, ValueError, ValidationError):
        return ListFacts.model_validate_json(place.read_bytes())
    found = read_list(given, content)
    facts = ListFacts(
        digest=content,
        counts=found.counts,
        others=dict(found.others),
        unreadable=found.unreadable,
        first=found.first,
    )
    with contextlib.suppress(OSError):  # a cache that cannot be written costs time and nothing else
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(facts.model_dump_json(), encoding="utf-8")
    return facts


def list_digest(given: HashList) -> str:
    """SHA-256 (hex) of the file of a list.

    Raises:
        ConfigError: there is no such file.
    """
    given.check()
    return hash_file(Path(given.path))


def read_list(given: HashList, content: str) -> ListedHashes:
    """The hashes of a list whose file has this digest, read once a process."""
    return _read(given, content)


@lru_cache(maxsize=8)
def _read(given: HashList, content: str) -> ListedHashes:
    return given.read()


def hashes_of(lists: tuple[HashList, ...], kind: str) -> list[tuple[int, np.ndarray]]:
    """(number of the list, its hashes of one kind) of the lists that have some."""
    found = ((number, read_list(one, list_digest(one)).hashes.get(kind)) for number, one in enumerate(lists))
    return [(number, rows) for number, rows in found if rows is not None]
