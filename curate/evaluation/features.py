"""Features of pictures by a frozen backbone; decoding runs ahead in threads."""

import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from curate.evaluation.labeled import Decode, LabeledImages, from_arrays, open_labeled
from curate.models.backbones.backbone import Backbone
from curate.ops.images.preprocess import Preprocess, preprocess
from curate.ops.vectors import normalize
from curate.progress import track

BATCH = 64
AHEAD = 2
"""Batches that decode while the model works on one."""
THREADS = min(16, os.cpu_count() or 1)


class LabelledFeatures(NamedTuple):
    """Features with what they are of."""

    features: np.ndarray  # (N, D) float32, unit L2
    labels: np.ndarray  # (N,) int64, index into `classes`
    classes: list[str]


class BlockFeatures(NamedTuple):
    """What `Backbone.embed_blocks` gives for a set of pictures."""

    tokens: np.ndarray  # (N, V, D) float32, not normalized
    labels: np.ndarray  # (N,) int64

    @property
    def unit(self) -> np.ndarray:
        """(N, D) float32, unit L2: what `Backbone.embed` gives."""
        return normalize(self.tokens[:, self.answer])

    @property
    def answer(self) -> int:
        """Which of the V tokens is the model's own answer: the last cls, which the mean of the patches follows."""
        return max(0, self.tokens.shape[1] - 2)


def embed_blocks(backbone: Backbone, images: LabeledImages, *, last: int, label: str = "embed") -> BlockFeatures:
    """Tokens of the last `last` blocks of every picture, with a progress bar named `label`.

    Raises:
        SourceError: a picture cannot be read or does not decode.
    """
    tokens, done = np.empty((0, 1, backbone.dim), np.float32), 0
    with track(label, len(images), unit="images") as advance:
        for pixels in prepare(images.pictures(), backbone.preprocess):
            found = backbone.embed_blocks(pixels, last=last).numpy()
            if done == 0:  # the whole set at once: lists of batches would need its memory twice
                tokens = np.empty((len(images), *found.shape[1:]), np.float32)
            tokens[done : done + len(found)] = found
            done += len(found)
            advance(len(found))
    return BlockFeatures(tokens, images.labels)


def prepare(pictures: Iterable[Decode], how: Preprocess) -> Iterator[Tensor]:
    """Batches of (B, 3, S, S) uint8 pixels, decoded and resized in threads ahead of their use."""

    def work(decode: Decode) -> np.ndarray:
        return preprocess(decode(), how)

    waiting: deque[Iterator[np.ndarray]] = deque()
    with ThreadPoolExecutor(THREADS) as pool:
        left = iter(pictures)
        while batch := list(islice(left, BATCH)):
            waiting.append(pool.map(work, batch))
            if len(waiting) > AHEAD:
                yield _stack(waiting.popleft())
        while waiting:
            yield _stack(waiting.popleft())


def embed_pictures(backbone: Backbone, pictures: Iterable[Image.Image]) -> np.ndarray:
    """(N, D) float32 unit features of RGB pictures, prepared as the backbone wants them."""
    decodes = ((lambda picture=picture: picture) for picture in pictures)
    return _embed(backbone, decodes)


def embed_arrays(backbone: Backbone, images: np.ndarray) -> np.ndarray:
    """As `embed_pictures`, of (N, H, W) gray or (N, H, W, 3) RGB uint8 images."""
    return _embed(backbone, from_arrays(images, np.zeros(len(images), np.int64), name="arrays").pictures())


def embed_folder(backbone: Backbone, folder: str | Path) -> LabelledFeatures:
    """Features of a folder with one subfolder a class, in order of name.

    Raises:
        SourceError: no folder, no pictures in subfolders, or a picture that does not decode.
    """
    return _embed_labelled(backbone, open_labeled(str(folder)))


def embed_parquet(backbone: Backbone, files: str | Path, *, label: str) -> LabelledFeatures:
    """Features of the column `image` (struct<bytes, path> or bytes) of Parquet files, labelled by column `label`.

    Raises:
        SourceError: a file is unreadable, lacks a column, or holds a picture that does not decode.
    """
    return _embed_labelled(backbone, open_labeled(str(files), label=label))


def _embed_labelled(backbone: Backbone, images: LabeledImages) -> LabelledFeatures:
    return LabelledFeatures(_embed(backbone, images.pictures()), images.labels, images.classes)


def _embed(backbone: Backbone, pictures: Iterable[Decode]) -> np.ndarray:
    parts = [backbone.embed(pixels).numpy() for pixels in prepare(pictures, backbone.preprocess)]
    return np.concatenate(parts) if parts else np.empty((0, backbone.dim), np.float32)


def _stack(prepared: Iterable[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.stack(list(prepared)))
