"""Labeled pictures whose labels are known before any picture is decoded: a folder of classes, Parquet, bundled sets.

Folders and Parquet files are local or fsspec URLs. Importing this costs no torch.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from PIL import Image

from curate.errors import ConfigError, SourceError
from curate.filesystems import list_shards, open_filesystem
from curate.opening import open_of
from curate.ops.images import formats
from curate.ops.images.bounds import Bounds
from curate.ops.images.decode import RejectedImage
from curate.ops.images.decoding import decode_picture
from curate.samples.bundled import PHOTOS
from curate.samples.mnist import load_mnist5k
from curate.sealing import open_parquet

PICTURE_SUFFIXES = formats.SUFFIXES
"""Suffixes of the files in a folder that count as pictures."""

Decode = Callable[[], Image.Image]
"""Decodes the picture of one row to RGB; may be called in a thread."""


@dataclass(frozen=True)
class LabeledImages:
    """Pictures in a fixed order, each with the class it shows."""

    name: str
    labels: np.ndarray
    """(N,) int64, index into `classes`."""
    classes: list[str]
    """Names of the classes in order; one empty name where the pictures have no labels."""
    read: Callable[[np.ndarray], Iterator[Decode]]
    """From (R,) rows in rising order to a function for each that decodes it; SourceError: a file cannot be read."""

    def __len__(self) -> int:
        return len(self.labels)

    def pictures(self, rows: np.ndarray | None = None) -> Iterator[Decode]:
        """A function for each of `rows`, which rise, that decodes its picture; None: for all rows."""
        return self.read(np.arange(len(self)) if rows is None else rows)

    def with_classes_of(self, train: "LabeledImages") -> "LabeledImages":
        """The same pictures with the class numbers of `train`.

        Raises:
            SourceError: they show a class that `train` does not have.
        """
        missing = sorted(set(self.classes) - set(train.classes))
        if missing:
            raise SourceError(
                f"{self.name}: class {missing[0]!r} ({len(missing)} in all) is not among the {len(train.classes)} of "
                f"{train.name}; both sets must give classes the same names"
            )
        known = {name: number for number, name in enumerate(train.classes)}
        numbers = np.array([known[name] for name in self.classes], dtype=np.int64)
        return LabeledImages(self.name, numbers[self.labels], train.classes, self.read)


def open_labeled(
    data: str, *, label: str | None = None, labeled: bool = True, bounds: Bounds | None = None
) -> LabeledImages:
    """Find pictures and their labels.

    Args:
        data: `bundled` (338 photographs in 20 categories), `mnist5k` (5,000 handwritten digits), a folder with a
            subfolder for each class, or Parquet: a folder, a file or a pattern.
        label: column of the labels in Parquet files, which are text or integers.
        labeled: False: pictures without labels will do, such as those of a plain folder.
        bounds: what decoding one of them may cost; None: the defaults.

    Raises:
        ConfigError: `label` is missing for Parquet files, or given for a folder of classes.
        SourceError: nothing is there, a file is unreadable or lacks a column, or a label is null.
    """
    decode = partial(decode_labeled, bounds=bounds)
    if data == "bundled":
        return _open_folder(str(PHOTOS), decode, name=data, labeled=True)
    if data == "mnist5k":
        return from_arrays(*load_mnist5k(), name=data)
    filesystem, path = open_filesystem(data)
    files = [file for file in list_shards(filesystem, path) if file.endswith(".parquet")]
    if files:
        return _open_labeled_parquet(data, filesystem, files, decode, label=label, labeled=labeled)
    if label is not None:
        raise ConfigError(f"{data}: no Parquet files, so label={label} names no column; leave it out for a folder")
    return _open_folder(data, decode, name=data, labeled=labeled)


def open_pictures(data: str, *, label: str | None = None, bounds: Bounds | None = None) -> LabeledImages:
    """As `open_labeled`, for measures that take classes where there are some and do without where there are none.

    Raises:
        ConfigError: `label` is given for a folder.
        SourceError: as `open_labeled` of pictures without labels.
    """
    try:
        return open_labeled(data, label=label, bounds=bounds)
    except (ConfigError, SourceError):
        return open_labeled(data, label=label, labeled=False, bounds=bounds)


def from_arrays(images: np.ndarray, labels: np.ndarray, *, name: str) -> LabeledImages:
    """The set of (N, H, W) gray or (N, H, W, 3) RGB uint8 images with (N,) labels."""
    classes, numbers = _number_classes(labels.tolist())
    return LabeledImages(name, numbers, classes, lambda rows: (partial(_from_array, images[row]) for row in rows))


def _from_array(image: np.ndarray) -> Image.Image:
    return Image.fromarray(image).convert("RGB")


def _number_classes(names: list[Any]) -> tuple[list[str], np.ndarray]:
    """Class names in order (numbers by size, text by alphabet), and (N,) the class number of each row."""
    kinds, numbers = np.unique(np.array(names), return_inverse=True)
    return [str(kind) for kind in kinds], numbers.reshape(-1).astype(np.int64)


_DecodeAt = Callable[[bytes, str], Image.Image]
"""As `decode_labeled`, within bounds."""


def _open_folder(folder: str, decode: _DecodeAt, *, name: str, labeled: bool) -> LabeledImages:
    filesystem, root = open_filesystem(folder)
    root = root.rstrip("/")
    if not filesystem.isdir(root):
        need = "one with a subfolder for each class is needed" if labeled else "a folder of pictures is needed"
        raise SourceError(f"{folder}: no such folder; {need}")
    found = sorted(filesystem.find(root))
    paths = [path for path in found if "." in path and f".{path.rsplit('.', 1)[1].lower()}" in PICTURE_SUFFIXES]
    inside = [path.removeprefix(f"{root}/") for path in paths]
    if labeled:
        paths = [path for path, rest in zip(paths, inside, strict=True) if "/" in rest]
        inside = [rest for rest in inside if "/" in rest]
    if not paths:
        place = "in subfolders; put those of each class in one" if labeled else "there"
        raise SourceError(f"{folder}: no pictures {place}")
    classes, labels = _number_classes([rest.split("/")[0] if labeled else "" for rest in inside])
    return LabeledImages(
        name, labels, classes, lambda rows: (partial(_decode_file, filesystem, paths[row], decode) for row in rows)
    )


def _decode_file(filesystem: Any, path: str, decode: _DecodeAt) -> Image.Image:
    try:
        with open_of(filesystem, path) as file:
            encoded = file.read()
    except OSError as error:
        raise SourceError(f"{path}: cannot be read: {error}") from error
    return decode(encoded, path)


def decode_labeled(encoded: bytes, where: str, *, bounds: Bounds | None = None) -> Image.Image:
    """Decode a picture to RGB; `where` names it in messages.

    Raises:
        SourceError: it does not decode. Unlike in curation a bad picture is no row to leave out: the labels of a
            benchmark belong to all its pictures, and two models must be measured on the same ones.
    """
    try:
        return decode_picture(encoded, bounds=bounds)
    except RejectedImage as error:
        otherwise = f", or raise {error.limit}" if error.limit else ""
        raise SourceError(f"{where}: the picture does not decode ({error}); remove it{otherwise}") from error


class _Group(NamedTuple):
    """A row group of a Parquet file."""

    path: str
    number: int
    first: int  # row of the file
    num_rows: int


def _open_labeled_parquet(
    data: str, filesystem: Any, files: list[str], decode: _DecodeAt, *, label: str | None, labeled: bool
) -> LabeledImages:
    names: list[Any] = []
    groups: list[_Group] = []
    for path in files:
        found, values = _read_labels(filesystem, path, label=label, labeled=labeled)
        groups.extend(found)
        names.extend(values)
    if not names:
        raise SourceError(f"{data}: {len(files)} Parquet files without a row; labeled images are needed")
    classes, labels = _number_classes(names)
    return LabeledImages(data, labels, classes, partial(_read_rows, filesystem, groups, decode))


def _read_labels(
    filesystem: Any, path: str, *, label: str | None, labeled: bool
) -> tuple[list[_Group], list[str | int]]:
    try:
        with open_of(filesystem, path) as file:
            parquet = open_parquet(file)
            _check_label_columns(path, parquet.schema_arrow, label=label, labeled=labeled)
            sizes = [parquet.metadata.row_group(number).num_rows for number in range(parquet.num_row_groups)]
            column = [] if label is None else parquet.read(columns=[label]).column(label).to_pylist()
    except (OSError, pa.ArrowException) as error:
        raise SourceError(f"{path}: not a readable Parquet file: {error}") from error
    starts = np.cumsum([0, *sizes]).tolist()
    groups = [
        _Group(path, number, first, size) for number, (first, size) in enumerate(zip(starts, sizes, strict=False))
    ]
    if label is None:
        return groups, [""] * starts[-1]
    _check_labels(path, column, label)
    return groups, column


def _check_label_columns(path: str, schema: pa.Schema, *, label: str | None, labeled: bool) -> None:
    present = ", ".join(schema.names)
    if labeled and label is None:
        raise ConfigError(f"{path}: Parquet files need label=COLUMN (--label); its columns are {present}")
    for name in filter(None, ("image", label)):
        if name not in schema.names:
            raise SourceError(f"{path}: no column {name!r}; it has {present}")


def _check_labels(path: str, column: list[Any], label: str) -> None:
    for row, value in enumerate(column):
        if not isinstance(value, str | int):
            raise SourceError(f"{path} row {row}: {label} is {value!r}; a text or an integer is needed")


def _read_rows(filesystem: Any, groups: list[_Group], decode: _DecodeAt, rows: np.ndarray) -> Iterator[Decode]:
    """What decodes each of `rows`; a row group that holds one of them is read once."""
    starts = np.cumsum([0, *(group.num_rows for group in groups)])
    places = np.searchsorted(starts, rows, side="right") - 1
    for place, wanted in groupby(zip(places.tolist(), rows.tolist(), strict=True), key=lambda pair: pair[0]):
        group = groups[place]
        cells = _read_cells(filesystem, group)
        for _, row in wanted:
            inside = row - int(starts[place])
            yield partial(decode, _bytes_of(cells[inside].as_py()), f"{group.path} row {group.first + inside}")


def _read_cells(filesystem: Any, group: _Group) -> pa.ChunkedArray:
    try:
        with open_of(filesystem, group.path) as file:
            return open_parquet(file).read_row_group(group.number, columns=["image"]).column("image")
    except (OSError, pa.ArrowException) as error:
        raise SourceError(f"{group.path}: row group {group.number} cannot be read: {error}") from error


def _bytes_of(cell: object) -> bytes:
    found = cell.get("bytes") if isinstance(cell, dict) else cell
    return found if isinstance(found, bytes) else b""
