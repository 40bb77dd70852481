"""The leaf of every image: its nearest centroid, and how similar it is to that."""

import numpy as np

from curate.ops.blocks import blocks
from curate.ops.clusters.faiss_seam import Device
from curate.ops.clusters.guide import Guide, NearestSearch
from curate.ops.vectors import normalize


class LeafSearch:
    """Finds the leaves of many images; made once for all of them."""

    def __init__(
        self, centroids: np.ndarray, guide: Guide = (), *, spherical: bool = True, device: Device = "cpu"
    ) -> None:
        """Prepare the search.

        Args:
            centroids: (K, D) float32; any norm.
            guide: groups of the centroids, where they are many.
            spherical: nearest by cosine; False: by squared L2, as k-means with `spherical=False` was fitted.
            device: where the nearest centroids are searched.
        """
        self._unit = normalize(centroids)
        self._search = NearestSearch(self._unit if spherical else centroids, guide, spherical=spherical, device=device)

    def assign(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(N,) int32, the leaf of each of (N, D) vectors of unit L2, and (N,) float32, its cosine to the centroid.

        Raises:
            ValueError: vectors and centroids differ in their dimensions.
        """
        if x.shape[1] != self._unit.shape[1]:
            raise ValueError(f"vectors have {x.shape[1]} dims, centroids {self._unit.shape[1]}; use one backbone")
        cluster_id, similarity = self._search.nearest(x)
        if not self._search.spherical:
            for rows in blocks(len(x), 1 << 16):
                similarity[rows] = np.einsum("nd,nd->n", x[rows], self._unit[cluster_id[rows]])
        return cluster_id, np.minimum(similarity, np.float32(1))


def assign(
    x: np.ndarray, centroids: np.ndarray, *, spherical: bool = True, device: Device = "cpu"
) -> tuple[np.ndarray, np.ndarray]:
    """The nearest of all centroids, each of them compared; arguments and results as of `LeafSearch`."""
    return LeafSearch(centroids, spherical=spherical, device=device).assign(x)
