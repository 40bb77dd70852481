"""The own columns of images, from the files, members and tables beside them that the catalog names."""

# ruff: noqa: PTH110, PTH114, PTH122
# Paths are bytes here, which pathlib does not take: a name need not be text.

import itertools
import os
import posixpath
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import pyarrow as pa

from curate.errors import SourceError
from curate.opening import open_regular
from curate.retrying import find_cause, retry
from curate.sources.config import Source
from curate.sources.description_tables import FILE_NAME, read_table_rows
from curate.sources.found import Sidecar
from curate.sources.kinds import Kinds
from curate.sources.limits import MAX_SIDECAR_BYTES
from curate.sources.network import network, read_remote
from curate.sources.roots import roots_of
from curate.sources.sidecars import merge_sidecars
from curate.sources.uri import decode_uri, encode_uri, is_remote
from curate.sources.values import choose_columns, first_columns


class Described(NamedTuple):
    """The own columns of an image."""

    columns: dict[str, Any] | None
    """JSON-ready; None: none."""
    left_out: tuple[str, ...]
    """Kinds of values that were left out, see `curate.sources.values`."""


class Descriptions:
    """What describes each image of some rows of the catalog; tables are read at once, other files when asked for."""

    def __init__(self, rows: pa.Table, source: Source) -> None:
        self._source, self._kinds = source, Kinds(source)
        self._sidecars = [_sidecars_of(found) for found in rows["sidecars"].to_pylist()]
        wanted: defaultdict[str, list[int]] = defaultdict(list)
        for uri, sidecars in zip(rows["uri"].to_pylist(), self._sidecars, strict=True):
            for sidecar in sidecars or ():
                if sidecar.kind == "table":
                    wanted[_table_uri(uri, sidecar)].append(sidecar.offset or 0)
        self._tables = {uri: read_table_rows(uri, numbers) for uri, numbers in wanted.items()}

    def of_file(self, row: int, uri: str) -> Described:
        """The own columns of an image that is a file; may be called from several threads."""
        stem = os.path.splitext(decode_uri(uri))[0]
        sidecars = self._sidecars[row]
        if sidecars is None:
            sidecars = [] if is_remote(uri) else self._look(decode_uri(uri), stem)
        return self._merge(uri, sidecars, lambda sidecar: self._read_file(stem + decode_uri(sidecar.name), uri))

    def members(self) -> Iterator[tuple[int, int]]:
        """(offset, length) of each member of an archive that describes an image."""
        for sidecar in itertools.chain.from_iterable(found or () for found in self._sidecars):
            if sidecar.kind != "table":
                yield sidecar.offset or 0, sidecar.length or 0

    def of_member(self, row: int, uri: str, name: str, read: Callable[[int, int], bytes]) -> Described:
        """The own columns of an image in a tar; `read` gives the bytes at (offset, length)."""
        return self._merge(
            uri,
            self._sidecars[row] or (),
            lambda sidecar: read(sidecar.offset or 0, sidecar.length or 0),
            where=f"{uri}: {name}",
        )

    def _merge(
        self, uri: str, sidecars: Sequence[Sidecar], read: Callable[[Sidecar], bytes | None], *, where: str = ""
    ) -> Described:
        merged: dict[str, Any] = {}
        texts: dict[tuple[str, str], bytes] = {}
        left_out: set[str] = set()
        for sidecar in sidecars:
            if sidecar.kind == "table":
                found = self._tables[_table_uri(uri, sidecar)].get(sidecar.offset or 0)
                if found is not None:
                    merged |= {name: value for name, value in found.values.items() if name != FILE_NAME}
                    left_out.update(found.left_out)
            elif (named := self._kinds.split(sidecar.name)) and (data := read(sidecar)) is not None:
                texts[named.kind, named.suffix] = data  # of equal suffixes the more telling name is behind
        chosen = choose_columns(merged, left_out, columns=self._source.columns) or {}
        chosen |= self._parse(texts, where or uri, left_out)
        chosen = first_columns(chosen, left_out)
        return Described(chosen or None, tuple(sorted(left_out)))

    def _parse(self, texts: dict[tuple[str, str], bytes], where: str, left_out: set[str]) -> dict[str, Any]:
        """Columns of files: a kind's first suffix that is there gives its column, the others columns of their name."""
        first: dict[str, bytes] = {}
        others: dict[str, Any] = {}
        for kind, listed, parsed_as, column in (
            ("json", self._source.json_suffixes, ".json", None),
            ("caption", self._source.caption_suffixes, ".txt", "caption"),
            ("label", self._source.label_suffixes, ".cls", "label"),
        ):
            there = [suffix for suffix in listed if (kind, suffix) in texts]
            if there:
                first[parsed_as] = texts[kind, there[0]]
            for suffix in there[1:]:
                own = self._own({parsed_as: texts[kind, suffix]}, None, where, left_out)
                if column is None:
                    others = own | others
                elif column in own:
                    others[suffix if suffix != column else f"{column}_2"] = own[column]
        chosen = choose_columns(others, left_out, columns=self._source.columns) or {}
        return chosen | self._own(first, self._source.columns, where, left_out)

    def _own(
        self, sidecars: dict[str, bytes], columns: tuple[str, ...] | None, where: str, left_out: set[str]
    ) -> dict[str, Any]:
        found, kinds = merge_sidecars(sidecars, columns=columns, where=where)
        left_out.update(kinds)
        return found or {}

    def _look(self, image: bytes, stem: bytes) -> list[Sidecar]:
        """What may lie beside an image whose folder was not listed."""
        rests = [b"." + suffix.encode() for suffix in self._kinds.describing()]
        own = image[len(stem) :]
        rests += [own + rest for rest in rests] if own else []
        return [Sidecar("file", encode_uri(rest)) for rest in rests if os.path.exists(stem + rest)]

    def _read_file(self, path: bytes, where: str) -> bytes | None:
        """A sidecar's bytes; None: it is gone, not permitted, a link out, or far too long to describe one image."""
        remote, limits = is_remote(os.fsdecode(path)), network()
        try:
            return retry(
                lambda: _read_remote(path, limits.picture) if remote else self._read_regular(path),
                where=where,
                remote=remote,
                patience=limits.patience,
            )
        except SourceError:
            raise
        except Exception as error:
            cause = find_cause(error, remote=remote)
            if cause is None or not cause.permanent:
                raise
            return None

    def _read_regular(self, path: bytes) -> bytes | None:
        if os.path.islink(path):
            if not roots_of(self._source).may_read(path):
                return None
            path = os.path.realpath(path)
        with open_regular(path) as file:
            data = file.read(MAX_SIDECAR_BYTES + 1)
        return data if len(data) <= MAX_SIDECAR_BYTES else None


def _read_remote(path: bytes, seconds: float) -> bytes | None:
    data = read_remote(path.decode(), MAX_SIDECAR_BYTES, seconds=seconds)
    return data if len(data) <= MAX_SIDECAR_BYTES else None


def _sidecars_of(found: list[dict[str, Any]] | None) -> list[Sidecar] | None:
    return None if found is None else [Sidecar(**sidecar) for sidecar in found]


def _table_uri(uri: str, sidecar: Sidecar) -> str:
    """Where a table lies: by the steps of the names, since a folder on the way may be a link."""
    folder = posixpath.dirname(uri)
    scheme = re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", folder)
    start = scheme.end() if scheme else 0
    return folder[:start] + posixpath.normpath(posixpath.join(folder[start:], sidecar.name))
