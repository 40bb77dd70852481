"""Segmentation: the class of every pixel, told by the nearest labeled patches and by a linear reader of patches.

DINOv2 and DINOv3 report a linear layer that is trained by SGD, on ADE20k and VOC at about 1,024 patches a picture; here
it is linear discriminant analysis, so that figures come near theirs and are not equal. All are mean intersections over
union.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
from torch import Tensor

from curate.evaluation import scores
from curate.evaluation.dense.discriminant import choose_shrinkage, fit_discriminant
from curate.evaluation.dense.encoder import PatchEncoder, upsample
from curate.evaluation.dense.overlap import count_overlap, mean_iou
from curate.evaluation.dense.pooling import pool_labels
from curate.evaluation.dense.ridge import Moments, predict
from curate.evaluation.dense.truth import SegmentationTask
from curate.evaluation.dense.votes import NEIGHBORS, Memory
from curate.evaluation.measures.measured import Measured
from curate.evaluation.scores import Score
from curate.progress import track

HELD_OUT = 4
"""Of the pictures that are learned on, every fourth chooses how much a linear reader is held back."""
CHOOSING = 20_000
"""Patches of those pictures that do so, at most."""

Reader = Callable[[Tensor], Tensor]
"""From (h, w, D) features to (h, w, C) shares of classes."""


def take(run: Measured) -> list[Score]:
    """Both figures, on the truth of the run."""
    task = run.truth.segmentation
    assert task is not None  # the caller has asked
    return score_segmentation(run.encoder, task, seed=run.asked.seed)


def score_segmentation(encoder: PatchEncoder, task: SegmentationTask, *, seed: int) -> list[Score]:
    """Learn on the pictures of `task.train`, tell the classes of those of `task.test`.

    Args:
        encoder: the model.
        task: pictures with the class of every pixel.
        seed: seed of the patches that are kept and of the bootstrap.
    """
    memory, solution, shrinkage = _learn(encoder, task, seed=seed)
    readers: dict[str, Reader] = {
        "in context": lambda x: memory.vote(x.flatten(0, 1)).unflatten(0, x.shape[:2]),
        "linear": lambda x: predict(x, solution),
    }
    counts = _tell(encoder, task, readers)
    chosen = {"in context": f"{NEIGHBORS} nearest patches", "linear": f"shrinkage {shrinkage:g}"}
    return [
        scores.of_weighted(
            "segmentation",
            f"{name}, mIoU",
            task.protocol,
            partial(mean_iou, found),
            num=len(found),
            seed=seed,
            chosen=chosen[name],
        )
        for name, found in counts.items()
    ]


def _learn(encoder: PatchEncoder, task: SegmentationTask, *, seed: int) -> tuple[Memory, Tensor, float]:
    """The patches that vote, and the linear reader with its shrinkage."""
    memory = Memory(len(task.train), seed=seed)
    held_out = Memory(max(1, len(task.train) // HELD_OUT), seed=seed, most=CHOOSING, unit=False)
    moments: list[Moments] = []
    with track("segmentation: learn", len(task.train), unit="images") as advance:
        for number, (one, features) in enumerate(encoder.encode_each(task.train)):
            x, grid = features.flatten(0, 1), (features.shape[0], features.shape[1])
            shares = pool_labels(one.labels, len(task.classes), grid).flatten(0, 1)
            known = shares.sum(dim=1)
            shares = shares / known.clamp(min=1e-6)[:, None]
            held = number % HELD_OUT == HELD_OUT - 1
            moments = moments or [Moments(x.shape[1], len(task.classes)) for _ in range(2)]
            moments[held].add(x, shares, known)
            for kept in (memory, held_out) if held else (memory,):
                kept.add(x[known > 0], shares[known > 0])
            advance(1)
    asked, shares = held_out.freeze()
    shrinkage = choose_shrinkage(moments[0], asked, shares.argmax(dim=1))
    return memory, fit_discriminant(moments[0] + moments[1], shrinkage), shrinkage


def _tell(encoder: PatchEncoder, task: SegmentationTask, readers: dict[str, Reader]) -> dict[str, np.ndarray]:
    """(N, 2, C) intersections and unions of each picture by reader."""
    found: dict[str, list[np.ndarray]] = {name: [] for name in readers}
    with track("segmentation: tell", len(task.test), unit="images") as advance:
        for one, features in encoder.encode_each(task.test):
            height, width = one.labels.shape
            for name, reader in readers.items():
                told = upsample(reader(features), (height, width)).argmax(dim=2)
                found[name].append(count_overlap(told.numpy(), one.labels, len(task.classes)))
            advance(1)
    return {name: np.stack(parts) for name, parts in found.items()}
