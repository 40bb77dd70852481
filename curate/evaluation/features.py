"""Features of labelled pictures by a frozen backbone: arrays, a folder of classes, or Parquet."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image

from curate.errors import SourceError
from curate.models.backbone import Backbone
from curate.ops.images import RejectedImage, decode_rgb, preprocess

BATCH = 64
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"}


class LabelledFeatures(NamedTuple):
    """Features with what they are of."""

    features: np.ndarray  # (N, D) float32, unit L2
    labels: np.ndarray  # (N,) int64, index into `classes`
    classes: list[str]


def embed_pictures(backbone: Backbone, pictures: Iterable[Image.Image]) -> np.ndarray:
    """(N, D) float32 unit features of RGB pictures, prepared as the backbone wants them."""
    parts = [_embed_batch(backbone, batch) for batch in _batches(pictures)]
    return np.concatenate(parts) if parts else np.empty((0, backbone.dim), np.float32)


def embed_arrays(backbone: Backbone, images: np.ndarray) -> np.ndarray:
    """As `embed_pictures`, of (N, H, W) grey or (N, H, W, 3) RGB uint8 images."""
    return embed_pictures(backbone, (Image.fromarray(image).convert("RGB") for image in images))


def embed_folder(backbone: Backbone, folder: str | Path) -> LabelledFeatures:
    """Features of a folder with one subfolder a class, in order of name.

    Raises:
        SourceError: no folder, no pictures in subfolders, or a picture that does not decode.
    """
    root = Path(folder)
    if not root.is_dir():
        raise SourceError(f"{root}: no such folder; one with a subfolder for each class is needed")
    paths = [p for p in sorted(root.glob("*/**/*")) if p.suffix.lower() in SUFFIXES and p.is_file()]
    if not paths:
        raise SourceError(f"{root}: no pictures in subfolders; put those of each class in one")
    names = [path.relative_to(root).parts[0] for path in paths]
    features = embed_pictures(backbone, (_decode(path.read_bytes(), str(path)) for path in paths))
    return _labelled(features, names)


def embed_parquet(backbone: Backbone, paths: Iterable[str | Path], *, label: str) -> LabelledFeatures:
    """Features of the column `image` (struct<bytes, path> or bytes) of Parquet files, labelled by column `label`.

    Raises:
        SourceError: a file is unreadable, lacks a column, or holds a picture that does not decode.
    """
    features: list[np.ndarray] = []
    names: list[str] = []
    for path in paths:
        table = _read_columns(path, ["image", label])
        encoded = table.column("image").to_pylist()
        pictures = (_decode(_bytes_of(cell), f"{path} row {row}") for row, cell in enumerate(encoded))
        features.append(embed_pictures(backbone, pictures))
        names.extend(str(value) for value in table.column(label).to_pylist())
    if not names:
        raise SourceError("no rows to embed; give at least one Parquet file with labelled images")
    return _labelled(np.concatenate(features), names)


def _labelled(features: np.ndarray, names: list[str]) -> LabelledFeatures:
    classes, labels = np.unique(names, return_inverse=True)
    return LabelledFeatures(features, labels.astype(np.int64), classes.tolist())


def _read_columns(path: str | Path, columns: list[str]) -> pa.Table:
    try:
        present = pq.read_schema(path).names
        missing = [name for name in columns if name not in present]
        if missing:
            raise SourceError(f"{path}: no column {missing[0]!r}; it has {', '.join(present)}")
        return pq.read_table(path, columns=columns)
    except (OSError, pa.ArrowException) as error:
        raise SourceError(f"{path}: not a readable Parquet file: {error}") from error


def _bytes_of(cell: object) -> bytes:
    found = cell.get("bytes") if isinstance(cell, dict) else cell
    return found if isinstance(found, bytes) else b""


def _decode(encoded: bytes, where: str) -> Image.Image:
    try:
        return decode_rgb(encoded)
    except RejectedImage as error:
        raise SourceError(f"{where}: the picture does not decode ({error}); remove it") from error


def _batches(pictures: Iterable[Image.Image]) -> Iterator[list[Image.Image]]:
    batch: list[Image.Image] = []
    for picture in pictures:
        batch.append(picture)
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def _embed_batch(backbone: Backbone, pictures: list[Image.Image]) -> np.ndarray:
    pixels = np.stack([preprocess(picture, backbone.preprocess) for picture in pictures])
    return backbone.embed(torch.from_numpy(pixels)).numpy()
