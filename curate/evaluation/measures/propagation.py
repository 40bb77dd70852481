"""Propagation: the objects of a first frame followed through a clip, J&F as on DAVIS.

As there, the first and the last frame are left out, and a figure is the mean over frames, then over objects.
"""

from functools import partial
from typing import NamedTuple

import numpy as np

from curate.evaluation import scores
from curate.evaluation.dense.encoder import PatchEncoder, upsample
from curate.evaluation.dense.following import follow
from curate.evaluation.dense.pooling import pool_labels
from curate.evaluation.dense.regions import outline_agreement, region_overlap
from curate.evaluation.dense.truth import UNKNOWN, Clip, PropagationTask
from curate.evaluation.measures.measured import Measured
from curate.evaluation.scores import Score
from curate.progress import track


class Followed(NamedTuple):
    """How well the objects of a clip were followed."""

    overlap: np.ndarray  # (K,) J of each object
    outline: np.ndarray  # (K,) F
    still: np.ndarray  # (K,) J of the first frame's mask, left where it was


def take(run: Measured) -> list[Score]:
    """The figures, on the truth of the run."""
    task = run.truth.propagation
    assert task is not None  # the caller has asked
    return score_propagation(run.encoder, task, seed=run.asked.seed)


def score_propagation(encoder: PatchEncoder, task: PropagationTask, *, seed: int) -> list[Score]:
    """Follow the objects of every clip; `seed` is that of the bootstrap over clips."""
    found = []
    with track("propagation", len(task.clips), unit="clips") as advance:
        for clip in task.clips:
            found.append(follow_clip(encoder, clip))
            advance(1)
    still = np.concatenate([one.still for one in found]).mean()
    values = {
        "J&F": [(one.overlap + one.outline) / 2 for one in found],
        "J": [one.overlap for one in found],
        "F": [one.outline for one in found],
    }
    told = f"first mask kept: J {100 * still:.1f}"
    return [
        scores.of_weighted(
            "propagation",
            name,
            task.protocol,
            partial(_mean_of_objects, parts),
            num=len(parts),
            seed=seed,
            chosen=told,
        )
        for name, parts in values.items()
    ]


def _mean_of_objects(parts: list[np.ndarray], weights: np.ndarray) -> float:
    """Mean over the objects of all clips, each clip counted `weights` times."""
    sums, counts = np.array([part.sum() for part in parts]), np.array([len(part) for part in parts])
    return float((weights * sums).sum() / (weights * counts).sum())


def follow_clip(encoder: PatchEncoder, clip: Clip) -> Followed:
    """Follow the objects of one clip."""
    masks = list(clip.masks)
    num_objects = int(masks[0].max())
    features = list(encoder.encode(clip.frames))
    grid = (features[0].shape[0], features[0].shape[1])
    start = pool_labels(np.where(masks[0] == UNKNOWN, 0, masks[0]), num_objects + 1, grid)
    height, width = masks[0].shape
    told = [upsample(labels, (height, width)).argmax(dim=2).numpy() for labels in follow(features, start)]
    pairs = list(zip(told, masks[1:], strict=True))[: max(1, len(masks) - 2)]
    numbers = range(1, num_objects + 1)
    return Followed(
        np.array([np.mean([region_overlap(a == k, b == k) for a, b in pairs]) for k in numbers]),
        np.array([np.mean([outline_agreement(a == k, b == k) for a, b in pairs]) for k in numbers]),
        np.array([np.mean([region_overlap(masks[0] == k, b == k) for _, b in pairs]) for k in numbers]),
    )
