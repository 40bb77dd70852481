"""How pairs are verified as copies, and what the stages that do it share.

A cosine alone cannot tell a cropped copy from another photograph of the same castle. So the search is loose, and a
pair counts in one of two ways. Pairs of a strict cosine count as they are (`KeepNear`). Those between the loose cosine
and the strict one are doubtful, and so is every pair of images in crowds (`crowd_members.py`): one picture is laid over
the other (`ops/copies/registration.py`), and the pair counts if they agree.

`FindCandidates` takes a bounded number of doubtful pairs of each image. `ChooseImages` lists the images that occur in
them, `ExtractFeatures` opens these once more and keeps their local features. `RegisterPairs` brings both to the pair,
`MeasureCrowds` sums up what is usual in crowds, `JudgePairs` decides.

The difficulty is to bring two pictures to a pair, where the features of all images fill no one's memory. Two shuffles
do it: pairs lie with their query first, where its features are added, and are sent on to the other image, whose
features are read there. A task holds the pairs of a block of images alone.
"""

import numpy as np
import pyarrow as pa

from curate.engine.image_ids import Parts
from curate.stages.search.neighbors import Thresholded
from curate.tables import HELDOUT, PAIRS


def least_similarity(stage: Thresholded, pairs: pa.Table, parts: Parts) -> np.ndarray:
    """(N,) float32: the threshold of each pair, another one where its query is held out."""
    assert stage.threshold is not None
    assert stage.heldout_threshold is not None
    heldout = parts.role_of(pairs["query_id"].to_numpy()) == HELDOUT
    return np.where(heldout, stage.heldout_threshold, stage.threshold).astype(np.float32)


def oriented(pairs: pa.Table, parts: Parts) -> pa.Table:
    """Pairs whose query has the smaller id; held-out images, which are only queries, stay in their place.

    Either direction of a pair may be missing, where one of its images has nearer neighbors than it may list.
    """
    query, image = pairs["query_id"].to_numpy(), pairs["image_id"].to_numpy()
    swap = (parts.role_of(query) != HELDOUT) & (query > image)
    first, second = np.where(swap, image, query), np.where(swap, query, image)
    return pa.Table.from_arrays([pa.array(first), pa.array(second), pairs["similarity"]], schema=PAIRS)


def distinct_pairs(pairs: pa.Table) -> pa.Table:
    """Pairs in order of (query, image), each once though both directions and several lists found it."""
    ordered = pairs.sort_by([("query_id", "ascending"), ("image_id", "ascending"), ("similarity", "descending")])
    query, image = ordered["query_id"].to_numpy(), ordered["image_id"].to_numpy()
    first = np.ones(len(ordered), bool)
    first[1:] = (np.diff(query) != 0) | (np.diff(image) != 0)
    return ordered.filter(pa.array(first))
