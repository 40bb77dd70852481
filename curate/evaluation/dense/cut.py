"""An object found without labels: patches are cut in two where they resemble each other least.

Patches are the nodes of a graph, with an edge of 1 between two that are similar and of almost 0 between others. The
second smallest eigenvector of the normalized cut tells two parts; the one with the patch that stands out most is the
object, of which the piece around that patch counts.

Source: Shi and Malik 2000, Normalized Cuts; Wang et al. 2022, arXiv:2202.11539 (TokenCut), which reads the keys of the
last attention of a ViT and cuts at a cosine of 0.2. Here the features of patches are read, which every model has, at
the same cosine. To take the mean of the picture off them first makes learned features worse.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

SIMILAR = 0.2
"""Cosine above which two patches are similar."""
ALMOST_NONE = 1e-5
"""Weight of the edge between two that are not."""


def find_object(features: Tensor) -> np.ndarray:
    """(h, w) bool, the patches of the object in a picture with (h, w, D) features."""
    from scipy import ndimage

    values = second_eigenvector(edges(features.flatten(0, 1))).reshape(features.shape[:2])
    most = np.unravel_index(np.abs(values).argmax(), values.shape)
    part = values > values.mean()
    part = part if part[most] else ~part
    pieces, _ = ndimage.label(part)
    found: np.ndarray = pieces == pieces[most]
    return found


def edges(features: Tensor) -> Tensor:
    """(N, N) float64 weights of the edges between patches with (N, D) features."""
    unit = F.normalize(features.double(), dim=1)
    return torch.where(unit @ unit.T > SIMILAR, 1.0, ALMOST_NONE).double()


def second_eigenvector(weights: Tensor) -> np.ndarray:
    """(N,) y of the second smallest value with (D - W) y = value D y, D the diagonal of the sums of W (N, N).

    With z = D^1/2 y this is an eigenvector of D^-1/2 W D^-1/2, of its second LARGEST value.
    """
    root = weights.sum(dim=1).rsqrt()
    _, vectors = torch.linalg.eigh(root[:, None] * weights * root)
    return (root * vectors[:, -2]).numpy()


def box_of(region: np.ndarray) -> np.ndarray:
    """(4,) float64, left, top, right, bottom of an (H, W) bool region that is not empty."""
    rows, columns = np.flatnonzero(region.any(axis=1)), np.flatnonzero(region.any(axis=0))
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], np.float64)


def box_overlap(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(K,) intersection over union of a box (4,) with (K, 4) others."""
    inner = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])
    both = inner.clip(min=0).prod(axis=1)
    areas = (others[:, 2:] - others[:, :2]).prod(axis=1)
    return both / ((box[2:] - box[:2]).prod() + areas - both)
