"""A file of a source, and opening it: local or by fsspec."""

# ruff: noqa: PTH113, PTH118, PTH120
# Paths are bytes here, which pathlib does not take: a name need not be text.

import glob
import json
import os
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

import fsspec

from curate.counting import note
from curate.errors import SourceError, SourceLost, first_line
from curate.filesystems import open_ranges
from curate.opening import NotRegularFile, open_regular
from curate.ranges import Span, plan_blocks
from curate.retrying import describe_error, find_cause, retry
from curate.sources.network import network, open_filesystem
from curate.sources.uri import decode_uri, is_remote

if TYPE_CHECKING:
    from curate.sources.beside import View

RUN = b"run.json"
"""File that marks a workdir of curate."""


MAX_RUN_BYTES = 16 << 20


class File(NamedTuple):
    """A file of a source: an image, an archive of images, or something else."""

    uri: str
    """Encoded absolute path or URL."""
    key: str
    """Encoded path relative to the source."""
    length: int | None
    """Bytes; None: unknown, or the file cannot be looked at."""
    modified: int | None
    """Modification time, ns since the epoch; None: unknown."""
    around: "View | None" = None
    """What lies in its folder; None: the folder was not listed, or nobody asked."""

    @property
    def name(self) -> bytes:
        """The last step of its path."""
        last = self.key[self.key.rfind("/") + 1 :]
        return decode_uri(last) if "\\" in last else last.encode()


def open_file(uri: str, *, spans: Iterable[Span] | None = None) -> Any:
    """Open a file for reading bytes at any offset.

    Args:
        spans: ranges that will be read, of which an object store gives neighbors at once; empty: what will be read is
            found out from its end. None: it is read in order.

    Raises:
        SourceLost: it is gone, or may not be opened.
        SourceUnavailable: it cannot be opened now.
        SourceError: it is no regular file.
    """
    remote = is_remote(uri)
    try:
        return retry(
            lambda: open_remote(uri, spans=spans) if remote else _open_local(uri),
            where=uri,
            remote=remote,
            patience=network().patience,
        )
    except SourceError:
        raise
    except Exception as error:
        cause = find_cause(error, remote=remote)
        if cause is None or not cause.permanent:
            raise
        raise SourceLost(
            f"{uri}: cannot be opened ({cause.text}); bring the file back or make it readable, or leave it out of the "
            "source",
            cause.text,
        ) from error


def why_no_url(uri: str) -> str | None:
    """What keeps an encoded URL from being one that could be opened at all; None: nothing."""
    try:
        url = decode_uri(uri).decode()
        protocol = urlsplit(url).scheme
    except ValueError as error:
        return first_line(error)
    if "::" in url:
        return "chained URLs are not supported"
    if protocol not in fsspec.available_protocols() and protocol not in fsspec.registry:
        return f"the protocol {protocol!r} is not known"
    return "it holds control characters" if re.search(r"[\x00-\x1f\x7f]", url) else None


def open_remote(uri: str, *, spans: Iterable[Span] | None = None) -> Any:
    """Open a file of an object store or web server, see `open_file`; errors come as its library raises them."""
    fs, path = open_filesystem(decode_uri(uri).decode())
    if spans is None:
        note(opens=1)
        return fs.open(path, "rb")
    return open_ranges(fs, path, blocks=plan_blocks(spans))


def file_exists(uri: str) -> bool:
    """Whether a file is there; False also where that cannot be found out."""
    if not is_remote(uri):
        return os.path.isfile(decode_uri(uri))
    return is_there(decode_uri(uri).decode())


def _open_local(uri: str) -> Any:
    try:
        return open_regular(decode_uri(uri))
    except NotRegularFile as error:
        raise SourceError(f"{uri}: {describe_error(error)}; leave it out of the source") from error


def holds_run(folder: bytes) -> bool:
    """Whether a folder is a workdir: it then holds tables, pictures of reports and shards, which are no source."""
    mark = os.path.join(folder, RUN)
    try:
        with open_regular(mark) as file:
            return is_run(file.read(MAX_RUN_BYTES))
    except OSError:
        return False


def is_run(data: bytes) -> bool:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return False
    return isinstance(found, dict) and {"layout", "recipe", "config", "tables"} <= found.keys()


def is_glob(path: str) -> bool:
    return glob.has_magic(path)


def fixed_part(pattern: str) -> str:
    """The folder above the first step of a glob that varies."""
    return os.path.dirname(pattern[: min(pattern.find(c) for c in "*?[" if c in pattern)])


def is_there(url: str) -> bool:
    fs, path = open_filesystem(url)
    try:
        return bool(retry(lambda: fs.exists(path), where=url, remote=True, patience=network().patience))
    except Exception:  # then listing says what is wrong
        return False
