"""Correspondence: points of one view found in another, whose homography is known.

Figures are shares of points found within 5 and 10 % of the picture's longer side (PCK, as on SPair-71k and NAVI in
DINOv3).
"""

import numpy as np

from curate.evaluation import scores
from curate.evaluation.dense.encoder import PatchEncoder
from curate.evaluation.dense.matching import match_points, share_within
from curate.evaluation.dense.truth import CorrespondenceTask
from curate.evaluation.measures.measured import Measured
from curate.evaluation.scores import Score
from curate.progress import track

SHARES = (0.05, 0.1)
"""Distances that count as found, as shares of the longer side."""


def take(run: Measured) -> list[Score]:
    """The figures, on the truth of the run."""
    task = run.truth.correspondence
    assert task is not None  # the caller has asked
    return score_correspondence(run.encoder, task)


def score_correspondence(encoder: PatchEncoder, task: CorrespondenceTask) -> list[Score]:
    """Find the points of every first view in its second one."""
    within: dict[float, list[float]] = {share: [] for share in SHARES}
    with track("correspondence", len(task.pairs), unit="pairs") as advance:
        for pair in task.pairs:
            views = (pair.first, pair.second)
            first, second = encoder.encode(views)
            found = match_points(first, second, pair.points, tuple(view.size for view in views))
            for share, parts in within.items():
                parts.append(share_within(found, pair.found, distance=share * max(pair.second.size)))
            advance(1)
    return [
        scores.of_items("correspondence", f"PCK@{share:g}", task.protocol, np.array(parts))
        for share, parts in within.items()
    ]
