"""Own columns that stand in the path of an image: hive steps (`label=cat/1.jpg`) and, when asked for, its folder.

Both are read from the image's key, so that every format has them. The key of an image in an archive begins with the
path of the archive, which counts as folders above do. What lies beside or inside a file is nearer to the image than a
path is: a hive step fills in a column that the image lacks, and replaces none (pyarrow and DuckDB let the path win,
which would overwrite what the source holds). A label that is asked for by `labels: folder` is the exception.
"""

import re
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import unquote_to_bytes

import pyarrow as pa
import pyarrow.compute as pc

from curate.errors import SourceError
from curate.sources.config import Source
from curate.sources.read import Read
from curate.sources.uri import decode_uri, encode_uri
from curate.sources.values import is_usable_name

LABEL = "label"
"""Column of the folder's name."""
HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"
"""What Hive writes for null."""

_HIVE_STEP = re.compile(r"([^\W\d][\w.%-]*)=(.*)", re.DOTALL)
_INTEGER = re.compile(r"0|-?[1-9][0-9]{0,17}")
_SCHEME = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]*)://[^/]*/?")


def add_path_columns(reads: Iterable[Read], rows: pa.Table, source: Source) -> Iterator[Read]:
    """What was read of the images of some rows of the catalog, with the columns of their paths."""
    archived = pc.or_(rows["offset"].is_valid(), rows["row"].is_valid()).to_pylist()
    places = zip(rows["key"].to_pylist(), rows["uri"].to_pylist(), archived, strict=True)
    for (key, uri, inside), read in zip(places, reads, strict=True):
        yield add_columns_of(read, key, archive=uri if inside else None, source=source)


def add_columns_of(read: Read, key: str, *, archive: str | None, source: Source) -> Read:
    """What was read of one image, with the columns of its path.

    Args:
        key: its key in the catalog.
        archive: the file that holds it; None: it is a file of its own.
    """
    hive = hive_columns(key)
    wanted = {k: v for k, v in hive.items() if source.columns is None or k in source.columns}
    merged = wanted | (read.extra or {})
    if source.labels == "folder":
        merged[LABEL] = folder_label(key, archive) or hive.get(LABEL)
    return read._replace(extra=merged or None)


def comes_from_path(name: str, uri: str, source: Source) -> bool:
    """Whether a column may stand in the path of a file, so that the file itself need not have it."""
    return (source.labels == "folder" and name == LABEL) or name in hive_columns(uri.removeprefix(source.path))


def hive_columns(key: str) -> dict[str, str | int | None]:
    """The hive steps above an image; of two with one name the deeper one.

    Values are percent-decoded; integers are those in canonical form (`7`, not `007`). Addresses on the web have none:
    a step such as `width=80,quality=75` is an order to their server.
    """
    found: dict[str, str | int | None] = {}
    for step in _folders(key, web=False):
        match = _HIVE_STEP.fullmatch(step)
        name = "" if match is None else _text(_percent_decoded(match[1]))
        if match is not None and is_usable_name(name, set()):
            found[name] = _value(_text(_percent_decoded(match[2])))
    return found


def folder_label(key: str, archive: str | None) -> str | None:
    """The folder directly above an image, hive steps left out; None: the image lies at the top.

    Args:
        archive: the file that holds the image; only folders inside it count, as in the name of a tar's member.
    """
    folders = list(_folders(key, web=True))
    if archive is not None:
        name = archive.rsplit("/", 1)[-1]
        if key.rsplit("/", 1)[-1].startswith(f"{name}#"):  # a row without a path
            return None
        if name in folders:
            folders = folders[len(folders) - folders[::-1].index(name) :]
    plain = [step for step in folders if not _HIVE_STEP.fullmatch(step)]
    return _text(_decoded(plain[-1])) if plain else None


def _folders(key: str, *, web: bool) -> Iterator[str]:
    """The steps of a key above its last one, without the address of a server."""
    remote = _SCHEME.match(key)
    if remote is not None:
        if remote[1].lower() in ("http", "https"):
            if not web:
                return
            key = key.split("?", 1)[0]
        key = key[remote.end() :]
    yield from (step for step in key.split("/")[:-1] if step not in ("", ".", ".."))


def _decoded(step: str) -> bytes:
    """The bytes of a step; the keys of a plug-in's format need not be encoded."""
    try:
        return decode_uri(step)
    except SourceError:
        return step.encode()


def _percent_decoded(step: str) -> bytes:
    return unquote_to_bytes(_decoded(step))


def _text(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return encode_uri(raw)


def _value(text: str) -> Any:
    if text == HIVE_NULL:
        return None
    return int(text) if _INTEGER.fullmatch(text) else text
