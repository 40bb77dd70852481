"""All that is asked of faiss, which is needed on a GPU alone; in one place, so that a test can check the names and
arguments against a wheel on a machine without a GPU."""

from functools import cache
from types import ModuleType
from typing import Any, Literal

import numpy as np

from curate.errors import ConfigError, MissingExtra, pip_install

Device = Literal["cpu", "cuda"]
QUERY_BYTES = 1 << 30
"""Bytes of vectors that lie on the GPU at once; the centroids lie there as a whole."""


def find_nearest_on_gpu(x: np.ndarray, centroids: np.ndarray, *, spherical: bool) -> tuple[np.ndarray, np.ndarray]:
    """What `nearest.find_nearest` finds, by `faiss.knn_gpu`: exact, and in blocks, so that `x` need not fit the GPU.

    Args:
        x: (N, D) float32, C-contiguous.
        centroids: (K, D) float32, C-contiguous.
        spherical: nearest by inner product; False: by squared L2.

    Returns:
        cluster_id: (N,) int32.
        score: (N,) float32, inner product or squared L2 distance.


    Raises:
        ConfigError: faiss is a CPU build, or there is no GPU.
        MissingExtra: no faiss at all.
    """
    faiss = load_faiss()
    metric = faiss.METRIC_INNER_PRODUCT if spherical else faiss.METRIC_L2
    score, cluster_id = faiss.knn_gpu(_resources(), x, centroids, 1, metric=metric, queriesMemoryLimit=QUERY_BYTES)
    return cluster_id[:, 0].astype(np.int32), score[:, 0]


@cache
def _resources() -> Any:
    """The scratch memory of this process's GPU, made once.

    Raises:
        ConfigError: faiss is a CPU build, or there is no GPU.
    """
    faiss = load_faiss()
    if not hasattr(faiss, "StandardGpuResources"):
        raise ConfigError(
            "device=cuda: the faiss that is installed is a CPU build; set device=cpu, or replace it: "
            f"pip uninstall faiss-cpu, then {pip_install('gpu')}"
        )
    if faiss.get_num_gpus() == 0:
        raise ConfigError("device=cuda: faiss finds no GPU; set device=cpu, or look at CUDA_VISIBLE_DEVICES")
    return faiss.StandardGpuResources()


def load_faiss() -> ModuleType:
    """The module faiss, loaded when first asked for.

    Raises:
        MissingExtra: it is not installed.
    """
    try:
        import faiss
    except ImportError as error:
        raise MissingExtra("faiss", "gpu") from error
    return faiss
