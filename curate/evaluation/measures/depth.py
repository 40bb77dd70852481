"""Depth: told for every pixel by a linear reader of patches.

DINOv2 and DINOv3 report RMSE on NYU Depth v2 at about 1,024 patches a picture, by a linear layer on bins of depth that
is trained by SGD; here the depth itself is solved for by least squares, so that figures come near theirs and are not
equal.
"""

import numpy as np
from torch import Tensor

from curate.evaluation import scores
from curate.evaluation.dense.encoder import PatchEncoder, upsample
from curate.evaluation.dense.pooling import pool_depth
from curate.evaluation.dense.ridge import Moments, fit_ridge, predict
from curate.evaluation.dense.truth import DepthTask
from curate.evaluation.measures.measured import Measured
from curate.evaluation.measures.segmentation import HELD_OUT
from curate.evaluation.scores import Score
from curate.progress import track

NEAR = 1.25
"""A depth is right where it differs from the truth by this factor at most (delta 1)."""
LEAST = 1e-3
"""Smallest depth that is told, in the unit of the task."""


def take(run: Measured) -> list[Score]:
    """Both figures, on the truth of the run."""
    task = run.truth.depth
    assert task is not None  # the caller has asked
    return score_depth(run.encoder, task)


def score_depth(encoder: PatchEncoder, task: DepthTask) -> list[Score]:
    """Learn on the pictures of `task.train`, tell the depths of those of `task.test`; means over pictures."""
    solution, strength, mean = _learn(encoder, task)
    errors, right, plain = [], [], []
    with track("depth: tell", len(task.test), unit="images") as advance:
        for one, features in encoder.encode_each(task.test):
            height, width = one.depth.shape
            told = upsample(predict(features, solution), (height, width))[..., 0].clamp(LEAST, task.deepest).numpy()
            known = np.isfinite(one.depth)
            a, b = told[known].astype(np.float64), one.depth[known].astype(np.float64)
            errors.append(np.sqrt(((a - b) ** 2).mean()))
            plain.append(np.sqrt(((mean - b) ** 2).mean()))
            right.append((np.maximum(a / b, b / a) < NEAR).mean())
            advance(1)
    chosen = f"penalty {strength:.0e}; one depth for all: RMSE {np.mean(plain):.3f}"
    return [
        scores.of_errors("depth", "RMSE", task.protocol, np.array(errors), unit=task.unit, chosen=chosen),
        scores.of_items("depth", f"within {NEAR:g} x", task.protocol, np.array(right), chosen=chosen),
    ]


def _learn(encoder: PatchEncoder, task: DepthTask) -> tuple[Tensor, float, float]:
    """The reader of depths, its penalty, and the mean depth."""
    moments: list[Moments] = []
    with track("depth: learn", len(task.train), unit="images") as advance:
        for number, (one, features) in enumerate(encoder.encode_each(task.train)):
            depth, known = pool_depth(one.depth, (features.shape[0], features.shape[1]))
            moments = moments or [Moments(features.shape[2], 1) for _ in range(2)]
            part = moments[number % HELD_OUT == HELD_OUT - 1]
            part.add(features.flatten(0, 1), depth.reshape(-1, 1), known.flatten())
            advance(1)
    total = moments[0] + moments[1]
    return *fit_ridge(*moments), float(total.cross[-1, 0]) / total.weight
