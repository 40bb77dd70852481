"""Features of pictures by a frozen backbone.

Decoding bounds small backbones, so threads decode and resize the next batches while the model works on one.
"""

import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from curate.evaluation.labeled import Decode, LabeledImages, open_labeled
from curate.models.backbones.backbone import Backbone
from curate.ops.images.preprocess import Preprocess, preprocess
from curate.ops.vectors import normalize
from curate.progress import track

BATCH = 64
AHEAD = 2
"""Batches that decode while the model works on one."""
THREADS = min(16, os.cpu_count() or 1)


class LabeledFeatures(NamedTuple):
    """Features of pictures, and the classes that these show."""

    features: np.ndarray  # (N, D) float32, unit L2
    labels: np.ndarray  # (N,) int64


class BlockFeatures(NamedTuple):
    """Tokens of the last blocks of a model, as `Backbone.embed_blocks` gives them, for a set of pictures."""

    tokens: np.ndarray  # (N, V, D) float32, not normalized
    labels: np.ndarray  # (N,) int64

    @property
    def unit(self) -> np.ndarray:
        """(N, D) float32, unit L2: what `Backbone.embed` gives, the cls token of the last block."""
        return normalize(self.tokens[:, max(0, self.tokens.shape[1] - 2)])  # the mean of the patches follows it

    def rows(self, chosen: np.ndarray) -> "BlockFeatures":
        """Those of the pictures for which `chosen`, (N,) bool, is True."""
        return BlockFeatures(self.tokens[chosen], self.labels[chosen])


def embed_blocks(backbone: Backbone, images: LabeledImages, *, last: int, label: str = "embed") -> BlockFeatures:
    """The tokens of the last `last` blocks for every picture; `label` names the progress bar.

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
    """Batches of (B, 3, S, S) uint8 pixels in order, decoded and resized by threads ahead of their use."""

    def work(decode: Decode) -> np.ndarray:
        return preprocess(decode(), how)

    waiting: deque[Iterator[np.ndarray]] = deque()
    pool = ThreadPoolExecutor(THREADS)
    try:
        left = iter(pictures)
        while batch := list(islice(left, BATCH)):
            waiting.append(pool.map(work, batch))
            if len(waiting) > AHEAD:
                yield _stack(waiting.popleft())
        while waiting:
            yield _stack(waiting.popleft())
    finally:
        pool.shutdown(wait=False, cancel_futures=True)  # Ctrl-C need not wait for pictures that nobody will see


def embed_images(backbone: Backbone, images: LabeledImages) -> np.ndarray:
    """(N, D) float32 unit features of every picture, in order.

    Raises:
        SourceError: a picture cannot be read or does not decode.
    """
    parts = [backbone.embed(pixels).numpy() for pixels in prepare(images.pictures(), backbone.preprocess)]
    return np.concatenate(parts) if parts else np.empty((0, backbone.dim), np.float32)


def embed_folder(backbone: Backbone, folder: str | Path) -> LabeledFeatures:
    """Features of the pictures in a folder that has a subfolder for each class, in order of their names.

    Raises:
        SourceError: there is no folder, no picture in its subfolders, or a picture does not decode.
    """
    images = open_labeled(str(folder))
    return LabeledFeatures(embed_images(backbone, images), images.labels)


def _stack(prepared: Iterable[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.stack(list(prepared)))
