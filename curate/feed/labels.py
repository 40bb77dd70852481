"""The values of a column of the shards, as the class of each image.

Nothing is held but a number of two bytes an image and the distinct values, of which there may be so many: a column of
captions or addresses is refused after the first shards that it is read in. The number of an image is that of its row in
all shards, as `Crops.images` says it.
"""

import itertools
import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from curate.errors import ConfigError, SourceError
from curate.feed.row_groups import RowGroup
from curate.feed.shards import READERS, DamagedData, ShardIndex
from curate.progress import track
from curate.text import visible_line

logger = logging.getLogger(__name__)

MAX_CLASSES = 10_000
"""Distinct values of a column at most; their numbers fit into 16 bits."""
MAX_LENGTH = 200
"""Characters of a value at most."""
NO_CLASS = -1
"""What stands for a value that is missing."""

Class = str | int | bool
"""A value of a column."""


@dataclass(frozen=True)
class Labels:
    """The classes of all images by one column."""

    column: str
    classes: tuple[Class, ...]
    """The distinct values, sorted."""
    codes: npt.NDArray[np.int16]
    """(num_images,) index of each image's value in `classes`, images in order of the shards; -1: it has none."""

    @property
    def num_labelled(self) -> int:
        """Images that have a value."""
        return int((self.codes != NO_CLASS).sum())


class _Found(NamedTuple):
    """What the rows of one shard hold."""

    shard: str
    kind: str
    """text, whole numbers, or true and false; empty: no row has a value, or the shard is left out."""
    values: list[Class]
    codes: npt.NDArray[np.int16]  # (rows,) index in `values`, or NO_CLASS


def read_labels(index: ShardIndex, column: str, *, setting: str, skip_damaged: bool = False) -> Labels:
    """Read a column of all shards of an index.

    Args:
        setting: which asks for the column, for errors.
        skip_damaged: whether the images of shards that cannot be read have no class, instead of an error.

    Raises:
        SourceError: a shard lacks the column, or is damaged.
        ConfigError: the column holds no classes: of another type, of too many values, or of one.
    """
    shards = [(name, list(groups)) for name, groups in itertools.groupby(index.groups, key=lambda group: group.shard)]
    read = partial(_read_shard, index, column, setting=setting, skip_damaged=skip_damaged)
    known: dict[Class, int] = {}
    kinds: dict[str, str] = {}
    codes: list[npt.NDArray[np.int16]] = []
    with (
        ThreadPoolExecutor(READERS) as pool,
        track(f"read {visible_line(column)}", len(shards), unit="shards") as advance,
    ):
        for found in pool.map(read, shards):
            if found.kind:
                kinds.setdefault(found.kind, found.shard)
            own = [known.setdefault(value, len(known)) for value in found.values]
            _check(column, known, kinds, setting=setting, where=found.shard)
            codes.append(np.array([*own, NO_CLASS], np.int16)[found.codes])
            advance()
    return _sorted(column, known, np.concatenate(codes), setting=setting)


def _read_shard(
    index: ShardIndex, column: str, shard: tuple[str, list[RowGroup]], *, setting: str, skip_damaged: bool
) -> _Found:
    """The values of one shard in order of its rows."""
    name, groups = shard
    try:
        values = index.read_column(name, [group.number for group in groups], column, setting=setting)
    except DamagedData as error:
        if not skip_damaged:
            raise
        logger.warning("%s: its images have no %s", error, visible_line(column))
        return _Found(name, "", [], np.full(sum(group.num_rows for group in groups), NO_CLASS, np.int16))
    return _found(column, name, values, setting=setting)


def _found(column: str, shard: str, values: pa.ChunkedArray, *, setting: str) -> _Found:
    where = f"{setting}: column {visible_line(column)} of {shard}"
    kind = _kind_of(values.type)
    if kind is None:
        raise ConfigError(
            f"{where} is {visible_line(str(values.type))}, which is no class; write it as text, whole numbers or true "
            "and false of few distinct values, such as ranges of it, or name another"
        )
    plain = values.cast(values.type.value_type) if pa.types.is_dictionary(values.type) else values
    coded = plain.combine_chunks().dictionary_encode()
    if len(coded.dictionary) > MAX_CLASSES:
        raise _too_many(column, len(coded.dictionary), setting=setting, where=shard)
    try:
        found = coded.dictionary.to_pylist() if kind else []
    except UnicodeDecodeError as error:
        raise SourceError(f"{where} holds text that is no UTF-8; write it anew") from error
    longest = max((len(value) for value in found if isinstance(value, str)), default=0)
    if longest > MAX_LENGTH:
        raise ConfigError(
            f"{where} holds texts of up to {longest:,} characters, and a class has at most {MAX_LENGTH}; name another"
        )
    return _Found(shard, kind if found else "", found, _codes(coded, kind))


def _codes(coded: pa.DictionaryArray, kind: str) -> npt.NDArray[np.int16]:
    if not kind:
        return np.full(len(coded), NO_CLASS, np.int16)
    found: npt.NDArray[np.int16] = coded.indices.fill_null(NO_CLASS).to_numpy(zero_copy_only=False).astype(np.int16)
    return found


def _kind_of(kind: pa.DataType) -> str | None:
    """What values of a type are called; None: they are no classes, and empty: there are none."""
    inner = kind.value_type if pa.types.is_dictionary(kind) else kind
    if pa.types.is_string(inner) or pa.types.is_large_string(inner):
        return "text"
    if pa.types.is_integer(inner):
        return "whole numbers"
    if pa.types.is_boolean(inner):
        return "true and false"
    return "" if pa.types.is_null(inner) else None


def _check(column: str, known: dict[Class, int], kinds: dict[str, str], *, setting: str, where: str) -> None:
    if len(known) > MAX_CLASSES:
        raise _too_many(column, len(known), setting=setting, where=f"the shards up to {where}")
    if len(kinds) > 1:
        told = ", ".join(f"{kind} in {shard}" for kind, shard in kinds.items())
        raise ConfigError(
            f"{setting}: column {visible_line(column)} is {told}; write it alike in all shards, or name another"
        )


def _too_many(column: str, number: int, *, setting: str, where: str) -> ConfigError:
    return ConfigError(
        f"{setting}: column {visible_line(column)} has {number:,} distinct values in {where}; at most {MAX_CLASSES:,} "
        "are classes; write a coarser column, or name another"
    )


def _sorted(column: str, known: dict[Class, int], codes: npt.NDArray[np.int16], *, setting: str) -> Labels:
    """The classes in order of their values, whatever the order of the shards."""
    classes = sorted(known)
    if len(classes) < 2:
        told = f"the one value {visible_line(str(classes[0]))!r}" if classes else "no value"
        raise ConfigError(
            f"{setting}: column {visible_line(column)} has {told} in {len(codes):,} images; at least two are needed; "
            "leave this guide out, or name another column"
        )
    places = np.full(len(classes) + 1, NO_CLASS, np.int16)
    places[[known[value] for value in classes]] = np.arange(len(classes))
    return Labels(column, tuple(classes), places[codes])
