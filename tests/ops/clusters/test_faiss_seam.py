"""What the seam asks of faiss on a GPU, against the wheel that is installed and one that is unpacked elsewhere.

The GPU wheel is checked without a GPU and without installing it over the CPU one: unpack `faiss-gpu` and the
nvidia wheels it needs into a folder, and set CURATE_FAISS_GPU to that folder.
"""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from curate.errors import ConfigError, MissingExtra
from curate.ops.clusters import faiss_seam
from curate.ops.clusters.nearest import find_nearest

ASK = """
import inspect, json, faiss
names = ["METRIC_INNER_PRODUCT", "METRIC_L2", "get_num_gpus", "knn_gpu", "StandardGpuResources", "bfKnn_tiling"]
print(json.dumps({
    "file": faiss.__file__,
    "gpus": faiss.get_num_gpus(),
    "names": [name for name in names if hasattr(faiss, name)],
    "knn_gpu": list(inspect.signature(faiss.knn_gpu).parameters),
}))
"""
ARGUMENTS = ["res", "xq", "xb", "k", "metric", "queriesMemoryLimit"]
"""Of `knn_gpu`, as the seam gives them: the first four in this order."""


def asked(path):
    environment = os.environ | ({"PYTHONPATH": path} if path else {})
    found = subprocess.run([sys.executable, "-c", ASK], env=environment, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    return json.loads(found.stdout)


def test_names_and_arguments_are_those_of_the_installed_wheel():
    found = asked(None)
    assert {"METRIC_INNER_PRODUCT", "METRIC_L2", "get_num_gpus", "knn_gpu"} <= set(found["names"])
    assert found["knn_gpu"][:4] == ARGUMENTS[:4]
    assert set(ARGUMENTS) <= set(found["knn_gpu"])


@pytest.mark.skipif("CURATE_FAISS_GPU" not in os.environ, reason="CURATE_FAISS_GPU names no unpacked wheel")
def test_names_and_arguments_are_those_of_the_gpu_wheel():
    folder = os.environ["CURATE_FAISS_GPU"]
    found = asked(folder)
    assert found["file"].startswith(folder)
    assert found["names"][-2:] == ["StandardGpuResources", "bfKnn_tiling"]
    assert found["knn_gpu"][:4] == ARGUMENTS[:4]
    assert set(ARGUMENTS) <= set(found["knn_gpu"])


class GpuFaiss:
    """faiss of a GPU build, its GPU played by the CPU: it accepts what the wheel's signature accepts."""

    METRIC_INNER_PRODUCT, METRIC_L2 = 0, 1
    StandardGpuResources = object
    gpus = 1

    def get_num_gpus(self):
        return self.gpus

    def knn_gpu(self, res, xq, xb, k, *, metric, queriesMemoryLimit):  # faiss's own name
        assert (type(res), k, queriesMemoryLimit) == (object, 1, faiss_seam.QUERY_BYTES)
        import faiss

        return faiss.knn(xq, xb, k, metric=metric)


@pytest.fixture
def gpu_faiss(monkeypatch):
    faiss = GpuFaiss()
    faiss_seam._resources.cache_clear()
    monkeypatch.setattr(faiss_seam, "load_faiss", lambda: faiss)
    yield faiss
    faiss_seam._resources.cache_clear()


@pytest.mark.parametrize("spherical", [False, True])
def test_gpu_answers_are_read_as_the_cpu_ones(spherical, gpu_faiss):
    rng = np.random.default_rng(0)
    x, centroids = rng.normal(size=(40, 6)).astype(np.float32), rng.normal(size=(9, 6)).astype(np.float32)
    on_gpu = find_nearest(x, centroids, spherical=spherical, device="cuda")
    on_cpu = find_nearest(x, centroids, spherical=spherical)
    assert on_gpu[0].tolist() == on_cpu[0].tolist()
    assert on_gpu[1] == pytest.approx(on_cpu[1], abs=1e-5)
    assert [part.dtype for part in on_gpu] == [part.dtype for part in on_cpu]


def test_a_machine_without_a_gpu_is_told(gpu_faiss):
    gpu_faiss.gpus = 0
    with pytest.raises(ConfigError, match="device=cuda: faiss finds no GPU; set device=cpu"):
        find_nearest(np.eye(2, dtype=np.float32), np.eye(2, dtype=np.float32), device="cuda")


def test_a_cpu_build_of_faiss_is_told():
    faiss = pytest.importorskip("faiss")
    if hasattr(faiss, "StandardGpuResources"):
        pytest.skip("this is a GPU build")
    with pytest.raises(ConfigError, match=r"device=cuda: .*CPU build.*pip install 'curate-vision\[gpu\]'"):
        find_nearest(np.eye(2, dtype=np.float32), np.eye(2, dtype=np.float32), device="cuda")


def test_missing_faiss_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(MissingExtra, match=r"faiss is not installed; .*: pip install 'curate-vision\[gpu\]'"):
        faiss_seam.load_faiss()
