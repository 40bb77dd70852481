"""Discovery: an object of a picture found by a cut of patch similarities, without any label.

CorLoc is the share of pictures whose found box overlaps that of an object by more than half, as on VOC 2007 and 2012 in
TokenCut and DINOv3; where masks are known, the overlap of the pixels is told too.
"""

import numpy as np
import torch

from curate.evaluation import scores
from curate.evaluation.dense.cut import box_of, box_overlap, find_object
from curate.evaluation.dense.encoder import PatchEncoder, upsample
from curate.evaluation.dense.regions import region_overlap
from curate.evaluation.dense.truth import DiscoveryTask
from curate.evaluation.measures.measured import Measured
from curate.evaluation.scores import Score
from curate.progress import track

FOUND = 0.5
"""Overlap of boxes above which an object is found."""


def take(run: Measured) -> list[Score]:
    """The figures, on the truth of the run."""
    task = run.truth.discovery
    assert task is not None  # the caller has asked
    return score_discovery(run.encoder, task)


def score_discovery(encoder: PatchEncoder, task: DiscoveryTask) -> list[Score]:
    """Cut every picture."""
    located, overlaps = [], []
    with track("discovery", len(task.pictures), unit="images") as advance:
        for one, features in encoder.encode_each(task.pictures):
            region = find_object(features)
            size = one.picture.size
            box = box_of(region) * np.tile([size[0] / region.shape[1], size[1] / region.shape[0]], 2)
            located.append(float(box_overlap(box, one.boxes).max() > FOUND))
            if one.mask is not None:
                soft = torch.from_numpy(region.astype(np.float32))[..., None]
                told = upsample(soft, (one.mask.shape[0], one.mask.shape[1]))[..., 0].numpy() > 0.5
                overlaps.append(region_overlap(told, one.mask))
            advance(1)
    found = [scores.of_items("discovery", "CorLoc", task.protocol, np.array(located))]
    if overlaps:
        found.append(scores.of_items("discovery", "mask IoU", task.protocol, np.array(overlaps)))
    return found
