"""Vectors in two dimensions, to be looked at."""

import numpy as np

from curate.errors import ConfigError, pip_install

MIN_UMAP = 5
"""Fewer vectors have no neighborhoods to keep."""


def project_pca(x: np.ndarray) -> np.ndarray:
    """(N, 2) float32: where vectors lie along the two directions in which they differ most.

    A direction is known but for its sign: the coordinate of largest size is positive, so that equal vectors give equal
    maps.

    Args:
        x: (N, D) float.
    """
    x = x.astype(np.float64)
    x = x - x.mean(axis=0) if len(x) else x
    if len(x) < x.shape[1]:  # the smaller of the two matrices has the same eigenvalues
        values, vectors = np.linalg.eigh(x @ x.T)
        found = vectors * np.sqrt(np.maximum(values, 0))
    else:
        found = x @ np.linalg.eigh(x.T @ x)[1]
    found = np.pad(found[:, ::-1][:, :2], ((0, 0), (0, max(0, 2 - found.shape[1]))))
    farthest = np.abs(found).argmax(axis=0) if len(found) else None
    signs = 1 if farthest is None else np.where(found[farthest, [0, 1]] < 0, -1, 1)
    return np.asarray(found * signs, np.float32)


def project_umap(x: np.ndarray, *, seed: int) -> np.ndarray:
    """(N, 2) float32: vectors that are near each other stay so (UMAP); the distance of others tells little.

    Args:
        x: (N, D) float, unit L2.

    Raises:
        ConfigError: the package is not installed.

    Source: McInnes, Healy and Melville 2018, arXiv:1802.03426.
    """
    try:
        import umap
    except ImportError as error:
        raise ConfigError(f"projection=umap needs a package that is not here: {pip_install('map')}") from error
    if len(x) < MIN_UMAP:
        return project_pca(x)
    found = umap.UMAP(n_neighbors=min(15, len(x) - 1), metric="cosine", random_state=seed, n_jobs=1).fit_transform(x)
    return np.asarray(found, np.float32)
